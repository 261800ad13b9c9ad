//! One request and its answer: built, sent, repeated if it may be, read within limits, decoded.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chancery_api::{IDEMPOTENCY_KEY_HEADER, Operation, PROBLEM_MEDIA_TYPE, Problem, percent_encode};
use chancery_telemetry::step;
use chancery_types::{Random, RandomError};
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HOST, IF_MATCH, IF_NONE_MATCH};
use http_body_util::Full;
use hyper::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{Instrument as _, Span};

use crate::connection::Body;
use crate::pool::{Lease, Pool};
use crate::tls::client_config;
use crate::{
    ByteStream, ClientBuilder, ClientError, Endpoint, HttpVersion, RetryPolicy, TlsIdentity, TrustAnchors,
    TrustError,
};

/// A client of one server. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) pool: Pool,
    /// Whom it believes and what it shows; anchors are absent for sockets.
    pub(crate) credentials: Mutex<Credentials>,
    pub(crate) http_version: HttpVersion,
    pub(crate) request_timeout: Duration,
    pub(crate) response_bytes: usize,
    pub(crate) retry: RetryPolicy,
    pub(crate) random: Arc<dyn Random>,
}

/// Whom a client believes, and what it shows.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    pub(crate) anchors: Option<TrustAnchors>,
    pub(crate) identity: Option<TlsIdentity>,
}

/// The caller's own name for a request: a repetition with the same key has the first one's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// A fresh one: 128 random bits.
    ///
    /// # Errors
    /// When the randomness source fails.
    pub fn generate(random: &dyn Random) -> Result<Self, RandomError> {
        let mut bytes = [0_u8; 16];
        random.fill(&mut bytes)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// One that was chosen and kept by the caller, so that it survives a restart: visible ASCII, 1 to 128
    /// characters. Nothing for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=chancery_api::limits::IDEMPOTENCY_KEY_CHARACTERS).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A document that changes, as it is now.
#[derive(Debug, Clone)]
pub struct Tagged {
    /// The document.
    pub bytes: Bytes,
    /// By which to ask whether it is still the same (`ETag`).
    pub tag: Option<String>,
}

/// What to ask.
pub(crate) struct Call {
    operation: Operation,
    path: String,
    body: Option<(&'static str, Bytes)>,
    headers: Vec<(http::HeaderName, String)>,
    repeatable: bool,
    once: bool,
    alone: bool,
}

impl Call {
    /// A call of an operation; `parameters` fill its path.
    pub(crate) fn new(operation: Operation, parameters: &[&str]) -> Self {
        Self {
            operation,
            path: operation.fill(parameters),
            body: None,
            headers: Vec::new(),
            repeatable: matches!(
                operation.method(),
                chancery_api::Method::Get | chancery_api::Method::Delete
            ),
            once: false,
            alone: false,
        }
    }

    pub(crate) fn query<T: Serialize>(mut self, query: &T) -> Result<Self, ClientError> {
        let text = query_string(query).map_err(|detail| self.encode_error(detail))?;
        if !text.is_empty() {
            self.path = format!("{}?{text}", self.path);
        }
        Ok(self)
    }

    pub(crate) fn json<T: Serialize>(mut self, body: &T) -> Result<Self, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(|error| self.encode_error(error.to_string()))?;
        self.body = Some(("application/json", bytes.into()));
        Ok(self)
    }

    pub(crate) fn bytes(mut self, media_type: &'static str, body: Vec<u8>) -> Self {
        self.body = Some((media_type, body.into()));
        self
    }

    /// Repeating it does no harm: it only reads, or the server recognises it.
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// The caller repeats it when it likes.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// On a connection of its own: its answer lasts.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    pub(crate) fn idempotency_key(mut self, key: &IdempotencyKey) -> Self {
        self.headers.push((http::HeaderName::from_static(IDEMPOTENCY_KEY_HEADER), key.0.clone()));
        self.repeatable()
    }

    pub(crate) fn if_match(mut self, version: u64) -> Self {
        self.headers.push((IF_MATCH, format!("\"{version}\"")));
        self
    }

    pub(crate) fn if_none_match(mut self, tag: &str) -> Self {
        self.headers.push((IF_NONE_MATCH, tag.to_owned()));
        self
    }

    fn encode_error(&self, detail: String) -> ClientError {
        ClientError::Encode { operation: self.operation.id(), detail }
    }

    fn request(&self, endpoint: &Endpoint) -> Result<Request<Body>, ClientError> {
        let uri = format!("{}://{}{}", endpoint.scheme(), endpoint.authority(), self.path);
        let uri: http::Uri = uri.parse().map_err(|error| self.encode_error(format!("{error}")))?;
        let mut request = Request::builder()
            .method(self.operation.method().as_str())
            .header(HOST, endpoint.authority())
            .header(ACCEPT, format!("application/json, {PROBLEM_MEDIA_TYPE}, */*;q=0.5"));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some((media_type, _)) = &self.body {
            request = request.header(CONTENT_TYPE, *media_type);
        }
        if let (Some(trace), Some(headers)) = (chancery_telemetry::current(), request.headers_mut()) {
            trace.write(headers);
        }
        let body = self.body.as_ref().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        request.uri(uri).body(Full::new(body)).map_err(|error| self.encode_error(error.to_string()))
    }
}

impl Client {
    /// Begins a client of this endpoint.
    #[must_use]
    pub fn builder(endpoint: Endpoint) -> ClientBuilder {
        ClientBuilder::new(endpoint)
    }

    /// Where it connects to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.0.pool.endpoint()
    }

    /// Shows another client certificate from now on, as after a renewal. Requests under way are not
    /// disturbed; connections of the old certificate are not used again.
    ///
    /// # Errors
    /// [`ClientError::Trust`] when the key does not fit; the old identity stays.
    pub fn replace_identity(&self, identity: Option<&TlsIdentity>) -> Result<(), ClientError> {
        self.replace(|credentials| credentials.identity = identity.cloned())
    }

    /// Believes servers by these roots from now on. Requests under way finish on their connections.
    ///
    /// # Errors
    /// [`ClientError::Trust`]; the roots before stay.
    pub fn replace_trust(&self, anchors: TrustAnchors) -> Result<(), ClientError> {
        self.replace(|credentials| credentials.anchors = Some(anchors))
    }

    fn replace(&self, edit: impl FnOnce(&mut Credentials)) -> Result<(), ClientError> {
        let mut credentials = self.0.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        // A socket has no TLS and the caller is known by its user id.
        if credentials.anchors.is_none() {
            return Ok(());
        }
        let mut next =
            Credentials { anchors: credentials.anchors.clone(), identity: credentials.identity.clone() };
        edit(&mut next);
        let anchors = next.anchors.as_ref().ok_or(TrustError::Empty("trust bundle"))?;
        let config = client_config(anchors, next.identity.as_ref(), self.0.http_version)?;
        self.0.pool.replace_tls(Arc::new(config));
        *credentials = next;
        Ok(())
    }

    /// A fresh idempotency key.
    ///
    /// # Errors
    /// [`ClientError::Random`].
    pub fn new_idempotency_key(&self) -> Result<IdempotencyKey, ClientError> {
        Ok(IdempotencyKey::generate(&*self.0.random)?)
    }

    /// The answer, decoded.
    pub(crate) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let operation = call.operation.id();
        let bytes = self.call_bytes(call).await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Decode { operation, source })
    }

    /// The answer, as it came.
    pub(crate) async fn call_bytes(&self, call: Call) -> Result<Bytes, ClientError> {
        self.repeat(&call, |request| async {
            let work = async {
                let lease = self.0.pool.send(request).await?;
                let lease = self.checked(lease).await?;
                self.read(lease).await
            };
            self.within(self.0.request_timeout, "answer", work).await
        })
        .await
    }

    /// The answer, unless it is still the one that the call names; with the tag to name it by.
    pub(crate) async fn call_if_changed(&self, call: Call) -> Result<Option<Tagged>, ClientError> {
        self.repeat(&call, |request| async {
            let work = async {
                let lease = self.0.pool.send(request).await?;
                if lease.response.status() == StatusCode::NOT_MODIFIED {
                    self.read(lease).await?;
                    return Ok(None);
                }
                let lease = self.checked(lease).await?;
                let tag = lease.response.headers().get(ETAG);
                let tag = tag.and_then(|value| value.to_str().ok()).map(str::to_owned);
                Ok(Some(Tagged { bytes: self.read(lease).await?, tag }))
            };
            self.within(self.0.request_timeout, "answer", work).await
        })
        .await
    }

    /// The answer, as it comes. The timeout holds for its beginning and then for each part.
    pub(crate) async fn call_stream(&self, call: Call) -> Result<ByteStream, ClientError> {
        let lease = self
            .repeat(&call, |request| async {
                let work = async {
                    let pool = &self.0.pool;
                    let lease =
                        if call.alone { pool.send_alone(request).await } else { pool.send(request).await }?;
                    self.checked(lease).await
                };
                self.within(self.0.request_timeout, "answer", work).await
            })
            .await?;
        Ok(ByteStream::new(self.clone(), lease))
    }

    async fn repeat<T, F, Fut>(&self, call: &Call, attempt_once: F) -> Result<T, ClientError>
    where
        F: Fn(Request<Body>) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let mut attempt = 1;
        loop {
            let step = self.step(call, attempt);
            let request = step.in_scope(|| call.request(self.endpoint()))?;
            let error = match attempt_once(request).instrument(step.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            step.record("otel.status_code", "ERROR").record("error.type", error.kind());
            // What was never sent can be repeated whatever it was.
            if call.once || !call.repeatable && !matches!(error, ClientError::Connect { .. }) {
                return Err(error);
            }
            let Some(delay) = self.0.retry.delay(attempt, &error, &*self.0.random)? else {
                return Err(error);
            };
            tracing::debug!(operation = call.operation.id(), attempt, ?delay, %error, "will repeat the request");
            tokio::time::sleep(delay).await;
            attempt += 1;
        }
    }

    /// One attempt, as it is shown in a trace.
    fn step(&self, call: &Call, attempt: u32) -> Span {
        let operation = call.operation;
        step!(
            "call",
            otel.name = operation.id(),
            otel.kind = "client",
            http.request.method = operation.method().as_str(),
            http.route = operation.path(),
            http.request.resend_count = attempt - 1,
            server.address = self.endpoint().authority(),
            otel.status_code = tracing::field::Empty,
            error.type = tracing::field::Empty,
        )
    }

    pub(crate) async fn within<T>(
        &self,
        timeout: Duration,
        what: &'static str,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => {
                Err(ClientError::Timeout { endpoint: self.endpoint().to_string(), what, after: timeout })
            }
        }
    }

    /// Passes a success on; turns anything else into its problem.
    async fn checked(&self, lease: Lease) -> Result<Lease, ClientError> {
        let status = lease.response.status();
        if status.is_success() {
            return Ok(lease);
        }
        let body = self.read(lease).await?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(ClientError::Problem(Box::new(problem))),
            Err(_) => Err(ClientError::Unexpected {
                endpoint: self.endpoint().to_string(),
                status: status.as_u16(),
                excerpt: String::from_utf8_lossy(&body[..body.len().min(EXCERPT_BYTES)]).into_owned(),
            }),
        }
    }

    async fn read(&self, mut lease: Lease) -> Result<Bytes, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = lease.next_chunk().await.map_err(|source| self.broken(source))? {
            if body.len() + chunk.len() > self.0.response_bytes {
                return Err(ClientError::TooLarge { limit: self.0.response_bytes });
            }
            body.extend_from_slice(&chunk);
        }
        self.0.pool.give_back(lease);
        Ok(body.into())
    }

    pub(crate) fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken { endpoint: self.endpoint().to_string(), source }
    }
}

/// Bytes of a foreign answer that an error shows.
const EXCERPT_BYTES: usize = 200;

/// A query string of the fields of a flat struct; absent ones are left out.
fn query_string<T: Serialize>(query: &T) -> Result<String, String> {
    let fields = match serde_json::to_value(query).map_err(|error| error.to_string())? {
        serde_json::Value::Object(fields) => fields,
        other => return Err(format!("a query must be a struct, not {other}")),
    };
    let mut pairs = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let text = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text,
            serde_json::Value::Bool(flag) => flag.to_string(),
            serde_json::Value::Number(number) => number.to_string(),
            nested => return Err(format!("the query field {name} is not flat: {nested}")),
        };
        pairs.push(format!("{}={}", percent_encode(&name), percent_encode(&text)));
    }
    Ok(pairs.join("&"))
}
