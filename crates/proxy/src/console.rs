//! Metrics and health over plain HTTP, for the machine's own scraper and supervisor.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::tunnel::{Address, Listening};

/// What is asked for.
pub(crate) trait Console: Send + Sync + 'static {
    /// What Prometheus reads.
    fn metrics(&self) -> String;
    /// Why it is not ready; nothing when it is.
    fn trouble(&self) -> Option<String>;
}

/// Serves until the handle is dropped.
pub(crate) async fn serve(
    address: &Address,
    console: Arc<dyn Console>,
) -> std::io::Result<AbortOnDropHandle<()>> {
    let listening = Listening::at(address).await?;
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
            match listening.accept().await {
                Ok(socket) => {
                    let console = Arc::clone(&console);
                    tokio::spawn(async move {
                        converse(socket, console).await;
                        drop(permit);
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })))
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, console: Arc<dyn Console>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &*console);
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    // A scraper that goes away is nothing to speak of.
    let _ = connection.await;
}

fn answer(method: &Method, path: &str, console: &dyn Console) -> Response<Full<Bytes>> {
    let (status, text) = match (method, path) {
        (&Method::GET, "/metrics") => (StatusCode::OK, console.metrics()),
        (&Method::GET, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/readyz") => match console.trouble() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, trouble + "\n"),
        },
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "there is /metrics, /healthz and /readyz\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "there is only GET\n".to_owned()),
    };
    let media_type = if path == "/metrics" {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain"
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(media_type));
    response
}

/// Connections at once.
const MOST_CONNECTIONS: usize = 64;
/// For the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
