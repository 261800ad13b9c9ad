//! What was published of the status of certificates.

use chancery_types::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// The last list published for an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrlRecord {
    /// Its number.
    pub number: u64,
    /// thisUpdate.
    pub this_update: Timestamp,
    /// nextUpdate.
    pub next_update: Timestamp,
    /// Lines in it.
    pub entries: u64,
    /// SHA-256 of the list.
    pub hash: Digest,
    /// Index of the entry that records it.
    #[serde(default)]
    pub index: u64,
}

/// How the certificates of an issuer are, or once were, divided among lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlDivisionRecord {
    /// How many lists there are.
    pub shards: u16,
    /// What their URLs begin with.
    pub base: String,
    /// Index of the entry since which certificates may name them.
    pub index: u64,
}

/// The version of the exact set that was recorded last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusSetRecord {
    /// Where in the log it is right.
    pub sequence: u64,
    /// When it was made.
    pub made: Timestamp,
    /// Certificates in it.
    pub entries: u64,
    /// SHA-256 of it.
    pub hash: Digest,
}
