//! `chancery ledger`: looking after the ledger of an authority that does not run.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::authority_side::{self, LedgerWork};
use crate::flags::Globals;
use crate::place;
use crate::terminal::{Terminal, Tone};

/// Rebuilds or checks the ledger of an authority that does not run.
#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Make the index anew from the journal.
    Rebuild(Rebuild),
    /// Compute everything again from the journal and compare: needs as much space as the index takes.
    Check(Check),
}

#[derive(Debug, Args)]
pub(crate) struct Rebuild {}

#[derive(Debug, Args)]
pub(crate) struct Check {}

impl Ledger {
    pub(crate) fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let config = place::required(globals.config.as_deref())?;
        let (work, verb, verdict) = match self {
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
