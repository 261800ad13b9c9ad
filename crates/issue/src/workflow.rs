//! The steps in a row.

use std::sync::Arc;

use arc_swap::ArcSwap;
use chancery_entry::{Body, Entry, Issuance};
use chancery_ledger::{CertificateRecord, IssuedSignature, Ledger, ReadError};
use chancery_telemetry::step;
use chancery_types::{Clock, Digest, Random};
use chancery_x509::TbsView;
use tokio::sync::RwLock;
use tracing::Instrument as _;
use tracing::field::{Empty, display};

use crate::error::{IssueError, RecordError, SigningError};
use crate::issued::Issued;
use crate::issuer::Issuer;
use crate::prepare::{IssueRequest, Prepared, prepare};
use crate::record::{Recorded, record};
use crate::sign::sign;

/// Issues certificates: everything that the steps need, in one place.
pub struct Workflow {
    ledger: Arc<dyn Ledger>,
    issuer: ArcSwap<Issuer>,
    /// Held for reading from the choice of an issuer to the record: see [`Self::succeed`].
    turn: RwLock<()>,
    forbidden_keys: ArcSwap<Vec<Digest>>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl std::fmt::Debug for Workflow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Workflow")
            .field("issuer", &self.issuer.load().epoch())
            .finish_non_exhaustive()
    }
}

impl Workflow {
    /// A workflow that signs with this issuer. `forbidden_keys` are the fingerprints of the authority's keys:
    /// no certificate is made for them.
    #[must_use]
    pub fn new(
        ledger: Arc<dyn Ledger>,
        issuer: Arc<Issuer>,
        forbidden_keys: Vec<Digest>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let (turn, forbidden_keys) = (RwLock::new(()), ArcSwap::from_pointee(forbidden_keys));
        Self { ledger, issuer: ArcSwap::new(issuer), turn, forbidden_keys, clock, random }
    }

    /// The issuer that signs now.
    #[must_use]
    pub fn issuer(&self) -> Arc<Issuer> {
        self.issuer.load_full()
    }

    /// Signs with another issuer from here on. `change` makes it durable and is run while nothing is recorded, so that no
    /// certificate is refused because its issuer was followed by another in the middle.
    ///
    /// # Errors
    /// What `change` fails with; whoever signed signs on.
    pub async fn succeed<E>(&self, change: impl Future<Output = Result<Arc<Issuer>, E>>) -> Result<(), E> {
        let _turn = self.turn.write().await;
        self.issuer.store(change.await?);
        Ok(())
    }

    /// Makes no certificates for this key either.
    pub fn forbid(&self, key: Digest) {
        self.forbidden_keys.rcu(|keys| {
            let mut keys = keys.as_ref().clone();
            if !keys.contains(&key) {
                keys.push(key);
            }
            keys
        });
    }

    /// The ledger that it records in.
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// Issues one certificate.
    ///
    /// # Errors
    /// [`IssueError`] by the step that failed.
    pub async fn issue(&self, request: IssueRequest) -> Result<Issued, IssueError> {
        let mut results = self.issue_batch(vec![request]).await;
        results.pop().expect("one request has one result")
    }

    /// Issues several with one commit; each succeeds or fails for itself.
    pub async fn issue_batch(&self, requests: Vec<IssueRequest>) -> Vec<Result<Issued, IssueError>> {
        let turn = self.turn.read().await;
        let issuer = self.issuer.load_full();
        let forbidden_keys = self.forbidden_keys.load_full();
        let now = self.clock.now();
        let mut failed = Vec::with_capacity(requests.len());
        let mut batch: Vec<Prepared> = Vec::with_capacity(requests.len());
        let count = requests.len();
        let preparing = step!("prepare", chancery.certificates = count);
        let reserve = self.ledger.reserve_counters(issuer.epoch(), count as u64);
        let counters = match reserve.instrument(preparing.clone()).await {
            Ok(first) => first..,
            Err(error) => {
                let refused = || Err(RecordError::from(error.clone()).into());
                return std::iter::repeat_with(refused).take(count).collect();
            }
        };
        for (request, counter) in requests.into_iter().zip(counters) {
            let prepare = || prepare(request, &issuer, counter, &forbidden_keys, self.random.as_ref(), now);
            match preparing.in_scope(prepare) {
                Ok(prepared) => {
                    batch.push(prepared);
                    failed.push(None);
                }
                Err(error) => failed.push(Some(IssueError::from(error))),
            }
        }
        drop(preparing);
        let count = batch.len();
        let commit =
            record(self.ledger.as_ref(), batch).instrument(step!("commit", chancery.entries = count));
        let mut recorded = match commit.await {
            Ok(recorded) => recorded.into_iter(),
            Err(error) => {
                std::iter::repeat_with(|| Err(error.clone())).take(count).collect::<Vec<_>>().into_iter()
            }
        };
        drop(turn);
        let signing = step!("sign", chancery.issuer = display(issuer.epoch()), chancery.serial = Empty);
        let issue = || -> Vec<_> {
            failed
                .into_iter()
                .map(|failure| match failure {
                    Some(error) => Err(error),
                    None => finish(recorded.next().expect("one outcome for each prepared"), &issuer),
                })
                .collect()
        };
        let issued = signing.in_scope(issue);
        if let [Ok(one)] = issued.as_slice() {
            signing.record("chancery.serial", display(one.serial()));
        }
        drop(signing);
        self.keep_signatures(&issued).instrument(step!("publish")).await;
        issued
    }

    /// A certificate as it was issued, from its record: the recorded TBS with the kept signature, or with a new
    /// signature over the same bytes where a crash took the old one.
    ///
    /// # Errors
    /// [`SigningError`].
    pub async fn retrieve(&self, record: &CertificateRecord) -> Result<Issued, SigningError> {
        let bytes = self.ledger.entry(record.index).await?;
        let entry = bytes.and_then(|bytes| Entry::decode(&bytes).ok()).map(|entry| entry.body);
        let Some(Body::Issuance(issuance)) = entry else {
            let problem = format!("entry {} is not the issuance of {}", record.index, record.serial);
            return Err(ReadError(problem).into());
        };
        let issuer = self.issuer.load_full();
        if let Some(signature) = self.ledger.signature(record.index).await? {
            return self.assemble(record, *issuance, signature).await;
        }
        if record.serial.epoch() != issuer.epoch() {
            let problem = format!("the signature of {} is lost, and its issuer signs no more", record.serial);
            return Err(ReadError(problem).into());
        }
        let issued = sign(Recorded { issuance: *issuance, index: record.index }, &issuer);
        let issued = [issued.map_err(IssueError::from)];
        self.keep_signatures(&issued).await;
        let [issued] = issued;
        issued.map_err(|error| match error {
            IssueError::Sign(error) => error,
            other => ReadError(other.to_string()).into(),
        })
    }

    /// A certificate from its recorded TBS and its kept signature; whichever issuer it was that signed.
    async fn assemble(
        &self,
        record: &CertificateRecord,
        issuance: Issuance,
        signature: Vec<u8>,
    ) -> Result<Issued, SigningError> {
        let issuers = self.ledger.issuers().await.map_err(|error| ReadError(error.to_string()))?;
        let issuer = issuers.into_iter().find(|issuer| issuer.epoch == record.serial.epoch());
        let issuer =
            issuer.ok_or_else(|| ReadError(format!("the issuer of {} is unknown", record.serial)))?;
        let algorithm = TbsView::from_der(&issuance.tbs.0)
            .ok()
            .and_then(|tbs| tbs.signature_algorithm())
            .ok_or_else(|| ReadError(format!("the recorded certificate {} cannot be read", record.serial)))?;
        Ok(Issued {
            der: chancery_x509::assemble(&issuance.tbs.0, algorithm, &signature),
            serial: issuance.serial,
            identity: issuance.identity,
            lineage: issuance.lineage,
            generation: issuance.generation,
            not_before: issuance.not_before,
            not_after: issuance.not_after,
            profile: issuance.profile,
            index: record.index,
            signature,
            issuer: issuer.certificate,
        })
    }

    /// Keeps what was signed beside its entries. A failure costs nothing but a second signature later.
    async fn keep_signatures(&self, issued: &[Result<Issued, IssueError>]) {
        let signatures: Vec<IssuedSignature> = issued
            .iter()
            .flatten()
            .map(|issued| IssuedSignature { index: issued.index, signature: issued.signature.clone() })
            .collect();
        if signatures.is_empty() {
            return;
        }
        if let Err(error) = self.ledger.keep_signatures(signatures).await {
            tracing::warn!(%error, "signatures could not be kept beside their entries");
        }
    }
}

fn finish(recorded: Result<Recorded, RecordError>, issuer: &Issuer) -> Result<Issued, IssueError> {
    Ok(sign(recorded?, issuer)?)
}
