//! What is done after a program's files have changed, so that it takes them up.
//!
//! A hook is a command (arguments, no shell), a signal, a reload of a systemd unit, or a request to a port of this
//! machine. It is the operator's word from the configuration file, run with the agent's rights; nothing of a
//! certificate or of the server's answers becomes a part of it except as the value of a documented variable.
//! That it came to a good end says that the program was told, not that it listened: that is for [`crate::probe`].

mod command;
mod http;
mod settings;
mod signal;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use chancery_types::{SerialNumber, SpiffeId, Timestamp};
use serde::Serialize;

use self::settings::Action;
pub use self::settings::{Hook, HookSettings, SignalName};

/// What a hook is told: as variables by a command, as a JSON document by a request.
#[derive(Debug, Clone, Serialize)]
pub struct Occasion {
    /// `CHANCERY_REASON`.
    pub reason: Reason,
    /// `CHANCERY_SINK`: the name of the sink.
    pub sink: String,
    /// `CHANCERY_DIRECTORY`: where the files are.
    pub directory: PathBuf,
    /// The certificate in the files, where one is in them.
    #[serde(flatten)]
    pub certificate: Option<OccasionCertificate>,
}

/// The certificate in the files that have changed.
#[derive(Debug, Clone, Serialize)]
pub struct OccasionCertificate {
    /// `CHANCERY_SPIFFE_ID`: whom the certificate names.
    pub spiffe_id: SpiffeId,
    /// `CHANCERY_SERIAL`: its serial number, hexadecimal.
    pub serial: SerialNumber,
    /// `CHANCERY_NOT_AFTER`: when it ends, RFC 3339.
    pub not_after: Timestamp,
}

/// Why a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// There are new files.
    Issued,
    /// They were not taken up the last time.
    Retry,
    /// The files before them are back in place.
    RolledBack,
    /// The files are gone, because the identity is.
    Withdrawn,
    /// There are new revocation lists.
    Revoked,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Retry => "retry",
            Self::RolledBack => "rolled_back",
            Self::Withdrawn => "withdrawn",
            Self::Revoked => "revoked",
        }
    }
}

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum HookOutcome {
    /// As it should.
    Done {
        /// What it printed, at most 4 KiB.
        output: String,
    },
    /// It could not begin.
    NotStarted {
        /// Why not.
        why: String,
    },
    /// It said itself that it failed.
    Failed {
        /// How: an exit status, an HTTP status.
        how: String,
        /// What it printed, at most 4 KiB.
        output: String,
    },
    /// It was ended because it took too long.
    TimedOut {
        /// How long it had, in seconds.
        after_seconds: u64,
        /// What it had printed, at most 4 KiB.
        output: String,
    },
    /// The process to signal is not there, or is not the one that was meant.
    NoProcess {
        /// What is wrong.
        why: String,
    },
}

impl HookOutcome {
    /// Whether the program was told.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }
}

impl Hook {
    /// Runs it to its end, or to its time limit.
    pub async fn run(&self, occasion: &Occasion) -> HookOutcome {
        match &self.action {
            Action::Command { argv } => command::run(argv, occasion, self.timeout).await,
            Action::Systemd { unit } => {
                let argv = ["systemctl", "--no-ask-password", "reload-or-restart", "--", unit];
                command::run(&argv.map(str::to_owned), occasion, self.timeout).await
            }
            Action::Signal(target) => target.send(),
            Action::Http(request) => request.send(occasion, self.timeout).await,
        }
    }
}

fn timed_out(limit: Duration, output: String) -> HookOutcome {
    HookOutcome::TimedOut { after_seconds: limit.as_secs(), output }
}

/// The beginning of what a program printed, fit for a log and a terminal.
fn printable(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.trim_end()
        .chars()
        .map(|letter| if letter.is_control() && letter != '\n' { ' ' } else { letter })
        .collect()
}

/// How much of what a hook prints is kept.
const OUTPUT_LIMIT: usize = 4096;
