//! Backups: the log with what belongs to it, encrypted to somebody who is not there; and what comes of one.
//!
//! A backup is a tar archive in an age file, so that it can be opened without this program:
//!
//! ```text
//! chancery-backup.json       what it is
//! log/checkpoint             the signed checkpoint that it reaches to
//! authority/...              configuration, rules and certificates as they lie in the authority's directory; keys
//!                            only where that was asked for
//! log/tile/...               entries and tree hashes in the static layout of C2SP tlog-tiles
//! log/signatures             u64 index | u16 length | signature, by rising index
//! log/chancery.json          the header of an export: `chancery audit verify log` reads the directory
//! ```
//!
//! The log is the truth; the read model follows from it. It is read beside the running server, in its directory or
//! in the database, up to a checkpoint that the server has signed. [`restore`] lays it into a new directory or a database, and refuses to go back behind what was published:
//! whoever was revoked since the backup would be good again, and the log would be forked.
//!
//! Whoever has the identity can read everything that is in a backup; whoever stores it can only lose it.

mod account;
mod database;
mod errors;
mod make;
mod material;
mod restore;
mod source;
mod tiles;

use chancery_types::Timestamp;
use serde::{Deserialize, Serialize};

pub use account::Account;
pub use chancery_keys::age::{AgeKeyError, Identity, Recipient, read_identities};
pub use errors::{BackupError, RestoreError};
pub use make::{BackupPlan, KeysIn, make};
pub use restore::{Evidence, More, RestorePlan, Restored, StatusEvidence, restore};

/// The form that is written and read here.
pub const BACKUP_VERSION: u32 = 1;

/// What a backup says of itself: its first file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`BACKUP_VERSION`].
    pub chancery_backup: u32,
    /// The trust domain.
    pub trust_domain: String,
    /// When it was made, by the clock of its maker.
    pub made: Timestamp,
    /// The version of the program that made it.
    pub program: String,
    /// Entries of the log in it.
    pub entries: u64,
    /// The configuration's name in `authority/`.
    pub config: String,
    /// Where the ledger lies in the authority's directory; nothing when it lies outside.
    pub ledger: Option<String>,
    /// The database that had the ledger, if one had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Where the admin socket lies, in the authority's directory: a server expects that directory.
    pub run: Option<String>,
    /// Whether the keys in files are in it.
    pub keys: bool,
    /// What the authority has and the backup has not, each with the reason.
    pub left_out: Vec<String>,
}

const MANIFEST: &str = "chancery-backup.json";
const CHECKPOINT: &str = "log/checkpoint";
const HEADER: &str = "log/chancery.json";
const SIGNATURES: &str = "log/signatures";
const LOG: &str = "log/";
const FILES: &str = "authority/";
