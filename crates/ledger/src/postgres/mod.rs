//! The backend for many replicas on one PostgreSQL.
//!
//! ```text
//! head        one row: size, root, right edge of the tree; whoever has it locked decides the order
//! entries     the truth, partitioned by index; leaf hashes beside them
//! hashes      of complete subtrees, for tiles and proofs
//! signatures  made over recorded entries
//! model       the read model as ordered keys and values, written with the entries it follows from
//! replicas    the number of each replica's last batch
//! leases      who does what only one replica at a time may do
//! scratch     what replicas hand to each other, until it runs out
//! ```
//! Nothing else coordinates the replicas. Each gathers what its callers propose, locks the head, decides the batch over
//! the read model as it then stands, and commits entries, hashes, read model and head in one transaction. The last
//! checkpoint is also kept outside the database: one that comes back older, or with other entries, is refused, and this
//! process signs nothing more.
//!
//! What one replica acknowledged, every replica reads: reads go to the database. Only [`Ledger::head`],
//! [`Ledger::checkpoint`] and [`Ledger::news`] follow what others did by the time that a notification takes, or a
//! quarter of a second where none comes. [`Ledger::standing_epoch`] never vouches for longer than a second: while it
//! cannot be known that nothing has changed, it is another number each time.

mod counters;
mod end;
mod error;
mod follow;
mod hashes;
mod head;
mod lay;
mod lease;
mod lookups;
mod migrate;
mod model;
mod open;
mod options;
mod prefetch;
mod readers;
mod rebuild;
mod sequencer;
mod session;
mod signatures;
mod standby;
mod survey;
mod tls;
mod view;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use chancery_merkle::{LogSigners, SignedNote, consistency_proof, inclusion_proof, leaf_hash};
use chancery_types::{Digest, IssuerEpoch};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use error::Unfit;
use follow::Heard;
use hashes::{TileReader, Tiles, digest, signed};
use head::{HeadRow, Known, LogName, READ};
use lookups::Lookups;
use readers::Readers;
use session::{Parameter, Session, SqlError, Statement, Target, column};
use signatures::Keep;
use view::Drive;

pub use error::{Fence, PostgresError};
pub use lay::PostgresLogWriter;
pub use options::{PostgresOptions, check_address};
pub use rebuild::PostgresReport;
pub use survey::{LeaseSeen, Said, Survey, Writer, survey};

use crate::embedded::checkpoint;
use crate::embedded::disk::{Disk, RealDisk};
use crate::proposal::{CommitError, MAX_CALL, Outcome, Proposal};
use crate::scratch::Scratch;
use crate::sequence::Request;
use crate::{Head, IssuedSignature, Ledger, News, ReadError, read_error};

/// News that a slow listener may be behind before it is told that it has missed some.
const NEWS: usize = 8192;
/// How long a look at the database vouches that nothing has changed.
const FRESH: Duration = Duration::from_secs(1);
/// After so long without a look the database counts as away.
const SILENT: Duration = Duration::from_secs(3);

const ENTRIES: Statement = Statement {
    name: "entries",
    text: "SELECT index, leaf, bytes FROM @.entries WHERE index >= $1 AND index < $2 ORDER BY index",
};
/// Entries read at once: some megabytes.
const CHUNK: u64 = 4096;

/// What is shared by the callers and the sequencer.
struct Shared {
    target: Target,
    /// Where notifications come from.
    listen: Target,
    directory: PathBuf,
    patience: Duration,
    publishes: bool,
    partition: u64,
    /// This process, as the database knows it.
    replica: Vec<u8>,
    name: String,
    log: LogName,
    epoch: i64,
    readers: Readers,
    lookups: Lookups,
    standbys: standby::Standbys,
    tiles: Tiles,
    head: ArcSwap<Head>,
    /// See [`Ledger::standing_epoch`].
    standing_epoch: AtomicU64,
    /// When it was last known that nothing else has changed, in microseconds after `started`.
    fresh: AtomicU64,
    started: Instant,
    commits: AtomicU64,
    signers: Arc<LogSigners>,
    checkpoint: Mutex<checkpoint::Latest>,
    halted: Mutex<Option<Halt>>,
    news: broadcast::Sender<News>,
    counters: counters::Counters,
}

/// Why writes have stopped for the life of this process.
#[derive(Debug, Clone)]
struct Halt {
    reason: String,
    /// What the database says may not be told either: it is not the log that was published.
    reads_stop: bool,
}

impl Shared {
    fn known(&self) -> Known {
        Known { log: self.log.clone(), epoch: self.epoch, head: self.head() }
    }

    fn head(&self) -> Head {
        **self.head.load()
    }

    fn halted(&self) -> Option<CommitError> {
        let halt = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        halt.as_ref().map(|halt| CommitError::Halted { reason: halt.reason.clone() })
    }

    fn halt(&self, reason: String) {
        self.stop(Halt { reason, reads_stop: false });
    }

    fn fence(&self, fence: &Fence) {
        let reads_stop = !matches!(fence, Fence::TakenOver { .. } | Fence::Closed(_));
        self.stop(Halt { reason: fence.to_string(), reads_stop });
    }

    /// The first reason stands.
    fn stop(&self, halt: Halt) {
        let mut halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        if halted.is_none() {
            tracing::error!(reason = %halt.reason, "THE LEDGER HAS STOPPED ACCEPTING WRITES");
            *halted = Some(halt);
        }
    }

    /// Stops for what a new connection found.
    fn note(&self, unfit: &Unfit) {
        if let Unfit::Fenced(fence) = unfit {
            self.fence(fence);
        }
    }

    /// Refuses to read from a database that is not the one that it should be.
    fn may_read(&self) -> Result<(), ReadError> {
        let halt = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        match halt.as_ref().filter(|halt| halt.reads_stop) {
            Some(halt) => Err(ReadError(halt.reason.clone())),
            None => Ok(()),
        }
    }

    /// Takes over what the log has come to, and tells it on. Called by the sequencer alone: the log's order.
    fn tell(&self, heard: Heard, began: Instant) {
        if let Some(fence) = &heard.fence {
            self.fence(fence);
        }
        if heard.changes_standing {
            self.standing_epoch.fetch_add(1, Ordering::AcqRel);
        }
        // In this order: what stands below a head that somebody sees has been told.
        for news in heard.news {
            // Fails when nobody listens.
            let _ = self.news.send(news);
        }
        if heard.head.size > self.head().size {
            self.head.store(Arc::new(heard.head));
        }
        let at = began.saturating_duration_since(self.started).as_micros();
        self.fresh.store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// How long ago it was last known where the log stands.
    fn age(&self) -> Duration {
        let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(now.saturating_sub(self.fresh.load(Ordering::Acquire)))
    }

    fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// The size and the signed checkpoint of the current head.
    fn checkpoint(&self) -> Result<(u64, SignedNote), ReadError> {
        self.may_read()?;
        self.signed_head()
    }

    /// The last head that was seen durable, signed, and its size; for a replica that is fenced off too.
    fn signed_head(&self) -> Result<(u64, SignedNote), ReadError> {
        let mut cached = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: no checkpoint is given out after a larger one.
        cached.of(&self.head(), &self.signers).map_err(ReadError)
    }

    /// Replaces the checkpoint outside the database, unless a larger one is there; its size. A replica that is fenced
    /// off keeps what it has seen as well: the next start must ask for as much.
    fn publish(&self) -> Result<u64, ReadError> {
        if !self.publishes {
            return Ok(self.head().size);
        }
        let (size, note) = self.signed_head()?;
        let disk = Arc::new(RealDisk) as Arc<dyn Disk>;
        let gathered = checkpoint::gathered_by(&self.replica);
        checkpoint::advance(&disk, &self.directory, &gathered, (size, &note)).map_err(read_error)?;
        Ok(size)
    }

    /// A connection for reading.
    async fn reader(&self) -> Result<Arc<Session>, ReadError> {
        self.may_read()?;
        self.readers.next(self).await.map_err(read_error)
    }

    /// Rows, asked for once more when the connection turns out to be dead.
    async fn read(&self, statement: &Statement, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, ReadError> {
        match self.reader().await?.rows(statement, parameters).await {
            Err(SqlError::Lost { .. }) => {
                self.reader().await?.rows(statement, parameters).await.map_err(read_error)
            }
            other => other.map_err(read_error),
        }
    }

    /// The log's size, looked up where what is asked for lies beyond what is known here.
    async fn size(&self, wanted: u64) -> Result<u64, ReadError> {
        // Known before it is asked: what is recorded meanwhile is not missing from the answer.
        let known = self.known();
        if wanted <= known.head.size {
            return Ok(known.head.size);
        }
        let rows = self.read(&READ, &[]).await?;
        let row = rows.first().ok_or_else(|| ReadError("the head row is gone".to_owned()))?;
        let row = HeadRow::read(&READ, row).map_err(read_error)?;
        row.check(&known).map_err(|fence| {
            self.fence(&fence);
            read_error(fence)
        })?;
        Ok(row.head.size)
    }

    /// Entries, each checked against its place in the tree.
    async fn entries(&self, start: u64, end: u64) -> Result<Vec<Vec<u8>>, ReadError> {
        let parameters = [signed(start), signed(end)];
        let rows = self.read(&ENTRIES, &[(&parameters[0], Type::INT8), (&parameters[1], Type::INT8)]).await?;
        checked(&rows, start, end)
    }

    /// The same from a standby, where one has them.
    async fn entries_at_leisure(&self, start: u64, end: u64) -> Result<Vec<Vec<u8>>, ReadError> {
        if let Some(standby) = self.standbys.next(self).await.filter(|standby| end <= standby.size) {
            let parameters = [signed(start), signed(end)];
            let parameters = [(&parameters[0] as _, Type::INT8), (&parameters[1] as _, Type::INT8)];
            let rows = standby.session.rows(&ENTRIES, &parameters).await.map_err(read_error);
            match rows.and_then(|rows| checked(&rows, start, end)) {
                Ok(entries) => {
                    self.standbys.note();
                    return Ok(entries);
                }
                Err(error) => tracing::debug!(%error, "the primary is asked instead of a standby"),
            }
        }
        self.entries(start, end).await
    }

    /// As [`Self::entries`], in pieces, as far as the log reaches.
    async fn entries_in_pieces(
        &self,
        start: u64,
        count: usize,
        may_lag: bool,
    ) -> Result<Vec<Vec<u8>>, ReadError> {
        let wanted = start.saturating_add(count as u64);
        let end = self.size(wanted).await?.min(wanted);
        let mut entries = Vec::new();
        let mut from = start;
        while from < end {
            let to = end.min(from + CHUNK);
            entries.extend(match may_lag {
                true => self.entries_at_leisure(from, to).await?,
                false => self.entries(from, to).await?,
            });
            from = to;
        }
        Ok(entries)
    }
}

/// Entries `start .. end`, each checked against its place in the tree.
fn checked(rows: &[Row], start: u64, end: u64) -> Result<Vec<Vec<u8>>, ReadError> {
    if rows.len() as u64 != end - start {
        let found = rows.len();
        return Err(ReadError(format!("of the entries {start} to {end} the database has {found}")));
    }
    let entry = |row: &Row| {
        let index: i64 = column(&ENTRIES, row, 0)?;
        let leaf = digest(&ENTRIES, column(&ENTRIES, row, 1)?)?;
        let bytes: Vec<u8> = column(&ENTRIES, row, 2)?;
        if leaf_hash(&bytes) != leaf {
            let problem = format!("entry {index} does not have its hash: run `chancery ledger check`");
            return Err(SqlError::refused(ENTRIES.name, problem));
        }
        Ok(bytes)
    };
    rows.iter().map(|row| entry(row).map_err(read_error)).collect()
}

/// A ledger in a database, as one of its replicas.
pub struct PostgresLedger {
    shared: Arc<Shared>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    signatures: mpsc::Sender<Keep>,
    turns: crate::Turns,
    scratched: lease::Scratched,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for PostgresLedger {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PostgresLedger")
            .field("schema", &self.shared.target.schema)
            .field("replica", &self.shared.name)
            .finish_non_exhaustive()
    }
}

impl PostgresLedger {
    /// Waits until everything accepted is answered, and keeps the last checkpoint. Dropping does the same.
    pub fn close(&self) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic in there was reported by the panic hook; there is nothing left to save here.
            let _ = thread.join();
        }
    }

    /// Why writes have stopped, if they have.
    #[must_use]
    pub fn halted(&self) -> Option<CommitError> {
        self.shared.halted()
    }

    /// Why nothing can be recorded now.
    fn trouble_now(&self) -> Option<CommitError> {
        let age = self.shared.age();
        let silent = || {
            let reason = format!("nothing was heard from it for {} s", age.as_secs());
            CommitError::Unavailable { reason }
        };
        self.halted().or_else(|| (age > SILENT).then(silent))
    }

    /// How many transactions this replica has committed.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Makes a proof on a thread that may block.
    async fn prove(
        &self,
        size: u64,
        proof: impl Fn(&TileReader<'_>) -> Result<Vec<Digest>, ReadError> + Send + 'static,
    ) -> Result<Vec<Digest>, ReadError> {
        let head = self.shared.size(size).await?;
        if size > head {
            return Err(ReadError(format!("the log has {head} entries, a proof for {size} was asked for")));
        }
        let (shared, session) = (Arc::clone(&self.shared), self.shared.reader().await?);
        let handle = tokio::runtime::Handle::current();
        let prove = move || {
            let drive = Drive::Shared(&handle);
            proof(&TileReader { tiles: &shared.tiles, session: &session, drive, size: head })
        };
        tokio::task::spawn_blocking(prove).await.map_err(read_error)?
    }
}

impl Drop for PostgresLedger {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn commit(&self, proposals: Vec<Proposal>) -> Result<Vec<Outcome>, CommitError> {
        let bytes: usize = proposals.iter().map(Proposal::bytes).sum();
        if bytes > MAX_CALL {
            let reason = format!("one call has at most {MAX_CALL} bytes of entries, not {bytes}: split it");
            return Err(CommitError::Halted { reason });
        }
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let requests = requests.ok_or(CommitError::Closing)?;
        let (reply, answer) = oneshot::channel();
        requests.send(Request { proposals, reply }).await.map_err(|_| CommitError::Closing)?;
        drop(requests);
        let answer = answer.await.map_err(|_| self.shared.halted().unwrap_or(CommitError::Closing))?;
        answer.map(|(outcomes, _proposals)| outcomes)
    }

    async fn keep_signatures(&self, signatures: Vec<IssuedSignature>) -> Result<(), CommitError> {
        let last = signatures.iter().map(|record| record.index).max();
        let Some(last) = last else { return Ok(()) };
        let size = self.shared.size(last.saturating_add(1)).await;
        let size = size.map_err(|error| CommitError::Unavailable { reason: error.to_string() })?;
        if last >= size {
            let reason = format!("a signature of entry {last} was to be kept, there are {size}");
            return Err(CommitError::Halted { reason });
        }
        let (reply, answer) = oneshot::channel();
        self.signatures.send(Keep { signatures, reply }).await.map_err(|_| CommitError::Closing)?;
        answer.await.map_err(|_| CommitError::Closing)?
    }

    async fn reserve_counters(&self, epoch: IssuerEpoch, count: u64) -> Result<u64, CommitError> {
        counters::reserve(&self.shared, epoch, count).await
    }

    fn head(&self) -> Head {
        self.shared.head()
    }

    fn standing_epoch(&self) -> u64 {
        let shared = &self.shared;
        match shared.age() < FRESH {
            true => shared.standing_epoch.load(Ordering::Acquire),
            // It cannot be known: nothing that is read now may be kept.
            false => shared.standing_epoch.fetch_add(1, Ordering::AcqRel) + 1,
        }
    }

    fn news(&self) -> broadcast::Receiver<News> {
        self.shared.news.subscribe()
    }

    fn checkpoint(&self) -> Result<SignedNote, ReadError> {
        self.shared.checkpoint().map(|(_, note)| note)
    }

    async fn entry(&self, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(end) = index.checked_add(1) else { return Ok(None) };
        if index >= self.shared.size(end).await? {
            return Ok(None);
        }
        Ok(self.shared.entries(index, end).await?.pop())
    }

    async fn entries(&self, start: u64, count: usize) -> Result<Vec<Vec<u8>>, ReadError> {
        self.shared.entries_in_pieces(start, count, false).await
    }

    async fn entries_at_leisure(&self, start: u64, count: usize) -> Result<Vec<Vec<u8>>, ReadError> {
        self.shared.entries_in_pieces(start, count, true).await
    }

    async fn signature(&self, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        signatures::find(&self.shared, index).await
    }

    async fn signatures(&self, start: u64, count: usize) -> Result<Vec<IssuedSignature>, ReadError> {
        signatures::between(&self.shared, start, start.saturating_add(count as u64)).await
    }

    async fn hashes(&self, level: u8, start: u64, count: usize) -> Result<Vec<Digest>, ReadError> {
        let bits = 8 * u32::from(level);
        let end = start.checked_add(count as u64);
        let wanted = end.and_then(|end| end.checked_mul(1_u64.checked_shl(bits)?));
        let size = self.shared.size(wanted.unwrap_or(0)).await?;
        let complete = size.checked_shr(bits).unwrap_or(0);
        if end.is_none_or(|end| end > complete) {
            return Err(ReadError(format!(
                "level {level} of the tree has {complete} complete hashes, {count} from {start} on were asked for"
            )));
        }
        let session = self.shared.reader().await?;
        hashes::read(&session, level, start, count).await.map_err(read_error)
    }

    async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, ReadError> {
        self.prove(size, move |tiles| inclusion_proof(index, size, tiles).map_err(read_error)).await
    }

    async fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Digest>, ReadError> {
        self.prove(new, move |tiles| consistency_proof(old, new, tiles).map_err(read_error)).await
    }

    fn scratch(&self) -> Option<&dyn Scratch> {
        Some(self)
    }

    fn trouble(&self) -> Option<CommitError> {
        self.trouble_now()
    }

    fn syncs(&self) -> u64 {
        self.commits()
    }

    fn answered_by_standbys(&self) -> u64 {
        self.shared.standbys.answered()
    }

    async fn end(&self, why: &str) -> Result<Head, CommitError> {
        end::end(&self.shared, why).await
    }

    fn close(&self) {
        PostgresLedger::close(self);
    }
}
