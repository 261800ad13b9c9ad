//! An authority that says whatever a test has it say, over real TLS.

use std::sync::{Arc, Mutex};

use chancery_api::{FeedChange, FeedEvent, LogKeysResponse, Operation};
use chancery_merkle::{Ed25519NoteSigner, LogSigners, NoteVerifier};
use chancery_status::{ExactSet, SignedSet};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;

/// A key that signs sets.
pub(super) struct LogSigner(u8);

impl LogSigner {
    pub(super) fn new(seed: u8) -> Self {
        Self(seed)
    }

    pub(super) fn sign(&self, set: ExactSet) -> Vec<u8> {
        let public = *self.verifier().public_key();
        let key = Ed25519KeyPair::from_seed_unchecked(&[self.0; 32]).unwrap();
        let sign = move |text: &[u8]| Ok::<_, std::io::Error>(key.sign(text).as_ref().to_vec());
        let signer = Ed25519NoteSigner::new("example.org/log", public, sign).unwrap();
        SignedSet::sign(set, &"example.org".parse().unwrap(), &LogSigners::of(signer))
            .unwrap()
            .to_bytes()
            .to_vec()
    }

    pub(super) fn verifier(&self) -> NoteVerifier {
        let key = Ed25519KeyPair::from_seed_unchecked(&[self.0; 32]).unwrap();
        let public = key.public_key().as_ref().try_into().unwrap();
        NoteVerifier::new("example.org/log", chancery_merkle::NoteKeyKind::Ed25519, public).unwrap()
    }
}

/// The authority. Nobody listens any more once it is dropped.
pub(super) struct Liar {
    pub(super) authority: Authority,
    script: Arc<Script>,
    accepting: AbortHandle,
}

struct Script {
    key: String,
    keys: Mutex<Option<LogKeysResponse>>,
    set: Mutex<Vec<u8>>,
    sets_asked: AtomicU64,
    feeds: Mutex<Vec<mpsc::UnboundedSender<FeedEvent>>>,
}

impl Liar {
    /// One that begins with this set.
    pub(super) async fn new(set: Vec<u8>) -> Self {
        let domain = Domain::new("example.org");
        let held = domain.issue_with(&["spiffe://example.org/authority"], BOTH, |params| {
            params.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
        });
        let own = domain.issue("/relying");
        let bundles = Bundles::from([(domain.name.clone(), vec![domain.root.clone()])]);
        let credentials = Credentials::new(own.chain, own.key, bundles).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(held.chain, held.key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let script = Arc::new(Script {
            key: LogSigner::new(1).verifier().to_string(),
            keys: Mutex::default(),
            set: Mutex::new(set),
            sets_asked: AtomicU64::new(0),
            feeds: Mutex::default(),
        });
        let accepting =
            tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&script)));
        let authority = Authority::new(endpoint.parse().unwrap(), domain.name.clone(), &credentials);
        Self { authority, script, accepting: accepting.abort_handle() }
    }

    /// Offers another set from now on.
    pub(super) fn offer(&self, set: Vec<u8>) {
        *self.script.set.lock().unwrap() = set;
    }

    /// Says from now on which keys the log has.
    pub(super) fn state_keys(&self, keys: LogKeysResponse) {
        *self.script.keys.lock().unwrap() = Some(keys);
    }

    /// How often a set was asked for.
    pub(super) fn sets_asked(&self) -> u64 {
        self.script.sets_asked.load(Ordering::SeqCst)
    }

    /// Says something to everybody who follows.
    pub(super) fn say(&self, after: u64, sequence: u64, change: FeedChange) {
        let event = FeedEvent { after, sequence, change };
        self.script.feeds.lock().unwrap().retain(|feed| feed.send(event.clone()).is_ok());
    }

    /// Goes away: nobody listens any more.
    pub(super) fn stop(&self) {
        self.accepting.abort();
    }

    /// Waits until somebody follows.
    pub(super) async fn has_follower(&self) {
        eventually("somebody follows", || !self.script.feeds.lock().unwrap().is_empty()).await;
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
        connections.spawn(async move {
            if let Ok(stream) = acceptor.accept(tcp).await {
                let _ = serve(stream, &script).await;
            }
        });
    }
}

/// HTTP/1.1, request by request.
async fn serve(mut stream: TlsStream<TcpStream>, script: &Script) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await?;
        let path = head.split(' ').nth(1).unwrap().split('?').next().unwrap();
        if path == Operation::StatusFeed.path() {
            return follow(stream, script).await;
        }
        let answer = if path == Operation::LogKey.path() {
            Some(script.key.clone().into_bytes())
        } else if path == Operation::LogKeys.path() {
            script.keys.lock().unwrap().as_ref().map(|keys| serde_json::to_vec(keys).unwrap())
        } else if path == Operation::StatusSet.path() {
            script.sets_asked.fetch_add(1, Ordering::SeqCst);
            Some(script.set.lock().unwrap().clone())
        } else {
            None
        };
        let (status, body) = match answer {
            Some(body) => ("200 OK", body),
            None => ("404 Not Found", NOT_FOUND.into()),
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
        stream.flush().await?;
    }
}

async fn follow(mut stream: TlsStream<TcpStream>, script: &Script) -> std::io::Result<()> {
    let (sender, mut events) = mpsc::unbounded_channel();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await?;
    stream.flush().await?;
    script.feeds.lock().unwrap().push(sender);
    while let Some(event) = events.recv().await {
        let text = serde_json::to_string(&event).unwrap();
        let name = event.change.name();
        stream
            .write_all(format!("id: {}\nevent: {name}\ndata: {text}\n\n", event.sequence).as_bytes())
            .await?;
        stream.flush().await?;
    }
    Ok(())
}

const NOT_FOUND: &[u8] =
    br#"{"type":"about:blank","title":"Not found","status":404,"code":"not-found","detail":"nothing"}"#;

/// Waits for something that must come true.
pub(super) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
