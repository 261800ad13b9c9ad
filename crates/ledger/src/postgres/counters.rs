//! Serial counters, of which each replica takes some at a time.

use std::collections::HashMap;

use chancery_types::IssuerEpoch;
use tokio::sync::Mutex;
use tokio_postgres::types::Type;

use super::Shared;
use super::hashes::signed;
use super::session::{Parameter, SqlError, Statement, column};
use crate::model::{Table, prefix_end};
use crate::proposal::CommitError;

/// Above what was ever given out, and above what stands in the log: another backend may have begun it.
const RESERVE: Statement = Statement {
    name: "reserve_counters",
    text: "WITH last AS (SELECT key FROM @.model WHERE key >= $3 AND key < $4 ORDER BY key DESC LIMIT 1), \
           recorded AS (SELECT coalesce((SELECT ('x' || encode(substring(key FROM 5 FOR 6), 'hex'))::bit(48)::bigint + 1 \
                                         FROM last), 0) AS next) \
           INSERT INTO @.counters AS given (epoch, next) SELECT $1, next + $2 FROM recorded \
           ON CONFLICT (epoch) DO UPDATE SET next = greatest(given.next + $2, excluded.next) \
           RETURNING next - $2",
};

/// Taken at a time: what a process leaves unused when it ends.
const BLOCK: u64 = 1024;

/// What this replica has left: the next and the end, by issuer.
pub(super) type Counters = Mutex<HashMap<IssuerEpoch, (u64, u64)>>;

/// So many counters from this one on.
pub(super) async fn reserve(shared: &Shared, epoch: IssuerEpoch, count: u64) -> Result<u64, CommitError> {
    let mut left = shared.counters.lock().await;
    let (next, end) = left.get(&epoch).copied().unwrap_or((0, 0));
    if end - next >= count {
        left.insert(epoch, (next + count, end));
        return Ok(next);
    }
    let taken = count.max(BLOCK);
    let next = take(shared, epoch, taken).await.map_err(|reason| CommitError::Unavailable { reason })?;
    left.insert(epoch, (next + count, next + taken));
    Ok(next)
}

async fn take(shared: &Shared, epoch: IssuerEpoch, count: u64) -> Result<u64, String> {
    // The serials of this issuer: a byte, the epoch, the counter, and what is random.
    let start = Table::Certificate.key(&[&[chancery_types::SerialNumber::PREFIX], &epoch.0.to_be_bytes()]);
    let (of_epoch, count, end) = (i32::from(epoch.0), signed(count), prefix_end(&start));
    let parameters: [Parameter<'_>; 4] =
        [(&of_epoch, Type::INT4), (&count, Type::INT8), (&start, Type::BYTEA), (&end, Type::BYTEA)];
    let mut tries = 0;
    loop {
        tries += 1;
        let session = shared.reader().await.map_err(|error| error.to_string())?;
        let first = match session.row(&RESERVE, &parameters).await {
            Ok(row) => column::<i64>(&RESERVE, &row, 0),
            // Some may be lost, none are given twice.
            Err(SqlError::Lost { .. } | SqlError::InTheWay { .. }) if tries < 3 => continue,
            Err(error) => Err(error),
        };
        let first = first.map_err(|error| error.to_string())?;
        return u64::try_from(first).map_err(|error| error.to_string());
    }
}
