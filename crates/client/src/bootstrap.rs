//! From a root's fingerprint to trust: the first connection of somebody who has nothing else.
//!
//! The bundle is fetched from a server that is not yet trusted. The one root in it whose SHA-256 is the
//! fingerprint is kept; everything else, the connection included, is thrown away.

use std::sync::{Arc, Mutex};

use chancery_api::Operation;
use chancery_types::Digest;

use crate::exchange::{Call, Inner};
use crate::pool::Pool;
use crate::tls::{certificates, dangerous_unauthenticated_config};
use crate::{Client, ClientBuilder, ClientError, Endpoint, HttpVersion, TrustAnchors, TrustError};

/// Bytes of a bundle that is read from a server nobody vouches for yet.
const BUNDLE_BYTES: usize = 256 * 1024;

impl ClientBuilder {
    /// Finds the root with this fingerprint (SHA-256 of its DER) in the server's bundle, and trusts it alone.
    ///
    /// # Errors
    /// [`TrustError::Fingerprint`] when the server shows no such root; connection errors.
    pub async fn trust_fingerprint(self, fingerprint: Digest) -> Result<Self, ClientError> {
        let anchors = self.fetch_root(fingerprint).await?;
        Ok(self.trust(anchors))
    }

    async fn fetch_root(&self, expected: Digest) -> Result<TrustAnchors, ClientError> {
        let (endpoint, connect_timeout, request_timeout, retry, random) = self.bootstrap_parts();
        if matches!(endpoint, Endpoint::Unix(_)) {
            return Err(TrustError::FingerprintOnSocket.into());
        }
        let tls = Arc::new(dangerous_unauthenticated_config());
        let untrusting = Client(Arc::new(Inner {
            pool: Pool::new(endpoint, Some(tls), connect_timeout),
            credentials: Mutex::default(),
            http_version: HttpVersion::Http1,
            request_timeout,
            response_bytes: BUNDLE_BYTES,
            retry,
            random,
        }));
        let pem = untrusting.call_bytes(Call::new(Operation::Bundle, &[])).await?;
        let roots = certificates("server's bundle", &pem)?;
        let count = roots.len();
        let root = roots
            .into_iter()
            .find(|root| Digest::of(root) == expected)
            .ok_or(TrustError::Fingerprint { expected, count })?;
        Ok(TrustAnchors::from_certificates([root])?)
    }
}
