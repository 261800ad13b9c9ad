//! The read model in the database, seen as ordered keys and values.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio_postgres::types::Type;

use super::session::{Parameter, Session, SqlError, Statement, column};
use crate::model::{ModelError, Pairs, View};

/// How a thread that may block waits for the database.
#[derive(Clone, Copy)]
pub(super) enum Drive<'a> {
    /// On the runtime that is this thread's own.
    Own(&'a Runtime),
    /// On one that other threads drive.
    Shared(&'a Handle),
}

impl Drive<'_> {
    pub(super) fn wait<T>(self, future: impl Future<Output = T>) -> T {
        match self {
            Self::Own(runtime) => runtime.block_on(future),
            Self::Shared(handle) => handle.block_on(future),
        }
    }
}

/// The schema of a model that is made anew beside the live one, for the length of a transaction.
pub(super) const ANEW: &str = "pg_temp";

const VALUE: Statement = Statement { name: "model_value", text: "SELECT value FROM @.model WHERE key = $1" };

const VALUES: Statement =
    Statement { name: "model_values", text: "SELECT key, value FROM @.model WHERE key = ANY($1)" };

const SCAN: Statement = Statement {
    name: "model_scan",
    text: "SELECT key, value FROM @.model WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3",
};

const LAST: Statement = Statement {
    name: "model_last",
    text: "SELECT key, value FROM @.model WHERE key >= $1 AND key < $2 ORDER BY key DESC LIMIT 1",
};

const PUT: Statement = Statement {
    name: "model_put",
    text: "INSERT INTO @.model (key, value) SELECT * FROM unnest($1, $2) \
           ON CONFLICT (key) DO UPDATE SET value = excluded.value",
};

/// Of keys that nothing stands under: half of what [`PUT`] costs.
const ADD: Statement =
    Statement { name: "model_add", text: "INSERT INTO @.model (key, value) SELECT * FROM unnest($1, $2)" };

const REMOVE: Statement = Statement { name: "model_remove", text: "DELETE FROM @.model WHERE key = ANY($1)" };

/// The first pairs of each of several ranges.
const RANGES: Statement = Statement {
    name: "model_ranges",
    text: "SELECT range.place, found.key, found.value \
           FROM unnest($1, $2) WITH ORDINALITY AS range(first, last, place), LATERAL ( \
               SELECT key, value FROM @.model WHERE key >= range.first AND key < range.last \
               ORDER BY key LIMIT $3) AS found \
           ORDER BY range.place, found.key",
};

/// What a batch is known to read, read at once.
#[derive(Debug, Default)]
pub(super) struct Prefetched {
    values: HashMap<Vec<u8>, Option<Vec<u8>>>,
    /// Ranges with their first [`Self::RANGE`] pairs.
    ranges: HashMap<(Vec<u8>, Vec<u8>), Pairs>,
}

impl Prefetched {
    /// Whether it is known that nothing stands under this key.
    fn is_absent(&self, key: &[u8]) -> bool {
        matches!(self.values.get(key), Some(None))
    }

    /// The value under a key that was asked for; nothing where there is none.
    pub(super) fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.values.get(key).cloned().flatten()
    }

    /// Pairs of a range.
    pub(super) const RANGE: usize = 8;

    /// Reads these keys and ranges, given so much more time.
    pub(super) async fn read(
        session: &Session,
        keys: Vec<Vec<u8>>,
        ranges: Vec<(Vec<u8>, Vec<u8>)>,
        extra: Duration,
    ) -> Result<Self, SqlError> {
        let values = async {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            session.rows_within(&VALUES, &[(&keys, Type::BYTEA_ARRAY)], extra).await
        };
        let firsts: Vec<&[u8]> = ranges.iter().map(|(first, _)| first.as_slice()).collect();
        let lasts: Vec<&[u8]> = ranges.iter().map(|(_, last)| last.as_slice()).collect();
        let limit = i64::try_from(Self::RANGE).unwrap_or(i64::MAX);
        let in_ranges = async {
            if firsts.is_empty() {
                return Ok(Vec::new());
            }
            let parameters: [Parameter<'_>; 3] =
                [(&firsts, Type::BYTEA_ARRAY), (&lasts, Type::BYTEA_ARRAY), (&limit, Type::INT8)];
            session.rows_within(&RANGES, &parameters, extra).await
        };
        let (rows, range_rows) = tokio::try_join!(biased; values, in_ranges)?;
        let mut values: HashMap<_, _> = keys.into_iter().map(|key| (key, None)).collect();
        for row in &rows {
            values.insert(column(&VALUES, row, 0)?, Some(column(&VALUES, row, 1)?));
        }
        let mut found: Vec<Pairs> = vec![Pairs::new(); ranges.len()];
        for row in &range_rows {
            let place: i64 = column(&RANGES, row, 0)?;
            let place = usize::try_from(place - 1).ok().and_then(|place| found.get_mut(place));
            let Some(pairs) = place else {
                return Err(SqlError::refused(RANGES.name, "a range that was not asked for"));
            };
            pairs.push((column(&RANGES, row, 1)?, column(&RANGES, row, 2)?));
        }
        Ok(Self { values, ranges: ranges.into_iter().zip(found).collect() })
    }
}

/// The model through one connection. Used on threads that may block.
pub(super) struct SqlView<'a> {
    session: &'a Session,
    drive: Drive<'a>,
    /// Which the model is in.
    schema: &'a str,
    pub(super) known: Prefetched,
    /// Why the last read failed, whole: [`ModelError`] has only words for it.
    failure: RefCell<Option<SqlError>>,
}

impl<'a> SqlView<'a> {
    pub(super) fn new(session: &'a Session, drive: Drive<'a>, schema: &'a str) -> Self {
        Self { session, drive, schema, known: Prefetched::default(), failure: RefCell::default() }
    }

    /// With what is known already, in a transaction in which nobody else writes.
    pub(super) fn with(session: &'a Session, drive: Drive<'a>, known: Prefetched) -> Self {
        Self { known, ..Self::new(session, drive, session.schema()) }
    }

    /// The failure behind a [`ModelError::Engine`].
    pub(super) fn failure(&self, error: &ModelError) -> SqlError {
        let failure = self.failure.borrow_mut().take();
        failure.unwrap_or_else(|| SqlError::refused("read model", error))
    }

    fn wait<T>(&self, answer: impl Future<Output = Result<T, SqlError>>) -> Result<T, ModelError> {
        self.drive.wait(answer).map_err(|error| {
            let text = ModelError::Engine(error.to_string());
            *self.failure.borrow_mut() = Some(error);
            text
        })
    }
}

impl View for SqlView<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
        if let Some(value) = self.known.values.get(key) {
            return Ok(value.clone());
        }
        self.wait(async {
            let rows = self.session.rows_in(self.schema, &VALUE, &[(&key, Type::BYTEA)]).await?;
            rows.first().map(|row| column(&VALUE, row, 0)).transpose()
        })
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, ModelError> {
        if start >= end {
            return Ok(Pairs::new());
        }
        if limit <= Prefetched::RANGE
            && let Some(pairs) = self.known.ranges.get(&(start.to_vec(), end.to_vec()))
        {
            return Ok(pairs.iter().take(limit).cloned().collect());
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.wait(async {
            let parameters: [Parameter<'_>; 3] =
                [(&start, Type::BYTEA), (&end, Type::BYTEA), (&limit, Type::INT8)];
            let rows = self.session.rows_in(self.schema, &SCAN, &parameters).await?;
            rows.iter().map(|row| Ok((column(&SCAN, row, 0)?, column(&SCAN, row, 1)?))).collect()
        })
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
        self.wait(async {
            let parameters: [Parameter<'_>; 2] = [(&start, Type::BYTEA), (&end, Type::BYTEA)];
            let rows = self.session.rows_in(self.schema, &LAST, &parameters).await?;
            let pair = |row| Ok((column(&LAST, row, 0)?, column(&LAST, row, 1)?));
            rows.first().map(pair).transpose()
        })
    }
}

/// Writes changes into the model, in the order of their keys; `known` was read in the same transaction, under the lock.
pub(super) async fn write(
    session: &Session,
    schema: &str,
    changes: crate::model::Changes,
    known: &Prefetched,
    extra: Duration,
) -> Result<(), SqlError> {
    // What finds a certificate ends in its serial number, which was never used before.
    let mut added: Pairs = Vec::with_capacity(changes.pairs.len() + changes.search.len());
    added.extend(changes.search.iter().map(|key| (key.as_bytes().to_vec(), Vec::new())));
    let (mut set, mut removed) = (Pairs::new(), Vec::new());
    for (key, value) in changes.pairs {
        match value {
            Some(value) if known.is_absent(&key) => added.push((key, value)),
            Some(value) => set.push((key, value)),
            None => removed.push(key),
        }
    }
    let adding = put(session, schema, &ADD, added, extra);
    let putting = put(session, schema, &PUT, set, extra);
    let removing = async {
        if removed.is_empty() {
            return Ok(0);
        }
        session.change_in(schema, &REMOVE, &[(&removed, Type::BYTEA_ARRAY)], extra).await
    };
    tokio::try_join!(biased; adding, putting, removing).map(|_| ())
}

/// Writes each pair once.
async fn put(
    session: &Session,
    schema: &str,
    statement: &Statement,
    mut pairs: Pairs,
    extra: Duration,
) -> Result<(), SqlError> {
    if pairs.is_empty() {
        return Ok(());
    }
    pairs.sort_unstable();
    pairs.dedup_by(|later, earlier| later.0 == earlier.0);
    let keys: Vec<&[u8]> = pairs.iter().map(|(key, _)| key.as_slice()).collect();
    let values: Vec<&[u8]> = pairs.iter().map(|(_, value)| value.as_slice()).collect();
    let parameters: [Parameter<'_>; 2] = [(&keys, Type::BYTEA_ARRAY), (&values, Type::BYTEA_ARRAY)];
    match session.change_in(schema, statement, &parameters, extra).await? {
        changed if changed == pairs.len() as u64 => Ok(()),
        changed => {
            Err(SqlError::refused(statement.name, format!("{changed} of {} rows were set", pairs.len())))
        }
    }
}
