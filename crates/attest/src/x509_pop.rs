//! Proof of possession of a foreign certificate's key: assurance AL2, and it can be asked for again.
//!
//! The requester fetches a nonce, signs [`proof_message`] with the leaf's key, and sends chain, nonce and
//! signature. The message holds the new key's fingerprint, so that the proof cannot be moved to another
//! request, and the server's name, so that it cannot be moved to another server.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::{AssuranceLevel, Digest, EvidenceKind, Timestamp};
use webpki::EndEntityCert;

use crate::foreign_chain::ForeignChain;
use crate::transcript::Transcript;
use crate::{
    AttestContext, AttestError, Attested, Evidence, ForeignAuthority, ForeignAuthorityError, Nonce, Nonces,
    PopError, PopEvidence, Subject, Verifier,
};

/// The longest signature: that of an 8192-bit RSA key.
const MAX_SIGNATURE: usize = 1024;

/// What the leaf's key signs: for the label `chancery x509 proof of possession v1` and then for the nonce, the
/// server's name and the SHA-256 of the new key's SubjectPublicKeyInfo, each time a 32-bit big-endian length
/// and the bytes.
#[must_use]
pub fn proof_message(nonce: &Nonce, server_name: &str, request_key: &Digest) -> Vec<u8> {
    Transcript::new("chancery x509 proof of possession v1")
        .field(nonce.as_bytes())
        .field(server_name.as_bytes())
        .field(request_key.as_bytes())
        .into_bytes()
}

/// Verifies chains of configured foreign authorities and signatures with their leaf's key.
#[derive(Clone)]
pub struct X509PopVerifier {
    authorities: Vec<Arc<ForeignAuthority>>,
    nonces: Arc<dyn Nonces>,
}

impl X509PopVerifier {
    /// A verifier that trusts these authorities and takes these nonces back.
    ///
    /// # Errors
    /// [`ForeignAuthorityError::Duplicate`] when two authorities have the same name.
    pub fn new(
        authorities: Vec<Arc<ForeignAuthority>>,
        nonces: Arc<dyn Nonces>,
    ) -> Result<Self, ForeignAuthorityError> {
        let mut names = BTreeSet::new();
        for authority in &authorities {
            if !names.insert(authority.name()) {
                return Err(ForeignAuthorityError::Duplicate(authority.name().to_owned()));
            }
        }
        Ok(Self { authorities, nonces })
    }

    /// The first authority that vouches for the chain, or the most telling reason why none does.
    fn authority_of(&self, chain: &ForeignChain<'_>, now: Timestamp) -> Result<&ForeignAuthority, PopError> {
        let mut reason = PopError::Untrusted { why: "its issuer is not configured".to_owned() };
        for authority in &self.authorities {
            match authority.judge(chain, now) {
                Ok(()) => return Ok(authority),
                Err(error) if telling(&error) >= telling(&reason) => reason = error,
                Err(_) => {}
            }
        }
        Err(reason)
    }
}

#[async_trait]
impl Verifier for X509PopVerifier {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::X509Pop
    }

    async fn verify(&self, evidence: Evidence, context: &AttestContext<'_>) -> Result<Attested, AttestError> {
        let Evidence::X509Pop(evidence) = evidence else {
            return Err(AttestError::WrongKind { expected: self.kind(), got: evidence.kind() });
        };
        if evidence.signature.len() > MAX_SIGNATURE {
            let size = evidence.signature.len();
            return Err(PopError::SignatureTooLarge { size, limit: MAX_SIGNATURE }.into());
        }
        let chain = ForeignChain::read(&evidence.chain)?;
        if !self.nonces.consume(&evidence.nonce, context.now).await? {
            return Err(PopError::Nonce.into());
        }
        let authority = self.authority_of(&chain, context.now)?;
        verify_possession(&chain, &evidence, context)?;
        let claims = chain.claims(authority.name())?;
        let hash = evidence_hash(&evidence, context);
        let subject = Subject::ByClaims { wanted: evidence.wanted };
        let attested =
            Attested::new(EvidenceKind::X509Pop, subject, claims, AssuranceLevel::Repeatable, hash)
                .repeatable(true)
                .bound_to(Some(context.request_key));
        Ok(attested)
    }
}

fn verify_possession(
    chain: &ForeignChain<'_>,
    evidence: &PopEvidence,
    context: &AttestContext<'_>,
) -> Result<(), PopError> {
    let wrong = || PopError::Signature { server: context.server_name.to_owned() };
    let leaf = EndEntityCert::try_from(&chain.leaf).map_err(|_| wrong())?;
    let message = proof_message(&evidence.nonce, context.server_name, &context.request_key);
    leaf.verify_signature(chain.proof_algorithm, &message, &evidence.signature).map_err(|_| wrong())
}

fn evidence_hash(evidence: &PopEvidence, context: &AttestContext<'_>) -> Digest {
    let transcript = Transcript::new("chancery evidence x509-pop v1")
        .field(evidence.nonce.as_bytes())
        .field(context.server_name.as_bytes())
        .field(context.request_key.as_bytes())
        .field(&evidence.signature);
    evidence.chain.iter().fold(transcript, |transcript, certificate| transcript.field(certificate)).digest()
}

/// How much a reason says: an authority that knows the certificate and refuses it says more than one that has
/// never heard of it.
fn telling(error: &PopError) -> u8 {
    match error {
        PopError::Revoked { .. } => 4,
        PopError::RevocationUnknown { .. } => 3,
        PopError::Purpose { .. } => 2,
        PopError::NotValidNow { .. } => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
