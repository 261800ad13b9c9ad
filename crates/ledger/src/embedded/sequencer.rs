//! One thread that decides the order.
//!
//! It takes what has queued up while the last batch was being synced, checks each proposal against everything
//! accepted before it, writes the batch, syncs once, and answers. A lone request waits for nothing; where requests
//! come in company, a batch waits a moment for more, because a sync costs the processor as much as a signature.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use chancery_merkle::Frontier;
use tokio::sync::mpsc;

use super::Shared;
use super::derived::Additions;
use super::disk::is_full;
use super::journal::{AppendError, Journal};
use super::memtable::Reached;
use crate::model::apply::changes_standing;
use crate::model::batch_view::{BatchView, Familiar};
use crate::proposal::{CommitError, Outcome, ProposedEntry};
use crate::sequence::{Request, decide_all, gather, is_news, refuse_all};
use crate::{Head, News};

pub(crate) struct Sequencer {
    shared: Arc<Shared>,
    journal: Journal,
    frontier: Frontier,
    familiar: Familiar,
}

impl Sequencer {
    pub(crate) fn new(shared: Arc<Shared>, journal: Journal, frontier: Frontier) -> Self {
        Self { shared, journal, frontier, familiar: Familiar::default() }
    }

    /// Starts the thread.
    pub(crate) fn spawn(self, requests: mpsc::Receiver<Request>) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("ledger-sequencer".into()).spawn(move || self.run(requests))
    }

    /// Runs until every sender is gone.
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let _guard = EndGuard(Arc::clone(&self.shared));
        let mut last = 0;
        while let Some(first) = requests.blocking_recv() {
            let batch = gather(first, last, &mut requests);
            last = batch.len();
            self.serve(batch);
        }
    }

    fn serve(&mut self, batch: Vec<Request>) {
        if let Err(error) = self.may_write() {
            return refuse_all(batch, &error);
        }
        match self.commit(&batch) {
            Ok(outcomes) => {
                for (request, outcomes) in batch.into_iter().zip(outcomes) {
                    // A caller that went away has its answer in the ledger.
                    let _ = request.reply.send(Ok((outcomes, request.proposals)));
                }
            }
            Err(error) => refuse_all(batch, &error),
        }
    }

    /// Keeps what waits in memory bounded: commits stall while the indexer is far behind, and are refused
    /// while it has no room to go on.
    fn may_write(&self) -> Result<(), CommitError> {
        let shared = &self.shared;
        loop {
            if let Some(error) = shared.halted() {
                return Err(error);
            }
            if shared.memtable.waiting() < 2 * shared.options.index_changes {
                return Ok(());
            }
            shared.wake.now();
            if shared.index_is_full.load(Ordering::Relaxed) {
                return Err(CommitError::DiskFull);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Decides, writes, syncs, publishes. On error nothing of the batch counts.
    fn commit(&mut self, batch: &[Request]) -> Result<Vec<Vec<Outcome>>, CommitError> {
        let shared = Arc::clone(&self.shared);
        let first_index = self.frontier.size();
        let mut view = BatchView::with(&shared.memtable, &mut self.familiar);
        let failed = |error| shared.halt(format!("the read model failed: {error}"));
        let (accepted, outcomes) = decide_all(first_index, batch, &mut view, failed)?;
        let changes = view.into_changes();
        if accepted.is_empty() {
            return Ok(outcomes);
        }
        let changes_standing = accepted.iter().any(|entry| changes_standing(&entry.entry.body));
        let additions = self.write(&accepted, first_index)?;
        shared
            .derived
            .append(&additions)
            .map_err(|error| shared.halt(format!("writing tree hashes failed: {error}")))?;
        let head = Head { size: self.frontier.size(), root: self.frontier.root() };
        self.familiar.update(&changes.pairs);
        shared.memtable.absorb(changes, Reached { journal: self.journal.position(), root: head.root });
        if changes_standing {
            shared.standing_epoch.fetch_add(1, Ordering::Release);
        }
        // In this order: what stands below a head that somebody sees has been told.
        self.tell(&accepted, first_index);
        shared.head.store(Arc::new(head));
        match shared.memtable.waiting() >= shared.options.index_changes {
            true => shared.wake.now(),
            false => shared.wake.soon(),
        }
        Ok(outcomes)
    }

    /// Tells listeners, in the log's order, what has changed in how things stand. What was merely issued is not news.
    fn tell(&self, accepted: &[&ProposedEntry], first_index: u64) {
        let news = &self.shared.news;
        if news.receiver_count() == 0 {
            return;
        }
        for (proposed, index) in accepted.iter().zip(first_index..) {
            if is_news(&proposed.entry.body) {
                // Fails when the last listener has just gone.
                let _ = news.send(News { index, entry: Arc::new(proposed.entry.clone()) });
            }
        }
    }

    /// Makes the accepted entries durable.
    fn write(&mut self, accepted: &[&ProposedEntry], first_index: u64) -> Result<Additions, CommitError> {
        let shared = &self.shared;
        let reserved = shared.derived.reserve(first_index + accepted.len() as u64);
        reserved.map_err(|error| match is_full(&error) {
            true => CommitError::DiskFull,
            false => shared.halt(format!("making room for tree hashes failed: {error}")),
        })?;
        let payload: Vec<&[u8]> = accepted.iter().map(|entry| entry.bytes.as_slice()).collect();
        let (segment, offsets) = self.journal.append(&payload).map_err(|error| match error {
            AppendError::Full => CommitError::DiskFull,
            AppendError::Fatal(reason) => shared.halt(reason),
        })?;
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        let mut additions = Additions::new(first_index);
        for (entry, offset) in accepted.iter().zip(offsets) {
            additions.add(&mut self.frontier, entry.leaf, segment, offset);
        }
        Ok(additions)
    }
}

/// Tells the others that no more will come, and that nothing can be relied on if it was a panic.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.halt("the sequencer panicked".to_owned());
        }
        self.0.wake.close();
    }
}
