//! One connection, from its first byte to its last.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use chancery_types::SpiffeId;
use chancery_verify::live::{Acceptor, ConnectionEnded, Connector, Ended, Guarded, HandshakeError, Refusal};
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_rustls::{client, server};
use tokio_util::either::Either;

use super::address::Address;
use super::config::{Limits, ListenerConfig};
use super::header::{self, Addresses, HeaderError, PeerFacts};
use super::relay::{Passed, RelayError, relay};
use super::socket::Socket;
use crate::source::SharedSource;

/// What a listener does with a connection; replaced whole when the configuration is read again.
pub(super) struct Settings {
    pub(super) config: ListenerConfig,
    pub(super) limits: Limits,
    acceptor: Option<Acceptor>,
    source: SharedSource,
}

/// How a connection ended, for metrics and logs.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Who connects here must come through a load balancer.
    #[error("{0} is none of the load balancers in proxy_header_from")]
    NotBalancer(String),
    /// No PROXY header where one is due.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// No TLS connection with the client.
    #[error(transparent)]
    Client(HandshakeError),
    /// The backend cannot be reached.
    #[error("the backend {to} cannot be reached: {error}")]
    Backend { to: Address, error: io::Error },
    /// No TLS connection with the backend.
    #[error("the backend {to}: {error}")]
    Server { to: Address, error: HandshakeError },
    /// It took too long.
    #[error("the {0} took too long")]
    Slow(&'static str),
    /// It failed while it was passed on.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The new configuration does not allow the peer any more.
    #[error("{0} is not among the peers that are allowed any more")]
    NotAllowed(SpiffeId),
    /// The time for finishing is over.
    #[error("the proxy ends")]
    Drained,
}

type Client = Either<Guarded<server::TlsStream<Socket>>, Socket>;
type Backend = Either<Guarded<client::TlsStream<Socket>>, Socket>;

impl Settings {
    pub(super) fn new(config: ListenerConfig, limits: Limits, source: SharedSource) -> Self {
        let alpn: Vec<&str> = config.alpn.iter().map(String::as_str).collect();
        let acceptor = config.clients.as_ref().map(|peers| {
            Acceptor::new(source.judge(peers.allowed()), &source.credentials, &alpn)
                .handshake_within(limits.handshake)
        });
        Self { config, limits, acceptor, source }
    }

    /// Makes both sides of a connection.
    pub(super) async fn open(&self, mut socket: Socket) -> Result<Open, Failure> {
        let addresses = self.read_header(&mut socket).await?;
        let client = match &self.acceptor {
            None => Either::Right(socket),
            Some(acceptor) => Either::Left(acceptor.accept(socket).await.map_err(Failure::Client)?),
        };
        let (chosen, id) = match &client {
            Either::Left(stream) => (alpn_of(stream), Some(stream.peer().id.clone())),
            Either::Right(_) => (None, None),
        };
        let backend =
            match timeout(self.limits.connect, self.connect(chosen.as_deref(), addresses, id.as_ref())).await
            {
                Ok(backend) => backend?,
                Err(_) => return Err(Failure::Slow("connection to the backend")),
            };
        Ok(Open { client, backend })
    }

    /// Who connected and to what: as the socket says, or as a load balancer does.
    async fn read_header(&self, socket: &mut Socket) -> Result<Option<Addresses>, Failure> {
        let own = socket.addresses().map(|(source, destination)| Addresses { source, destination });
        if self.config.header_from.is_empty() {
            return Ok(own);
        }
        let balancer = own.map(|own| own.source.ip().to_canonical());
        if !balancer.is_some_and(|ip| self.config.header_from.iter().any(|network| network.contains(ip))) {
            return Err(Failure::NotBalancer(balancer.map_or_else(|| "nobody".into(), |ip| ip.to_string())));
        }
        match timeout(self.limits.handshake, header::read(socket)).await {
            Ok(said) => Ok(said?.or(own)),
            Err(_) => Err(Failure::Slow("PROXY header")),
        }
    }

    async fn connect(
        &self,
        alpn: Option<&[u8]>,
        addresses: Option<Addresses>,
        peer: Option<&SpiffeId>,
    ) -> Result<Backend, Failure> {
        let to = &self.config.to;
        let away = |error| Failure::Backend { to: to.clone(), error };
        let mut socket = Socket::connect(to).await.map_err(away)?;
        if let Some(version) = self.config.send_header {
            let facts = PeerFacts { spiffe_id: peer.map(SpiffeId::as_str), alpn };
            socket.write_all(&header::write(version, addresses, facts)).await.map_err(away)?;
        }
        let Some(peers) = &self.config.servers else { return Ok(Either::Right(socket)) };
        let chosen = alpn.and_then(|name| std::str::from_utf8(name).ok());
        let offered: Vec<&str> = match (chosen, &self.config.clients) {
            (Some(chosen), _) => vec![chosen],
            // A client that chose none speaks none.
            (None, Some(_)) => Vec::new(),
            (None, None) => self.config.alpn.iter().map(String::as_str).collect(),
        };
        let judge = self.source.judge(peers.allowed());
        let connector =
            Connector::new(judge, &self.source.credentials, &offered).handshake_within(self.limits.connect);
        let stream = connector.connect(server_name(to), socket).await;
        stream.map(Either::Left).map_err(|error| Failure::Server { to: to.clone(), error })
    }
}

/// A connection of which both sides are open.
pub(super) struct Open {
    client: Client,
    backend: Backend,
}

impl Open {
    /// Peers whose identity was verified.
    pub(super) fn peers(&self) -> (Option<&SpiffeId>, Option<&SpiffeId>) {
        let client = match &self.client {
            Either::Left(stream) => Some(&stream.peer().id),
            Either::Right(_) => None,
        };
        let server = match &self.backend {
            Either::Left(stream) => Some(&stream.peer().id),
            Either::Right(_) => None,
        };
        (client, server)
    }

    /// Passes everything on until both sides have said all.
    pub(super) async fn relay(self, passed: &Arc<Passed>, limits: Limits) -> Result<(), Failure> {
        Ok(relay(self.client, self.backend, passed, limits.idle).await?)
    }
}

impl Failure {
    /// One word, for metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::NotBalancer(_) | Self::Header(_) => "header",
            Self::Client(error) => refused(error),
            Self::Backend { .. } => "backend_away",
            Self::Server { error, .. } => match refused(error) {
                "handshake" => "backend_handshake",
                other => other,
            },
            Self::Slow(_) => "slow",
            Self::Relay(RelayError::Idle(_)) => "idle",
            Self::Relay(RelayError::Io(error)) => ended(error),
            Self::NotAllowed(_) => "not_allowed",
            Self::Drained => "drained",
        }
    }

    /// Whether somebody should look at it.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Backend { .. } | Self::Server { .. })
    }
}

fn refused(error: &HandshakeError) -> &'static str {
    match error {
        HandshakeError::Refused(Refusal::NotGood(_)) => "revoked",
        HandshakeError::Refused(Refusal::Unknown(_)) => "unknown",
        HandshakeError::Refused(Refusal::NotAllowed(_)) => "not_allowed",
        HandshakeError::Refused(_) => "not_trusted",
        HandshakeError::Slow(_) => "slow",
        HandshakeError::Tls(_) => "handshake",
    }
}

fn ended(error: &io::Error) -> &'static str {
    let why =
        error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectionEnded>()).map(|ended| ended.why);
    match why {
        Some(Ended::NotGood(_)) => "ended_revoked",
        Some(Ended::Unknown(_)) => "ended_unknown",
        Some(Ended::Expired) => "ended_expired",
        Some(Ended::TooLong(_)) => "ended_too_long",
        None => "broken",
    }
}

fn alpn_of(stream: &Guarded<server::TlsStream<Socket>>) -> Option<Vec<u8>> {
    stream.get_ref()?.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
}

/// What the server is told that we want; who it is, its SPIFFE ID says.
fn server_name(to: &Address) -> ServerName<'static> {
    match to {
        Address::Tcp { host, .. } => {
            ServerName::try_from(host.clone()).expect("an address was checked to be a name")
        }
        Address::Unix(_) => ServerName::try_from("localhost").expect("it is a name"),
    }
}

/// Where a connection came from, for the log.
pub(super) fn from(addresses: Option<(SocketAddr, SocketAddr)>) -> String {
    addresses.map_or_else(|| "unix".to_owned(), |(source, _)| source.to_string())
}
