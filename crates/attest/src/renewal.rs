//! The current certificate as evidence for the next one.
//!
//! A renewal proves no more than its enrolment did, so its assurance is the enrolment's, from the record. What
//! it does prove is that the requester holds the latest key of its lineage. Whoever shows an older generation
//! has a copy, or has been copied from: that is [`RenewalError::LineageFork`], and the caller holds both.

use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::{ClaimValue, Claims, Digest, EvidenceKind, IdentityState, SerialNumber, Timestamp};
use der::{Decode, Encode};
use x509_cert::Certificate;

use crate::transcript::Transcript;
use crate::{
    AttestContext, AttestError, Attested, CertificateRecords, CertificateStanding, CertificateState,
    Evidence, RenewalError, RenewedFrom, Subject, Verifier,
};

/// Whether a renewal may keep its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameKey {
    /// Every renewal needs a new key.
    #[default]
    Refused,
    /// A device that cannot make a new key may keep its own.
    Allowed,
}

/// Verifies renewals against the record of the presented certificate.
#[derive(Clone)]
pub struct RenewalVerifier {
    records: Arc<dyn CertificateRecords>,
    same_key: SameKey,
}

impl RenewalVerifier {
    /// A verifier over these records.
    #[must_use]
    pub fn new(records: Arc<dyn CertificateRecords>, same_key: SameKey) -> Self {
        Self { records, same_key }
    }
}

#[async_trait]
impl Verifier for RenewalVerifier {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Renewal
    }

    async fn verify(&self, evidence: Evidence, context: &AttestContext<'_>) -> Result<Attested, AttestError> {
        let Evidence::Renewal(evidence) = evidence else {
            return Err(AttestError::WrongKind { expected: self.kind(), got: evidence.kind() });
        };
        let presented =
            Presented::read(&evidence.certificate).map_err(|why| RenewalError::Foreign { why })?;
        let serial = presented.serial;
        let standing = self.records.certificate(serial).await?;
        let standing = standing
            .filter(|standing| standing.key == presented.key)
            .ok_or(RenewalError::Unknown { serial })?;
        check_standing(serial, &standing, context.now)?;
        check_lineage(serial, &standing, context.request_key)?;
        if self.same_key == SameKey::Refused && standing.key == context.request_key {
            return Err(RenewalError::SameKey.into());
        }
        Ok(accept(serial, standing, &evidence.certificate, context))
    }
}

/// What is taken from a certificate of ours that a peer presented; everything else comes from the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Presented {
    /// Finds the record.
    pub(crate) serial: SerialNumber,
    /// SHA-256 of the SubjectPublicKeyInfo whose possession the TLS handshake proved.
    pub(crate) key: Digest,
}

impl Presented {
    /// Reads a leaf certificate; the error says what is wrong with it.
    pub(crate) fn read(certificate: &[u8]) -> Result<Self, String> {
        const LIMIT: usize = 16 * 1024;
        if certificate.len() > LIMIT {
            return Err(format!("it has {} bytes, at most {LIMIT} are read", certificate.len()));
        }
        let parsed = Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let tbs = parsed.tbs_certificate();
        let serial =
            SerialNumber::from_bytes(tbs.serial_number().as_bytes()).map_err(|error| error.to_string())?;
        let key = tbs.subject_public_key_info().to_der().map_err(|error| error.to_string())?;
        Ok(Self { serial, key: Digest::of(&key) })
    }
}

fn check_standing(
    serial: SerialNumber,
    standing: &CertificateStanding,
    now: Timestamp,
) -> Result<(), RenewalError> {
    if standing.state != CertificateState::Good {
        return Err(RenewalError::NotGood { serial, state: standing.state });
    }
    // RFC 5280 section 4.1.2.5: the second of notAfter still belongs to the validity.
    if now.whole_second() > standing.not_after {
        return Err(RenewalError::Expired { serial, not_after: standing.not_after });
    }
    if standing.identity_state != IdentityState::Active {
        return Err(RenewalError::IdentityNotActive {
            identity: standing.identity.clone(),
            state: standing.identity_state,
        });
    }
    Ok(())
}

/// The presented certificate must be its lineage's latest. One case of "older" is innocent: the very renewal
/// that made the latest one, asked again for the same new key because its answer got lost.
fn check_lineage(
    serial: SerialNumber,
    standing: &CertificateStanding,
    request_key: Digest,
) -> Result<(), RenewalError> {
    let lineage = &standing.lineage;
    if lineage.generation == lineage.current {
        return Ok(());
    }
    if lineage.generation.next() == lineage.current && lineage.current_key == request_key {
        return Err(RenewalError::AlreadyRenewed { serial: lineage.current_serial });
    }
    Err(RenewalError::LineageFork {
        lineage: lineage.lineage,
        serial,
        presented: lineage.generation,
        current: lineage.current,
        current_serial: lineage.current_serial,
    })
}

fn accept(
    serial: SerialNumber,
    standing: CertificateStanding,
    certificate: &[u8],
    context: &AttestContext<'_>,
) -> Attested {
    let lineage = standing.lineage;
    let mut claims = Claims::new();
    claims.insert("renewal.serial", serial.to_string());
    claims.insert("renewal.lineage", lineage.lineage.to_string());
    claims.insert("renewal.generation", ClaimValue::Number(i64::from(lineage.generation.0)));
    claims.insert("renewal.identity", standing.identity.to_string());
    claims.insert("renewal.profile", standing.profile);
    claims.insert("renewal.enrolled_by", lineage.enrolled_by.as_str());
    claims.insert("renewal.enrolled_at", ClaimValue::Number(lineage.enrolled_at.seconds()));
    claims.insert("renewal.not_after", ClaimValue::Number(standing.not_after.seconds()));
    let hash = Transcript::new("chancery evidence renewal v1")
        .field(certificate)
        .field(context.request_key.as_bytes())
        .digest();
    let from = RenewedFrom { lineage: lineage.lineage, generation: lineage.generation, serial };
    Attested::new(EvidenceKind::Renewal, Subject::Named(standing.identity), claims, lineage.assurance, hash)
        .repeatable(lineage.repeatable)
        .bound_to(Some(context.request_key))
        .continuing(from)
}

#[cfg(test)]
mod tests;
