//! `chancery quickstart`: the whole story on loopback, with real processes, real sockets and the commands that a
//! user would type.
//!
//! It shows what it says or fails: every step checks what came of it, also that what must be refused is refused.

mod agent;
mod programs;
mod story;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::scratch::Where;
use crate::stage::{Stage, shown};
use crate::terminal::{Terminal, Tone};

/// Shows the whole story on this machine: make an authority, let two workloads in, have them speak, renew, revoke; run
/// an agent that gives programs what they are; audit, and see a forgery caught. Takes seconds and leaves nothing behind.
#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    #[command(flatten)]
    place: Where,
}

impl Quickstart {
    pub(crate) async fn run(&self, terminal: &Terminal) -> Result<()> {
        let scratch = self.place.make("quickstart")?;
        let mut stage = Stage::new(terminal, scratch.path());
        stage.say(&format!(
            "Chancery on one page, in {}. Every line behind $ can be typed there.",
            terminal.paint(Tone::Strong, scratch.path().display())
        ))?;
        let told = story::tell(&mut stage).await;
        if let (Err(_), Some(step)) = (&told, stage.under_way()) {
            let failed = terminal.paint(Tone::Bad, format_args!("✗ step {}", stage.steps().len() + 1));
            terminal.warn(format_args!("    {failed} failed: {step}"));
        }
        told?;
        let took = stage.elapsed();
        if terminal.is_json() {
            return terminal.json(&json!({
                "ok": true, "seconds": took.as_secs_f64(), "steps": stage.steps(),
                "directory": self.place.keep.then_some(scratch.path()),
            }));
        }
        stage.say(&format!(
            "\n{} {} steps in {}.",
            terminal.paint(Tone::Good, "Done:"),
            stage.steps().len(),
            shown(took)
        ))?;
        if self.place.keep {
            stage.say(&format!(
                "Everything is in {0}. Go on with: cd {0} && chancery serve",
                scratch.path().display()
            ))
        } else {
            stage.say(
                "The directory is gone again; --keep leaves it. For an authority of your own: chancery init",
            )
        }
    }
}
