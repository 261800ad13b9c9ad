//! In-memory records and a fixed moment for the tests of this crate.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use chancery_types::{
    AssuranceLevel, Digest, EvidenceKind, Generation, IdentityState, IssuerEpoch, LineageId, SerialNumber,
    Timestamp, TokenId,
};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};

use crate::{
    AttestContext, CertificateRecords, CertificateStanding, CertificateState, LineageStanding, RecordsError,
    TokenRecord, TokenRecords,
};

/// 2026-11-21T12:00:00Z.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_seconds(1_795_262_400)
}

pub(crate) fn request_key() -> Digest {
    Digest::of(b"the request's key")
}

pub(crate) fn context() -> AttestContext<'static> {
    AttestContext { now: now(), request_key: request_key(), server_name: "example.org" }
}

/// Runs a future that never waits, which is all that in-memory records make.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// Tokens in a map; `None` for the map makes every read fail.
pub(crate) struct Tokens(pub(crate) Option<HashMap<TokenId, TokenRecord>>);

#[async_trait]
impl TokenRecords for Tokens {
    async fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, RecordsError> {
        let records = self.0.as_ref().ok_or_else(|| RecordsError("disk on fire".to_owned()))?;
        Ok(records.get(&id).cloned())
    }
}

/// Certificates in a map; `None` for the map makes every read fail.
pub(crate) struct Certificates(pub(crate) Option<HashMap<SerialNumber, CertificateStanding>>);

#[async_trait]
impl CertificateRecords for Certificates {
    async fn certificate(&self, serial: SerialNumber) -> Result<Option<CertificateStanding>, RecordsError> {
        let records = self.0.as_ref().ok_or_else(|| RecordsError("disk on fire".to_owned()))?;
        Ok(records.get(&serial).cloned())
    }
}

/// A self-signed certificate with this serial, its SubjectPublicKeyInfo's digest, as one of ours would look.
pub(crate) fn certificate_with(serial: &[u8]) -> (Vec<u8>, Digest) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["web.example.org".to_owned()]).unwrap();
    parameters.serial_number = Some(rcgen::SerialNumber::from_slice(serial));
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.der().to_vec(), Digest::of(&key.subject_public_key_info()))
}

pub(crate) fn serial(number: u64) -> SerialNumber {
    SerialNumber::compose(IssuerEpoch(1), number, [7; 8]).unwrap()
}

/// A certificate in good standing, the latest of its lineage.
pub(crate) fn good_standing(serial: SerialNumber, key: Digest) -> CertificateStanding {
    CertificateStanding {
        state: CertificateState::Good,
        identity: "spiffe://example.org/web".parse().unwrap(),
        identity_state: IdentityState::Active,
        role: None,
        key,
        profile: "workload".to_owned(),
        not_after: now() + Duration::from_secs(600),
        lineage: LineageStanding {
            lineage: LineageId::from_array([3; 16]),
            generation: Generation(4),
            current: Generation(4),
            current_serial: serial,
            current_key: key,
            enrolled_by: EvidenceKind::X509Pop,
            assurance: AssuranceLevel::Repeatable,
            repeatable: true,
            enrolled_at: now() - Duration::from_secs(86_400),
        },
    }
}
