//! The backend for one process and one directory.
//!
//! ```text
//! lock            held while a process has the ledger open
//! journal/        the truth: segments of checksummed batches
//! signatures.log  the signatures made over recorded entries
//! derived/        tree hashes by level, entry and signature locations: follow from the two above
//! index.redb      the read model with the journal position that it has reached: follows from the journal
//! checkpoint      the last checkpoint that was published and synced
//! ```
//! Two threads: the sequencer decides the order and makes batches durable, the indexer commits the read model
//! behind it. After a crash the index says how far it got and only the rest of the journal is replayed.

mod archive;
mod check;
pub(crate) mod checkpoint;
mod derived;
pub(crate) mod disk;
mod index;
mod indexer;
mod journal;
mod layer;
mod memtable;
mod open;
mod outside;
mod recover;
mod sequencer;
mod signatures;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use chancery_merkle::{HashReader, LogSigners, SignedNote, consistency_proof, inclusion_proof, leaf_hash};
use chancery_types::{CrlShard, Digest, IssuerEpoch, LineageId, SerialNumber, SpiffeId, Timestamp, TokenId};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use derived::Derived;
use disk::{Disk, is_full};
use journal::{JournalReader, LogId};
use memtable::Memtable;
use signatures::SignatureLog;

pub use archive::{Archived, archive};
pub use check::{CheckError, CheckReport};
pub use journal::JournalError;
pub use open::OpenError;
pub use outside::{KeptSignatures, LogWriter, published_checkpoint, read_log};

use crate::lease::{Lease, Leases, Turns};
use crate::model::change::{self, ChangeRecord};
use crate::model::query::{self, IdentityQuery, Page, PageRequest};
use crate::model::record::{
    CertificateRecord, CrlDivisionRecord, CrlRecord, IdentityRecord, IssuerRecord, KeyRecord, LineageRecord,
    RevokedCertificate, StatusSetRecord, TemplateRecord, TokenRecord, WishRecord,
};
use crate::model::search::{self, CertificateQuery};
use crate::model::{ModelError, ReadModel, taken, tidy};
use crate::proposal::{CommitError, MAX_CALL, Outcome, Proposal};
use crate::scratch::Scratch;
use crate::sequence::Request;
use crate::{Head, IssuedSignature, Ledger, News, ReadError, read_error};

/// What can be chosen about an embedded ledger.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a journal segment, allocated at once.
    pub segment_bytes: u64,
    /// How long changes may wait before the index commits them. What waits is replayed after a crash.
    pub index_interval: Duration,
    /// How many changes may wait before the index commits them early; twice as many stall commits. A
    /// certificate makes five or six, of about 100 bytes of memory each. The larger, the cheaper the index.
    pub index_changes: usize,
    /// Bytes of cache for the index.
    pub cache_bytes: usize,
    /// Whether a log that has ended here is opened all the same, to be read.
    pub may_have_ended: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            index_interval: Duration::from_secs(10),
            index_changes: 400_000,
            cache_bytes: 96 << 20,
            may_have_ended: false,
        }
    }
}

/// News that a slow listener may be behind before it is told that it has missed some.
const NEWS: usize = 1 << 16;

/// What is shared by the callers and the two threads.
struct Shared {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    options: Options,
    memtable: Memtable,
    derived: Derived,
    reader: JournalReader,
    signatures: SignatureLog,
    log_id: LogId,
    head: ArcSwap<Head>,
    /// See [`Ledger::standing_epoch`].
    standing_epoch: std::sync::atomic::AtomicU64,
    signers: Arc<LogSigners>,
    checkpoint: Mutex<checkpoint::Latest>,
    halted: Mutex<Option<String>>,
    /// The next serial counter of each issuer that was asked for one.
    counters: Mutex<HashMap<IssuerEpoch, u64>>,
    /// The indexer has no room to go on; it tries again.
    index_is_full: std::sync::atomic::AtomicBool,
    syncs: std::sync::atomic::AtomicU64,
    wake: indexer::Wake,
    news: tokio::sync::broadcast::Sender<News>,
}

impl Shared {
    fn halted(&self) -> Option<CommitError> {
        let reason = self.halted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reason.map(|reason| CommitError::Halted { reason })
    }

    /// Stops all writes for the life of this process. The first reason stands.
    fn halt(&self, reason: String) -> CommitError {
        let mut halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = halted.get_or_insert(reason).clone();
        tracing::error!(%reason, "THE LEDGER HAS STOPPED ACCEPTING WRITES; reads and status go on");
        CommitError::Halted { reason }
    }

    /// The size and the signed checkpoint of the current head.
    fn checkpoint(&self) -> Result<(u64, SignedNote), ReadError> {
        let mut cached = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: no checkpoint is given out after a larger one.
        let head = **self.head.load();
        cached.of(&head, &self.signers).map_err(ReadError)
    }

    /// An entry below the head, checked against its place in the tree.
    fn entry(&self, index: u64) -> Result<Vec<u8>, ReadError> {
        let (segment, offset) = self.derived.entry_location(index).map_err(read_error)?;
        let entry = self.reader.entry(segment, offset).map_err(read_error)?;
        if leaf_hash(&entry) != self.derived.leaf(index).map_err(read_error)? {
            return Err(ReadError(format!(
                "entry {index} does not have its hash: journal or derived files are damaged, run `chancery ledger check`"
            )));
        }
        Ok(entry)
    }
}

/// A ledger in a directory, open for this process alone.
pub struct EmbeddedLedger {
    shared: Arc<Shared>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    turns: Turns,
    _lock: std::fs::File,
}

impl std::fmt::Debug for EmbeddedLedger {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EmbeddedLedger")
            .field("directory", &self.shared.directory)
            .finish_non_exhaustive()
    }
}

impl EmbeddedLedger {
    /// Waits until everything accepted is in the index, then stops. Dropping does the same.
    pub fn close(&self) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic in there was reported by the panic hook; there is nothing left to save here.
            let _ = thread.join();
        }
    }

    /// Why writes have stopped, if they have.
    #[must_use]
    pub fn halted(&self) -> Option<CommitError> {
        self.shared.halted()
    }

    /// How many times the journal was synced since the ledger was opened.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// SHA-256 over every key and value of the read model, in order: equal for equal states.
    ///
    /// # Errors
    /// [`ModelError`] when the index cannot be read.
    pub fn model_digest(&self) -> Result<Digest, ModelError> {
        use crate::model::View;
        let mut hasher = Sha256::new();
        let mut start = Vec::new();
        loop {
            let pairs = self.shared.memtable.scan(&start, &[255; 64], 4096)?;
            let Some((last, _)) = pairs.last() else { break };
            start.clone_from(last);
            start.push(0);
            for (key, value) in &pairs {
                for part in [key, value] {
                    hasher.update((part.len() as u64).to_be_bytes());
                    hasher.update(part);
                }
            }
        }
        Ok(Digest::from_array(hasher.finalize().into()))
    }
}

impl Drop for EmbeddedLedger {
    fn drop(&mut self) {
        self.close();
    }
}

/// Nobody else can have the directory open.
#[async_trait]
impl Leases for EmbeddedLedger {
    async fn acquire(&self, work: &str, lifetime: Duration) -> Result<Option<Lease>, ReadError> {
        Ok(Some(Lease { work: work.to_owned(), fence: 1, until: Instant::now() + lifetime }))
    }

    async fn release(&self, _lease: &Lease) -> Result<(), ReadError> {
        Ok(())
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn commit(&self, proposals: Vec<Proposal>) -> Result<Vec<Outcome>, CommitError> {
        let bytes: usize = proposals.iter().map(Proposal::bytes).sum();
        if bytes > MAX_CALL {
            let reason = format!("one call has at most {MAX_CALL} bytes of entries, not {bytes}: split it");
            return Err(CommitError::Halted { reason });
        }
        let requests = self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(CommitError::Closing)?;
        let (reply, answer) = oneshot::channel();
        requests.send(Request { proposals, reply }).await.map_err(|_| CommitError::Closing)?;
        drop(requests);
        let answer = answer.await.map_err(|_| self.shared.halted().unwrap_or(CommitError::Closing))?;
        // The proposals come back with it: freeing them is the caller's work, not the sequencer's.
        answer.map(|(outcomes, _proposals)| outcomes)
    }

    async fn keep_signatures(&self, signatures: Vec<IssuedSignature>) -> Result<(), CommitError> {
        let shared = &self.shared;
        let size = self.head().size;
        if let Some(record) = signatures.iter().find(|record| record.index >= size) {
            let reason = format!("a signature of entry {} was to be kept, there are {size}", record.index);
            return Err(CommitError::Halted { reason });
        }
        let records = signatures.iter().map(|record| (record.index, record.signature.as_slice()));
        let kept = shared
            .signatures
            .append(records, &mut |index, offset| shared.derived.keep_signature(index, offset));
        kept.map_err(|error| match is_full(&error) {
            true => CommitError::DiskFull,
            false => CommitError::Halted { reason: format!("keeping signatures failed: {error}") },
        })?;
        shared.wake.soon();
        Ok(())
    }

    async fn reserve_counters(&self, epoch: IssuerEpoch, count: u64) -> Result<u64, CommitError> {
        let mut counters = self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match counters.get(&epoch) {
            Some(next) => *next,
            None => {
                let last = query::last_counter(&self.shared.memtable, epoch);
                let last = last.map_err(|error| CommitError::Halted { reason: error.to_string() })?;
                last.map_or(0, |last| last + 1)
            }
        };
        counters.insert(epoch, next + count);
        Ok(next)
    }

    fn head(&self) -> Head {
        **self.shared.head.load()
    }

    fn standing_epoch(&self) -> u64 {
        self.shared.standing_epoch.load(std::sync::atomic::Ordering::Acquire)
    }

    fn news(&self) -> tokio::sync::broadcast::Receiver<News> {
        self.shared.news.subscribe()
    }

    fn checkpoint(&self) -> Result<SignedNote, ReadError> {
        self.shared.checkpoint().map(|(_, note)| note)
    }

    async fn entry(&self, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        if index >= self.head().size {
            return Ok(None);
        }
        self.shared.entry(index).map(Some)
    }

    async fn entries(&self, start: u64, count: usize) -> Result<Vec<Vec<u8>>, ReadError> {
        let end = self.head().size.min(start.saturating_add(count as u64));
        (start..end).map(|index| self.shared.entry(index)).collect()
    }

    async fn signature(&self, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        if index >= self.head().size {
            return Ok(None);
        }
        match self.shared.derived.signature_location(index).map_err(read_error)? {
            Some(offset) => self.shared.signatures.signature(index, offset).map_err(read_error),
            None => Ok(None),
        }
    }

    async fn hashes(&self, level: u8, start: u64, count: usize) -> Result<Vec<Digest>, ReadError> {
        let complete = self.head().size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        if start.checked_add(count as u64).is_none_or(|end| end > complete) {
            return Err(ReadError(format!(
                "level {level} of the tree has {complete} complete hashes, {count} from {start} on were asked for"
            )));
        }
        let mut hashes = Vec::with_capacity(count);
        self.shared.derived.read(level, start, count, &mut hashes).map_err(read_error)?;
        Ok(hashes)
    }

    async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, ReadError> {
        self.within_head(size)?;
        inclusion_proof(index, size, &self.shared.derived).map_err(read_error)
    }

    async fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Digest>, ReadError> {
        self.within_head(new)?;
        consistency_proof(old, new, &self.shared.derived).map_err(read_error)
    }

    fn scratch(&self) -> Option<&dyn Scratch> {
        None
    }

    fn trouble(&self) -> Option<CommitError> {
        self.halted()
    }

    fn syncs(&self) -> u64 {
        EmbeddedLedger::syncs(self)
    }

    async fn end(&self, why: &str) -> Result<Head, CommitError> {
        // What was sent before is answered first.
        EmbeddedLedger::close(self);
        open::end(&self.shared.directory, why).map_err(|error| self.shared.halt(error.to_string()))?;
        Ok(self.head())
    }

    fn close(&self) {
        EmbeddedLedger::close(self);
    }
}

impl EmbeddedLedger {
    fn within_head(&self, size: u64) -> Result<(), ReadError> {
        let head = self.head().size;
        if size > head {
            return Err(ReadError(format!("the log has {head} entries, a proof for {size} was asked for")));
        }
        Ok(())
    }
}

#[async_trait]
impl ReadModel for EmbeddedLedger {
    async fn certificate(&self, serial: SerialNumber) -> Result<Option<CertificateRecord>, ModelError> {
        match query::recorded(&self.shared.memtable, serial)? {
            None => Ok(None),
            Some(recorded) => recorded.record(serial, self).await.map(Some),
        }
    }

    async fn certificates(
        &self,
        query: &CertificateQuery,
        page: &PageRequest,
    ) -> Result<Page<CertificateRecord>, ModelError> {
        search::certificates(&self.shared.memtable, query, page)
    }

    async fn ended(&self, before: Timestamp, page: &PageRequest) -> Result<Page<SerialNumber>, ModelError> {
        tidy::ended(&self.shared.memtable, before, page)
    }

    async fn lineage(&self, lineage: LineageId) -> Result<Option<LineageRecord>, ModelError> {
        query::lineage(&self.shared.memtable, lineage)
    }

    async fn living(&self, lineage: LineageId) -> Result<Vec<SerialNumber>, ModelError> {
        match query::lineage_head(&self.shared.memtable, lineage)? {
            Some(head) => query::living(&self.shared.memtable, lineage, &head),
            None => Ok(Vec::new()),
        }
    }

    async fn identity(&self, id: &SpiffeId) -> Result<Option<IdentityRecord>, ModelError> {
        query::identity(&self.shared.memtable, id)
    }

    async fn identities(
        &self,
        query: &IdentityQuery,
        page: &PageRequest,
    ) -> Result<Page<IdentityRecord>, ModelError> {
        query::identities(&self.shared.memtable, query, page)
    }

    async fn template(&self, name: &str) -> Result<Option<TemplateRecord>, ModelError> {
        query::template(&self.shared.memtable, name)
    }

    async fn templates(&self) -> Result<Vec<TemplateRecord>, ModelError> {
        query::templates(&self.shared.memtable)
    }

    async fn token(&self, token: TokenId) -> Result<Option<TokenRecord>, ModelError> {
        query::token(&self.shared.memtable, token)
    }

    async fn tokens(&self, page: &PageRequest) -> Result<Page<TokenRecord>, ModelError> {
        query::tokens(&self.shared.memtable, page)
    }

    async fn change(&self, change: u64) -> Result<Option<ChangeRecord>, ModelError> {
        change::change(&self.shared.memtable, change)
    }

    async fn changes(&self, page: &PageRequest) -> Result<Page<ChangeRecord>, ModelError> {
        change::changes(&self.shared.memtable, page)
    }

    async fn held_by(&self, change: u64, page: &PageRequest) -> Result<Page<SerialNumber>, ModelError> {
        change::held_by(&self.shared.memtable, change, page)
    }

    async fn taken(&self, by: &str, since: Timestamp) -> Result<BTreeMap<String, u64>, ModelError> {
        taken::taken(&self.shared.memtable, by, since)
    }

    async fn issuers(&self) -> Result<Vec<IssuerRecord>, ModelError> {
        query::issuers(&self.shared.memtable)
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, ModelError> {
        query::keys(&self.shared.memtable)
    }

    async fn wishes(&self) -> Result<Vec<WishRecord>, ModelError> {
        query::wishes(&self.shared.memtable)
    }

    async fn last_counter(&self, epoch: IssuerEpoch) -> Result<Option<u64>, ModelError> {
        query::last_counter(&self.shared.memtable, epoch)
    }

    async fn revoked(
        &self,
        epoch: IssuerEpoch,
        now: Timestamp,
    ) -> Result<Vec<RevokedCertificate>, ModelError> {
        query::revoked(&self.shared.memtable, epoch, now)
    }

    async fn last_crl(
        &self,
        epoch: IssuerEpoch,
        shard: Option<CrlShard>,
    ) -> Result<Option<CrlRecord>, ModelError> {
        query::last_crl(&self.shared.memtable, epoch, shard)
    }

    async fn crl_divisions(&self, epoch: IssuerEpoch) -> Result<Vec<CrlDivisionRecord>, ModelError> {
        query::crl_divisions(&self.shared.memtable, epoch)
    }

    async fn last_status_set(&self) -> Result<Option<StatusSetRecord>, ModelError> {
        query::last_status_set(&self.shared.memtable)
    }

    async fn idempotent(&self, hash: Digest) -> Result<Option<SerialNumber>, ModelError> {
        query::idempotent(&self.shared.memtable, hash)
    }

    async fn profile(&self, hash: Digest) -> Result<Option<u64>, ModelError> {
        query::profile(&self.shared.memtable, hash)
    }

    async fn policy(&self, hash: Digest) -> Result<Vec<u64>, ModelError> {
        query::policy(&self.shared.memtable, hash)
    }
}
