//! The other end of the Workload API: enough for `chancery fetch` and for tests.

use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response, Uri};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Status, body::Body};

use crate::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;

/// A client of the Workload API on a UNIX socket.
pub type Client = SpiffeWorkloadApiClient<InterceptedService<Connection, SecurityHeader>>;

/// Why an agent cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is of another form.
    #[error("{0:?} is not the address of a socket; expected unix:///absolute/path")]
    Address(String),
    /// Nothing answers on the socket.
    #[error("cannot connect to {path}: {source}; is the agent running?")]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something answers, but does not speak HTTP/2.
    #[error("what answers does not speak HTTP/2: {0}")]
    Http(#[from] hyper::Error),
}

/// The socket that an address names, as `SPIFFE_ENDPOINT_SOCKET` has it: `unix:///run/agent.sock` (SPIFFE Workload
/// Endpoint section 4). TCP addresses are not for us: nobody gets an identity there.
///
/// # Errors
/// [`ConnectError::Address`].
pub fn socket_path(address: &str) -> Result<PathBuf, ConnectError> {
    let path = address.strip_prefix("unix:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        Some(path) if path.starts_with('/') && !path.contains(['?', '#']) => Ok(PathBuf::from(path)),
        _ => Err(ConnectError::Address(address.chars().take(200).collect())),
    }
}

/// Connects to an agent.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(path: &Path) -> Result<Client, ConnectError> {
    let connection = Connection::open(path).await?;
    Ok(SpiffeWorkloadApiClient::with_interceptor(connection, SecurityHeader))
}

/// An HTTP/2 connection to an agent, for any client that tonic generates. Clones share it.
#[derive(Debug, Clone)]
pub struct Connection {
    sender: SendRequest<Body>,
}

impl Connection {
    /// Connects to a UNIX socket.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn open(path: &Path) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Socket { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).await.map_err(failed)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.timer(TokioTimer::new()).handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the agent ended");
            }
        });
        Ok(Self { sender })
    }
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // HTTP/2 wants to know whom it talks to, and a socket has no name.
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        if let Ok(uri) = Uri::builder().scheme("http").authority("localhost").path_and_query(path).build() {
            *request.uri_mut() = uri;
        }
        let answer = self.sender.send_request(request);
        Box::pin(async { Ok(answer.await?.map(Body::new)) })
    }
}

/// Adds the header that every request must have (SPIFFE Workload Endpoint section 3).
#[derive(Debug, Clone, Copy)]
pub struct SecurityHeader;

impl Interceptor for SecurityHeader {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_as_the_standard_has_them() {
        for address in ["unix:///run/agent.sock", "unix:/run/agent.sock"] {
            assert_eq!(socket_path(address).unwrap(), Path::new("/run/agent.sock"));
        }
        for wrong in [
            "",
            "/run/agent.sock",
            "unix:agent.sock",
            "unix://run/agent.sock",
            "unix:///a?b",
            "tcp://127.0.0.1:80",
        ] {
            assert!(matches!(socket_path(wrong), Err(ConnectError::Address(_))), "{wrong}");
        }
    }
}
