//! `chancery ledger`: looking after the ledger of an authority.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::authority_side::{self, LedgerWork};
use crate::flags::Globals;
use crate::place;
use crate::terminal::{Terminal, Tone};

/// Rebuilds or checks the ledger of an authority that does not run, and moves its old segments to an archive.
#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Make the index anew from the journal.
    Rebuild(Rebuild),
    /// Compute everything again from the journal and compare: needs as much space as the index takes.
    Check(Check),
    /// Move old segments of the journal to another file system, also while the server runs.
    Archive(Archive),
}

#[derive(Debug, Args)]
pub(crate) struct Rebuild {}

#[derive(Debug, Args)]
pub(crate) struct Check {}

#[derive(Debug, Args)]
pub(crate) struct Archive {
    /// Where they go: a directory of this log's own, which stays mounted; they are read from there.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Segments of 64 MiB that stay.
    #[arg(long, value_name = "N", default_value_t = 2)]
    keep: usize,
}

impl Archive {
    fn run(&self, config: &Path, terminal: &Terminal) -> Result<()> {
        let bar = terminal.bar(0, "archiving");
        let done = tokio::task::block_in_place(|| {
            authority_side::archive_ledger(config, &self.to, self.keep, &mut |done, of| {
                bar.set_length(of);
                bar.set_position(done);
            })
        });
        bar.finish_and_clear();
        let done = done?;
        terminal.data(&done, || {
            terminal.fields([
                ("moved", format!("{} segments, {} bytes", done.moved, done.bytes)),
                ("in the archive", format!("{} segments, {} entries", done.archived, done.entries)),
                ("in the journal", format!("{} segments", done.live)),
            ])
        })
    }
}

impl Ledger {
    pub(crate) fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let config = place::required(globals.config.as_deref())?;
        let (work, verb, verdict) = match self {
            Self::Archive(archive) => return archive.run(&config, terminal),
            Self::Rebuild(Rebuild {}) => (LedgerWork::Rebuild, "rebuilding", "The index was made anew."),
            Self::Check(Check {}) => {
                (LedgerWork::Check, "checking", "Everything is what the journal makes of it.")
            }
        };
        let bar = terminal.bar(0, verb);
        let holding = tokio::task::block_in_place(|| {
            authority_side::work_on_ledger(work, &config, &mut |done, of| {
                bar.set_length(of.unwrap_or(done));
                bar.set_position(done);
            })
        });
        bar.finish_and_clear();
        let holding = holding?;
        terminal.data(&holding, || {
            let verdict = terminal.paint(Tone::Good, verdict);
            format!("{verdict}\n")
                + &terminal.fields([
                    ("entries", holding.entries.to_string()),
                    ("root", holding.root.to_string()),
                    ("read model", holding.model.to_string()),
                ])
        })
    }
}
