//! `chancery doctor`: looks at a deployment from its own host, and says what to do.
//!
//! Nothing is changed, but for one small object in a bucket of tiles, which shows that it can be written to. What lies on the disk is looked at first, then the server as clients and relying parties meet it;
//! when the server does not answer, that is one finding and the rest is said to be unknown.

mod finding;
mod local;
mod replicas;
mod served;
mod tiles;

use std::path::PathBuf;

use anyhow::Result;
use chancery_types::{Clock as _, SystemClock};
use clap::Args;
use serde_json::json;

use crate::authority_side;
use crate::failure::verification;
use crate::flags::Globals;
use crate::place::{self, Place};
use crate::terminal::{Terminal, Tone};
use finding::{Findings, State};

/// Checks a deployment on the server's host: clock, permissions, keys, lists, OCSP, issuers, disk, log, tiles, agents, and
/// with the ledger in PostgreSQL the database and its replicas. Says what is wrong and what to do. Ends with 4 when something is.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// A checkpoint that was kept earlier: the log must not be shorter.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Print only what is wrong or worth a look.
    #[arg(long)]
    problems: bool,
}

impl Doctor {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let file = place::required(globals.config.as_deref())?;
        let mut findings = Findings::default();
        match authority_side::health_record(&file) {
            Ok(record) => {
                findings.good("configuration", format!("{} is in order", file.display()));
                let place = Place::find(Some(&file))?;
                local::look(&record, &mut findings);
                match authority_side::replicas(&file).await {
                    Ok(None) => {}
                    Ok(Some(standing)) => replicas::look(&standing, &mut findings),
                    Err(error) => findings.bad(
                        "database",
                        format!("{error:#}"),
                        "is it running, does the network lead there, are [storage.postgres] and its files right?",
                    ),
                }
                if let Some(seen) = authority_side::tiles(&file).await? {
                    tiles::look(&seen, &mut findings);
                }
                let now = SystemClock.now();
                if let Some(place) = &place {
                    let kept = self.checkpoint.as_deref();
                    served::look(&record, place, kept, now, &mut findings).await;
                }
            }
            Err(error) => {
                findings.bad(
                    "configuration",
                    format!("{error:#}"),
                    "mend it; `chancery check-config` says the same",
                );
            }
        }
        self.report(&findings, terminal)
    }

    fn report(&self, findings: &Findings, terminal: &Terminal) -> Result<()> {
        let wanted = |state: State| !self.problems || matches!(state, State::Bad | State::Warning);
        let shown: Vec<_> = findings.0.iter().filter(|finding| wanted(finding.state)).collect();
        let (bad, warnings) = (findings.count(State::Bad), findings.count(State::Warning));
        terminal.data(&json!({ "bad": bad, "warnings": warnings, "findings": shown }), || {
            let mut text = String::new();
            for finding in &shown {
                let (tone, mark) = match finding.state {
                    State::Good => (Tone::Good, "ok     "),
                    State::Unknown => (Tone::Strong, "unknown"),
                    State::Warning => (Tone::Warning, "look   "),
                    State::Bad => (Tone::Bad, "WRONG  "),
                };
                text += &format!("{}  {:<14} {}\n", terminal.paint(tone, mark), finding.check, finding.found);
                if !finding.advice.is_empty() {
                    text += &format!(
                        "{:26}{}\n",
                        "",
                        terminal.paint(Tone::Strong, format!("-> {}", finding.advice))
                    );
                }
            }
            let verdict = match (bad, warnings) {
                (0, 0) => terminal.paint(Tone::Good, "Nothing is wrong."),
                (0, _) => {
                    terminal.paint(Tone::Warning, format!("Nothing is wrong; {warnings} worth a look."))
                }
                _ => terminal.paint(Tone::Bad, format!("{bad} wrong, {warnings} worth a look.")),
            };
            text + &format!("{verdict}\n")
        })?;
        if bad > 0 {
            return Err(verification(format!(
                "{bad} things are wrong with this deployment; what to do stands beside each"
            )));
        }
        Ok(())
    }
}
