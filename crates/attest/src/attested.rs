//! What a verifier vouches for.

use std::collections::BTreeMap;

use chancery_types::{
    AssuranceLevel, Claims, Digest, EvidenceKind, Generation, LineageId, SerialNumber, SpiffeId, TokenId,
};
use serde::{Deserialize, Serialize};

/// Which identity the evidence speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The evidence names this identity and is evidence of no other.
    Named(SpiffeId),
    /// The identity that the named template makes of these parameters.
    Template {
        /// The template's name.
        name: String,
        /// Values for its placeholders.
        parameters: BTreeMap<String, String>,
    },
    /// Whichever identity's selectors the claims fulfil; the requester may have said which one it means.
    ByClaims {
        /// The identity that the requester asks for. A wish, not a fact.
        wanted: Option<SpiffeId>,
    },
}

/// Which certificate a renewal continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewedFrom {
    /// The chain of renewals.
    pub lineage: LineageId,
    /// The presented certificate's generation, which is the lineage's current one: the renewal makes the next.
    pub generation: Generation,
    /// The presented certificate.
    pub serial: SerialNumber,
}

/// Evidence that a verifier of this crate accepted. Only this crate can make one; it cannot be cloned.
#[derive(Debug)]
pub struct Attested {
    kind: EvidenceKind,
    subject: Subject,
    claims: Claims,
    assurance: AssuranceLevel,
    repeatable: bool,
    bound_key: Option<Digest>,
    evidence_hash: Digest,
    spends: Option<TokenId>,
    lineage: Option<RenewedFrom>,
    vouched_by: Option<SerialNumber>,
}

impl Attested {
    /// An acceptance without key binding, obligation and lineage; the verifiers add those.
    pub(crate) fn new(
        kind: EvidenceKind,
        subject: Subject,
        claims: Claims,
        assurance: AssuranceLevel,
        evidence_hash: Digest,
    ) -> Self {
        Self {
            kind,
            subject,
            claims,
            assurance,
            repeatable: false,
            bound_key: None,
            evidence_hash,
            spends: None,
            lineage: None,
            vouched_by: None,
        }
    }

    pub(crate) fn repeatable(mut self, repeatable: bool) -> Self {
        self.repeatable = repeatable;
        self
    }

    pub(crate) fn bound_to(mut self, key: Option<Digest>) -> Self {
        self.bound_key = key;
        self
    }

    pub(crate) fn spending(mut self, token: TokenId) -> Self {
        self.spends = Some(token);
        self
    }

    pub(crate) fn continuing(mut self, lineage: RenewedFrom) -> Self {
        self.lineage = Some(lineage);
        self
    }

    pub(crate) fn vouched_by_node(mut self, certificate: SerialNumber) -> Self {
        self.vouched_by = Some(certificate);
        self
    }

    /// The certificate of the node that vouches for a process: it must still count when the order is decided.
    #[must_use]
    pub fn vouched_by(&self) -> Option<SerialNumber> {
        self.vouched_by
    }

    /// The kind of evidence that was accepted.
    #[must_use]
    pub fn kind(&self) -> EvidenceKind {
        self.kind
    }

    /// Which identity it speaks for.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The identity that the evidence names, or that the requester asks for; the template's is not made yet.
    #[must_use]
    pub fn identity_hint(&self) -> Option<&SpiffeId> {
        match &self.subject {
            Subject::Named(identity) => Some(identity),
            Subject::Template { .. } => None,
            Subject::ByClaims { wanted } => wanted.as_ref(),
        }
    }

    /// The proven facts.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// How much the proof is worth.
    #[must_use]
    pub fn assurance(&self) -> AssuranceLevel {
        self.assurance
    }

    /// Whether the requester can show such evidence again at every renewal.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// SHA-256 of the only SubjectPublicKeyInfo (DER) that this evidence is good for. `None`: for any key. The
    /// verifier has compared it with the request's key already; the issuing step compares once more.
    #[must_use]
    pub fn bound_key(&self) -> Option<Digest> {
        self.bound_key
    }

    /// SHA-256 over a canonical encoding of the evidence and the key it was shown for. Secrets are not in it.
    #[must_use]
    pub fn evidence_hash(&self) -> Digest {
        self.evidence_hash
    }

    /// The token whose spending must be committed together with the issuance, or not at all.
    #[must_use]
    pub fn spends(&self) -> Option<TokenId> {
        self.spends
    }

    /// For renewals: the certificate that is continued. The ledger must find the lineage at that generation.
    #[must_use]
    pub fn lineage(&self) -> Option<RenewedFrom> {
        self.lineage
    }
}
