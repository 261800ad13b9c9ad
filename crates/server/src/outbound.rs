//! Connections that this process opens to other servers: HTTP/1.1, over TLS or, where the caller permits it, without.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, std::io::Error),
    #[error("the name {0:?} can stand in no certificate")]
    Name(String),
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
}

/// An open connection, and the task that drives it, which ends with it.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<Result<(), hyper::Error>>,
}

impl Connection {
    /// Connects to the host of this address: with TLS under these settings, or in the clear. Waits for as long as it takes.
    pub(crate) async fn open(uri: &Uri, tls: Option<Arc<ClientConfig>>) -> Result<Self, ConnectError> {
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let unreachable = |error| ConnectError::Unreachable(format!("{host}:{port}"), error);
        let stream = TcpStream::connect((bare.as_str(), port)).await.map_err(unreachable)?;
        let Some(tls) = tls else { return Self::over(stream).await };
        let name = ServerName::try_from(bare).map_err(|_| ConnectError::Name(host.to_owned()))?;
        Self::over(TlsConnector::from(tls).connect(name, stream).await.map_err(unreachable)?).await
    }

    async fn over<S>(stream: S) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        Ok(Self { sender, _driver: tasks })
    }

    /// Whether it can take a request at once.
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Waits until it can take a request, which may be a moment after the end of an answer; `false` if it never will.
    pub(crate) async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request whose target is a path (RFC 9112 section 3.2.1) and which names its host.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.send_request(request).await
    }
}
