//! Why there is no backup, or nothing came of one.

use std::io;

use chancery_keys::age::AgeError;
use chancery_types::{Digest, Timestamp};

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The log cannot be read.
    #[error(transparent)]
    Ledger(#[from] chancery_ledger::OpenError),
    /// The authority cannot be opened to sign a checkpoint.
    #[error(transparent)]
    Authority(#[from] crate::authority::OpenError),
    /// The log in the database cannot be read.
    #[error(transparent)]
    Read(#[from] chancery_ledger::ReadError),
    /// There is nothing to back up yet.
    #[error("the log has no checkpoint yet; finish `chancery init` first")]
    Empty,
    /// What is read is not the log that the checkpoint speaks of.
    #[error(
        "the first {size} entries hash to {found}, but the checkpoint says {signed}: the journal is damaged or another \
         log's; run `chancery ledger check`"
    )]
    Differs {
        /// Entries.
        size: u64,
        /// What they hash to.
        found: Digest,
        /// What was signed.
        signed: Digest,
    },
    /// The checkpoint is not the log's.
    #[error("the checkpoint is not one of this log: {0}")]
    Checkpoint(String),
    /// An entry is none.
    #[error("entry {index} of the log cannot be read: {error}; use the program that wrote it")]
    Entry {
        /// Its index.
        index: u64,
        /// Why.
        error: String,
    },
    /// A file of the authority cannot be read.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It cannot be encrypted.
    #[error(transparent)]
    Encrypt(#[from] AgeError),
    /// It cannot be written.
    #[error("the backup cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Why nothing came of a backup. Nothing is left where it should have gone.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be decrypted.
    #[error("the backup cannot be opened: {0}")]
    Decrypt(#[from] AgeError),
    /// It is damaged, or none of ours.
    #[error("the backup cannot be read: {0}")]
    Read(io::Error),
    /// What is in it is not what should be.
    #[error("the backup is damaged or none of ours: {0}")]
    Malformed(String),
    /// It was made by a later program.
    #[error("the backup has form {found}, this program reads {known}; use a newer program")]
    Version {
        /// The form found.
        found: u32,
        /// The form known.
        known: u32,
    },
    /// Something is where it should go.
    #[error("{0} exists already; name a new directory, and move it into place when it is right")]
    Exists(String),
    /// It cannot be written.
    #[error("{path}: {error}")]
    Write {
        /// Where.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The log cannot be written.
    #[error(transparent)]
    Ledger(#[from] chancery_ledger::OpenError),
    /// The database is not reached, or has something else.
    #[error(
        "{0}; nothing but entries of this log was written to it, and the same command goes on where it stopped"
    )]
    Database(#[from] chancery_ledger::PostgresError),
    /// The database's password or certificates cannot be read.
    #[error(transparent)]
    Settings(#[from] crate::authority::OpenError),
    /// Nobody said what was published.
    #[error(
        "nothing says how far the log had come when it was lost: name the last checkpoint that anybody has with \
         --checkpoint FILE|URL (an auditor, a mirror, another replica, ledger/checkpoint of the old directory). A log that \
         goes back makes revoked certificates good again; only if nobody has a later one, say \
         --dangerous-without-checkpoint"
    )]
    NoEvidence,
    /// What was named as published is not of this log.
    #[error("{source_name} is not of this log: {why}")]
    Evidence {
        /// Where it is from.
        source_name: String,
        /// What is wrong.
        why: String,
    },
    /// It would go back behind what was published.
    #[error(
        "the backup has {found} entries, but {source_name} shows that {published} were published{since}: restoring it would make \
         good again whoever was revoked in the {missing} entries between, and fork the log. Two ways out: (1) bring \
         the missing entries with --log FILE|DIRECTORY|URL (an export of `chancery audit export`, a mirror of the log, a \
         newer backup's log/); (2) if nobody has them, this log is over: make a new issuer and a new log with `chancery \
         init`, revoke the old issuer with `chancery root crl`, and tell every relying party"
    )]
    WouldUnrevoke {
        /// Entries that there are.
        found: u64,
        /// Entries that were published.
        published: u64,
        /// The difference.
        missing: u64,
        /// Where that is known from.
        source_name: String,
        /// Until when the backup goes.
        since: String,
    },
    /// It holds other entries than were published.
    #[error(
        "the first {size} entries hash to {found}, but {source_name} says {published}: the log that was published is another one. Do \
         not go on from here; keep both as evidence, and compare them with `chancery audit verify`"
    )]
    Forked {
        /// Entries.
        size: u64,
        /// What they hash to.
        found: Digest,
        /// What was published.
        published: Digest,
        /// Where that is known from.
        source_name: String,
    },
    /// What was to follow cannot be had.
    #[error("{source_name}: {why}")]
    More {
        /// Where it is from.
        source_name: String,
        /// What is wrong.
        why: String,
    },
}

impl RestoreError {
    pub(super) fn write(path: &std::path::Path, error: io::Error) -> Self {
        Self::Write { path: path.display().to_string(), error }
    }

    pub(super) fn malformed(why: impl std::fmt::Display) -> Self {
        Self::Malformed(why.to_string())
    }
}

/// A moment for people.
pub(super) fn until(last: Option<Timestamp>) -> String {
    last.map(|last| format!(" (the last one here is of {last})")).unwrap_or_default()
}
