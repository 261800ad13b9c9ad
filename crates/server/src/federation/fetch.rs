//! Fetching a bundle from its endpoint: one GET over a connection of its own, within limits, without redirects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use rustls::ClientConfig;

use crate::outbound::{ConnectError, Connection};

/// Bytes of a bundle.
pub(super) const MAX_BUNDLE: usize = 1 << 20;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
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
    let mut connection = Connection::open(url, Some(tls)).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path).header(HOST, authority).header(ACCEPT, "application/json");
    let response = connection.send(request.body(Full::default())?).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_BUNDLE).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| FetchError::Body(error.to_string()))
}
