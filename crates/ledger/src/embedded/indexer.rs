//! One thread that follows the sequencer: commits the read model, syncs signatures, publishes checkpoints.
//!
//! The index is committed seldom and in large layers, because what a commit costs grows slowly with its size.
//! What waits for it is in the journal and is replayed after a crash. Signatures and the checkpoint file follow
//! every half second. When nothing happens, the thread sleeps.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::index::{IndexError, IndexPosition};
use super::{Shared, checkpoint, disk::is_full};

/// How long signatures and the checkpoint file may lag behind.
const TICK: Duration = Duration::from_millis(500);

/// How the others call the indexer.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    call: Mutex<Call>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct Call {
    soon: bool,
    now: bool,
    closing: bool,
}

impl Wake {
    /// Says that there is something to follow.
    pub(crate) fn soon(&self) {
        self.change(|call| call.soon = true);
    }

    /// Asks for a commit without waiting for the interval.
    pub(crate) fn now(&self) {
        self.change(|call| call.now = true);
    }

    /// Asks for a last commit and the thread's end.
    pub(crate) fn close(&self) {
        self.change(|call| call.closing = true);
    }

    fn change(&self, change: impl FnOnce(&mut Call)) {
        let mut call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *call;
        change(&mut call);
        let is_news = (before.soon, before.now, before.closing) != (call.soon, call.now, call.closing);
        drop(call);
        if is_news {
            self.changed.notify_one();
        }
    }

    /// Waits for the next tick, or, when there is nothing to follow, for a call.
    fn wait(&self, is_idle: bool) -> Call {
        let mut call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        if is_idle {
            let waited = self.changed.wait_while(call, |call| !call.soon && !call.now && !call.closing);
            call = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let waited = self.changed.wait_timeout_while(call, TICK, |call| !call.now && !call.closing);
        let (mut call, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let taken = *call;
        (call.soon, call.now) = (false, false);
        taken
    }
}

/// Starts the thread: the index has so many entries, and the checkpoint file speaks of so many.
pub(crate) fn spawn(shared: Arc<Shared>, indexed: u64, published: u64) -> io::Result<JoinHandle<()>> {
    let mut indexer = Indexer { shared, indexed, published, waiting_since: None };
    std::thread::Builder::new().name("ledger-indexer".into()).spawn(move || indexer.run())
}

struct Indexer {
    shared: Arc<Shared>,
    /// Entries in the index.
    indexed: u64,
    /// Entries in the checkpoint file.
    published: u64,
    /// Since when the index is behind.
    waiting_since: Option<Instant>,
}

/// How a step ended.
enum Step {
    Done,
    /// It could not be done now; it is tried again.
    Later,
}

impl Indexer {
    /// Runs until the sequencer closes, or a write fails.
    fn run(&mut self) {
        let mut is_idle = false;
        loop {
            let call = self.shared.wake.wait(is_idle);
            match self.follow(&call) {
                Ok(Step::Done) => is_idle = self.is_level(),
                Ok(Step::Later) => is_idle = false,
                Err(reason) => {
                    // What could not be committed stays readable in memory; the journal has it all.
                    self.shared.halt(reason);
                    return;
                }
            }
            if call.closing {
                return;
            }
        }
    }

    fn is_level(&self) -> bool {
        let size = self.shared.head.load().size;
        size == self.indexed && size == self.published
    }

    fn follow(&mut self, call: &Call) -> Result<Step, String> {
        let shared = Arc::clone(&self.shared);
        shared.signatures.sync().map_err(|error| format!("syncing signatures failed: {error}"))?;
        let is_behind = shared.head.load().size != self.indexed;
        if !is_behind {
            self.waiting_since = None;
        } else if self.waiting_since.is_none() {
            self.waiting_since = Some(Instant::now());
        }
        let waited = self.waiting_since.is_some_and(|since| since.elapsed() >= shared.options.index_interval);
        let is_much = shared.memtable.waiting() >= shared.options.index_changes;
        let is_full = shared.index_is_full.load(Ordering::Relaxed);
        let step = match is_behind && (call.closing || call.now || waited || is_much || is_full) {
            true => self.commit()?,
            false => Step::Done,
        };
        match self.publish()? {
            Step::Done => Ok(step),
            Step::Later => Ok(Step::Later),
        }
    }

    /// Commits what waits.
    fn commit(&mut self) -> Result<Step, String> {
        let shared = Arc::clone(&self.shared);
        // Measured first: what is appended later belongs to entries of the next layer, or is noted again.
        let signatures = shared.signatures.length();
        let (layer, reached) = shared.memtable.take();
        shared.signatures.sync().map_err(|error| format!("syncing signatures failed: {error}"))?;
        shared.derived.sync().map_err(|error| format!("syncing tree hashes failed: {error}"))?;
        let position =
            IndexPosition { log_id: shared.log_id, journal: reached.journal, root: reached.root, signatures };
        match shared.memtable.index().commit(&layer, &position) {
            Ok(()) => {
                drop(layer);
                shared.memtable.committed();
                shared.index_is_full.store(false, Ordering::Relaxed);
                self.indexed = reached.journal.size;
                self.waiting_since = None;
                Ok(Step::Done)
            }
            Err(IndexError::Full(error)) => {
                if !shared.index_is_full.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "no room for the index; what it misses is kept in memory");
                }
                Ok(Step::Later)
            }
            Err(error) => Err(format!("committing the index failed: {error}")),
        }
    }

    /// Brings the checkpoint file up to the head.
    fn publish(&mut self) -> Result<Step, String> {
        let shared = &self.shared;
        if shared.head.load().size == self.published {
            return Ok(Step::Done);
        }
        let (size, note) = match shared.checkpoint() {
            Ok(signed) => signed,
            Err(error) => {
                tracing::error!(%error, "no checkpoint could be signed; trying again");
                return Ok(Step::Later);
            }
        };
        match checkpoint::write(&shared.disk, &shared.directory, checkpoint::GATHERED, &note) {
            Ok(()) => {
                self.published = size;
                Ok(Step::Done)
            }
            Err(error) if is_full(&error) => {
                tracing::error!(%error, "no room for the checkpoint file; trying again");
                Ok(Step::Later)
            }
            Err(error) => Err(format!("writing the checkpoint file failed: {error}")),
        }
    }
}
