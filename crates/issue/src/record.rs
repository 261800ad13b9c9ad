//! From prepared to recorded: durable before the key is touched.

use chancery_entry::Issuance;
use chancery_ledger::{Ledger, Outcome};

use crate::error::RecordError;
use crate::prepare::Prepared;

/// A certificate that the ledger holds and that may be signed: once, here, now.
#[derive(Debug)]
pub struct Recorded {
    pub(crate) issuance: Issuance,
    pub(crate) index: u64,
}

impl Recorded {
    /// Index of its entry in the log.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }
}

/// Commits a batch in one go; each certificate is accepted or refused for itself.
pub(crate) async fn record(
    ledger: &dyn Ledger,
    batch: Vec<Prepared>,
) -> Result<Vec<Result<Recorded, RecordError>>, RecordError> {
    let mut issuances = Vec::with_capacity(batch.len());
    let mut proposals = Vec::with_capacity(batch.len());
    for prepared in batch {
        issuances.push((prepared.issuance, prepared.offset));
        proposals.push(prepared.proposal);
    }
    let outcomes = ledger.commit(proposals).await?;
    let recorded = issuances.into_iter().zip(outcomes).map(|((issuance, offset), outcome)| match outcome {
        Outcome::Accepted { first_index } => Ok(Recorded { issuance, index: first_index + offset }),
        Outcome::Refused(conflict) => Err(RecordError::Conflict { identity: issuance.identity, conflict }),
    });
    Ok(recorded.collect())
}
