//! One thread that takes this replica's batches to the head row, and tells what other replicas recorded.
//!
//! A batch is one transaction, in three round trips: lock the head and read what the batch needs; write; commit. While
//! the head is locked nobody else decides anything, in any replica. When the answer to a commit is lost, the next
//! connection looks whether the batch was recorded before anything is tried again: nothing is recorded twice, and
//! nobody is told that something failed which stands in the log.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chancery_merkle::Frontier;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio_postgres::types::Type;

use super::Shared;
use super::error::{Fence, Unfit};
use super::follow::{Heard, listen, news_between};
use super::hashes::signed;
use super::head::{HeadRow, LOCK, verify};
use super::prefetch::Reads;
use super::session::{Parameter, Session, SqlError, Statement, column};
use super::view::{Drive, Prefetched, SqlView, write};
use crate::model::Changes;
use crate::model::apply::changes_standing;
use crate::model::batch_view::BatchView;
use crate::proposal::{CommitError, Outcome, Proposal, ProposedEntry};
use crate::sequence::{Request, decide, gather, is_news, refuse_all};
use crate::{Head, News};

/// How often the head is looked at when nothing is heard.
const TICK: Duration = Duration::from_millis(250);
/// How often the checkpoint outside the database is replaced.
const PUBLISH: Duration = Duration::from_millis(500);
/// Pauses between tries.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What is set is gone with the transaction. A replica that falls silent in the middle loses the lock after so many
/// seconds: two, and more only for a batch that takes long to send.
fn begin(extra: Duration) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '2s'; \
         SET LOCAL idle_in_transaction_session_timeout = '{}s'",
        2 + extra.as_secs()
    )
}

/// What a batch of so many bytes is given beyond what each has: a megabyte a second is the very least.
fn extra(proposals: impl Iterator<Item = usize>) -> Duration {
    Duration::from_secs(proposals.sum::<usize>() as u64 >> 20)
}

const LAST_BATCH: Statement =
    Statement { name: "last_batch", text: "SELECT batch FROM @.replicas WHERE id = $1" };

const ENTRIES: Statement = Statement {
    name: "insert_entries",
    text: "INSERT INTO @.entries (index, news, leaf, bytes) \
           SELECT $1 + entry.place - 1, entry.news, entry.leaf, entry.bytes \
           FROM unnest($2, $3, $4) WITH ORDINALITY AS entry(news, leaf, bytes, place)",
};

const HASHES: Statement = Statement {
    name: "insert_hashes",
    text: "INSERT INTO @.hashes (level, index, hash) SELECT * FROM unnest($1, $2, $3)",
};

const MOVE: Statement = Statement {
    name: "move_head",
    text: "UPDATE @.head SET size = $1, root = $2, frontier = $3 WHERE size = $4 AND epoch = $5",
};

const NOTE: Statement = Statement {
    name: "note_batch",
    text: "INSERT INTO @.replicas (id, name, batch, seen) VALUES ($1, $2, $3, now()) \
           ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, seen = excluded.seen",
};

/// Heard by every replica when, and only when, the transaction commits.
const TELL: Statement = Statement { name: "tell", text: "SELECT pg_notify('@', '')" };

const COMMIT: Statement = Statement { name: "commit_batch", text: "COMMIT" };
const ROLLBACK: Statement = Statement { name: "rollback_batch", text: "ROLLBACK" };

/// What a batch came to, once it is recorded.
#[derive(Debug, Clone)]
struct Decided {
    outcomes: Vec<Vec<Outcome>>,
    head: Head,
    first_index: u64,
    leaves: Vec<(u8, u64, chancery_types::Digest)>,
    /// What other replicas recorded before it, and what it tells itself.
    news: Vec<News>,
    changes_standing: bool,
}

/// What is done about a batch that failed.
enum Failure {
    /// It is tried again on this connection.
    Again(SqlError),
    /// It is tried again on another.
    Reconnect(String),
    /// Nothing was recorded, and the caller hears of it.
    Refused(CommitError),
    Fenced(Fence),
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Sql(error) => error.into(),
            Unfit::Fenced(fence) => Self::Fenced(fence),
        }
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Lost { .. } => Self::Reconnect(error.to_string()),
            SqlError::InTheWay { .. } => Self::Again(error),
            SqlError::Full { .. } => Self::Refused(CommitError::DiskFull),
            SqlError::Refused { .. } => Self::Refused(CommitError::Unavailable { reason: error.to_string() }),
        }
    }
}

pub(super) struct Sequencer {
    shared: Arc<Shared>,
    runtime: Runtime,
    heard: Arc<Notify>,
    session: Option<Session>,
    /// The number of the last batch that was sent.
    batch: i64,
    /// A batch whose commit was not answered.
    unanswered: Option<Decided>,
    published: (Instant, u64),
}

enum Event {
    Request(Request),
    /// The others may have recorded something.
    Look,
    Closed,
}

impl Sequencer {
    /// Starts the thread: `published` entries are in the checkpoint file.
    pub(super) fn spawn(
        shared: Arc<Shared>,
        published: u64,
        requests: mpsc::Receiver<Request>,
    ) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let heard = Arc::new(Notify::new());
        let sequencer = Self {
            shared,
            runtime,
            heard,
            session: None,
            batch: 0,
            unanswered: None,
            published: (Instant::now(), published),
        };
        std::thread::Builder::new().name("ledger-sequencer".into()).spawn(move || sequencer.run(requests))
    }

    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let _guard = EndGuard(Arc::clone(&self.shared));
        self.runtime.spawn(listen(self.shared.listen.clone(), Arc::clone(&self.heard)));
        let mut last = 0;
        loop {
            match self.next(&mut requests) {
                Event::Request(first) => {
                    let batch = gather(first, last, &mut requests);
                    last = batch.len();
                    self.serve(batch);
                }
                Event::Look => {
                    last = 0;
                    if let Err(failure) = self.look() {
                        self.leave(failure);
                    }
                }
                Event::Closed => break,
            }
            self.publish(PUBLISH);
        }
        self.publish(Duration::ZERO);
    }

    fn next(&self, requests: &mut mpsc::Receiver<Request>) -> Event {
        self.runtime.block_on(async {
            tokio::select! { biased;
                request = requests.recv() => request.map_or(Event::Closed, Event::Request),
                () = self.heard.notified() => Event::Look,
                () = tokio::time::sleep(TICK) => Event::Look,
            }
        })
    }

    /// Keeps the last checkpoint outside the database, not more often than this.
    fn publish(&mut self, interval: Duration) {
        let (when, size) = self.published;
        if when.elapsed() < interval || self.shared.head().size == size {
            return;
        }
        match self.shared.publish() {
            Ok(size) => self.published = (Instant::now(), size),
            Err(error) => {
                tracing::error!(%error, "the checkpoint outside the database could not be replaced")
            }
        }
    }

    /// Tries until the batch is recorded, refused, or the callers have waited long enough.
    fn serve(&mut self, batch: Vec<Request>) {
        let until = Instant::now() + self.shared.patience;
        let mut pause = SHORTEST_PAUSE;
        let error = loop {
            if let Some(error) = self.shared.halted() {
                break error;
            }
            let failure = match self.attempt(&batch) {
                Ok(outcomes) => return answer(batch, outcomes),
                Err(failure) => failure,
            };
            let Some(reason) = self.leave(failure) else { continue };
            match reason {
                Err(error) => break error,
                Ok(reason) if Instant::now() + pause > until => {
                    let unknown = match self.unanswered.take() {
                        Some(_) => {
                            "; whether this was recorded is not known: ask again, under the same idempotency key"
                        }
                        None => "",
                    };
                    break CommitError::Unavailable { reason: format!("{reason}{unknown}") };
                }
                Ok(_) => self.runtime.block_on(async { tokio::time::sleep(pause).await }),
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        };
        self.unanswered = None;
        refuse_all(batch, &error);
    }

    /// Puts what failed behind: the reason when it may be tried again, the error when not; nothing when the ledger
    /// has stopped, which the caller finds out.
    fn leave(&mut self, failure: Failure) -> Option<Result<String, CommitError>> {
        let again = match failure {
            Failure::Fenced(fence) => {
                self.session = None;
                self.shared.fence(&fence);
                return None;
            }
            Failure::Reconnect(reason) => {
                self.session = None;
                return Some(Ok(reason));
            }
            Failure::Again(error) => Ok(error.to_string()),
            Failure::Refused(error) => Err(error),
        };
        let rolled_back = match &self.session {
            Some(session) => self.runtime.block_on(session.run(&ROLLBACK)).is_ok(),
            None => true,
        };
        if !rolled_back {
            self.session = None;
        }
        Some(again)
    }

    /// A connection to a database that goes on from what is known.
    fn connect(&mut self) -> Result<(), Failure> {
        if self.session.as_ref().is_some_and(|session| !session.is_closed()) {
            return Ok(());
        }
        self.session = None;
        let shared = &self.shared;
        let session = self.runtime.block_on(async {
            let session = shared.target.connect().await?;
            verify(&session, &shared.known()).await?;
            Ok::<_, Unfit>(session)
        })?;
        self.session = Some(session);
        Ok(())
    }

    /// Looks where the log stands, and tells what others recorded since.
    fn look(&mut self) -> Result<(), Failure> {
        self.connect()?;
        let Some(session) = &self.session else { return Ok(()) };
        let began = Instant::now();
        let shared = &self.shared;
        let heard = self.runtime.block_on(Heard::read(session, &shared.known()))?;
        shared.tell(heard, began);
        Ok(())
    }

    /// One transaction.
    fn attempt(&mut self, batch: &[Request]) -> Result<Vec<Vec<Outcome>>, Failure> {
        self.connect()?;
        let Some(session) = &self.session else { return Ok(Vec::new()) };
        let shared = Arc::clone(&self.shared);
        let began = Instant::now();
        let proposals = || batch.iter().flat_map(|request| &request.proposals);
        let (row, last_batch, known) = self.runtime.block_on(lock(session, &shared.replica, proposals()))?;
        let known_here = shared.known();
        row.check(&known_here).and_then(|()| row.check_open(&known_here)).map_err(Failure::Fenced)?;
        if let Some(decided) = self.unanswered.take()
            && last_batch == Some(self.batch)
        {
            self.runtime.block_on(session.run(&ROLLBACK))?;
            return Ok(shared.recorded(decided, began));
        }
        let view = SqlView::with(session, Drive::Own(&self.runtime), known);
        let (decided, writes) = shared.decide(batch, &view, &row)?;
        let known = view.known;
        let Some(writes) = writes else {
            self.runtime.block_on(session.run(&ROLLBACK))?;
            return Ok(decided.outcomes);
        };
        self.batch += 1;
        let number = self.batch;
        let told = shared.head().size;
        let news = self.runtime.block_on(async {
            make_room(session, &row, &writes, shared.partition).await?;
            // Others' news first: the log's order.
            let (news, ()) = tokio::try_join!(biased;
                news_between(session, told, row.head.size),
                write_batch(session, &shared, &row, writes, &known, number))?;
            Ok::<_, SqlError>(news)
        })?;
        let mut decided = decided;
        decided.changes_standing |= news.iter().any(|news| changes_standing(&news.entry.body));
        decided.news.splice(0..0, news);
        self.unanswered = Some(decided);
        self.runtime.block_on(session.run(&COMMIT)).inspect_err(|error| {
            if !matches!(error, SqlError::Lost { .. }) {
                // The database said no: nothing was recorded.
                self.unanswered = None;
            }
        })?;
        let Some(decided) = self.unanswered.take() else { return Ok(Vec::new()) };
        Ok(shared.recorded(decided, began))
    }
}

/// Locks the head and reads what the batch needs, in one round trip: a statement sees what was committed before it
/// began, and these begin when the lock is held.
async fn lock<'a>(
    session: &Session,
    replica: &[u8],
    proposals: impl Iterator<Item = &'a Proposal> + Clone,
) -> Result<(HeadRow, Option<i64>, Prefetched), SqlError> {
    let extra = extra(proposals.clone().map(Proposal::bytes));
    let begin = begin(extra);
    let Reads { keys, ranges } = Reads::of(proposals);
    let (keys, ranges) = (keys.into_iter().collect(), ranges.into_iter().collect());
    let of_replica: [Parameter<'_>; 1] = [(&replica, Type::BYTEA)];
    let ((), row, batches, known) = tokio::try_join!(biased;
        session.run_text("begin_batch", &begin, extra),
        session.row(&LOCK, &[]),
        session.rows(&LAST_BATCH, &of_replica),
        Prefetched::read(session, keys, ranges, extra))?;
    let last_batch = batches.first().map(|row| column(&LAST_BATCH, row, 0)).transpose()?;
    Ok((HeadRow::read(&LOCK, &row)?, last_batch, known))
}

/// What a batch writes.
struct Writes {
    first_index: u64,
    news: Vec<bool>,
    leaves: Vec<Vec<u8>>,
    bytes: Vec<Vec<u8>>,
    levels: Vec<i16>,
    places: Vec<i64>,
    hashes: Vec<Vec<u8>>,
    changes: Changes,
    frontier: Frontier,
}

impl Shared {
    /// Decides a batch over the read model as it stands under the lock. Without writes there is nothing to record.
    fn decide(
        &self,
        batch: &[Request],
        below: &SqlView<'_>,
        row: &HeadRow,
    ) -> Result<(Decided, Option<Writes>), Failure> {
        let first_index = row.head.size;
        let mut view = BatchView::new(below);
        let mut accepted: Vec<&ProposedEntry> = Vec::new();
        let mut outcomes = Vec::with_capacity(batch.len());
        for request in batch {
            let of_request = request.proposals.iter().map(|proposal| {
                let next = first_index + accepted.len() as u64;
                decide(next, proposal, &mut view, &mut accepted)
            });
            let of_request: Result<Vec<_>, _> = of_request.collect();
            outcomes.push(of_request.map_err(|error| below.failure(&error))?);
        }
        let changes = view.into_changes();
        let (decided, writes) = assemble(outcomes, &accepted, row, changes);
        Ok((decided, (!accepted.is_empty()).then_some(writes)))
    }

    /// Tells everybody about a batch that is durable; its outcomes.
    fn recorded(&self, decided: Decided, began: Instant) -> Vec<Vec<Outcome>> {
        for (level, index, hash) in &decided.leaves {
            self.tiles.keep(*level, *index, *hash);
        }
        let Decided { outcomes, head, news, changes_standing, first_index, .. } = decided;
        debug_assert!(first_index <= head.size);
        self.tell(Heard { head, fence: None, news, changes_standing }, began);
        self.count_commit();
        outcomes
    }
}

fn assemble(
    outcomes: Vec<Vec<Outcome>>,
    accepted: &[&ProposedEntry],
    row: &HeadRow,
    changes: Changes,
) -> (Decided, Writes) {
    let first_index = row.head.size;
    let mut frontier = row.frontier.clone();
    let mut leaves = Vec::with_capacity(accepted.len() + accepted.len() / 256 + 1);
    for entry in accepted {
        frontier.append(entry.leaf, &mut |level, index, hash| leaves.push((level, index, hash)));
    }
    let above: Vec<_> = leaves.iter().filter(|(level, ..)| *level > 0).collect();
    let news = accepted.iter().zip(first_index..).filter(|(proposed, _)| is_news(&proposed.entry.body));
    let decided = Decided {
        outcomes,
        head: Head { size: frontier.size(), root: frontier.root() },
        first_index,
        news: news.map(|(proposed, index)| News { index, entry: Arc::new(proposed.entry.clone()) }).collect(),
        changes_standing: accepted.iter().any(|entry| changes_standing(&entry.entry.body)),
        leaves: leaves.clone(),
    };
    let writes = Writes {
        first_index,
        news: accepted.iter().map(|entry| is_news(&entry.entry.body)).collect(),
        leaves: accepted.iter().map(|entry| entry.leaf.as_bytes().to_vec()).collect(),
        bytes: accepted.iter().map(|entry| entry.bytes.clone()).collect(),
        levels: above.iter().map(|(level, ..)| i16::from(*level)).collect(),
        places: above.iter().map(|(_, index, _)| signed(*index)).collect(),
        hashes: above.iter().map(|(.., hash)| hash.as_bytes().to_vec()).collect(),
        changes,
        frontier,
    };
    (decided, writes)
}

/// Everything of a batch, sent at once; each statement says how many rows it must change.
async fn write_batch(
    session: &Session,
    shared: &Shared,
    row: &HeadRow,
    writes: Writes,
    known: &Prefetched,
    number: i64,
) -> Result<(), SqlError> {
    let Writes { first_index, news, leaves, bytes, levels, places, hashes, changes, frontier } = writes;
    let extra = extra(bytes.iter().map(Vec::len));
    let first = signed(first_index);
    let entries: [Parameter<'_>; 4] = [
        (&first, Type::INT8),
        (&news, Type::BOOL_ARRAY),
        (&leaves, Type::BYTEA_ARRAY),
        (&bytes, Type::BYTEA_ARRAY),
    ];
    let above: [Parameter<'_>; 3] =
        [(&levels, Type::INT2_ARRAY), (&places, Type::INT8_ARRAY), (&hashes, Type::BYTEA_ARRAY)];
    let above = async {
        match levels.len() {
            0 => Ok(()),
            rows => session.change_exactly(&HASHES, &above, rows, extra).await,
        }
    };
    let (size, root, edge) = (signed(frontier.size()), frontier.root(), frontier.to_bytes());
    let root = root.as_bytes().as_slice();
    let moved: [Parameter<'_>; 5] = [
        (&size, Type::INT8),
        (&root, Type::BYTEA),
        (&edge, Type::BYTEA),
        (&first, Type::INT8),
        (&row.epoch, Type::INT8),
    ];
    let noted: [Parameter<'_>; 3] =
        [(&shared.replica, Type::BYTEA), (&shared.name, Type::TEXT), (&number, Type::INT8)];
    tokio::try_join!(biased;
        session.change_exactly(&ENTRIES, &entries, bytes.len(), extra),
        above,
        write(session, session.schema(), changes, known, extra),
        session.change_exactly(&MOVE, &moved, 1, extra),
        session.change_exactly(&NOTE, &noted, 1, extra),
        session.row(&TELL, &[]))?;
    Ok(())
}

/// Makes the partitions that the batch needs, and the next one in good time. It is attached, not made in its place:
/// readers of the others are not held up.
async fn make_room(
    session: &Session,
    row: &HeadRow,
    writes: &Writes,
    partition: u64,
) -> Result<(), SqlError> {
    const NAME: &str = "make_room";
    let wanted = writes.first_index + writes.bytes.len() as u64 + partition / 4;
    let mut room = row.room;
    while room < wanted {
        let end = room + partition;
        let text = format!(
            "CREATE TABLE @.entries_{room} (LIKE @.entries INCLUDING ALL, \
                 CONSTRAINT range CHECK (index >= {room} AND index < {end})); \
             ALTER TABLE @.entries ATTACH PARTITION @.entries_{room} FOR VALUES FROM ({room}) TO ({end}); \
             UPDATE @.head SET room = {end} WHERE room = {room}"
        );
        session.run_text(NAME, &text, Duration::ZERO).await?;
        room = end;
    }
    Ok(())
}

fn answer(batch: Vec<Request>, outcomes: Vec<Vec<Outcome>>) {
    for (request, outcomes) in batch.into_iter().zip(outcomes) {
        // A caller that went away has its answer in the ledger.
        let _ = request.reply.send(Ok((outcomes, request.proposals)));
    }
}

/// Nothing can be relied on if it was a panic.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.halt("the sequencer panicked".to_owned());
        }
    }
}
