//! How a certificate of ours stands at the moment: what the ledger's read model knows about it.

use chancery_types::{
    AssuranceLevel, Digest, EvidenceKind, Generation, IdentityState, LineageId, RevocationReason, Role,
    SerialNumber, SpiffeId, Timestamp,
};

/// Status of one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateState {
    /// Neither revoked nor held. It may still have expired.
    Good,
    /// Held: not valid now, may come back.
    Held,
    /// Revoked for good.
    Revoked {
        /// Why.
        reason: RevocationReason,
    },
}

/// Where a certificate stands in its chain of renewals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineageStanding {
    /// The chain.
    pub lineage: LineageId,
    /// The generation of the certificate that was looked up.
    pub generation: Generation,
    /// The latest generation of the chain.
    pub current: Generation,
    /// The certificate of that generation.
    pub current_serial: SerialNumber,
    /// SHA-256 of that certificate's SubjectPublicKeyInfo.
    pub current_key: Digest,
    /// How the chain began.
    pub enrolled_by: EvidenceKind,
    /// What the evidence at its beginning was worth.
    pub assurance: AssuranceLevel,
    /// Whether that evidence could be shown again.
    pub repeatable: bool,
    /// When it began.
    pub enrolled_at: Timestamp,
}

/// One issued certificate with everything that a renewal or an operator's login depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateStanding {
    /// Its status.
    pub state: CertificateState,
    /// Whose it is.
    pub identity: SpiffeId,
    /// How that identity stands.
    pub identity_state: IdentityState,
    /// The identity's role, if it is an operator's.
    pub role: Option<Role>,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key: Digest,
    /// The profile that it was issued under.
    pub profile: String,
    /// Its end.
    pub not_after: Timestamp,
    /// Its place in its chain of renewals.
    pub lineage: LineageStanding,
}
