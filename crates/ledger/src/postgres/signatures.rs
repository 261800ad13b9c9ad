//! Signatures beside their entries, written in company.
//!
//! What comes while one statement runs goes with the next. It is not waited for until it is on the disk (docs/adr/0005):
//! a database that crashes may lose the last moments' signatures, and the same recorded TBS may then be signed again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;

use super::Shared;
use super::hashes::signed;
use super::session::{Parameter, SqlError, Statement, column};
use crate::proposal::CommitError;
use crate::{IssuedSignature, ReadError};

/// The setting holds for this statement's own transaction.
const KEEP: Statement = Statement {
    name: "keep_signatures",
    text: "WITH quickly AS (SELECT set_config('synchronous_commit', 'off', true)) \
           INSERT INTO @.signatures (index, signature) \
           SELECT kept.index, kept.signature FROM unnest($1, $2) AS kept(index, signature), quickly \
           ON CONFLICT (index) DO UPDATE SET signature = excluded.signature",
};

const FIND: Statement =
    Statement { name: "signature", text: "SELECT signature FROM @.signatures WHERE index = $1" };

const BETWEEN: Statement = Statement {
    name: "signatures",
    text: "SELECT index, signature FROM @.signatures WHERE index >= $1 AND index < $2 ORDER BY index",
};

/// Signatures in one statement at the most, but for a single call that has more.
const MOST: usize = 4096;

/// Signatures and where to answer.
pub(super) struct Keep {
    pub(super) signatures: Vec<IssuedSignature>,
    pub(super) reply: oneshot::Sender<Result<(), CommitError>>,
}

/// Runs until every sender is gone.
pub(super) async fn keep(shared: Arc<Shared>, mut calls: mpsc::Receiver<Keep>) {
    while let Some(first) = calls.recv().await {
        let mut count = first.signatures.len();
        let mut batch = vec![first];
        while count < MOST {
            let Ok(next) = calls.try_recv() else { break };
            count += next.signatures.len();
            batch.push(next);
        }
        let kept = write(&shared, &batch).await;
        for call in batch {
            let _ = call.reply.send(kept.clone());
        }
    }
}

async fn write(shared: &Shared, batch: &[Keep]) -> Result<(), CommitError> {
    let mut records: Vec<&IssuedSignature> = batch.iter().flat_map(|call| &call.signatures).collect();
    // Of one entry the last: a statement changes a row once.
    records.reverse();
    records.sort_by_key(|record| record.index);
    records.dedup_by_key(|record| record.index);
    if records.is_empty() {
        return Ok(());
    }
    let indexes: Vec<i64> = records.iter().map(|record| signed(record.index)).collect();
    let signatures: Vec<&[u8]> = records.iter().map(|record| record.signature.as_slice()).collect();
    let parameters: [Parameter<'_>; 2] = [(&indexes, Type::INT8_ARRAY), (&signatures, Type::BYTEA_ARRAY)];
    let mut tries = 0;
    loop {
        tries += 1;
        let session = shared.readers.next(shared).await;
        let session = session
            .map_err(|unfit| CommitError::Unavailable { reason: format!("keeping signatures: {unfit}") })?;
        match session.change_exactly(&KEEP, &parameters, records.len(), Duration::ZERO).await {
            Ok(()) => return Ok(()),
            // The same rows once more are the same rows.
            Err(SqlError::Lost { .. } | SqlError::InTheWay { .. }) if tries < 3 => {}
            Err(SqlError::Full { .. }) => return Err(CommitError::DiskFull),
            Err(error) => return Err(CommitError::Unavailable { reason: error.to_string() }),
        }
    }
}

/// The signatures of entries `start .. end`.
pub(super) async fn between(
    shared: &Shared,
    start: u64,
    end: u64,
) -> Result<Vec<IssuedSignature>, ReadError> {
    let (start, end) = (signed(start), signed(end));
    let rows = shared.read(&BETWEEN, &[(&start, Type::INT8), (&end, Type::INT8)]).await?;
    let kept = rows.iter().map(|row| {
        let index: i64 = column(&BETWEEN, row, 0)?;
        let index = u64::try_from(index).map_err(|error| SqlError::refused(BETWEEN.name, error))?;
        Ok(IssuedSignature { index, signature: column(&BETWEEN, row, 1)? })
    });
    kept.collect::<Result<_, SqlError>>().map_err(|error| ReadError(error.to_string()))
}

/// The signature of an entry.
pub(super) async fn find(shared: &Shared, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let index = signed(index);
    let rows = shared.read(&FIND, &[(&index, Type::INT8)]).await?;
    let found = rows.first().map(|row| column(&FIND, row, 0)).transpose();
    found.map_err(|error| ReadError(error.to_string()))
}
