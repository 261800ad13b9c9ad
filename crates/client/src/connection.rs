//! One connection: made, and ready to send requests on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::{ClientError, Endpoint};

/// A request body, whole.
pub(crate) type Body = Full<Bytes>;

/// The sending side of an open connection.
#[derive(Debug)]
pub(crate) enum Connection {
    /// One request at a time.
    Http1(http1::SendRequest<Body>),
    /// Many at once.
    Http2(http2::SendRequest<Body>),
}

/// Why a request brought no response.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The connection had been closed before anything was sent; the request can go out on another.
    NotSent(Box<Request<Body>>),
    /// It broke afterwards: the server may or may not have acted.
    Broken(hyper::Error),
}

impl Connection {
    /// Connects and shakes hands, within `timeout`.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        tls: Option<Arc<ClientConfig>>,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        match tokio::time::timeout(timeout, connect(endpoint, tls)).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout {
                endpoint: endpoint.to_string(),
                what: "connection",
                after: timeout,
            }),
        }
    }

    pub(crate) async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// Sends a request whose URI is absolute.
    pub(crate) async fn send(&mut self, mut request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let absolute = request.uri().clone();
        let result = match self {
            Self::Http1(sender) => {
                // RFC 9112 section 3.2.1: only the path goes into the request line; the host has its header.
                *request.uri_mut() = absolute
                    .path_and_query()
                    .map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
                sender.try_send_request(request).await
            }
            Self::Http2(sender) => sender.try_send_request(request).await,
        };
        result.map_err(|mut error| match error.take_message() {
            Some(mut request) => {
                *request.uri_mut() = absolute;
                SendError::NotSent(Box::new(request))
            }
            None => SendError::Broken(error.into_error()),
        })
    }
}

async fn connect(endpoint: &Endpoint, tls: Option<Arc<ClientConfig>>) -> Result<Connection, ClientError> {
    let unreachable = |source| ClientError::Connect { endpoint: endpoint.to_string(), source };
    match (endpoint, tls) {
        (Endpoint::Unix(path), _) => {
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            start_http1(endpoint, stream).await
        }
        (Endpoint::Https { host, port }, Some(config)) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            let name = ServerName::try_from(host.clone()).expect("an endpoint's host is a server name");
            let stream = TlsConnector::from(config)
                .connect(name, stream)
                .await
                .map_err(|source| ClientError::Tls { endpoint: endpoint.to_string(), source })?;
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                start_http2(endpoint, stream).await
            } else {
                start_http1(endpoint, stream).await
            }
        }
        (Endpoint::Https { .. }, None) => {
            unreachable!("the builder gives every https endpoint a TLS configuration")
        }
    }
}

async fn start_http1<S>(endpoint: &Endpoint, stream: S) -> Result<Connection, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ClientError::Broken { endpoint: endpoint.to_string(), source })?;
    drive(endpoint, driver);
    Ok(Connection::Http1(sender))
}

async fn start_http2<S>(endpoint: &Endpoint, stream: S) -> Result<Connection, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|source| ClientError::Broken { endpoint: endpoint.to_string(), source })?;
    drive(endpoint, driver);
    Ok(Connection::Http2(sender))
}

/// Runs a connection until it ends: when the other side closes it, or when the last sender is dropped.
fn drive<F>(endpoint: &Endpoint, driver: F)
where
    F: Future<Output = Result<(), hyper::Error>> + Send + 'static,
{
    let endpoint = endpoint.to_string();
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%endpoint, %error, "connection ended");
        }
    });
}
