//! Whoever copied a key and a certificate: comes with them again and again, and keeps what is open open.
//!
//! What counts as let in is an answer that came back: under TLS 1.3 the thief's handshake ends before the other side has
//! judged its certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Between two new connections, and between two requests on the open one.
const KNOCK: Duration = Duration::from_millis(10);
/// How long an answer may take; a relying party that is silent lets nobody in.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is asked.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Bytes of an answer.
const ANSWER: usize = 8 * 1024;

/// The last moments at which a relying party took the stolen certificate.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Uses {
    /// A new connection was let in and answered.
    pub(crate) new: Option<Instant>,
    /// How many were.
    pub(crate) let_in: u64,
    /// How many have been turned away since.
    pub(crate) turned_away: u64,
    /// A request on the open connection was answered.
    pub(crate) open: Option<Instant>,
    /// The open connection ended.
    pub(crate) ended: Option<Instant>,
}

/// A thief at work at one relying party.
#[derive(Debug)]
pub(crate) struct Thief {
    uses: watch::Receiver<Uses>,
    tasks: [JoinHandle<()>; 2],
}

impl Thief {
    /// Begins: the open connection has been answered once by now.
    pub(crate) async fn begin(connector: &TlsConnector, address: SocketAddr) -> Result<Self> {
        let mut open = connect(connector, address).await?;
        ask(&mut open).await.context("the stolen certificate is not let in while it is good")?;
        let (sender, uses) = watch::channel(Uses { open: Some(Instant::now()), ..Uses::default() });
        let sender = Arc::new(sender);
        let tasks = [
            tokio::spawn(keep_open(open, Arc::clone(&sender))),
            tokio::spawn(knock(connector.clone(), address, sender)),
        ];
        Ok(Self { uses, tasks })
    }

    /// What it got so far.
    pub(crate) fn uses(&self) -> Uses {
        *self.uses.borrow()
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Uses {
    /// Whether new connections are turned away, and have been for a while.
    pub(crate) fn is_out(&self, quiet: Duration) -> bool {
        self.new.is_none_or(|new| new.elapsed() > quiet) && self.turned_away > 0
    }
}

async fn keep_open(mut open: impl AsyncRead + AsyncWrite + Unpin, uses: Arc<watch::Sender<Uses>>) {
    while ask(&mut open).await.is_ok() {
        uses.send_modify(|uses| uses.open = Some(Instant::now()));
        tokio::time::sleep(KNOCK).await;
    }
    uses.send_modify(|uses| uses.ended = Some(Instant::now()));
}

async fn knock(connector: TlsConnector, address: SocketAddr, uses: Arc<watch::Sender<Uses>>) {
    loop {
        let answered = async {
            let mut stream = connect(&connector, address).await?;
            ask(&mut stream).await
        };
        let is_in = answered.await.is_ok();
        uses.send_modify(|uses| match is_in {
            true => {
                uses.new = Some(Instant::now());
                uses.let_in += 1;
                uses.turned_away = 0;
            }
            false => uses.turned_away += 1,
        });
        tokio::time::sleep(KNOCK).await;
    }
}

async fn connect(
    connector: &TlsConnector,
    address: SocketAddr,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let shake_hands = async {
        let name = ServerName::try_from("localhost").context("a name of a server")?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        anyhow::Ok(connector.connect(name, stream).await?)
    };
    tokio::time::timeout(PATIENCE, shake_hands).await.context("no handshake in time")?
}

/// One request and its answer: only a success counts.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<()> {
    let exchange = async {
        stream.write_all(REQUEST).await?;
        let mut answer = Vec::with_capacity(512);
        let body = loop {
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            more(stream, &mut answer).await?;
        };
        let head = String::from_utf8_lossy(&answer[..body]).to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 20"), "turned away: {}", head.lines().next().unwrap_or_default());
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.unwrap_or("0").trim().parse().context("a length that is no number")?;
        while answer.len() < body + length {
            more(stream, &mut answer).await?;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time")?
}

async fn more(stream: &mut (impl AsyncRead + Unpin), answer: &mut Vec<u8>) -> Result<()> {
    ensure!(answer.len() < ANSWER, "an answer without end");
    ensure!(stream.read_buf(answer).await? > 0, "the connection was closed");
    Ok(())
}
