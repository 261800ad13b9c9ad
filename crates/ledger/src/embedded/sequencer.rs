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

use chancery_entry::Body;
use chancery_merkle::Frontier;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::batch_view::{BatchView, Familiar};
use super::derived::Additions;
use super::disk::is_full;
use super::journal::{AppendError, Journal};
use super::memtable::Reached;
use crate::model::apply::{apply, changes_standing};
use crate::model::{ModelError, check::check};
use crate::proposal::{CommitError, Conflict, Outcome, Proposal, ProposedEntry, check_documents};
use crate::{Head, News};

/// Entries in one batch at the most: bounds the time that a caller waits behind others.
const MAX_ENTRIES: usize = 8192;
/// Payload bytes in one batch at the most, but for a single call that has more.
const MAX_BYTES: usize = 4 << 20;

/// How long a batch waits for company after one of so many requests. A sync costs the processor as much as five
/// signatures, and what it costs is shared by the batch; a few syncs' time is not felt by so many.
fn gathering(last: usize) -> Option<Duration> {
    match last {
        0..3 => None,
        3..8 => Some(Duration::from_micros(500)),
        8..32 => Some(Duration::from_millis(2)),
        _ => Some(Duration::from_millis(4)),
    }
}

/// What became of the proposals, and the proposals themselves.
pub(crate) type Answer = Result<(Vec<Outcome>, Vec<Proposal>), CommitError>;

/// Proposals and where to answer.
pub(crate) struct Request {
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) reply: oneshot::Sender<Answer>,
}

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
            if let Some(wait) = gathering(last) {
                std::thread::sleep(wait);
            }
            let mut batch = vec![first];
            let (mut entries, mut bytes) = weight(&batch[0]);
            while entries < MAX_ENTRIES && bytes < MAX_BYTES {
                let Ok(next) = requests.try_recv() else { break };
                let (more_entries, more_bytes) = weight(&next);
                entries += more_entries;
                bytes += more_bytes;
                batch.push(next);
            }
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
        let mut accepted: Vec<&ProposedEntry> = Vec::new();
        let mut outcomes = Vec::with_capacity(batch.len());
        for request in batch {
            let of_request = request.proposals.iter().map(|proposal| {
                let next = first_index + accepted.len() as u64;
                decide(next, proposal, &mut view, &mut accepted)
            });
            let of_request: Result<Vec<_>, _> = of_request.collect();
            outcomes
                .push(of_request.map_err(|error| shared.halt(format!("the read model failed: {error}")))?);
        }
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

/// Decides one proposal whose first entry would have this index.
fn decide<'b>(
    first_index: u64,
    proposal: &'b Proposal,
    view: &mut BatchView<'_>,
    accepted: &mut Vec<&'b ProposedEntry>,
) -> Result<Outcome, ModelError> {
    if let Some(conflict) = check_documents(proposal) {
        return Ok(Outcome::Refused(conflict));
    }
    for precondition in &proposal.requires {
        if let Some(standing) = check(precondition, first_index, view)? {
            return Ok(Outcome::Refused(Conflict { precondition: precondition.clone(), standing }));
        }
    }
    for (proposed, index) in proposal.entries.iter().zip(first_index..) {
        let writes = apply(index, &proposed.entry, view)?;
        view.add(writes);
        accepted.push(proposed);
    }
    Ok(Outcome::Accepted { first_index })
}

/// What changes how something stands, what begins or ends, and what operators want: everything but what is merely
/// issued. And which lists and versions of the exact set were published, so that whoever follows stands behind them when
/// the next is made.
fn is_news(body: &Body) -> bool {
    changes_standing(body)
        || matches!(
            body,
            Body::IdentityRegistered(_)
                | Body::CrlPublished(_)
                | Body::CrlShardPublished(_)
                | Body::TemplateRegistered(_)
                | Body::TemplateRemoved(_)
                | Body::IssuerActivated(_)
                | Body::IssuerRetired(_)
                | Body::ProfileChanged(_)
                | Body::OperatorAction(_)
                | Body::StatusSetPublished(_)
        )
}

/// Entries and bytes.
fn weight(request: &Request) -> (usize, usize) {
    let entries = || request.proposals.iter().flat_map(|proposal| &proposal.entries);
    (entries().count().max(1), entries().map(|entry| 2 + entry.bytes.len()).sum())
}

fn refuse_all(batch: Vec<Request>, error: &CommitError) {
    for request in batch {
        let _ = request.reply.send(Err(error.clone()));
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
