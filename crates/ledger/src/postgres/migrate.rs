//! The tables, and how they change from version to version.
//!
//! Migrations go forward only and are never edited. Each says the oldest version of this program that can still work
//! with its result: at least the one before, so that replicas can be upgraded one after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use chancery_types::Digest;
use tokio_postgres::types::Type;

use super::PostgresError;
use super::session::{Parameter, Session, Statement, column};

struct Migration {
    version: i32,
    /// The oldest version whose program can still work with the tables.
    oldest: i32,
    name: &'static str,
    text: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, oldest: 1, name: "ledger", text: include_str!("migrations/0001_ledger.sql") },
    Migration {
        version: 2,
        oldest: 1,
        name: "leases_and_scratch",
        text: include_str!("migrations/0002_leases_and_scratch.sql"),
    },
];

/// How long one migration may take.
const LONGEST: Duration = Duration::from_secs(3600);

const EXISTS: Statement = Statement {
    name: "migrations_exist",
    text: "SELECT to_regclass('@.migrations') IS NOT NULL AND to_regclass('@.head') IS NOT NULL",
};

const PREPARE: Statement = Statement {
    name: "prepare_schema",
    text: "CREATE SCHEMA IF NOT EXISTS @; CREATE TABLE IF NOT EXISTS @.migrations ( \
           version integer PRIMARY KEY, oldest integer NOT NULL, name text NOT NULL, hash bytea NOT NULL, \
           applied timestamptz NOT NULL DEFAULT now())",
};

/// One at a time; a pooler's next client does not inherit the lock.
const BEGIN: Statement = Statement {
    name: "begin_migration",
    text: "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('chancery migrations of @', 0))",
};

const APPLIED: Statement =
    Statement { name: "migrations_applied", text: "SELECT version, oldest, hash FROM @.migrations" };

const NOTE: Statement = Statement {
    name: "note_migration",
    text: "INSERT INTO @.migrations (version, oldest, name, hash) VALUES ($1, $2, $3, $4)",
};

const COMMIT: Statement = Statement { name: "commit_migration", text: "COMMIT" };

/// Brings the tables to this program's version; makes them where there are none and that is wanted.
pub(super) async fn migrate(session: &Session, make: bool) -> Result<(), PostgresError> {
    let exists: bool = column(&EXISTS, &session.row(&EXISTS, &[]).await?, 0)?;
    if !exists && !make {
        return Err(PostgresError::Missing { schema: session.schema().to_owned() });
    }
    // Whoever may only read and write rows can still open tables that are up to date.
    if exists && is_current(session).await? {
        return Ok(());
    }
    session.run(&BEGIN).await?;
    session.run(&PREPARE).await?;
    let applied = applied(session).await?;
    for migration in MIGRATIONS.iter().filter(|migration| !applied.contains_key(&migration.version)) {
        tracing::info!(version = migration.version, name = migration.name, "migrating the ledger's tables");
        session.run_text(migration.name, migration.text, LONGEST).await?;
        let hash = Digest::of(migration.text.as_bytes());
        let parameters: [Parameter<'_>; 4] = [
            (&migration.version, Type::INT4),
            (&migration.oldest, Type::INT4),
            (&migration.name, Type::TEXT),
            (&hash.as_bytes().as_slice(), Type::BYTEA),
        ];
        session.change_exactly(&NOTE, &parameters, 1, Duration::ZERO).await?;
    }
    Ok(session.run(&COMMIT).await?)
}

async fn is_current(session: &Session) -> Result<bool, PostgresError> {
    let applied = applied(session).await?;
    Ok(MIGRATIONS.iter().all(|migration| applied.contains_key(&migration.version)))
}

/// What was applied, and that this program can work with it.
async fn applied(session: &Session) -> Result<BTreeMap<i32, Vec<u8>>, PostgresError> {
    let known = MIGRATIONS.last().map_or(0, |last| last.version);
    let mut applied = BTreeMap::new();
    for row in session.rows(&APPLIED, &[]).await? {
        let (version, oldest): (i32, i32) = (column(&APPLIED, &row, 0)?, column(&APPLIED, &row, 1)?);
        if oldest > known {
            return Err(PostgresError::Newer { found: version, known });
        }
        applied.insert(version, column(&APPLIED, &row, 2)?);
    }
    for migration in MIGRATIONS {
        let hash = Digest::of(migration.text.as_bytes());
        if applied.get(&migration.version).is_some_and(|found| found != hash.as_bytes()) {
            return Err(PostgresError::Migration { version: migration.version });
        }
    }
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What databases were made with. A line here never changes; a new migration adds one.
    const RELEASED: &[(i32, &str)] = &[];

    #[test]
    fn versions_rise_by_one_and_allow_the_one_before() {
        for (migration, version) in MIGRATIONS.iter().zip(1..) {
            assert_eq!(migration.version, version);
            assert!(migration.oldest <= (version - 1).max(1), "replicas are upgraded one after the other");
        }
    }

    #[test]
    fn a_released_migration_is_never_edited() {
        for (version, hash) in RELEASED {
            let migration = MIGRATIONS.iter().find(|migration| migration.version == *version).unwrap();
            assert_eq!(Digest::of(migration.text.as_bytes()).to_string(), *hash, "migration {version}");
        }
    }
}
