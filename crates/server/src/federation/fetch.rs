//! Fetching a bundle from its endpoint: one GET over a connection of its own, within limits, without redirects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Bytes of a bundle.
pub(super) const MAX_BUNDLE: usize = 1 << 20;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0} cannot be reached: {1}")]
    Connect(String, std::io::Error),
    #[error("the name {0:?} can stand in no certificate")]
    Name(String),
    #[error("the request failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("it answered {0}; redirects are not followed, so name the address that they lead to")]
    Status(StatusCode),
    #[error("its answer broke off or has more than {MAX_BUNDLE} bytes: {0}")]
    Body(String),
    #[error("it took more than {PATIENCE:?}")]
    Late,
}

/// What lies at this address, from a server that these settings accept.
pub(super) async fn get(url: &Uri, tls: Arc<ClientConfig>) -> Result<Bytes, FetchError> {
    tokio::time::timeout(PATIENCE, fetch(url, tls)).await.unwrap_or(Err(FetchError::Late))
}

async fn fetch(url: &Uri, tls: Arc<ClientConfig>) -> Result<Bytes, FetchError> {
    let host = url.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_u16().unwrap_or(443);
    let unreachable = |error| FetchError::Connect(format!("{host}:{port}"), error);
    let stream = TcpStream::connect((bare.as_str(), port)).await.map_err(unreachable)?;
    let name = ServerName::try_from(bare).map_err(|_| FetchError::Name(host.to_owned()))?;
    let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(unreachable)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this function, however it ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path).header(HOST, authority).header(ACCEPT, "application/json");
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_BUNDLE).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| FetchError::Body(error.to_string()))
}
