//! `chancery quickstart`: the whole story on loopback, with real processes, real sockets and the commands that a
//! user would type.
//!
//! It shows what it says or fails: every step checks what came of it, also that what must be refused is refused.

mod agent;
mod peers;
mod programs;
mod stage;
mod story;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use crate::failure::usage;
use crate::terminal::{Terminal, Tone};
use stage::{Stage, shown};

/// Shows the whole story on this machine: make an authority, let two workloads in, have them speak, renew, revoke; run
/// an agent that gives programs what they are; audit, and see a forgery caught. Takes seconds and leaves nothing behind.
#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    /// Where it happens: a directory that does not exist yet. A temporary one if absent.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the directory, to look around in it.
    #[arg(long)]
    keep: bool,
}

/// The bytes that the directory's path may have: that of a UNIX socket has 107 at most (`sun_path` without its final
/// zero), and none below the directory is longer than the one that becomes the authority's admin socket.
const LONGEST: usize = 107 - "/chancery/run/admin.4194304.new".len();

/// A directory that goes away unless it is kept.
#[derive(Debug)]
struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Quickstart {
    pub(crate) async fn run(&self, terminal: &Terminal) -> Result<()> {
        let scratch = self.scratch()?;
        let mut stage = Stage::new(terminal, &scratch.path);
        stage.say(&format!(
            "Chancery on one page, in {}. Every line behind $ can be typed there.",
            terminal.paint(Tone::Strong, scratch.path.display())
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
                "directory": self.keep.then_some(&scratch.path),
            }));
        }
        stage.say(&format!(
            "\n{} {} steps in {}.",
            terminal.paint(Tone::Good, "Done:"),
            stage.steps().len(),
            shown(took)
        ))?;
        if self.keep {
            stage.say(&format!(
                "Everything is in {0}. Go on with: cd {0} && chancery serve",
                scratch.path.display()
            ))
        } else {
            stage.say(
                "The directory is gone again; --keep leaves it. For an authority of your own: chancery init",
            )
        }
    }

    fn scratch(&self) -> Result<Scratch> {
        let path = match &self.dir {
            Some(path) => std::path::absolute(path)?,
            None => std::env::temp_dir().join(format!("chancery-quickstart-{}", std::process::id())),
        };
        if path.exists() {
            return Err(usage(format!(
                "{} exists already; quickstart makes and removes a directory of its own, choose another --dir",
                path.display()
            )));
        }
        if path.as_os_str().len() > LONGEST {
            return Err(usage(format!(
                "{} is too long for sockets in it; choose a shorter --dir",
                path.display()
            )));
        }
        // For nobody else, whatever the umask: an agent takes no directory where others could put a socket of theirs.
        let mut private = std::fs::DirBuilder::new();
        private
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch { path, keep: self.keep })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed is found by its name.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_exists_is_never_touched() {
        let directory = tempfile::tempdir().unwrap();
        let here = Quickstart { dir: Some(directory.path().to_owned()), keep: false };
        assert!(here.scratch().unwrap_err().to_string().contains("exists already"));
        let within = Quickstart { dir: Some(directory.path().join("new")), keep: false };
        drop(within.scratch().unwrap());
        assert!(directory.path().exists() && !directory.path().join("new").exists());
        let kept = Quickstart { dir: Some(directory.path().join("kept")), keep: true };
        drop(kept.scratch().unwrap());
        assert!(directory.path().join("kept").exists());
    }

    #[test]
    fn a_directory_too_deep_for_sockets_is_refused_before_anything_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(100));
        let error = Quickstart { dir: Some(deep.clone()), keep: false }.scratch().unwrap_err();
        assert!(error.to_string().contains("shorter --dir"));
        assert!(!deep.exists());
    }
}
