//! Push (RFC 8935): one token after the other, each until it is taken.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chancery_types::{IdentityState, SecretString};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use rustls::ClientConfig;

use super::record::{Delivery, check_address};
use super::stream::Stream;
use super::token::Due;
use super::{SsfError, Transmitter};
use crate::outbound::{ConnectError, Connection};

/// How long a receiver may take for one token.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a receiver's answer that are read.
const MAX_ANSWER: usize = 16 * 1024;
/// How long to wait after the first failure; twice as long after each that follows, up to the other.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Where events may be pushed to, and whom to believe that it is there.
pub(super) struct Pusher {
    pub(super) hosts: BTreeSet<String>,
    pub(super) tls: Arc<ClientConfig>,
}

/// Why a token was not taken.
#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the request failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("it answered {0}")]
    Refused(String),
    #[error("it took more than {PATIENCE:?}")]
    Late,
    #[error("the stream's owner is not active")]
    Owner,
    #[error("this server pushes nowhere")]
    Nowhere,
    #[error(transparent)]
    Own(#[from] SsfError),
}

/// A connection that is used again, and for which address.
struct Kept {
    url: String,
    connection: Connection,
}

impl Transmitter {
    /// Looks after a stream for as long as there is one.
    pub(super) fn start_pushing(self: &Arc<Self>, stream: Arc<Stream>) {
        let transmitter = Arc::clone(self);
        let stop = self.shutdown.clone();
        self.shutdown.spawn(async move {
            tokio::select! {
                () = transmitter.push_all(&stream) => {}
                () = stop.begun() => {}
            }
        });
    }

    async fn push_all(&self, stream: &Stream) {
        let mut changed = self.changed.subscribe();
        let mut kept = None;
        let mut failures = 0;
        while !stream.is_removed() {
            changed.borrow_and_update();
            let Some(due) = self.next(stream) else {
                kept = None;
                if changed.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let pushed = tokio::time::timeout(PATIENCE, self.push(stream, &due, &mut kept)).await;
            match pushed.unwrap_or(Err(PushError::Late)) {
                Ok(()) => {
                    failures = 0;
                    stream.settle(&[&due.name(&stream.id)], &self.facts());
                    stream.succeeded(self.authority.clock().now());
                }
                Err(error) => {
                    kept = None;
                    let wait = pause(failures);
                    failures += 1;
                    tracing::warn!(stream = stream.id, %error, ?wait, "a security event was not taken");
                    stream.failed(error.to_string());
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = stream.kicked() => failures = 0,
                    }
                }
            }
        }
    }

    fn next(&self, stream: &Stream) -> Option<Due> {
        if !stream.record().delivery.is_push() {
            return None;
        }
        stream.due(1, &self.facts()).0.pop()
    }

    async fn push(&self, stream: &Stream, due: &Due, kept: &mut Option<Kept>) -> Result<(), PushError> {
        let record = stream.record();
        let Delivery::Push { url, authorization } = &record.delivery else { return Ok(()) };
        let owner = self.authority.ledger().identity(&record.owner).await.map_err(SsfError::from)?;
        if owner.is_none_or(|owner| owner.state != IdentityState::Active) {
            return Err(PushError::Owner);
        }
        // What operators permit may be less than when the stream was made.
        let uri = check_address(url, self.push_hosts())?;
        let pusher = self.pusher.as_ref().ok_or(PushError::Nowhere)?;
        let token = self.sign(&record, due).await?;
        let mut connection = match kept.take() {
            Some(Kept { url: kept, connection }) if kept == *url && connection.is_ready() => connection,
            _ => Connection::open(&uri, Some(Arc::clone(&pusher.tls))).await?,
        };
        let response = connection.send(request(&uri, token, authorization.as_ref())?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        if status.is_success() {
            if body.is_ok() {
                *kept = Some(Kept { url: url.clone(), connection });
            }
            return Ok(());
        }
        let text = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(PushError::Refused(refusal(status, &text)))
    }
}

/// RFC 8935 section 2.1.
fn request(
    uri: &Uri,
    token: String,
    authorization: Option<&SecretString>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/secevent+jwt")
        .header(ACCEPT, "application/json");
    if let Some(secret) = authorization {
        let mut value = HeaderValue::from_str(secret.expose_secret())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(Full::from(token))
}

/// What a receiver says of a token that it does not take (RFC 8935 section 2.3).
fn refusal(status: http::StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<chancery_api::SetError>(body) {
        Ok(error) => format!("{status}, {}: {}", error.err, error.description),
        Err(_) => status.to_string(),
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_after_each_failure_but_not_for_ever() {
        assert_eq!(pause(0), Duration::from_secs(1));
        assert_eq!(pause(3), Duration::from_secs(8));
        assert_eq!(pause(60), LONGEST_PAUSE);
    }
}
