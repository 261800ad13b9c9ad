//! The door to the network: TCP, TLS, and then HTTP, with bounds on everything that a stranger can hold.
//!
//! A listener without TLS is for what relying parties fetch before they can trust a connection (RFC 5280
//! section 8: status over TLS would need status); whoever comes through it is a stranger.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::activity::ConnectionTimeouts;
use crate::connections::{ConnectionLimits, Connections, Place};
use crate::host::{Host, Protocol};
use crate::metrics::Metrics;
use crate::peer::{ClientCertificate, PeerError};
use crate::{Peer, Shutdown, TlsSlot};

/// Bounds of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerLimits {
    /// How many connections there may be.
    pub connections: ConnectionLimits,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long nothing may happen on a connection.
    pub timeouts: ConnectionTimeouts,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: ConnectionLimits { total: 16_384, per_address: 1024 },
            handshake: Duration::from_secs(10),
            timeouts: ConnectionTimeouts {
                head: Duration::from_secs(10),
                idle: Duration::from_secs(120),
                stalled: Duration::from_secs(60),
            },
        }
    }
}

/// A bound address that does not accept connections yet.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    tls: Option<TlsSlot>,
    limits: ListenerLimits,
}

impl Listener {
    /// Binds an address; port 0 takes any that is free.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(address: SocketAddr, tls: TlsSlot, limits: ListenerLimits) -> io::Result<Self> {
        Ok(Self { tcp: listen(address)?, tls: Some(tls), limits })
    }

    /// Binds an address that is served over HTTP/1.1 without TLS; port 0 takes any that is free.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind_plain(address: SocketAddr, limits: ListenerLimits) -> io::Result<Self> {
        Ok(Self { tcp: listen(address)?, tls: None, limits })
    }

    /// The address that it has.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Accepts connections in a task of its own until the server stops.
    pub fn start(self, router: Router, metrics: Arc<Metrics>, shutdown: &Shutdown) {
        let host = Host { router, timeouts: self.limits.timeouts, metrics, shutdown: shutdown.clone() };
        shutdown.spawn(self.accept(host));
    }

    async fn accept(self, host: Host) {
        let connections = Connections::new(self.limits.connections);
        loop {
            let accepted = tokio::select! {
                accepted = self.tcp.accept() => accepted,
                () = host.shutdown.begun() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly: closing connections frees some.
                    tracing::warn!(%error, "cannot accept a connection");
                    host.metrics.refused_connection("accept-failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match connections.enter(address.ip()) {
                Ok(place) => {
                    let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
                    let visit =
                        Visit { host: host.clone(), address, place, handshake: self.limits.handshake };
                    host.shutdown.spawn(visit.run(stream, acceptor));
                }
                // Dropping the stream closes it: cheaper for us than any answer.
                Err(full) => host.metrics.refused_connection(full.reason()),
            }
        }
    }
}

/// One connection that was let in.
struct Visit {
    host: Host,
    address: SocketAddr,
    place: Place,
    handshake: Duration,
}

impl Visit {
    async fn run(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        // Answers are small and whole; waiting to fill a packet only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(address = %self.address, %error, "cannot set TCP_NODELAY");
        }
        match acceptor {
            Some(acceptor) => self.serve_tls(stream, acceptor).await,
            None => {
                let peer = Peer::Network { address: self.address, certificate: None };
                self.host.serve(stream, Protocol::Http1, peer).await;
            }
        }
        drop(self.place);
    }

    async fn serve_tls(&self, stream: TcpStream, acceptor: TlsAcceptor) {
        // What a handshake needs is given back at its end, and not held for as long as the connection lasts.
        let Some(stream) = Box::pin(self.shake_hands(stream, acceptor)).await else { return };
        let session = stream.get_ref().1;
        let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        match client_certificate(&stream) {
            Ok(certificate) => {
                let peer = Peer::Network { address: self.address, certificate };
                self.host.serve(stream, protocol, peer).await;
            }
            Err(error) => {
                tracing::info!(address = %self.address, %error, "connection refused");
                self.host.metrics.refused_connection("client-certificate");
            }
        }
    }

    async fn shake_hands(&self, stream: TcpStream, acceptor: TlsAcceptor) -> Option<TlsStream<TcpStream>> {
        let reason = tokio::select! {
            result = tokio::time::timeout(self.handshake, acceptor.accept(stream)) => match result {
                Ok(Ok(stream)) => {
                    self.host.metrics.handshakes.inc();
                    return Some(stream);
                }
                Ok(Err(error)) => {
                    tracing::debug!(address = %self.address, %error, "TLS handshake failed");
                    "handshake-failed"
                }
                Err(_) => "handshake-timeout",
            },
            () = self.host.shutdown.begun() => "shutting-down",
        };
        self.host.metrics.refused_connection(reason);
        None
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted server takes its address again while old connections linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn client_certificate(stream: &TlsStream<TcpStream>) -> Result<Option<Arc<ClientCertificate>>, PeerError> {
    match stream.get_ref().1.peer_certificates() {
        Some(chain) => ClientCertificate::parse(chain).map(|certificate| Some(Arc::new(certificate))),
        None => Ok(None),
    }
}

/// Connections that the kernel keeps until they are accepted; it takes less where `net.core.somaxconn` is lower.
/// Whoever finds no room there tries again only after a second.
const BACKLOG: u32 = 4096;
/// How long accepting rests after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
