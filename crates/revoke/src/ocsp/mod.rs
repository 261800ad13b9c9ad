//! The OCSP responder: says what the read model says at this moment (RFC 6960, RFC 9919).
//!
//! Answers for many (those without a nonce) are kept with the moment of the ledger at which they were right, and are
//! given again only while nothing has changed since, or when the certificate is found to stand as before: an answer
//! that says `good` of a revoked certificate is never given. Everything else is signed on demand, by as many at once
//! as there are processors; when too many wait, the answer is `tryLater`.

mod hot;
mod queue;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use chancery_keys::{Custody, Signer};
use chancery_ledger::{CertificateState, Ledger, ModelError};
use chancery_types::{Clock, Digest, IssuerEpoch, RevocationReason, SerialNumber, Timestamp};
use chancery_x509::Certificate;
use chancery_x509::ocsp::{
    CertId, CertificateStatus, IssuerHashes, OcspError, OcspRequest, OcspSpec, SingleStatus,
    assemble_response,
};

use hot::{Hot, HotAnswers};
use queue::Queue;

/// The certificate and key that answers about an issuer's certificates are signed with.
#[derive(Debug, Clone)]
pub struct ResponderCredential {
    /// The certificate, DER: delegated by the issuer, short-lived. It travels with every answer. `None`: the key is
    /// the issuer's own, as it has to be for one that signs no certificates any more (RFC 6960 section 4.2.2.2).
    pub certificate: Option<Vec<u8>>,
    /// Its key.
    pub signer: Arc<dyn Signer>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid: no answer claims to be good for longer.
    pub not_after: Timestamp,
}

impl ResponderCredential {
    /// That of an issuer which answers with its own key.
    #[must_use]
    pub fn of_issuer(issuer: &Certificate, signer: Arc<dyn Signer>) -> Self {
        let tbs = issuer.tbs();
        Self { certificate: None, signer, not_before: tbs.not_before(), not_after: tbs.not_after() }
    }

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
    pub der: Bytes,
    /// For HTTP caches; `None`: for this requester alone (it sent a nonce), or not an answer at all.
    pub shared: Option<SharedAnswer>,
}

/// What HTTP caches are told of an answer that may be given to many.
#[derive(Debug, Clone, Copy)]
pub struct SharedAnswer {
    /// thisUpdate.
    pub made: Timestamp,
    /// How long a cache may keep it.
    pub max_age: Duration,
    /// SHA-256 of it.
    pub tag: Digest,
}

impl OcspAnswer {
    fn error(error: OcspError) -> Self {
        Self { der: Bytes::copy_from_slice(&error.to_der()), shared: None }
    }
}

/// How answers came about.
#[derive(Debug, Default)]
pub struct OcspCounts {
    /// Given again.
    pub kept: AtomicU64,
    /// Signed on demand.
    pub signed: AtomicU64,
    /// Sent away by `tryLater`.
    pub shed: AtomicU64,
}

/// Answers about every certificate of this authority.
pub struct OcspResponder {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    issuers: RwLock<BTreeMap<IssuerEpoch, Arc<Answering>>>,
    validity: Duration,
    hot: HotAnswers,
    queue: Arc<Queue>,
    counts: OcspCounts,
}

/// An issuer that is answered for.
#[derive(Debug)]
struct Answering {
    hashes: IssuerHashes,
    credential: ArcSwapOption<ResponderCredential>,
}

impl std::fmt::Debug for OcspResponder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OcspResponder").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// How long a cache may keep an answer: a revocation should be seen soon, whatever `nextUpdate` allows.
const CACHE: Duration = Duration::from_secs(60);
/// Requests that may wait for a signature.
const WAITING: usize = 4096;

impl OcspResponder {
    /// A responder without issuers.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>, validity: Duration) -> Self {
        Self {
            ledger,
            clock,
            issuers: RwLock::default(),
            validity,
            hot: HotAnswers::default(),
            queue: Arc::new(Queue::new(processors(), WAITING)),
            counts: OcspCounts::default(),
        }
    }

    /// Answers for the certificates of this issuer from now on: `tryLater` until there is a credential.
    pub fn add_issuer(&self, epoch: IssuerEpoch, certificate: &Certificate) {
        let hashes = IssuerHashes::of(certificate);
        let answering = Answering { hashes, credential: ArcSwapOption::empty() };
        self.issuers.write().unwrap_or_else(PoisonError::into_inner).insert(epoch, Arc::new(answering));
    }

    /// Signs answers about this issuer's certificates with this credential from now on.
    pub fn use_credential(&self, epoch: IssuerEpoch, credential: ResponderCredential) {
        if let Some(issuer) = self.issuer(epoch) {
            issuer.credential.store(Some(Arc::new(credential)));
        }
    }

    /// The credential in use for an issuer.
    #[must_use]
    pub fn credential(&self, epoch: IssuerEpoch) -> Option<Arc<ResponderCredential>> {
        self.issuer(epoch)?.credential.load_full()
    }

    /// How answers came about.
    #[must_use]
    pub fn counts(&self) -> &OcspCounts {
        &self.counts
    }

    /// Answers a request; errors are answers too.
    pub async fn answer(&self, request: &[u8]) -> OcspAnswer {
        let Ok(request) = OcspRequest::from_der(request) else {
            return OcspAnswer::error(OcspError::MalformedRequest);
        };
        if let (None, [id]) = (request.nonce(), request.ids())
            && let Some(kept) = self.kept(id.der()).await
        {
            self.counts.kept.fetch_add(1, Ordering::Relaxed);
            return kept;
        }
        match self.sign(&request).await {
            Ok(answer) => {
                self.counts.signed.fetch_add(1, Ordering::Relaxed);
                answer
            }
            Err(error) => {
                let is_shed = u64::from(error == OcspError::TryLater);
                self.counts.shed.fetch_add(is_shed, Ordering::Relaxed);
                OcspAnswer::error(error)
            }
        }
    }

    /// An answer that was given before and is right now.
    async fn kept(&self, id: &[u8]) -> Option<OcspAnswer> {
        let hot = self.hot.find(id)?;
        let now = self.clock.now();
        if !hot.is_fresh(now) {
            return None;
        }
        // Asked for before the state: what changes in between moves it.
        let generation = self.ledger.standing_epoch();
        if !hot.was_right_at(generation) {
            if self.state(hot.serial).await.ok()? != hot.state {
                return None;
            }
            hot.is_right_at(generation);
        }
        let max_age = CACHE.min(hot.next_update.since(now));
        let shared = SharedAnswer { made: hot.made, max_age, tag: hot.tag };
        Some(OcspAnswer { der: hot.der.clone(), shared: Some(shared) })
    }

    async fn sign(&self, request: &OcspRequest<'_>) -> Result<OcspAnswer, OcspError> {
        let (issuer, serials) = self.issuer_of(request.ids())?;
        let now = self.clock.now();
        let credential = issuer.credential.load_full().filter(|credential| credential.not_after > now);
        let credential = credential.ok_or(OcspError::TryLater)?;
        let (made, next_update) = (now.whole_second(), (now + self.validity).min(credential.not_after));
        let turn = self.queue.enter().await.ok_or(OcspError::TryLater)?;
        // After the wait, so that what is signed is right when it leaves.
        let generation = self.ledger.standing_epoch();
        let mut statuses = Vec::with_capacity(serials.len());
        let mut states = Vec::with_capacity(serials.len());
        for (id, serial) in request.ids().iter().zip(&serials) {
            let state = self.state(*serial).await.map_err(unreadable)?.ok_or(OcspError::Unauthorized)?;
            states.push(state);
            statuses.push(SingleStatus {
                cert_id: id.der(),
                status: status(state),
                this_update: made,
                next_update: Some(next_update.whole_second()),
            });
        }
        let spec = OcspSpec {
            responder: credential.signer.public_key(),
            produced_at: made,
            statuses: &statuses,
            nonce: request.nonce(),
        };
        let der = Bytes::from(sign_with(&credential, spec.to_tbs_der()).await?);
        drop(turn);
        if request.nonce().is_some() {
            return Ok(OcspAnswer { der, shared: None });
        }
        let tag = Digest::of(&der);
        if let ([id], [serial], [state]) = (request.ids(), serials.as_slice(), states.as_slice()) {
            let hot = Hot::new(*serial, Some(*state), generation, der.clone(), tag, (made, next_update));
            self.hot.keep(id.der(), hot);
        }
        let max_age = CACHE.min(next_update.since(now));
        Ok(OcspAnswer { der, shared: Some(SharedAnswer { made, max_age, tag }) })
    }

    /// The one issuer that all of these are of: an answer has one signature, which only that issuer's key or its
    /// delegate may give.
    fn issuer_of(&self, ids: &[CertId<'_>]) -> Result<(Arc<Answering>, Vec<SerialNumber>), OcspError> {
        let serials =
            ids.iter().map(|id| SerialNumber::from_bytes(id.serial())).collect::<Result<Vec<_>, _>>();
        let serials = serials.map_err(|_| OcspError::Unauthorized)?;
        let epoch = serials.first().ok_or(OcspError::MalformedRequest)?.epoch();
        let issuer = self.issuer(epoch).ok_or(OcspError::Unauthorized)?;
        let is_of_it = serials.iter().all(|serial| serial.epoch() == epoch)
            && ids.iter().all(|id| issuer.hashes.matches(id));
        if is_of_it { Ok((issuer, serials)) } else { Err(OcspError::Unauthorized) }
    }

    fn issuer(&self, epoch: IssuerEpoch) -> Option<Arc<Answering>> {
        self.issuers.read().unwrap_or_else(PoisonError::into_inner).get(&epoch).cloned()
    }

    /// What the read model says; nothing without an issuance on record.
    async fn state(&self, serial: SerialNumber) -> Result<Option<CertificateState>, ModelError> {
        Ok(self.ledger.certificate(serial).await?.map(|record| record.state))
    }
}

fn status(state: CertificateState) -> CertificateStatus {
    match state {
        CertificateState::Good => CertificateStatus::Good,
        CertificateState::Held { since } => {
            CertificateStatus::Revoked { at: since, reason: RevocationReason::CertificateHold }
        }
        CertificateState::Revoked { at, reason } => CertificateStatus::Revoked { at, reason },
    }
}

/// Signs here what takes microseconds, and elsewhere what may take a while.
async fn sign_with(credential: &Arc<ResponderCredential>, tbs: Vec<u8>) -> Result<Vec<u8>, OcspError> {
    let sign = |credential: &ResponderCredential, tbs: &[u8]| {
        let signature = credential.signer.sign(tbs).map_err(|error| {
            tracing::error!(%error, "the OCSP responder's key did not sign");
            OcspError::InternalError
        })?;
        let certificate = credential.certificate.as_deref();
        Ok(assemble_response(tbs, credential.signer.algorithm(), &signature, certificate))
    };
    match credential.signer.custody() {
        Custody::Memory | Custody::File => sign(credential, &tbs),
        Custody::Pkcs11 => {
            let credential = Arc::clone(credential);
            let signed = tokio::task::spawn_blocking(move || sign(&credential, &tbs));
            signed.await.unwrap_or(Err(OcspError::InternalError))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unreadable(error: ModelError) -> OcspError {
    tracing::error!(%error, "the status of a certificate cannot be read");
    OcspError::InternalError
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests;
