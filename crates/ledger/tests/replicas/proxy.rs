//! A network between a replica and its database that can be broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None = 0,
    /// Connections end, and new ones are refused.
    Cut = 1,
    /// What the database answers does not arrive; connections stay.
    SwallowAnswers = 2,
    /// Nothing arrives on either side; connections stay.
    SwallowAll = 3,
    /// The next commit arrives, and its answer is lost with everything after it on that connection. Once.
    LoseAnswerToCommit = 4,
    /// The next commit is lost, with everything after it on that connection. Once.
    LoseCommit = 5,
}

/// The network. What was swallowed once never comes.
pub(crate) struct Proxy {
    pub(crate) address: String,
    fault: Arc<AtomicU8>,
}

impl Proxy {
    pub(crate) async fn start(database: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = database.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
        let address = database.replace(&host, &format!("127.0.0.1:{port}"));
        let fault = Arc::new(AtomicU8::new(Fault::None as u8));
        let of_proxy = Arc::clone(&fault);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (host, fault) = (host.clone(), Arc::clone(&of_proxy));
                tokio::spawn(async move {
                    if fault.load(Ordering::SeqCst) == Fault::Cut as u8 {
                        return;
                    }
                    let Ok(server) = TcpStream::connect(host).await else { return };
                    carry(client, server, fault).await;
                });
            }
        });
        Self { address, fault }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, server: TcpStream, fault: Arc<AtomicU8>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_mute = Arc::new(AtomicBool::new(false));
    let muted = Arc::clone(&is_mute);
    let (upward, downward) = (Arc::clone(&fault), Arc::clone(&fault));
    let up = async move {
        let mut buffer = vec![0; 64 << 10];
        let mut is_deaf = false;
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            is_deaf |= upward.load(Ordering::SeqCst) == Fault::SwallowAll as u8;
            if buffer[..count].windows(6).any(|word| word == b"COMMIT") {
                let once = |fault: Fault| {
                    let (old, new) = (fault as u8, Fault::None as u8);
                    upward.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
                };
                is_deaf |= once(Fault::LoseCommit);
                if once(Fault::LoseAnswerToCommit) {
                    is_mute.store(true, Ordering::SeqCst);
                }
            }
            if !is_deaf && to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    let down = async move {
        let mut buffer = vec![0; 64 << 10];
        let mut is_deaf = false;
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            let fault = downward.load(Ordering::SeqCst);
            is_deaf |= [Fault::SwallowAnswers as u8, Fault::SwallowAll as u8].contains(&fault);
            is_deaf |= muted.load(Ordering::SeqCst);
            if !is_deaf && to_client.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        // The database gave up on a silent client: the client does not hear of it.
        if is_deaf {
            std::future::pending::<()>().await;
        }
    };
    let cut = async {
        while fault.load(Ordering::SeqCst) != Fault::Cut as u8 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = cut => {}
    }
}
