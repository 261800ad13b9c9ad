//! The full CRL: built, linted, signed, verified, compared, recorded, renamed into place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chancery_entry::{Body, CrlPublished, Entry};
use chancery_keys::Signer;
use chancery_ledger::{CommitError, Ledger, ModelError, Outcome, Precondition, Proposal, RevokedCertificate};
use chancery_types::{Clock, Digest, IssuerEpoch, Timestamp};
use chancery_x509::crl::{self, CrlSpec, CrlView};
use chancery_x509::lint::{CrlLintContext, check_crl};
use chancery_x509::{Certificate, assemble};
use tokio::sync::{Mutex, Notify};

/// How long changes are gathered before a list is made of them.
const GATHER: Duration = Duration::from_millis(100);
/// For clocks that are late.
const BACKDATE: Duration = Duration::from_secs(60);

/// A list that is in place.
#[derive(Debug, Clone)]
pub struct PublishedCrl {
    /// The list, DER.
    pub der: Vec<u8>,
    /// Its number.
    pub number: u64,
    /// SHA-256 of it.
    pub hash: Digest,
    /// When it was made.
    pub made: Timestamp,
    /// nextUpdate.
    pub next_update: Timestamp,
}

/// Why no new list was published; the one before stays.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The read model cannot be asked.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The list cannot be written.
    #[error(transparent)]
    Spec(#[from] crl::CrlSpecError),
    /// It would break one of our own rules.
    #[error("the list would break our own rules: {0}")]
    Lint(String),
    /// The key did not sign.
    #[error(transparent)]
    Sign(#[from] chancery_keys::SignError),
    /// What was signed is not what was to be signed.
    #[error("the signed list is not as expected: {0}")]
    Unexpected(&'static str),
    /// The ledger took no record of it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Somebody else published a list with this number or a higher one.
    #[error("a list with number {0} or higher was published meanwhile")]
    Number(u64),
    /// The file cannot be written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        error: io::Error,
    },
}

/// Publishes the list of one issuer.
pub struct CrlPublisher {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    epoch: IssuerEpoch,
    issuer: Certificate,
    signer: Arc<dyn Signer>,
    validity: Duration,
    file: PathBuf,
    current: ArcSwapOption<PublishedCrl>,
    /// One publication at a time: a list that was begun earlier never replaces a later one.
    publishing: Mutex<()>,
}

impl std::fmt::Debug for CrlPublisher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CrlPublisher").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl CrlPublisher {
    /// A publisher that writes to `file` and serves from memory; what the file holds is served at once.
    #[must_use]
    pub fn new(
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        epoch: IssuerEpoch,
        issuer: Certificate,
        signer: Arc<dyn Signer>,
        validity: Duration,
        file: PathBuf,
    ) -> Self {
        let publisher = Self {
            ledger,
            clock,
            epoch,
            issuer,
            signer,
            validity,
            file,
            current: ArcSwapOption::empty(),
            publishing: Mutex::new(()),
        };
        publisher.current.store(publisher.read_back().map(Arc::new));
        publisher
    }

    /// The issuer's epoch.
    #[must_use]
    pub fn epoch(&self) -> IssuerEpoch {
        self.epoch
    }

    /// The list in place.
    #[must_use]
    pub fn current(&self) -> Option<Arc<PublishedCrl>> {
        self.current.load_full()
    }

    /// Publishes after every change and in time before the list runs out, until it is dropped. A failure is
    /// tried again; the list in place stays meanwhile.
    pub async fn run(&self, changed: &Notify) {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = changed.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.publish().await {
                Ok(_) => self.validity / 4,
                Err(error) => {
                    tracing::error!(%error, epoch = %self.epoch, "NO NEW CRL; the one before stays in place");
                    Duration::from_secs(5)
                }
            };
        }
    }

    /// Publishes a list of how things stand now.
    ///
    /// # Errors
    /// [`PublishError`]; the list before stays in place.
    pub async fn publish(&self) -> Result<Arc<PublishedCrl>, PublishError> {
        let _turn = self.publishing.lock().await;
        let now = self.clock.now();
        let lines = self.ledger.revoked(self.epoch, now).await?;
        let previous = self.ledger.last_crl(self.epoch).await?.map(|last| last.number);
        let clock_number = u64::try_from(now.millis()).unwrap_or(0);
        let number = previous.map_or(clock_number, |previous| clock_number.max(previous + 1));
        let this_update = now.whole_second() - BACKDATE;
        let next_update = (now + self.validity).whole_second().min(self.issuer.tbs().not_after());
        let der = self.sign(&lines, number, previous, this_update, next_update, now)?;
        self.compare(&der, &lines)?;
        let list = PublishedCrl { hash: Digest::of(&der), der, number, made: now, next_update };
        self.record(&list, this_update, lines.len() as u64).await?;
        write_file(&self.file, &list.der)
            .map_err(|error| PublishError::File { path: self.file.display().to_string(), error })?;
        let list = Arc::new(list);
        self.current.store(Some(Arc::clone(&list)));
        Ok(list)
    }

    /// Encodes, lints, signs, verifies.
    fn sign(
        &self,
        lines: &[RevokedCertificate],
        number: u64,
        previous_number: Option<u64>,
        this_update: Timestamp,
        next_update: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<u8>, PublishError> {
        let entries = lines.iter().map(|line| crl::RevokedCertificate {
            serial: line.serial.as_bytes(),
            revoked_at: line.at,
            reason: line.reason,
        });
        let algorithm = self.signer.algorithm();
        let spec = CrlSpec {
            issuer: &self.issuer,
            signature_algorithm: algorithm,
            number,
            this_update,
            next_update,
            distribution_point: None,
        };
        let tbs = spec.to_tbs_der(entries.collect())?;
        let context = CrlLintContext { issuer: &self.issuer, now, previous_number, distribution_point: None };
        if let Some(finding) = check_crl(&tbs, &context).into_iter().find(|finding| finding.is_error()) {
            return Err(PublishError::Lint(finding.to_string()));
        }
        let signature = self.signer.sign(&tbs)?;
        Ok(assemble(&tbs, algorithm, &signature))
    }

    /// Reads the list as a relying party would: its signature verifies, and it names exactly what it should.
    fn compare(&self, der: &[u8], lines: &[RevokedCertificate]) -> Result<(), PublishError> {
        let view = CrlView::from_der(der).map_err(|_| PublishError::Unexpected("it does not parse"))?;
        view.verify(self.issuer.tbs().spki_der())
            .map_err(|_| PublishError::Unexpected("its signature does not verify under the issuer"))?;
        let named = view.entries().map(|entry| (entry.serial, entry.reason));
        let wanted = lines.iter().map(|line| (line.serial.as_bytes().as_slice(), line.reason));
        if named.eq(wanted) { Ok(()) } else { Err(PublishError::Unexpected("it names other certificates")) }
    }

    async fn record(
        &self,
        list: &PublishedCrl,
        this_update: Timestamp,
        entries: u64,
    ) -> Result<(), PublishError> {
        let published = CrlPublished {
            epoch: self.epoch,
            number: list.number,
            this_update,
            next_update: list.next_update,
            entries,
            hash: list.hash,
        };
        let requires = vec![Precondition::CrlNumberAbove { epoch: self.epoch, number: list.number }];
        let entry = Entry::new(list.made, Body::CrlPublished(published));
        let proposal = Proposal::new(requires, vec![entry]).expect("a list's record is short");
        match self.ledger.commit(vec![proposal]).await?.as_slice() {
            [Outcome::Accepted { .. }] => Ok(()),
            _ => Err(PublishError::Number(list.number)),
        }
    }

    /// The list that an earlier process left.
    fn read_back(&self) -> Option<PublishedCrl> {
        let der = fs::read(&self.file).ok()?;
        let view = CrlView::from_der(&der).ok()?;
        view.verify(self.issuer.tbs().spki_der()).ok()?;
        let (number, made, next_update) = (view.number_u64()?, view.this_update(), view.next_update()?);
        Some(PublishedCrl { hash: Digest::of(&der), number, made, next_update, der })
    }
}

/// Replaces a file, durably and whole: readers see the old list or the new one.
fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
