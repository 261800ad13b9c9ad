//! A service that answers as a test tells it to: over HTTP, or not quite.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Answers until it is dropped.
pub(super) struct TestServer {
    requests: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

/// Gets the head of a request, gives the bytes of the answer.
pub(super) type Answer = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

impl TestServer {
    pub(super) fn on_socket(listener: UnixListener, answer: Answer) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                serve(stream, &answer).await;
            }
        });
        Self { requests, _accepting: accepting }
    }

    pub(super) fn on_port(listener: TcpListener, tls: Option<TlsAcceptor>, answer: Answer) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                match &tls {
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => serve(stream, &answer).await,
                        Err(_) => continue,
                    },
                    None => serve(stream, &answer).await,
                }
            }
        });
        Self { requests, _accepting: accepting }
    }

    /// How often somebody connected.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// 200 with this JSON.
pub(super) fn ok(json: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}", json.len()).into_bytes()
}

/// Any other status, with nothing.
pub(super) fn status(line: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// Success that goes on for this many bytes, of which it does not tell the number.
pub(super) fn endless(bytes: usize) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..bytes.div_ceil(0xffff) {
        answer.extend_from_slice(b"ffff\r\n");
        answer.resize(answer.len() + 0xffff, b' ');
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    answer
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &Answer) {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let answer = answer(&String::from_utf8_lossy(&head));
    // The other side may hang up in the middle of an answer that is too long for it.
    let _ = stream.write_all(&answer).await;
    if answer.is_empty() {
        // Says nothing, and waits to be left.
        let _ = stream.read(&mut buffer).await;
    }
    let _ = stream.shutdown().await;
}
