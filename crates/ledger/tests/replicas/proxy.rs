//! A network between a replica and its database that can be broken.

use std::sync::Arc;
use std::sync::Mutex;
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
    broken: Arc<Broken>,
}

/// What is broken, and the words in what is sent before the commit that is to be lost.
#[derive(Default)]
struct Broken {
    fault: AtomicU8,
    words: Mutex<&'static str>,
}

impl Broken {
    fn is(&self, fault: Fault) -> bool {
        self.fault.load(Ordering::SeqCst) == fault as u8
    }

    /// Whether the commit that ends such a transaction is the one that is lost.
    fn takes_commit(&self, fault: Fault, has_words: bool) -> bool {
        let (old, new) = (fault as u8, Fault::None as u8);
        if !has_words {
            return false;
        }
        self.fault.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Proxy {
    pub(crate) async fn start(database: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = database.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
        let address = database.replace(&host, &format!("127.0.0.1:{port}"));
        let broken = Arc::new(Broken::default());
        let of_proxy = Arc::clone(&broken);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (host, broken) = (host.clone(), Arc::clone(&of_proxy));
                tokio::spawn(async move {
                    if broken.is(Fault::Cut) {
                        return;
                    }
                    let Ok(server) = TcpStream::connect(host).await else { return };
                    // Both ends send as they would to each other.
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    carry(client, server, broken).await;
                });
            }
        });
        Self { address, broken }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.set_for("", fault);
    }

    /// Loses the next commit of something with these words in it, or the answer.
    pub(crate) fn set_for(&self, words: &'static str, fault: Fault) {
        *self.broken.words.lock().unwrap() = words;
        self.broken.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// Waits until what was to be lost is lost.
    pub(crate) async fn lost(&self) {
        while !self.broken.is(Fault::None) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

async fn carry(client: TcpStream, server: TcpStream, broken: Arc<Broken>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_mute = Arc::new(AtomicBool::new(false));
    let muted = Arc::clone(&is_mute);
    let (upward, downward) = (Arc::clone(&broken), Arc::clone(&broken));
    let up = async move {
        let mut buffer = vec![0; 64 << 10];
        let (mut is_deaf, mut has_words) = (false, false);
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            is_deaf |= upward.is(Fault::SwallowAll);
            let sends = |words: &str| {
                words.is_empty() || buffer[..count].windows(words.len()).any(|sent| sent == words.as_bytes())
            };
            let waits = upward.is(Fault::LoseCommit) || upward.is(Fault::LoseAnswerToCommit);
            has_words = waits && (has_words || sends(*upward.words.lock().unwrap()));
            if sends("COMMIT") {
                is_deaf |= upward.takes_commit(Fault::LoseCommit, has_words);
                if upward.takes_commit(Fault::LoseAnswerToCommit, has_words) {
                    is_mute.store(true, Ordering::SeqCst);
                }
                has_words = false;
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
            is_deaf |= downward.is(Fault::SwallowAnswers) || downward.is(Fault::SwallowAll);
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
        while !broken.is(Fault::Cut) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = cut => {}
    }
}
