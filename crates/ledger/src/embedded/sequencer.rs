//! One thread that decides the order.
//!
//! It takes what has queued up while the last batch was being synced, checks each proposal against everything
//! accepted before it, writes the batch, syncs once, and answers. A lone request waits for nothing; where requests
//! come in company, a batch waits a moment for more, because a sync costs the processor as much as a signature.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chancery_merkle::Frontier;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::derived::{HashBatch, pack};
use super::journal::{AppendError, Journal};
use super::memtable::BatchView;
use crate::Head;
use crate::model::{ModelError, apply::apply, check::check};
use crate::proposal::{CommitError, Conflict, Outcome, Proposal, ProposedEntry};

/// Entries in one batch at the most: bounds the time that a caller waits behind others.
const MAX_ENTRIES: usize = 8192;
/// Payload bytes in one batch at the most; below [`super::journal::MAX_BATCH`] by the largest request.
const MAX_BYTES: usize = 4 << 20;

/// Requests in a batch from which on the next one waits for company.
const COMPANY: usize = 3;
/// How long it waits: a few syncs on a local disk.
const GATHER: Duration = Duration::from_micros(500);

/// Proposals and where to answer.
pub(crate) struct Request {
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) reply: oneshot::Sender<Result<Vec<Outcome>, CommitError>>,
}

pub(crate) struct Sequencer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) journal: Journal,
    pub(crate) frontier: Frontier,
}

impl Sequencer {
    /// Runs until every sender is gone.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut last = 0;
        while let Some(first) = requests.blocking_recv() {
            if last >= COMPANY {
                std::thread::sleep(GATHER);
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
        self.shared.wake.close();
    }

    fn serve(&mut self, batch: Vec<Request>) {
        if let Some(error) = self.shared.halted() {
            return refuse_all(batch, &error);
        }
        self.wait_for_indexer();
        match self.commit(&batch) {
            Ok(outcomes) => {
                for (request, outcomes) in batch.into_iter().zip(outcomes) {
                    // A caller that went away has its answer in the ledger.
                    let _ = request.reply.send(Ok(outcomes));
                }
            }
            Err(error) => refuse_all(batch, &error),
        }
    }

    /// Decides, writes, syncs, publishes. On error nothing of the batch counts.
    fn commit(&mut self, batch: &[Request]) -> Result<Vec<Vec<Outcome>>, CommitError> {
        let shared = Arc::clone(&self.shared);
        let mut view = BatchView::new(&shared.memtable);
        let mut accepted: Vec<&ProposedEntry> = Vec::new();
        let mut outcomes = Vec::with_capacity(batch.len());
        for request in batch {
            let mut of_request = Vec::with_capacity(request.proposals.len());
            for proposal in &request.proposals {
                let outcome = self
                    .decide(proposal, &mut view, &mut accepted)
                    .map_err(|error| shared.halt(format!("the read model failed: {error}")))?;
                of_request.push(outcome);
            }
            outcomes.push(of_request);
        }
        if accepted.is_empty() {
            return Ok(outcomes);
        }
        let first_index = self.frontier.size();
        let payload: Vec<&[u8]> = accepted.iter().map(|entry| entry.bytes.as_slice()).collect();
        let (segment, offsets) = self.journal.append(&payload).map_err(|error| match error {
            AppendError::Full => CommitError::DiskFull,
            AppendError::Fatal(reason) => shared.halt(reason),
        })?;
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        let mut hashes = HashBatch::default();
        for entry in &accepted {
            self.frontier.append(entry.leaf, &mut |level, index, hash| hashes.push(level, index, hash));
        }
        let locations: Vec<u64> = offsets.iter().map(|offset| pack(segment, *offset)).collect();
        shared
            .derived
            .append(first_index, &locations, &hashes)
            .map_err(|error| shared.halt(format!("writing tree hashes failed: {error}")))?;
        shared.memtable.absorb(view.into_changes(), self.journal.position());
        shared.head.store(Arc::new(Head { size: self.frontier.size(), root: self.frontier.root() }));
        if shared.memtable.waiting() >= shared.options.index_changes {
            shared.wake.now();
        }
        Ok(outcomes)
    }

    fn decide<'b>(
        &self,
        proposal: &'b Proposal,
        view: &mut BatchView<'_>,
        accepted: &mut Vec<&'b ProposedEntry>,
    ) -> Result<Outcome, ModelError> {
        let first_index = self.frontier.size() + accepted.len() as u64;
        for precondition in &proposal.requires {
            if let Some(standing) = check(precondition, first_index, view)? {
                return Ok(Outcome::Refused(Conflict { precondition: precondition.clone(), standing }));
            }
        }
        for (offset, proposed) in proposal.entries.iter().enumerate() {
            let writes = apply(first_index + offset as u64, &proposed.entry, view)?;
            view.add(writes);
            accepted.push(proposed);
        }
        Ok(Outcome::Accepted { first_index })
    }

    /// Keeps what waits in memory bounded: commits stall while the indexer is far behind.
    fn wait_for_indexer(&self) {
        let limit = 4 * self.shared.options.index_changes;
        while self.shared.memtable.waiting() > limit && self.shared.halted().is_none() {
            self.shared.wake.now();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn weight(request: &Request) -> (usize, usize) {
    let entries = || request.proposals.iter().flat_map(|proposal| &proposal.entries);
    (entries().count().max(1), entries().map(|entry| 2 + entry.bytes.len()).sum())
}

fn refuse_all(batch: Vec<Request>, error: &CommitError) {
    for request in batch {
        let _ = request.reply.send(Err(error.clone()));
    }
}
