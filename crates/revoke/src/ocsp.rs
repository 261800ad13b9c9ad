//! The OCSP responder: signs what the read model says at this moment (RFC 6960, RFC 9919).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chancery_keys::Signer;
use chancery_ledger::{CertificateState, Ledger};
use chancery_types::{Clock, IssuerEpoch, RevocationReason, SerialNumber, Timestamp};
use chancery_x509::Certificate;
use chancery_x509::ocsp::{
    CertificateStatus, IssuerHashes, OcspError, OcspRequest, OcspSpec, SingleStatus, assemble_response,
};

/// The certificate and key that answers are signed with: delegated by the issuer, short-lived.
#[derive(Debug, Clone)]
pub struct ResponderCredential {
    /// The certificate, DER; it travels with every answer.
    pub certificate: Vec<u8>,
    /// Its key.
    pub signer: Arc<dyn Signer>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid: no answer claims to be good for longer.
    pub not_after: Timestamp,
}

impl ResponderCredential {
    /// Whether half of its life is over.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        now >= self.not_before + self.not_after.since(self.not_before) / 2
    }
}

/// An answer and how long others may keep it.
#[derive(Debug, Clone)]
pub struct OcspAnswer {
    /// The OCSPResponse, DER.
    pub der: Vec<u8>,
    /// For HTTP caches; `None`: for this requester alone (it sent a nonce), or not an answer at all.
    pub max_age: Option<Duration>,
}

impl OcspAnswer {
    fn error(error: OcspError) -> Self {
        Self { der: error.to_der().to_vec(), max_age: None }
    }
}

/// Answers about every certificate of this authority.
pub struct OcspResponder {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    issuers: RwLock<BTreeMap<IssuerEpoch, IssuerHashes>>,
    credential: ArcSwapOption<ResponderCredential>,
    validity: Duration,
}

impl std::fmt::Debug for OcspResponder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OcspResponder").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// How long a cache may keep an answer: a revocation should be seen soon, whatever `nextUpdate` allows.
const CACHE: Duration = Duration::from_secs(60);

impl OcspResponder {
    /// A responder without credential: it answers `tryLater` until it has one.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>, validity: Duration) -> Self {
        Self { ledger, clock, issuers: RwLock::default(), credential: ArcSwapOption::empty(), validity }
    }

    /// Answers for the certificates of this issuer from now on.
    pub fn add_issuer(&self, epoch: IssuerEpoch, certificate: &Certificate) {
        let hashes = IssuerHashes::of(certificate);
        self.issuers.write().unwrap_or_else(PoisonError::into_inner).insert(epoch, hashes);
    }

    /// Signs with this credential from now on.
    pub fn use_credential(&self, credential: ResponderCredential) {
        self.credential.store(Some(Arc::new(credential)));
    }

    /// The credential in use.
    #[must_use]
    pub fn credential(&self) -> Option<Arc<ResponderCredential>> {
        self.credential.load_full()
    }

    /// Answers a request; errors are answers too.
    pub async fn answer(&self, request: &[u8]) -> OcspAnswer {
        let Ok(request) = OcspRequest::from_der(request) else {
            return OcspAnswer::error(OcspError::MalformedRequest);
        };
        let now = self.clock.now();
        let Some(credential) = self.credential.load_full().filter(|credential| credential.not_after > now)
        else {
            return OcspAnswer::error(OcspError::TryLater);
        };
        let next_update = (now + self.validity).min(credential.not_after);
        let mut statuses = Vec::with_capacity(request.ids().len());
        for id in request.ids() {
            match self.status(id).await {
                Ok(status) => statuses.push(SingleStatus {
                    cert_id: id.der(),
                    status,
                    this_update: now.whole_second(),
                    next_update: Some(next_update.whole_second()),
                }),
                Err(error) => return OcspAnswer::error(error),
            }
        }
        let spec = OcspSpec {
            responder: credential.signer.public_key(),
            produced_at: now.whole_second(),
            statuses: &statuses,
            nonce: request.nonce(),
        };
        let tbs = spec.to_tbs_der();
        let Ok(signature) = credential.signer.sign(&tbs) else {
            tracing::error!("the OCSP responder's key did not sign");
            return OcspAnswer::error(OcspError::InternalError);
        };
        let der =
            assemble_response(&tbs, credential.signer.algorithm(), &signature, Some(&credential.certificate));
        let max_age = request.nonce().is_none().then_some(CACHE.min(next_update.since(now)));
        OcspAnswer { der, max_age }
    }

    /// What the read model says; never `good` without an issuance on record.
    async fn status(&self, id: &chancery_x509::ocsp::CertId<'_>) -> Result<CertificateStatus, OcspError> {
        let serial = SerialNumber::from_bytes(id.serial()).map_err(|_| OcspError::Unauthorized)?;
        let is_ours = {
            let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
            issuers.get(&serial.epoch()).is_some_and(|hashes| hashes.matches(id))
        };
        if !is_ours {
            return Err(OcspError::Unauthorized);
        }
        match self.ledger.certificate(serial).await {
            Ok(Some(record)) => Ok(match record.state {
                CertificateState::Good => CertificateStatus::Good,
                CertificateState::Held { since } => {
                    CertificateStatus::Revoked { at: since, reason: RevocationReason::CertificateHold }
                }
                CertificateState::Revoked { at, reason } => CertificateStatus::Revoked { at, reason },
            }),
            Ok(None) => Err(OcspError::Unauthorized),
            Err(error) => {
                tracing::error!(%error, "the status of a certificate cannot be read");
                Err(OcspError::InternalError)
            }
        }
    }
}
