//! What a drill found, for people and for programs.

use std::time::Duration;

use serde::Serialize;

use crate::stage::shown;
use crate::terminal::{Terminal, Tone};

/// What a relying party made of the stolen certificate; times are since the command was typed that revoked it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// Which relying party.
    pub(crate) relying_party: String,
    /// How it learns of revocations.
    pub(crate) learns: String,
    /// Until when it let in new connections, in milliseconds; 0 when none after the command, nothing when it still does.
    pub(crate) new_until_ms: Option<f64>,
    /// The same of answers on the connection that was open.
    pub(crate) open_until_ms: Option<f64>,
    /// Whether it did what one of its kind is to do.
    pub(crate) is_right: bool,
}

/// The table of all of them.
pub(crate) fn table(terminal: &Terminal, findings: &[Finding]) -> String {
    let until = |milliseconds: Option<f64>| match milliseconds {
        Some(milliseconds) => shown(Duration::from_secs_f64(milliseconds / 1000.0)),
        None => terminal.paint(Tone::Bad, "still in"),
    };
    let rows = findings.iter().map(|finding| {
        let (new, open) = (until(finding.new_until_ms), until(finding.open_until_ms));
        vec![finding.relying_party.clone(), finding.learns.clone(), new, open]
    });
    terminal.table(&["relying party", "learns of it by", "last let in", "open connection"], rows)
}
