//! Leases and scratch: single statements on shared connections, judged by the database's clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_postgres::types::Type;

use super::session::{Parameter, Statement, column};
use super::{PostgresLedger, Shared};
use crate::lease::{Lease, Leases, Turns};
use crate::scratch::Scratch;
use crate::{ReadError, read_error};

const ACQUIRE: Statement = Statement {
    name: "acquire_lease",
    text: "INSERT INTO @.leases AS held (work, holder, fence, until) \
           VALUES ($1, $2, 1, clock_timestamp() + $3 * interval '1 millisecond') \
           ON CONFLICT (work) DO UPDATE SET holder = excluded.holder, until = excluded.until, \
             fence = held.fence + (held.holder <> excluded.holder OR held.until < clock_timestamp())::int \
           WHERE held.holder = excluded.holder OR held.until < clock_timestamp() \
           RETURNING fence",
};

/// The row stays: the next number has to be larger.
const RELEASE: Statement = Statement {
    name: "release_lease",
    text: "UPDATE @.leases SET until = '-infinity' WHERE work = $1 AND holder = $2 AND fence = $3",
};

const PUT: Statement = Statement {
    name: "put_scratch",
    text: "INSERT INTO @.scratch AS kept (key, value, until) \
           VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond') \
           ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until \
           WHERE kept.until < clock_timestamp()",
};

const REPLACE: Statement = Statement {
    name: "replace_scratch",
    text: "INSERT INTO @.scratch AS kept (key, value, until, fence) \
           VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond', $4) \
           ON CONFLICT (key) DO UPDATE \
           SET value = excluded.value, until = excluded.until, fence = excluded.fence \
           WHERE kept.fence <= excluded.fence",
};

const GET: Statement = Statement {
    name: "get_scratch",
    text: "SELECT value FROM @.scratch WHERE key = $1 AND until >= clock_timestamp()",
};

/// What others are about to write anew is left to them.
const SWEEP: Statement = Statement {
    name: "sweep_scratch",
    text: "DELETE FROM @.scratch WHERE key IN \
           (SELECT key FROM @.scratch WHERE until < clock_timestamp() - interval '1 minute' \
            ORDER BY until LIMIT 1000 FOR UPDATE SKIP LOCKED)",
};
/// Values that this process writes between two sweeps.
const SWEEP_EVERY: u64 = 128;

impl Shared {
    /// Who may not write any more takes no turns either.
    fn may_write(&self) -> Result<(), ReadError> {
        self.halted().map_or(Ok(()), |error| Err(read_error(error)))
    }
}

#[async_trait]
impl Leases for PostgresLedger {
    async fn acquire(&self, work: &str, lifetime: Duration) -> Result<Option<Lease>, ReadError> {
        let shared = &self.shared;
        shared.may_write()?;
        // The database counts from a later moment on.
        let until = Instant::now() + lifetime;
        let (holder, millis) = (shared.replica.as_slice(), millis(lifetime));
        let parameters: [Parameter<'_>; 3] =
            [(&work, Type::TEXT), (&holder, Type::BYTEA), (&millis, Type::INT8)];
        let rows = shared.read(&ACQUIRE, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let fence: i64 = column(&ACQUIRE, row, 0).map_err(read_error)?;
        Ok(Some(Lease { work: work.to_owned(), fence: u64::try_from(fence).map_err(read_error)?, until }))
    }

    async fn release(&self, lease: &Lease) -> Result<(), ReadError> {
        let (holder, fence) = (self.shared.replica.as_slice(), super::signed(lease.fence));
        let parameters: [Parameter<'_>; 3] =
            [(&lease.work, Type::TEXT), (&holder, Type::BYTEA), (&fence, Type::INT8)];
        self.shared.read(&RELEASE, &parameters).await.map(|_| ())
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }
}

#[async_trait]
impl Scratch for PostgresLedger {
    async fn put_new(&self, key: &[u8], value: &[u8], lifetime: Duration) -> Result<bool, ReadError> {
        let millis = millis(lifetime);
        let parameters: [Parameter<'_>; 3] =
            [(&key, Type::BYTEA), (&value, Type::BYTEA), (&millis, Type::INT8)];
        self.write(&PUT, &parameters, value.len()).await
    }

    async fn replace(
        &self,
        fence: u64,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
    ) -> Result<bool, ReadError> {
        let (millis, fence) = (millis(lifetime), super::signed(fence));
        let parameters: [Parameter<'_>; 4] =
            [(&key, Type::BYTEA), (&value, Type::BYTEA), (&millis, Type::INT8), (&fence, Type::INT8)];
        self.write(&REPLACE, &parameters, value.len()).await
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let rows = self.shared.read(&GET, &[(&key, Type::BYTEA)]).await?;
        rows.first().map(|row| column(&GET, row, 0)).transpose().map_err(read_error)
    }
}

impl PostgresLedger {
    /// Writes one value, and now and then forgets what has run out. Never asked twice: the first may have been heard.
    async fn write(
        &self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
        bytes: usize,
    ) -> Result<bool, ReadError> {
        let shared = &self.shared;
        shared.may_write()?;
        // A megabyte a second is the very least.
        let extra = Duration::from_secs(bytes as u64 >> 20);
        let session = shared.reader().await?;
        let kept = session.change(statement, parameters, extra).await.map_err(read_error)?;
        if self.scratched.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY)
            && let Err(error) = session.change(&SWEEP, &[], Duration::ZERO).await
        {
            tracing::debug!(%error, "what has run out stays in the scratch table for now");
        }
        Ok(kept == 1)
    }
}

fn millis(lifetime: Duration) -> i64 {
    i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX)
}

/// Values that were put since the ledger was opened.
pub(super) type Scratched = AtomicU64;
