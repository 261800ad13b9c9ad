//! Asks a local service one thing over HTTP, and takes no more for an answer than was agreed.

use std::io;

use bytes::Bytes;
use chancery_types::SecretString;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// It cannot be connected to.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, #[source] io::Error),
    /// It does not speak HTTP as it should.
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    /// The request cannot be written down.
    #[error("the request cannot be made: {0}")]
    Request(String),
    /// It answered something else than success.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// It answered more than it may.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    /// Its answer breaks off.
    #[error("its answer breaks off: {0}")]
    Body(String),
    /// Its answer is not what was asked for.
    #[error("its answer cannot be understood: {0}")]
    Answer(#[from] serde_json::Error),
    /// It took too long.
    #[error("it did not answer within {0:?}")]
    Late(std::time::Duration),
}

/// `GET path`, over a connection that is used for nothing else.
pub(super) async fn get<S>(
    stream: S,
    host: &str,
    path: &str,
    token: Option<&SecretString>,
    limit: usize,
) -> Result<Bytes, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends with this function, however it ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut request = Request::get(path).header(HOST, host).header(ACCEPT, "application/json");
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
            .map_err(|_| HttpError::Request("the token holds characters that no header may".into()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request =
        request.body(Empty::<Bytes>::new()).map_err(|error| HttpError::Request(error.to_string()))?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(HttpError::Status(response.status()));
    }
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLong(limit)),
        Err(error) => Err(HttpError::Body(error.to_string())),
    }
}

/// Status line and headers.
const MAX_HEAD: usize = 64 * 1024;
