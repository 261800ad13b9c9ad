//! The trait that every kind of evidence is verified behind, and the set of verifiers of a server.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::{Digest, EvidenceKind, Timestamp};

use crate::{AttestError, Attested, Evidence};

/// What a verifier may know about the request besides the evidence.
#[derive(Debug, Clone, Copy)]
pub struct AttestContext<'a> {
    /// The moment of the decision.
    pub now: Timestamp,
    /// SHA-256 of the SubjectPublicKeyInfo (DER) that a certificate is asked for. The requester must have
    /// proved possession of it (a CSR's self-signature), or the caller must have a reason not to ask.
    pub request_key: Digest,
    /// The name under which requesters know this authority: its trust domain. Signed proofs are bound to it.
    pub server_name: &'a str,
}

/// Turns one kind of evidence into [`Attested`], or says why not.
#[async_trait]
pub trait Verifier: Send + Sync {
    /// The kind that it verifies.
    fn kind(&self) -> EvidenceKind;

    /// Verifies evidence of that kind.
    ///
    /// # Errors
    /// [`AttestError`]: [`AttestError::WrongKind`] for another kind of evidence, otherwise what is wrong.
    async fn verify(&self, evidence: Evidence, context: &AttestContext<'_>) -> Result<Attested, AttestError>;
}

/// The verifiers that a server has switched on, at most one for each kind.
#[derive(Clone, Default)]
pub struct Verifiers(BTreeMap<EvidenceKind, Arc<dyn Verifier>>);

impl Verifiers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this one in the place of any of the same kind.
    #[must_use]
    pub fn with(mut self, verifier: Arc<dyn Verifier>) -> Self {
        self.0.insert(verifier.kind(), verifier);
        self
    }

    /// The kinds that are switched on.
    pub fn kinds(&self) -> impl Iterator<Item = EvidenceKind> + '_ {
        self.0.keys().copied()
    }

    /// Hands the evidence to the verifier of its kind.
    ///
    /// # Errors
    /// [`AttestError::NotConfigured`] when there is none, otherwise the verifier's own.
    pub async fn verify(
        &self,
        evidence: Evidence,
        context: &AttestContext<'_>,
    ) -> Result<Attested, AttestError> {
        let kind = evidence.kind();
        let verifier = self.0.get(&kind).ok_or(AttestError::NotConfigured { kind })?;
        verifier.verify(evidence, context).await
    }
}

impl std::fmt::Debug for Verifiers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}
