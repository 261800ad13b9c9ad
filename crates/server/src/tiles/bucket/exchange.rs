//! One signed request to an object store and its answer, over connections that are kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chancery_types::Clock;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, IF_NONE_MATCH};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use rustls::ClientConfig;
use tokio::time::Instant;

use super::address::Address;
use super::credentials::CredentialSource;
use super::refusal::Refusal;
use super::{BucketError, signature};
use crate::config::BucketPlace;
use crate::outbound::Connection;

/// Idle connections that are kept, and for how long: what stands between may forget them without a word.
const IDLE: usize = 16;
const IDLE_FOR: Duration = Duration::from_secs(60);
/// Bytes of a refusal that are read.
const REFUSAL_BYTES: usize = 64 << 10;

/// What is asked of a store.
#[derive(Debug)]
pub(super) enum Ask {
    /// An object of at most so many bytes.
    Get { most: usize },
    /// To write an object where there is none.
    Create(Bytes),
    /// To write an object over any that is there.
    Replace(Bytes),
}

/// The way to a bucket.
#[derive(Debug)]
pub(super) struct Exchange {
    address: Address,
    credentials: CredentialSource,
    /// Absent where it is spoken to in the clear.
    tls: Option<Arc<ClientConfig>>,
    clock: Arc<dyn Clock>,
    /// Connections that nobody uses, and since when.
    idle: Mutex<Vec<(Connection, Instant)>>,
}

impl Exchange {
    /// The way that is configured here and in the environment. Nothing is asked yet.
    pub(super) fn new(
        place: &BucketPlace,
        environment: impl Fn(&str) -> Option<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BucketError> {
        let address = Address::find(place, &environment).map_err(BucketError::Settings)?;
        let credentials = CredentialSource::find(place.credentials.as_deref(), environment)?;
        let tls = || crate::federation::web(&place.roots).map_err(BucketError::Settings).map(Arc::new);
        let tls = address.is_https().then(tls).transpose()?;
        Ok(Self { address, credentials, tls, clock, idle: Mutex::default() })
    }

    /// Asks once, for as long as it takes. What a success comes with is the object, or nothing.
    pub(super) async fn once(&self, name: &str, ask: &Ask) -> Result<Bytes, BucketError> {
        let credentials = self.credentials.now().await?;
        let mut request = self.request(name, ask)?;
        signature::sign(&mut request, &self.address.region, &credentials, self.clock.now())
            .map_err(|error| BucketError::Request(error.to_string()))?;
        let (connection, response) = self.send(request.map(Full::new)).await?;
        let (parts, body) = response.into_parts();
        let most = match ask {
            Ask::Get { most } if parts.status.is_success() => *most,
            _ => REFUSAL_BYTES,
        };
        let body = Limited::new(body, most).collect().await.map_err(|error| {
            match error.is::<LengthLimitError>() {
                true => BucketError::TooLong(most),
                false => BucketError::Cut(error.to_string()),
            }
        })?;
        self.keep(connection);
        match parts.status.is_success() {
            true => Ok(body.to_bytes()),
            false => Err(BucketError::Refused(Refusal::read(parts.status, &parts.headers, &body.to_bytes()))),
        }
    }

    fn request(&self, name: &str, ask: &Ask) -> Result<Request<Bytes>, BucketError> {
        let (method, body) = match ask {
            Ask::Get { .. } => (Method::GET, Bytes::new()),
            Ask::Create(object) | Ask::Replace(object) => (Method::PUT, object.clone()),
        };
        let request = Request::builder().method(method).uri(self.address.path(name));
        let mut request = request.body(body).map_err(|error| BucketError::Request(error.to_string()))?;
        let length = request.body().len();
        let headers = request.headers_mut();
        headers.insert(HOST, self.address.host.clone());
        if !matches!(ask, Ask::Get { .. }) {
            headers.insert(CONTENT_LENGTH, length.into());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        }
        if matches!(ask, Ask::Create(_)) {
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        Ok(request)
    }

    /// Sends over a connection that is kept, or over a new one: one that the store has closed shows it only now.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Connection, Response<Incoming>), BucketError> {
        while let Some(mut connection) = self.kept() {
            if connection.ready().await
                && let Ok(response) = connection.send(request.clone()).await
            {
                return Ok((connection, response));
            }
        }
        let mut connection = Connection::open(&self.address.server, self.tls.clone()).await?;
        let response = connection.send(request).await?;
        Ok((connection, response))
    }

    /// Closes idle connections: when one has failed the others may be as dead.
    pub(super) fn forget(&self) {
        self.idle().clear();
    }

    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|(_, since)| since.elapsed() < IDLE_FOR);
        idle.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < IDLE {
            idle.push((connection, Instant::now()));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
