//! What a sink says of itself.

use std::path::PathBuf;

use chancery_types::{SpiffeId, Timestamp};
use serde::Serialize;

use crate::hook::HookOutcome;
use crate::probe::ProbeOutcome;

/// A sink at a moment, for `agent status` and for metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// Where it writes.
    pub directory: PathBuf,
    /// How it is.
    pub phase: Phase,
    /// In words, with the next step where there is one; empty when all is well.
    pub detail: String,
    /// The certificate it was last given.
    pub issued: Option<Certificate>,
    /// The certificate whose files are in place.
    pub in_place: Option<Certificate>,
    /// How the last hook ended.
    pub hook: Option<HookOutcome>,
    /// What the last probe saw.
    pub probe: Option<ProbeOutcome>,
    /// How many attempts in a row have failed.
    pub failed_attempts: u32,
    /// When it tries again, if it does.
    pub next_attempt: Option<Timestamp>,
    /// When this was last looked at.
    pub updated: Timestamp,
}

/// A certificate, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Whom it names; none is known of files that an earlier run of the agent wrote.
    pub spiffe_id: Option<SpiffeId>,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// When it ends.
    pub not_after: Timestamp,
}

/// How a sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing has been issued yet; files of an earlier run stay as they are.
    Waiting,
    /// The files are in place; the hook or the probe is at work.
    Applying,
    /// The files are in place, the hook has run, and the service serves them, as far as there is one to ask.
    Current,
    /// The files could not be written; those before are in place.
    NotWritten,
    /// The files are in place, but the hook failed.
    HookFailed,
    /// The files are in place, but the service serves something else.
    IssuedNotServing,
    /// As before, and the files before are back in place.
    RolledBack,
    /// The identity was withdrawn.
    Withdrawn,
}

impl Phase {
    /// Whether somebody should look.
    #[must_use]
    pub fn is_failing(self) -> bool {
        matches!(self, Self::NotWritten | Self::HookFailed | Self::IssuedNotServing | Self::RolledBack)
    }
}
