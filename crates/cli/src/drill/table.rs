//! What a drill found, for people and for programs.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::thief::Uses;
use crate::stage::shown;
use crate::terminal::{Terminal, Tone};

/// What a relying party made of the stolen certificate; times are since the command was typed that revoked it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// Which relying party.
    pub(crate) relying_party: String,
    /// How it learns of revocations.
    pub(crate) learns: String,
    /// Until when it let in new connections, in milliseconds; 0 when none after the command.
    pub(crate) new_until_ms: f64,
    /// Until when it answered on the connection that was open.
    pub(crate) open_until_ms: f64,
    /// Whether both ended before the drill did.
    pub(crate) is_out: bool,
}

impl Finding {
    /// What came of a thief's attempts.
    pub(crate) fn of(relying_party: &str, learns: &str, uses: Uses, typed: Instant, quiet: Duration) -> Self {
        let since = |moment: Option<Instant>| {
            moment.map_or(0.0, |moment| moment.saturating_duration_since(typed).as_secs_f64() * 1000.0)
        };
        Self {
            relying_party: relying_party.to_owned(),
            learns: learns.to_owned(),
            new_until_ms: since(uses.new),
            open_until_ms: since(uses.open),
            is_out: uses.is_out(quiet),
        }
    }
}

/// The table of all of them.
pub(crate) fn table(terminal: &Terminal, findings: &[Finding]) -> String {
    let until = |finding: &Finding, milliseconds: f64| match finding.is_out {
        true => shown(Duration::from_secs_f64(milliseconds / 1000.0)),
        false => terminal.paint(Tone::Bad, "still in"),
    };
    let rows = findings.iter().map(|finding| {
        vec![
            finding.relying_party.clone(),
            finding.learns.clone(),
            until(finding, finding.new_until_ms),
            until(finding, finding.open_until_ms),
        ]
    });
    terminal.table(&["relying party", "learns of it by", "last let in", "open connection"], rows)
}
