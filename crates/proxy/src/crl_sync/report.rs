//! What was done, for people and scripts.

use std::path::PathBuf;

use chancery_types::Timestamp;
use serde::Serialize;

use super::list::RevocationList;

/// What one round did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The lists in place.
    pub lists: Vec<ListReport>,
    /// Where they are.
    pub outputs: Vec<OutputReport>,
}

/// One list.
#[derive(Debug, Clone, Serialize)]
pub struct ListReport {
    /// Whose.
    pub issuer: String,
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// When it ends.
    pub next_update: Timestamp,
    /// Certificates on it.
    pub entries: usize,
}

/// One output.
#[derive(Debug, Clone, Serialize)]
pub struct OutputReport {
    /// Its name.
    pub name: String,
    /// Its file or directory.
    pub path: PathBuf,
    /// Whether anything was written.
    pub changed: bool,
    /// Whether its program was told.
    pub told: bool,
}

impl ListReport {
    pub(super) fn of(list: &RevocationList) -> Self {
        Self {
            issuer: list.issuer().to_owned(),
            number: list.number(),
            this_update: list.this_update(),
            next_update: list.next_update(),
            entries: list.entries(),
        }
    }
}
