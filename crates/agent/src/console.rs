//! What operators and their tools ask the agent: status, health and metrics, over HTTP/1.1.
//!
//! The status socket answers everything and is for the agent's own user; what an address or another socket is
//! configured for gets health and metrics, which name no identities. Nothing here changes anything.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Semaphore;

use crate::doors::Socket;
use crate::status::{AgentHealth, AgentStatus};

/// Connections at once; a monitoring system needs one.
const CONNECTIONS: usize = 32;
/// How long a connection may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(5);
/// Bytes of a status that is read.
const STATUS_BYTES: usize = 64 << 20;

/// What there is to see.
pub(crate) trait View: Send + Sync + 'static {
    /// How the agent stands.
    fn status(&self) -> AgentStatus;
    /// Its metrics.
    fn metrics(&self) -> String;
}

/// How much a listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything.
    Operator,
    /// Health and metrics.
    Monitoring,
}

/// Answers on a UNIX socket, for ever.
pub(crate) async fn serve_unix(socket: Socket, scope: Scope, view: Arc<dyn View>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        match socket.listener.accept().await {
            Ok((stream, _)) => answer(stream, scope, &view, &slots),
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Answers on a TCP address, for ever.
pub(crate) async fn serve_tcp(listener: TcpListener, scope: Scope, view: Arc<dyn View>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => answer(stream, scope, &view, &slots),
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Out of file descriptors, usually: busy waiting would not bring any back.
async fn pause_after(error: &std::io::Error) {
    tracing::warn!(%error, "a connection to the console was not accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn answer<S>(stream: S, scope: Scope, view: &Arc<dyn View>, slots: &Arc<Semaphore>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Whoever comes when all are taken is turned away.
    let Ok(slot) = Arc::clone(slots).try_acquire_owned() else { return };
    let view = Arc::clone(view);
    tokio::spawn(async move {
        let _slot = slot;
        let service = service_fn(move |request: Request<Incoming>| {
            let response = respond(request.method(), request.uri().path(), scope, view.as_ref());
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the console has ended");
        }
    });
}

fn respond(method: &Method, path: &str, scope: Scope, view: &dyn View) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match (path, scope) {
        ("/healthz", _) => text(StatusCode::OK, "ok\n"),
        ("/readyz", _) => match view.status().health {
            AgentHealth::Ok => text(StatusCode::OK, "ok\n"),
            AgentHealth::Degraded => text(StatusCode::OK, "degraded\n"),
            AgentHealth::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        },
        ("/metrics", _) => reply(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            view.metrics().into(),
        ),
        ("/status", Scope::Operator) => {
            let json = serde_json::to_vec(&view.status()).expect("a status is plain JSON");
            reply(StatusCode::OK, "application/json", json.into())
        }
        _ => text(StatusCode::NOT_FOUND, "there is no such thing here\n"),
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn reply(status: StatusCode, media_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    response
}

/// Why an agent did not say how it stands.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no agent answers on {path}: {error}; does it run, and may you read its socket?")]
    Connect {
        /// Where.
        path: String,
        /// Why not.
        error: std::io::Error,
    },
    /// Something else answered, or not in full.
    #[error("the agent's answer cannot be read: {0}")]
    Answer(String),
}

/// Asks the agent behind a status socket how it stands.
///
/// # Errors
/// [`AskError`].
pub async fn ask_status(path: &Path) -> Result<AgentStatus, AskError> {
    let unreadable = |error: &dyn std::fmt::Display| AskError::Answer(error.to_string());
    let stream = UnixStream::connect(path)
        .await
        .map_err(|error| AskError::Connect { path: path.display().to_string(), error })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreadable(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/status")
        .header(header::HOST, "localhost")
        .body(Full::<Bytes>::default())
        .map_err(|error| unreadable(&error))?;
    let response = sender.send_request(request).await.map_err(|error| unreadable(&error))?;
    let body = Limited::new(response.into_body(), STATUS_BYTES)
        .collect()
        .await
        .map_err(|error| unreadable(&error))?;
    connection.abort();
    serde_json::from_slice(&body.to_bytes()).map_err(|error| unreadable(&error))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::status::{NodeStatus, ServerStatus};

    struct Still(AgentHealth);

    impl View for Still {
        fn status(&self) -> AgentStatus {
            AgentStatus {
                version: "1".into(),
                health: self.0,
                node: NodeStatus::default(),
                server: ServerStatus {
                    address: "https://ca.example.org:8443".into(),
                    connected_since: None,
                    last_heard: None,
                    trouble: None,
                },
                revision: None,
                workloads: 0,
                identities: Vec::new(),
                sinks: Vec::new(),
            }
        }

        fn metrics(&self) -> String {
            "# EOF\n".into()
        }
    }

    #[test]
    fn monitoring_sees_no_identities_and_nobody_changes_anything() {
        let get = |path, scope, health| respond(&Method::GET, path, scope, &Still(health)).status().as_u16();
        let (everything, little) = (Scope::Operator, Scope::Monitoring);
        assert_eq!(get("/status", everything, AgentHealth::Ok), 200);
        assert_eq!(get("/status", little, AgentHealth::Ok), 404);
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(get(path, little, AgentHealth::Degraded), 200, "{path}");
        }
        assert_eq!(get("/healthz", little, AgentHealth::Starting), 200);
        assert_eq!(get("/readyz", little, AgentHealth::Starting), 503);
        let post = respond(&Method::POST, "/status", everything, &Still(AgentHealth::Ok));
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn more_connections_than_fit_are_turned_away_and_nonsense_is_answered_with_an_end() {
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("status.sock");
        let socket = Socket::bind(&path, 0o600).await.unwrap();
        let serving = tokio::spawn(serve_unix(socket, Scope::Operator, Arc::new(Still(AgentHealth::Ok))));
        let mut nonsense = UnixStream::connect(&path).await.unwrap();
        nonsense.write_all(&[0x16; 64]).await.unwrap();
        let mut answer = Vec::new();
        nonsense.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");

        let mut waiting = Vec::new();
        for _ in 0..CONNECTIONS {
            waiting.push(UnixStream::connect(&path).await.unwrap());
        }
        // Every place is taken by somebody who says nothing.
        tokio::task::yield_now().await;
        assert!(ask_status(&path).await.is_err());
        drop(waiting);
        let deadline = tokio::time::Instant::now() + HEADERS;
        while ask_status(&path).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "their places are free again");
            tokio::task::yield_now().await;
        }
        serving.abort();
    }
}
