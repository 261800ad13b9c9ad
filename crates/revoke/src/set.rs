//! The exact set: made from the board, signed, recorded, renamed into place, with deltas from the versions before.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use chancery_entry::{Body, Entry, StatusSetPublished};
use chancery_ledger::{
    CommitError, Ledger, ModelError, News, Outcome, Precondition, Proposal, ReadError, StatusSetRecord, Turn,
};
use chancery_merkle::{LogSigner, LogSigners};
use chancery_status::{BuildError, DeltaError, ExactSet, OpenError, SetBuilder, SignedSet, replace_file};
use chancery_telemetry::step;
use chancery_types::{Clock, Digest, IssuerEpoch, Timestamp, TrustDomain};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::board::{Lines, StatusBoard, StatusNews};

/// How long changes are gathered before a version is made of them.
const GATHER: Duration = Duration::from_millis(50);
/// Versions follow each other at this distance or a longer one, however much changes.
const SPACING: Duration = Duration::from_secs(1);
/// What the lease of it is called.
const WORK: &str = "status-set";
/// When a version that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Earlier versions that deltas are made from: a minute of constant change, two hours of none.
const MAX_VERSIONS: usize = 128;
/// What earlier versions and the deltas from them may take together, in bytes.
const MAX_KEPT_BYTES: usize = 64 << 20;

/// What the version in place is kept under for other processes.
const KEY: &[u8] = b"status-set";
/// How long it is kept: relying parties judge its age long before.
const SHARED: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a publisher needs.
pub struct SetPublisherSpec {
    /// What is not good.
    pub board: Arc<StatusBoard>,
    /// Where versions are recorded.
    pub ledger: Arc<dyn Ledger>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Whose certificates.
    pub trust_domain: TrustDomain,
    /// The log's keys.
    pub signers: Arc<LogSigners>,
    /// Where the set lies.
    pub file: PathBuf,
    /// How old a version gets while nothing changes.
    pub refresh: Duration,
}

/// A version that is in place.
#[derive(Debug)]
pub struct PublishedSet {
    signed: SignedSet,
    bytes: Bytes,
    tag: Digest,
    deltas: Lock<BTreeMap<u64, Bytes>>,
}

impl PublishedSet {
    fn new(signed: SignedSet) -> Self {
        let bytes = signed.to_bytes();
        Self { tag: Digest::of(&bytes), bytes, signed, deltas: Lock::default() }
    }

    /// The set.
    #[must_use]
    pub fn set(&self) -> &ExactSet {
        self.signed.set()
    }

    /// The set and its signature: what is served, and what lies on disk.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// SHA-256 of [`Self::bytes`].
    #[must_use]
    pub fn tag(&self) -> Digest {
        self.tag
    }
}

/// Why no new version was published; the one before stays.
#[derive(Debug, thiserror::Error)]
pub enum SetPublishError {
    /// The read model cannot be asked.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The board has not come past the version that was recorded last; a moment later it has.
    #[error("the board stands at {position}, and set {last} was recorded")]
    Behind {
        /// Where the board stands.
        position: u64,
        /// The last version.
        last: u64,
    },
    /// No set can be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The key did not sign.
    #[error(transparent)]
    Sign(#[from] chancery_merkle::SignError),
    /// A relying party would refuse it.
    #[error("the new set does not read as a relying party reads it: {0}")]
    Unreadable(#[from] OpenError),
    /// It does not say what it should.
    #[error("the new set names other certificates than the board")]
    Unexpected,
    /// The ledger took no record of it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What the processes share cannot be read or written.
    #[error(transparent)]
    Share(#[from] ReadError),
    /// Another process publishes.
    #[error("another process publishes the exact set")]
    Elsewhere,
    /// Somebody else published meanwhile.
    #[error("another version than {0} was recorded meanwhile")]
    Overtaken(u64),
    /// The file cannot be written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// The task that makes sets ended early.
    #[error("the task that makes the set ended early")]
    Task,
}

/// Publishes the exact set of all issuers.
pub struct SetPublisher {
    spec: SetPublisherSpec,
    current: ArcSwapOption<PublishedSet>,
    /// Versions before the current one, the latest last.
    earlier: Lock<VecDeque<ExactSet>>,
    /// One publication at a time.
    publishing: Mutex<()>,
    /// Among the processes on one ledger one publishes; the others put its versions in place too.
    turn: Turn,
}

impl std::fmt::Debug for SetPublisher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SetPublisher").field("file", &self.spec.file).finish_non_exhaustive()
    }
}

impl SetPublisher {
    /// A publisher. What the file holds is served at once, when it is a set of ours; otherwise it is replaced.
    #[must_use]
    pub fn new(spec: SetPublisherSpec) -> Self {
        let current = read_back(&spec).map(|signed| Arc::new(PublishedSet::new(signed)));
        Self {
            turn: Turn::new(Arc::clone(&spec.ledger), WORK),
            spec,
            current: ArcSwapOption::new(current),
            earlier: Lock::default(),
            publishing: Mutex::new(()),
        }
    }

    /// The version in place.
    #[must_use]
    pub fn current(&self) -> Option<Arc<PublishedSet>> {
        self.current.load_full()
    }

    /// Whether the version in place is older than any that this publisher leaves when it can work.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.current().is_none_or(|current| now.since(current.set().made()) > 3 * self.spec.refresh)
    }

    /// What brings a holder of the version at `from` to the current one; nothing where that version is not known any
    /// more. Made when it is first asked for.
    ///
    /// # Errors
    /// [`DeltaError`] when it cannot be made.
    pub fn delta(&self, current: &PublishedSet, from: u64) -> Result<Option<Bytes>, DeltaError> {
        let Some(old) = self.earlier().iter().find(|old| old.sequence() == from).cloned() else {
            return Ok(None);
        };
        let mut deltas = current.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(delta) = deltas.get(&from) {
            return Ok(Some(delta.clone()));
        }
        if current.set().sequence() <= from {
            return Ok(None);
        }
        let delta = current.signed.delta_from(&old)?;
        if deltas.values().map(Bytes::len).sum::<usize>() + delta.len() <= MAX_KEPT_BYTES / 2 {
            deltas.insert(from, delta.clone());
        }
        Ok(Some(delta))
    }

    /// Publishes after every change and before the version in place grows old, until it is dropped. A failure is
    /// tried again; the version in place stays meanwhile.
    pub async fn run(&self) {
        tokio::select! {
            _ = async { tokio::join!(self.keep(), self.follow()) } => {}
            () = self.turn.keep() => {}
        }
    }

    /// Lets another process publish at once: this one stops.
    pub async fn give_up(&self) {
        self.turn.give_up().await;
    }

    async fn keep(&self) {
        let mut news = self.spec.board.news();
        let mut known = 0;
        let mut signed_by = self.spec.signers.in_force();
        let mut next = Instant::now();
        let mut earliest = Instant::now();
        loop {
            if self.turn.fence().is_none() {
                self.turn.mine().await;
                (news, next) = (self.spec.board.news(), Instant::now());
            }
            tokio::select! {
                () = self.turn.lost() => continue,
                () = changed(&mut news, known) => {
                    tokio::time::sleep_until(earliest.max(Instant::now() + GATHER)).await;
                }
                () = self.other_keys(&signed_by) => {}
                () = tokio::time::sleep_until(next) => {}
            }
            signed_by = self.spec.signers.in_force();
            let step = step!("publish", chancery.what = "exact set");
            let published = self.publish().instrument(step).await;
            earliest = Instant::now() + SPACING;
            next = Instant::now()
                + match published {
                    Ok(set) => {
                        known = set.set().sequence();
                        self.spec.refresh
                    }
                    // The turn has gone elsewhere.
                    Err(SetPublishError::Elsewhere) => Duration::ZERO,
                    Err(error) => {
                        tracing::error!(%error, "NO NEW EXACT SET; the one before stays in place");
                        RETRY.min(self.spec.refresh)
                    }
                };
        }
    }

    /// Waits until the log is signed by other keys than these: whoever knows only the new one needs a set that it signed.
    async fn other_keys(&self, known: &Arc<[LogSigner]>) {
        while Arc::ptr_eq(&self.spec.signers.in_force(), known) {
            tokio::time::sleep(SPACING).await;
        }
    }

    /// Publishes a version of how things stand now.
    ///
    /// # Errors
    /// [`SetPublishError`]; the version before stays in place. When its file cannot be written, a version that is
    /// recorded is served from memory regardless.
    pub async fn publish(&self) -> Result<Arc<PublishedSet>, SetPublishError> {
        let _turn = self.publishing.lock().await;
        let fence = match self.turn.fence() {
            Some(fence) => fence,
            None => self.turn.ask().await.ok_or(SetPublishError::Elsewhere)?,
        };
        let last = self.spec.ledger.last_status_set().await?;
        let made = self.spec.clock.now();
        let (sequence, lists) = self.lists(made).await?;
        if let Some(last) = last.filter(|last| last.sequence >= sequence) {
            return Err(SetPublishError::Behind { position: sequence, last: last.sequence });
        }
        let signed = self.sign(sequence, made, lists).await?;
        self.share(fence, &signed).await?;
        self.record(signed.set(), last).await?;
        let set = Arc::new(PublishedSet::new(signed));
        let written = write(&self.spec.file, set.bytes()).await;
        self.replace(Arc::clone(&set));
        written.map(|()| set)
    }

    /// Hands a version to the other processes, before it is recorded.
    async fn share(&self, fence: u64, signed: &SignedSet) -> Result<(), SetPublishError> {
        let Some(scratch) = self.spec.ledger.scratch() else { return Ok(()) };
        match scratch.replace(fence, KEY, &signed.to_bytes(), SHARED).await? {
            true => Ok(()),
            false => Err(SetPublishError::Elsewhere),
        }
    }

    /// Puts in place what others publish, as the log tells of it. Ends at once where there are no others.
    async fn follow(&self) {
        if self.spec.ledger.scratch().is_none() {
            return;
        }
        let mut entries = self.spec.ledger.news();
        loop {
            let adopted = self.adopt().await;
            if let Err(error) = &adopted {
                tracing::warn!(%error, "the exact set of another process is not in place here");
            }
            // What could not be read is tried again.
            let limit = if matches!(adopted, Ok(true)) { Duration::MAX } else { RETRY };
            if let Ok(false) = tokio::time::timeout(limit, published(&mut entries)).await {
                return;
            }
        }
    }

    /// Puts the version in place that was recorded last, unless it is; whether it is now.
    async fn adopt(&self) -> Result<bool, SetPublishError> {
        let ledger = &self.spec.ledger;
        let (Some(scratch), Some(last)) = (ledger.scratch(), ledger.last_status_set().await?) else {
            return Ok(true);
        };
        let _turn = self.publishing.lock().await;
        if self.current().is_some_and(|current| current.set().sequence() >= last.sequence) {
            return Ok(true);
        }
        let Some(bytes) = scratch.get(KEY).await? else { return Ok(false) };
        let signed = SignedSet::open(bytes.into(), &self.spec.trust_domain, &self.spec.signers.verifiers())?;
        if signed.set().hash() != last.hash {
            return Ok(false);
        }
        let set = Arc::new(PublishedSet::new(signed));
        let written = write(&self.spec.file, set.bytes()).await;
        self.replace(set);
        written.map(|()| true)
    }

    /// What the board has: where it stands, and the counters of each issuer, rising.
    async fn lists(&self, made: Timestamp) -> Result<(u64, Lists), ModelError> {
        let mut epochs = self.epochs().await?;
        loop {
            let lists = lists_of(&self.spec.board.read(), &epochs, made);
            // An issuer that was activated meanwhile may belong to what the board already knows.
            let now = self.epochs().await?;
            if now == epochs {
                return Ok(lists);
            }
            epochs = now;
        }
    }

    async fn epochs(&self) -> Result<Vec<IssuerEpoch>, ModelError> {
        Ok(self.spec.ledger.issuers().await?.into_iter().map(|issuer| issuer.epoch).collect())
    }

    /// Builds, signs, and reads what was signed as a relying party would, on a thread that may take its time.
    async fn sign(&self, sequence: u64, made: Timestamp, lists: Lists) -> Result<SignedSet, SetPublishError> {
        let (domain, signers) = (self.spec.trust_domain.clone(), Arc::clone(&self.spec.signers));
        let sign = move || {
            let mut builder = SetBuilder::new(sequence, made);
            for (epoch, counters) in &lists {
                builder.issuer(*epoch, counters.iter().copied())?;
            }
            let signed = SignedSet::sign(builder.build()?, &domain, &signers)?;
            let read = SignedSet::open(signed.to_bytes(), &domain, &signers.verifiers())?;
            match names_exactly(read.set(), &lists) {
                true => Ok(read),
                false => Err(SetPublishError::Unexpected),
            }
        };
        tokio::task::spawn_blocking(sign).await.map_err(|_| SetPublishError::Task)?
    }

    async fn record(&self, set: &ExactSet, last: Option<StatusSetRecord>) -> Result<(), SetPublishError> {
        let (sequence, previous) = (set.sequence(), last.map(|last| last.hash));
        let published = StatusSetPublished {
            sequence,
            made: set.made(),
            entries: set.len() as u64,
            hash: set.hash(),
            previous,
        };
        let requires = vec![Precondition::StatusSetFollows { previous, sequence }];
        let entry = Entry::new(set.made(), Body::StatusSetPublished(published));
        let proposal = Proposal::new(requires, vec![entry]).expect("the record of a set is short");
        match self.spec.ledger.commit(vec![proposal]).await?.as_slice() {
            [Outcome::Accepted { .. }] => Ok(()),
            _ => Err(SetPublishError::Overtaken(last.map_or(0, |last| last.sequence))),
        }
    }

    /// Puts a version in place, and keeps the one before it for deltas.
    fn replace(&self, set: Arc<PublishedSet>) {
        let mut earlier = self.earlier();
        if let Some(before) = self.current.swap(Some(set)) {
            earlier.push_back(before.set().clone());
        }
        let mut kept = earlier.iter().map(|set| set.bytes().len()).sum::<usize>();
        while earlier.len() > MAX_VERSIONS || kept > MAX_KEPT_BYTES / 2 {
            kept -= earlier.pop_front().map_or(kept, |set| set.bytes().len());
        }
    }

    fn earlier(&self) -> MutexGuard<'_, VecDeque<ExactSet>> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a version was recorded; `false` when the ledger has closed.
async fn published(entries: &mut broadcast::Receiver<News>) -> bool {
    loop {
        match entries.recv().await {
            Ok(news) if matches!(news.entry.body, Body::StatusSetPublished(_)) => return true,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

/// Counters by issuer, both rising.
type Lists = Vec<(IssuerEpoch, Vec<u64>)>;

fn lists_of(lines: &Lines, epochs: &[IssuerEpoch], made: Timestamp) -> (u64, Lists) {
    let counters = |epoch| {
        let living = lines.of_issuer(epoch).filter(|line| line.not_after >= made);
        living.map(|line| line.serial.counter()).collect()
    };
    (lines.position(), epochs.iter().map(|epoch| (*epoch, counters(*epoch))).collect())
}

/// Returns when something has changed that a version at `known` does not show.
async fn changed(news: &mut broadcast::Receiver<StatusNews>, known: u64) {
    loop {
        match news.recv().await {
            Ok(StatusNews::Changes { sequence, certificates, issuers, .. }) => {
                if sequence > known && !(certificates.is_empty() && issuers.is_empty()) {
                    return;
                }
            }
            Ok(StatusNews::Anew { .. }) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn names_exactly(set: &ExactSet, lists: &[(IssuerEpoch, Vec<u64>)]) -> bool {
    let named = |epoch| set.counters(epoch).into_iter().flat_map(|counters| counters.iter());
    set.issuers().eq(lists.iter().map(|(epoch, _)| *epoch))
        && lists.iter().all(|(epoch, counters)| named(*epoch).eq(counters.iter().copied()))
}

async fn write(path: &Path, bytes: &Bytes) -> Result<(), SetPublishError> {
    let (path, bytes) = (path.to_owned(), bytes.clone());
    let shown = path.display().to_string();
    let written = tokio::task::spawn_blocking(move || replace_file(&path, &bytes)).await;
    let written = written.map_err(|_| SetPublishError::Task)?;
    written.map_err(|error| SetPublishError::File { path: shown, error })
}

/// The version that an earlier process left.
fn read_back(spec: &SetPublisherSpec) -> Option<SignedSet> {
    let bytes = match std::fs::read(&spec.file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, file = %spec.file.display(), "the exact set on disk cannot be read");
            return None;
        }
    };
    let opened = SignedSet::open(bytes.into(), &spec.trust_domain, &spec.signers.verifiers());
    let warn =
        |error| tracing::warn!(%error, file = %spec.file.display(), "the exact set on disk is replaced");
    opened.map_err(warn).ok()
}
