//! Why a ledger in PostgreSQL was not opened, or may not be written any more.

use chancery_types::{Digest, RandomError};

use super::session::SqlError;

/// Why a ledger in PostgreSQL was not opened.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Something in the options cannot be.
    #[error("{0}")]
    Settings(String),
    /// The database cannot be reached, or refused a statement.
    #[error("the ledger's database: {0}")]
    Database(String),
    /// A commit would not be durable.
    #[error(
        "the database has {setting} = {value}: what it acknowledges can be lost. Set it to on, in \
         postgresql.conf and for this role"
    )]
    NotDurable {
        /// The setting.
        setting: String,
        /// Its value.
        value: String,
    },
    /// There is no ledger in the schema.
    #[error("there is no ledger in schema {schema}; run `chancery init`, or name the schema that has one")]
    Missing {
        /// The schema.
        schema: String,
    },
    /// There is one already.
    #[error("schema {schema} has a ledger already; open it, or name another schema")]
    Exists {
        /// The schema.
        schema: String,
    },
    /// The tables were made by a later version, which this one does not understand.
    #[error(
        "the ledger's tables are of version {found}, this program knows {known}: start the later program, \
         which made them"
    )]
    Newer {
        /// The database's version.
        found: i32,
        /// The latest that this program knows.
        known: i32,
    },
    /// The database was migrated by another text than this program's.
    #[error("migration {version} of the ledger's tables was another one than this program has")]
    Migration {
        /// Which.
        version: i32,
    },
    /// The database is not the one that it should be.
    #[error(transparent)]
    Fenced(#[from] Fence),
    /// The checkpoint that is kept outside the database cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] crate::OpenError),
    /// No randomness for a new log's or this replica's id.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// An entry in the database is not an entry.
    #[error("entry {index} cannot be read: {error}; this program may be older than the log")]
    Entry {
        /// Its index.
        index: u64,
        /// Why.
        error: String,
    },
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: String,
        /// Its words.
        error: std::io::Error,
    },
}

/// Why this process refuses to go on with a database: to sign over it would fork the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fence {
    /// The database is older than what was published.
    #[error(
        "the database has {found} entries, but {published} were published: it was restored from a backup, or \
         a standby took over that had not caught up. Signing over it would fork the log, so nothing is signed. \
         There are two ways out: bring back a database that has all {published} entries (the old primary, a \
         later backup, its write-ahead log), or let `chancery restore --database` add to it what a `chancery backup`, an \
         export or a mirror has; or, if they are lost for good, start a new log and tell every relying party"
    )]
    Behind {
        /// Entries in the database.
        found: u64,
        /// Entries that this replica has seen durable, or published.
        published: u64,
    },
    /// The database holds other entries than were published.
    #[error(
        "the first {size} entries of the database hash to {found}, but {published} was published: the log was \
         forked or altered, so nothing is signed. There are two ways out: bring back the database whose first \
         {size} entries were published; or, if it is lost for good, start a new log and tell every relying party"
    )]
    NotPublished {
        /// Entries published.
        size: u64,
        /// Root in the database at that size.
        found: Digest,
        /// Root that was published.
        published: Digest,
    },
    /// The database holds another log.
    #[error("the database holds the log {found}, not {expected}: point this replica at the right database")]
    OtherLog {
        /// The log's origin there.
        found: String,
        /// The one that this process serves.
        expected: String,
    },
    /// Somebody took the log over.
    #[error(
        "the log was taken over (epoch {found}, this replica started in {known}): restart this replica, it \
         will check the log again"
    )]
    TakenOver {
        /// The epoch now.
        found: i64,
        /// The epoch that this process started in.
        known: i64,
    },
    /// The log has moved elsewhere.
    #[error("the log in this database is closed: {0}")]
    Closed(String),
    /// The hashes in the database do not fit its head.
    #[error(
        "the hashes in the database give {found} for its {size} entries, its head says {expected}: it was \
         altered or damaged, so nothing is signed; restore it from a backup that is whole, or a standby"
    )]
    Damaged {
        /// Entries.
        size: u64,
        /// Root of the stored hashes.
        found: Digest,
        /// Root in the head.
        expected: Digest,
    },
}

/// Why a connection is of no use.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Unfit {
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error(transparent)]
    Fenced(#[from] Fence),
}

impl From<SqlError> for PostgresError {
    fn from(error: SqlError) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<Unfit> for PostgresError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Sql(error) => error.into(),
            Unfit::Fenced(fence) => fence.into(),
        }
    }
}
