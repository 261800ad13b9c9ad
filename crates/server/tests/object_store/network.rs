//! A network in front of an object store that can be broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None = 0,
    /// Connections end, and new ones end at once.
    Cut = 1,
    /// What the store answers does not arrive; connections stay.
    Silent = 2,
    /// Something answers that the store is busy.
    Busy = 3,
    /// Answers end after so many bytes.
    Short = 4,
}

/// Bytes of an answer that arrive while answers are short: the headers and some of an object.
const SHORT: u64 = 1500;

/// The network.
pub(crate) struct Network {
    pub(crate) endpoint: String,
    fault: Arc<AtomicU8>,
    connections: Arc<AtomicUsize>,
}

impl Network {
    pub(crate) async fn before(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let store = endpoint.trim_start_matches("http://").to_owned();
        let (fault, connections) = (Arc::new(AtomicU8::new(Fault::None as u8)), Arc::default());
        let network = Self { endpoint: own, fault, connections };
        let (fault, connections) = (Arc::clone(&network.fault), Arc::clone(&network.connections));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, store.clone(), Arc::clone(&fault)));
            }
        });
        network
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn carry(mut client: TcpStream, store: String, fault: Arc<AtomicU8>) {
    let begun = fault.load(Ordering::SeqCst);
    let changed = async {
        while fault.load(Ordering::SeqCst) == begun {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let work = async {
        if begun == Fault::Cut as u8 {
            return;
        }
        if begun == Fault::Silent as u8 {
            std::future::pending::<()>().await;
        }
        if begun == Fault::Busy as u8 {
            let _ = client.read(&mut [0; 4096]).await;
            let body = "<Error><Code>SlowDown</Code></Error>";
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 503 Slow Down\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = client.write_all(answer.as_bytes()).await;
            return;
        }
        let mut server = TcpStream::connect(store).await.unwrap();
        let (mut from_client, mut to_client) = client.split();
        let (from_server, mut to_server) = server.split();
        let most = if begun == Fault::Short as u8 { SHORT } else { u64::MAX };
        let mut from_server = from_server.take(most);
        tokio::select! {
            _ = copy(&mut from_client, &mut to_server) => {}
            _ = copy(&mut from_server, &mut to_client) => {}
        }
    };
    // A connection knows one fault: with another it ends.
    tokio::select! {
        () = work => {}
        () = changed => {}
    }
}
