//! What a workload is entitled to: the one thing that every door of the agent serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::{SecretBytes, SerialNumber, SpiffeId, Timestamp, TrustDomain};
use tokio::sync::watch;

use crate::workload::{Depth, Workload};

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct X509Svid {
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// Its serial number.
    pub serial: SerialNumber,
    /// The certificate and the issuers up to, and without, the root: DER, the leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Its key, PKCS#8 DER, unencrypted.
    pub key: SecretBytes,
    /// How programs with several identities tell them apart; empty if the identity has none.
    pub hint: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// Names of other trust domains whose members this identity deals with.
    pub federates_with: Vec<TrustDomain>,
}

/// What it takes to believe the members of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bundle {
    /// X.509 authorities, DER.
    pub x509_authorities: Vec<Vec<u8>>,
    /// Keys of JWT-SVIDs as a JWKS document (`{"keys": [...]}`), JSON.
    pub jwt_keys: Vec<u8>,
}

/// The bundles of every trust domain that this agent knows, its own among them.
pub type Bundles = BTreeMap<TrustDomain, Arc<Bundle>>;

/// Everything X.509 that one workload gets. No SVIDs: it is nobody.
#[derive(Debug, Clone, Default)]
pub struct X509State {
    /// Its certificates; the default one first.
    pub svids: Vec<Arc<X509Svid>>,
    /// Bundles of the trust domains that its SVIDs are of or federate with.
    pub bundles: Bundles,
    /// Revocation lists, DER; empty unless configured.
    pub crls: Vec<Vec<u8>>,
}

/// A JWT-SVID.
#[derive(Debug, Clone)]
pub struct JwtSvid {
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// The token, JWS compact form.
    pub token: String,
    /// As of [`X509Svid::hint`].
    pub hint: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why a JWT-SVID was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// The workload has no such identity.
    #[error("no identity issued")]
    NoIdentity,
    /// The authority did not answer, and nothing usable is in the cache.
    #[error("the authority cannot be reached: {0}")]
    Unavailable(String),
    /// The authority refused.
    #[error("the authority refused: {0}")]
    Refused(String),
}

/// What the doors serve: the agent's core, or a double of it in the doors' tests.
#[async_trait]
pub trait Identities: Send + Sync + 'static {
    /// Whether it is known by now who is entitled to what. Until then a workload without an identity is told to try
    /// again instead of that it has none.
    fn is_ready(&self) -> bool {
        true
    }

    /// How closely processes have to be looked at to know what they are, now and at every change.
    fn depth(&self) -> watch::Receiver<Depth>;

    /// The state of a workload, now and at every change. The first value is there when this returns: SVIDs that
    /// had to be fetched first have been waited for.
    async fn x509(&self, workload: &Workload) -> watch::Receiver<Arc<X509State>>;

    /// All bundles, now and at every change.
    fn bundles(&self) -> watch::Receiver<Arc<Bundles>>;

    /// Whether a workload has any identity at all.
    async fn is_entitled(&self, workload: &Workload) -> bool;

    /// JWT-SVIDs for these audiences: of one identity, or of all that the workload has.
    ///
    /// # Errors
    /// [`JwtError`].
    async fn jwt(
        &self,
        workload: &Workload,
        audiences: &[String],
        identity: Option<&SpiffeId>,
    ) -> Result<Vec<JwtSvid>, JwtError>;
}
