//! Choosing what a client trusts, who it is, and how patient it is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chancery_types::{Random, SystemRandom};

use crate::exchange::{Credentials, Inner};
use crate::pool::Pool;
use crate::tls::client_config;
use crate::{Client, ClientError, Endpoint, HttpVersion, RetryPolicy, TlsIdentity, TrustAnchors, TrustError};

/// A client in the making.
#[derive(Debug)]
pub struct ClientBuilder {
    endpoint: Endpoint,
    anchors: Option<TrustAnchors>,
    identity: Option<TlsIdentity>,
    http_version: HttpVersion,
    connect_timeout: Duration,
    request_timeout: Duration,
    response_bytes: usize,
    retry: RetryPolicy,
    random: Arc<dyn Random>,
}

impl ClientBuilder {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            anchors: None,
            identity: None,
            http_version: HttpVersion::default(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            response_bytes: 16 * 1024 * 1024,
            retry: RetryPolicy::default(),
            random: Arc::new(SystemRandom),
        }
    }

    /// The roots to trust. Required for `https://`, without meaning for a socket.
    #[must_use]
    pub fn trust(mut self, anchors: TrustAnchors) -> Self {
        self.anchors = Some(anchors);
        self
    }

    /// The client certificate to show.
    #[must_use]
    pub fn identity(mut self, identity: TlsIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Which HTTP to speak; the best that both have, if not set.
    #[must_use]
    pub fn http_version(mut self, version: HttpVersion) -> Self {
        self.http_version = version;
        self
    }

    /// How long connecting and shaking hands may take; 10 seconds if not set.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one attempt of a request may take, and each part of a stream; 30 seconds if not set.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How many bytes of an answer are held in memory; 16 MiB if not set. Streams are not limited.
    #[must_use]
    pub fn response_bytes(mut self, limit: usize) -> Self {
        self.response_bytes = limit;
        self
    }

    /// How persistent to be.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Where idempotency keys and delays come from; the system, if not set.
    #[must_use]
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// The client. Connects only when it is used.
    ///
    /// # Errors
    /// [`ClientError::Trust`] when an `https://` endpoint has no roots, or key and certificate do not fit.
    pub fn build(self) -> Result<Client, ClientError> {
        let (anchors, tls) = match (&self.endpoint, self.anchors) {
            (Endpoint::Unix(_), _) => (None, None),
            (Endpoint::Https { .. }, None) => return Err(TrustError::Empty("trust bundle").into()),
            (Endpoint::Https { .. }, Some(anchors)) => {
                let config = client_config(&anchors, self.identity.as_ref(), self.http_version)?;
                (Some(anchors), Some(Arc::new(config)))
            }
        };
        Ok(Client(Arc::new(Inner {
            pool: Pool::new(self.endpoint, tls, self.connect_timeout),
            credentials: Mutex::new(Credentials { anchors, identity: self.identity }),
            http_version: self.http_version,
            request_timeout: self.request_timeout,
            response_bytes: self.response_bytes,
            retry: self.retry,
            random: self.random,
        })))
    }

    /// Where it will connect to, and how long that may take: what a bootstrap needs.
    pub(crate) fn bootstrap_parts(&self) -> (Endpoint, Duration, Duration, RetryPolicy, Arc<dyn Random>) {
        (
            self.endpoint.clone(),
            self.connect_timeout,
            self.request_timeout,
            self.retry,
            Arc::clone(&self.random),
        )
    }
}
