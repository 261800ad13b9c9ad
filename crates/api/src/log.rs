//! The log as JSON. Auditors read tiles and checkpoints, which are not JSON and have no types here.

use chancery_types::{Digest, SerialNumber, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::limits;

/// Which entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogEntriesQuery {
    /// The first one's index.
    #[serde(default)]
    pub start: u64,
    /// How many; 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl LogEntriesQuery {
    /// How many entries to send: what was asked for, at most [`limits::LOG_ENTRIES`].
    #[must_use]
    pub fn size(&self) -> u64 {
        self.count.unwrap_or(limits::LOG_ENTRIES).min(limits::LOG_ENTRIES)
    }
}

/// Entries of the log, readable. Nothing here is proved: an auditor hashes `bytes` and checks the tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogEntriesResponse {
    /// How many entries the log has now.
    pub size: u64,
    /// In the log's order, beginning at `start`.
    pub entries: Vec<LogEntryView>,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogEntryView {
    /// Its position.
    pub index: u64,
    /// Its leaf hash (RFC 6962 section 2.1).
    #[schema(value_type = String)]
    pub leaf_hash: Digest,
    /// What it says.
    #[schema(value_type = Object)]
    pub entry: serde_json::Value,
    /// Its exact bytes, base64: what was hashed.
    pub bytes: String,
}

/// The proof that a certificate is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogProofResponse {
    /// Which certificate.
    #[schema(value_type = String)]
    pub serial: SerialNumber,
    /// The position of its issuance.
    pub log_index: u64,
    /// The exact bytes of the entry, base64: what the proof is about.
    pub entry: String,
    /// The inclusion proof and the signed checkpoint (C2SP tlog-proof).
    pub receipt: String,
}

/// The keys that have signed for the log, do, or will, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogKeysResponse {
    /// The log's origin line.
    pub origin: String,
    /// The keys.
    pub keys: Vec<LogKeyView>,
}

/// A key of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogKeyView {
    /// The key (C2SP signed-note).
    pub vkey: String,
    /// Where in its life it is.
    pub phase: LogKeyPhase,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// That the log, as the key before it has signed it, names this key; nothing for the first one, and for one that
    /// has not signed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouched: Option<LogKeyVoucher>,
}

/// Where in its life a key of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogKeyPhase {
    /// It signs nothing yet.
    Published,
    /// It signs.
    Active,
    /// It signs beside the one after it.
    Superseded,
    /// It signs no more.
    Withdrawn,
}

impl std::fmt::Display for LogKeyPhase {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Published => "published",
            Self::Active => "active",
            Self::Superseded => "superseded",
            Self::Withdrawn => "withdrawn",
        })
    }
}

/// The proof that the log names a key, by the key before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogKeyVoucher {
    /// The exact bytes of the entry that published the key, base64.
    pub entry: String,
    /// The inclusion proof and the checkpoint that the key before it has signed (C2SP tlog-proof).
    pub receipt: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_entries_than_the_limit() {
        let size = |count| LogEntriesQuery { start: 0, count }.size();
        assert_eq!(size(None), limits::LOG_ENTRIES);
        assert_eq!(size(Some(3)), 3);
        assert_eq!(size(Some(u64::MAX)), limits::LOG_ENTRIES);
    }
}
