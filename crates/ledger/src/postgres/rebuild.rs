//! Making the read model anew from the entries, and checking that everything follows from them.
//!
//! Both replay the log into a table of the transaction's own. A check compares it with the live one under a snapshot
//! and changes nothing, so it may run beside working replicas; a rebuild holds the head and replaces the live one.

use std::time::Duration;

use chancery_entry::Entry;
use chancery_merkle::{Frontier, LogSigners, leaf_hash};
use chancery_types::Digest;
use tokio_postgres::types::Type;

use super::hashes::{self, LEVELS, signed};
use super::head::{HeadRow, LOCK, READ};
use super::migrate::migrate;
use super::open::admit;
use super::session::{Parameter, Session, Statement, column};
use super::view::{ANEW, Drive, Prefetched, SqlView, write};
use super::{ENTRIES, Fence, PostgresError, PostgresLedger, PostgresOptions};
use crate::model::Changes;
use crate::model::apply::apply;
use crate::model::batch_view::BatchView;

/// Entries replayed at once.
const CHUNK: u64 = 2048;
/// How long a statement over the whole model may take.
const LONGEST: Duration = Duration::from_secs(3600);

const BEGIN_CHECK: Statement =
    Statement { name: "begin_check", text: "BEGIN ISOLATION LEVEL REPEATABLE READ" };
const BEGIN_REBUILD: Statement = Statement { name: "begin_rebuild", text: "BEGIN" };
const COMMIT: Statement = Statement { name: "commit_rebuild", text: "COMMIT" };
const ROLLBACK: Statement = Statement { name: "end_check", text: "ROLLBACK" };

const MAKE: Statement = Statement {
    name: "make_model_anew",
    text: "CREATE TEMPORARY TABLE model (LIKE @.model INCLUDING ALL) ON COMMIT DROP",
};

/// Rows of either that the other does not have.
const COMPARE: Statement = Statement {
    name: "compare_models",
    text: "SELECT coalesce(live.key, anew.key), (SELECT count(*) FROM @.model) \
           FROM @.model AS live FULL JOIN pg_temp.model AS anew USING (key) \
           WHERE live.value IS DISTINCT FROM anew.value ORDER BY 1 LIMIT 1",
};

const COUNT: Statement = Statement {
    name: "count",
    text: "SELECT (SELECT count(*) FROM @.model), (SELECT count(*) FROM @.signatures), \
                  (SELECT count(*) FROM @.entries)",
};

const REPLACE: Statement = Statement {
    name: "replace_model",
    text: "TRUNCATE @.model; INSERT INTO @.model SELECT * FROM pg_temp.model ORDER BY key",
};

/// What a check has found in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostgresReport {
    /// Entries, whose hashes, tree and root are right.
    pub entries: u64,
    /// Their root.
    pub root: Digest,
    /// Rows of the read model, which follow from the entries.
    pub model: u64,
    /// Signatures kept.
    pub signatures: u64,
}

impl PostgresLedger {
    /// Reads everything and compares it with what follows from the entries: hashes, tree, head, read model, and the
    /// published checkpoint. Replicas may work meanwhile.
    ///
    /// `progress` hears of entries done and in all.
    ///
    /// # Errors
    /// [`PostgresError`]: the first thing that is wrong.
    pub async fn check_everything(
        options: &PostgresOptions,
        signers: &LogSigners,
        progress: impl Fn(u64, u64) + Send + 'static,
    ) -> Result<PostgresReport, PostgresError> {
        let session = enter(options, signers).await?;
        session.run(&BEGIN_CHECK).await?;
        let row = HeadRow::read(&READ, &session.row(&READ, &[]).await?)?;
        session.run(&MAKE).await?;
        let (session, row) = replay(session, row, progress).await?;
        let differs = session.rows(&COMPARE, &[]).await?;
        if let Some(difference) = differs.first() {
            let key: Vec<u8> = column(&COMPARE, difference, 0)?;
            let key = data_encoding::HEXLOWER.encode(&key);
            return Err(PostgresError::Database(format!(
                "the read model does not follow from the entries at key {key}; run `chancery ledger rebuild`"
            )));
        }
        let counts = session.row(&COUNT, &[]).await?;
        let count = |place| -> Result<u64, PostgresError> {
            let count: i64 = column(&COUNT, &counts, place)?;
            Ok(u64::try_from(count).unwrap_or_default())
        };
        let report = PostgresReport {
            entries: row.head.size,
            root: row.head.root,
            model: count(0)?,
            signatures: count(1)?,
        };
        if count(2)? != report.entries {
            let problem = format!("{} entries are stored, the head has {}", count(2)?, report.entries);
            return Err(PostgresError::Database(problem));
        }
        session.run(&ROLLBACK).await?;
        Ok(report)
    }

    /// Makes the read model anew from the entries, whose tree is checked on the way. Replicas wait meanwhile: stop them
    /// where the log is long.
    ///
    /// # Errors
    /// [`PostgresError`]; then everything is as it was.
    pub async fn rebuild(
        options: &PostgresOptions,
        signers: &LogSigners,
        progress: impl Fn(u64, u64) + Send + 'static,
    ) -> Result<(), PostgresError> {
        let session = enter(options, signers).await?;
        session.run(&BEGIN_REBUILD).await?;
        let row = HeadRow::read(&LOCK, &session.row(&LOCK, &[]).await?)?;
        session.run(&MAKE).await?;
        let (session, _) = replay(session, row, progress).await?;
        session.run_text(REPLACE.name, REPLACE.text, LONGEST).await?;
        Ok(session.run(&COMMIT).await?)
    }
}

/// A connection to a database that goes on from the published checkpoint.
async fn enter(options: &PostgresOptions, signers: &LogSigners) -> Result<Session, PostgresError> {
    let (target, _) = options.targets()?;
    let session = target.connect().await?;
    migrate(&session, false).await?;
    admit(&session, options, signers).await?;
    Ok(session)
}

/// Replays the log into the new table, and compares the tree that the entries give with the stored one.
async fn replay(
    session: Session,
    row: HeadRow,
    progress: impl Fn(u64, u64) + Send + 'static,
) -> Result<(Session, HeadRow), PostgresError> {
    let handle = tokio::runtime::Handle::current();
    let replay = move || {
        let drive = Drive::Shared(&handle);
        let mut frontier = Frontier::new();
        while frontier.size() < row.head.size {
            let start = frontier.size();
            let end = row.head.size.min(start + CHUNK);
            replay_part(&session, drive, &mut frontier, start, end)?;
            progress(frontier.size(), row.head.size);
        }
        if frontier.root() != row.head.root {
            let (size, found, expected) = (row.head.size, frontier.root(), row.head.root);
            return Err(Fence::Damaged { size, found, expected }.into());
        }
        Ok((session, row))
    };
    let replayed = tokio::task::spawn_blocking(replay).await;
    replayed.map_err(|error| PostgresError::Database(error.to_string()))?
}

fn replay_part(
    session: &Session,
    drive: Drive<'_>,
    frontier: &mut Frontier,
    start: u64,
    end: u64,
) -> Result<(), PostgresError> {
    let (first, last) = (signed(start), signed(end));
    let parameters: [Parameter<'_>; 2] = [(&first, Type::INT8), (&last, Type::INT8)];
    let rows = drive.wait(session.rows(&ENTRIES, &parameters))?;
    let below = SqlView::new(session, drive, ANEW);
    let mut view = BatchView::new(&below);
    let mut made: Vec<(u64, Vec<Digest>)> = vec![(0, Vec::new()); usize::from(LEVELS)];
    for (row, index) in rows.iter().zip(start..) {
        let unreadable = |error: String| PostgresError::Entry { index, error };
        if column::<i64>(&ENTRIES, row, 0)? != signed(index) {
            return Err(unreadable("it is missing".to_owned()));
        }
        let bytes: &[u8] = column(&ENTRIES, row, 2)?;
        let entry = Entry::decode(bytes).map_err(|error| unreadable(error.to_string()))?;
        frontier.append(leaf_hash(bytes), &mut |level, place, hash| {
            let level = &mut made[usize::from(level)];
            if level.1.is_empty() {
                level.0 = place;
            }
            level.1.push(hash);
        });
        let changes: Changes =
            apply(index, &entry, &view).map_err(|error| unreadable(below.failure(&error).to_string()))?;
        view.add(changes);
    }
    if frontier.size() != end {
        return Err(PostgresError::Entry { index: frontier.size(), error: "it is missing".to_owned() });
    }
    for ((first, made), level) in made.iter().zip(0..LEVELS).filter(|((_, made), _)| !made.is_empty()) {
        let stored = drive.wait(hashes::read(session, level, *first, made.len()))?;
        if let Some(at) = stored.iter().zip(made).position(|(stored, made)| stored != made) {
            let place = first + at as u64;
            let problem = format!("hash {place} of level {level} is not the one that the entries give");
            return Err(PostgresError::Database(problem));
        }
    }
    let changes = view.into_changes();
    Ok(drive.wait(write(session, ANEW, changes, &Prefetched::default(), LONGEST))?)
}
