//! Requests whose sender is known to hold the private key: the only ones that issuance takes.

use chancery_types::{Digest, SubjectName};

use crate::{CertificateRequest, Ignored, PublicKey};

/// How it is known that the requester holds the private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Possession {
    /// The request is signed with the key.
    Signature,
    /// An attested agent made the key and said so in evidence that covers the whole batch.
    VouchedByAgent {
        /// Hash of that evidence, as the ledger records it.
        evidence: Digest,
    },
}

/// A key with the names asked for, whose possession is proven: by [`CertificateRequest::verify`], or by an
/// attested agent that answers for a whole batch.
///
/// The batch exists because verifying a signature costs more than everything else in issuing a certificate.
/// An agent that was attested to generate its workloads' keys itself signs one statement over all of them;
/// whoever has verified that statement may use the two constructors named after it. What they skip: that each
/// single key can sign. What remains: that the agent, which could ask for any of its workloads anyway, says
/// so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenRequest {
    source: Source,
    possession: Possession,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Request(Box<CertificateRequest>),
    Key { public_key: PublicKey, names: Vec<SubjectName> },
}

impl ProvenRequest {
    /// What [`CertificateRequest::verify`] returns after it has verified.
    pub(crate) fn from_verified(request: CertificateRequest) -> Self {
        Self { source: Source::Request(Box::new(request)), possession: Possession::Signature }
    }

    /// Skips the request's own signature: an attested agent vouches for the key, by evidence with this hash
    /// that the caller has verified to cover it.
    #[must_use]
    pub fn dangerous_request_vouched_by_attested_agent(
        request: CertificateRequest,
        evidence: Digest,
    ) -> Self {
        Self {
            source: Source::Request(Box::new(request)),
            possession: Possession::VouchedByAgent { evidence },
        }
    }

    /// Takes a bare key without any signature: an attested agent vouches for it, by evidence with this hash
    /// that the caller has verified to cover it.
    #[must_use]
    pub fn dangerous_key_vouched_by_attested_agent(
        public_key: PublicKey,
        names: Vec<SubjectName>,
        evidence: Digest,
    ) -> Self {
        Self {
            source: Source::Key { public_key, names },
            possession: Possession::VouchedByAgent { evidence },
        }
    }

    /// How possession is known.
    #[must_use]
    pub fn possession(&self) -> Possession {
        self.possession
    }

    /// The key to be certified.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        match &self.source {
            Source::Request(request) => request.public_key(),
            Source::Key { public_key, .. } => public_key,
        }
    }

    /// The subject alternative names asked for.
    #[must_use]
    pub fn names(&self) -> &[SubjectName] {
        match &self.source {
            Source::Request(request) => request.names(),
            Source::Key { names, .. } => names,
        }
    }

    /// What was asked for and has no effect.
    #[must_use]
    pub fn ignored(&self) -> &[Ignored] {
        self.request().map_or(&[], CertificateRequest::ignored)
    }

    /// Whether it asks for the powers of a CA.
    #[must_use]
    pub fn asks_for_ca(&self) -> bool {
        self.request().is_some_and(CertificateRequest::asks_for_ca)
    }

    /// The PKCS #10 request, unless it was a bare key.
    #[must_use]
    pub fn request(&self) -> Option<&CertificateRequest> {
        match &self.source {
            Source::Request(request) => Some(request),
            Source::Key { .. } => None,
        }
    }
}
