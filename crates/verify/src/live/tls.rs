//! TLS with live status, for servers and clients: handshake, judgement, registration, in one call.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chancery_types::{Clock, SystemClock};
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::judge::unix_time;
use super::refusal::heard_during;
use super::{Admission, Credentials, Guarded, Judge, PeerVerifier, Refusal, Sever, Side};

/// How long a handshake may take, unless said otherwise.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The peer refuses us, does not speak TLS as we do, or went away.
    #[error("no TLS connection: {0}")]
    Tls(#[from] io::Error),
    /// The peer takes its time.
    #[error("the TLS handshake was not done within {0:?}")]
    Slow(Duration),
}

/// Accepts TLS connections of judged peers.
#[derive(Debug, Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    judge: Judge,
    handshake: Duration,
    judges_again: bool,
}

/// Makes TLS connections to judged peers.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    judge: Judge,
    handshake: Duration,
    judges_again: bool,
}

impl Acceptor {
    /// Shows these credentials and lets in whom the judge does. Without session resumption.
    #[must_use]
    pub fn new(judge: Judge, credentials: &Credentials, alpn: &[&str]) -> Self {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("ring has cipher suites for both versions")
            .with_client_cert_verifier(PeerVerifier::new(judge.clone()))
            .with_cert_resolver(Arc::new(credentials.clone()));
        config.alpn_protocols = protocols(alpn);
        without_resumption(&mut config);
        Self { config: Arc::new(config), judge, handshake: HANDSHAKE, judges_again: false }
    }

    /// Uses a configuration of yours, whatever it verifies: every peer is judged, resumed or not, after the handshake.
    #[must_use]
    pub fn with_config(judge: Judge, config: Arc<ServerConfig>) -> Self {
        Self { config, judge, handshake: HANDSHAKE, judges_again: true }
    }

    /// Gives a handshake this long.
    #[must_use]
    pub fn handshake_within(self, handshake: Duration) -> Self {
        Self { handshake, ..self }
    }

    /// Makes a handshake with whoever has connected, and registers the connection.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept<S>(&self, stream: S) -> Result<Guarded<server::TlsStream<S>>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Sever,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let stream = shake_hands(acceptor.accept(stream), self.handshake).await?;
        let admission = admit(&self.judge, stream.get_ref().1, Side::Client, self.judges_again)?;
        Ok(Guarded::new(stream, admission))
    }
}

impl Connector {
    /// Shows these credentials and connects to whom the judge allows. Without session resumption.
    #[must_use]
    pub fn new(judge: Judge, credentials: &Credentials, alpn: &[&str]) -> Self {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("ring has cipher suites for both versions")
            .dangerous()
            .with_custom_certificate_verifier(PeerVerifier::new(judge.clone()))
            .with_client_cert_resolver(Arc::new(credentials.clone()));
        config.alpn_protocols = protocols(alpn);
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config), judge, handshake: HANDSHAKE, judges_again: false }
    }

    /// Uses a configuration of yours, whatever it verifies: every peer is judged, resumed or not, after the handshake.
    #[must_use]
    pub fn with_config(judge: Judge, config: Arc<ClientConfig>) -> Self {
        Self { config, judge, handshake: HANDSHAKE, judges_again: true }
    }

    /// Gives a handshake this long.
    #[must_use]
    pub fn handshake_within(self, handshake: Duration) -> Self {
        Self { handshake, ..self }
    }

    /// Makes a handshake over a stream, and registers the connection. The name is what the server is told that we
    /// want; who it is, the judge decides.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect<S>(
        &self,
        name: ServerName<'static>,
        stream: S,
    ) -> Result<Guarded<client::TlsStream<S>>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Sever,
    {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = shake_hands(connector.connect(name, stream), self.handshake).await?;
        let admission = admit(&self.judge, stream.get_ref().1, Side::Server, self.judges_again)?;
        Ok(Guarded::new(stream, admission))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connector").field("judge", &self.judge).finish_non_exhaustive()
    }
}

/// Has a server's configuration make every handshake a full one, in which its verifier is asked: no tickets, no table
/// of sessions. A certificate that was revoked since would otherwise be let in on the word of an old session.
pub fn without_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.ticketer = Arc::new(NoTickets);
    config.max_early_data_size = 0;
}

/// Makes no ticket and takes none.
#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

async fn shake_hands<T>(
    handshake: impl Future<Output = io::Result<T>>,
    within: Duration,
) -> Result<T, HandshakeError> {
    match heard_during(tokio::time::timeout(within, handshake)).await {
        (Ok(Ok(stream)), _) => Ok(stream),
        (_, Some(refusal)) => Err(refusal.into()),
        (Ok(Err(error)), None) => Err(error.into()),
        (Err(_), None) => Err(HandshakeError::Slow(within)),
    }
}

/// Registers the peer of a finished handshake. The verifier has judged it just now, unless the session was resumed:
/// rustls remembers the chain of a resumed peer, and asks nobody.
fn admit(
    judge: &Judge,
    connection: &CommonState,
    side: Side,
    judges_again: bool,
) -> Result<Admission, Refusal> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    let judged = if is_resumed || judges_again {
        judge.judge(chain, side, unix_time(SystemClock.now()))?
    } else {
        judge.recognize(chain.first().ok_or(Refusal::NoCertificate)?)?
    };
    judged.status.admit(judged.peer)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}
