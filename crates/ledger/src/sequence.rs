//! What every sequencer does, wherever its entries go: gathers what waits, decides it, and answers.

use std::time::Duration;

use chancery_entry::Body;
use tokio::sync::{mpsc, oneshot};

use crate::model::apply::{apply, changes_standing};
use crate::model::batch_view::BatchView;
use crate::model::{ModelError, check::check};
use crate::proposal::{CommitError, Conflict, Outcome, Proposal, ProposedEntry, check_documents};

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

/// A batch: this request and what waits behind it, after a moment where the last batch had company.
pub(crate) fn gather(first: Request, last: usize, requests: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    if let Some(wait) = gathering(last) {
        std::thread::sleep(wait);
    }
    let (mut entries, mut bytes) = weight(&first);
    let mut batch = vec![first];
    while entries < MAX_ENTRIES && bytes < MAX_BYTES {
        let Ok(next) = requests.try_recv() else { break };
        let (more_entries, more_bytes) = weight(&next);
        entries += more_entries;
        bytes += more_bytes;
        batch.push(next);
    }
    batch
}

/// Decides a batch whose first entry would have this index: what is accepted, and an outcome for each proposal of each
/// request.
pub(crate) fn decide_all<'b, E>(
    first_index: u64,
    batch: &'b [Request],
    view: &mut BatchView<'_>,
    failed: impl Fn(ModelError) -> E,
) -> Result<(Vec<&'b ProposedEntry>, Vec<Vec<Outcome>>), E> {
    let mut accepted = Vec::new();
    let mut outcomes = Vec::with_capacity(batch.len());
    for request in batch {
        let of_request = request.proposals.iter().map(|proposal| {
            let next = first_index + accepted.len() as u64;
            decide(next, proposal, view, &mut accepted)
        });
        outcomes.push(of_request.collect::<Result<Vec<_>, _>>().map_err(&failed)?);
    }
    Ok((accepted, outcomes))
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
/// issued. And a version of the exact set, so that whoever follows stands behind it when the next one is made.
pub(crate) fn is_news(body: &Body) -> bool {
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
                | Body::IssuerPrepared(_)
                | Body::IssuerTainted(_)
                | Body::IssuerWithdrawn(_)
                | Body::KeyChanged(_)
                | Body::RotationWished(_)
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

pub(crate) fn refuse_all(batch: Vec<Request>, error: &CommitError) {
    for request in batch {
        let _ = request.reply.send(Err(error.clone()));
    }
}
