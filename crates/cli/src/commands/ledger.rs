//! `chancery ledger`: looking after the ledger of an authority.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};

use super::database::DatabaseDetails;
use crate::authority_side::{self, LedgerWork};
use crate::flags::Globals;
use crate::place;
use crate::terminal::{Terminal, Tone};

/// Rebuilds, checks or moves the ledger of an authority, which must not be at work in a directory; archives old segments.
#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Make the index anew from the journal.
    Rebuild(Rebuild),
    /// Compute everything again from the journal and compare: needs as much space as the index takes.
    Check(Check),
    /// Move old segments of the journal to another file system, also while the server runs.
    Archive(Archive),
    /// Move the log to another place and end it at the old one: into a database, or back into a directory.
    Migrate(Box<Migrate>),
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

/// Copies the log, entry by entry to the byte, while replicas work on a database (a directory must be closed: stop
/// its server); then ends it at the old place, where every replica refuses to sign from that moment on, and copies the
/// rest. Compares every hash and the root. What broke off goes on when it is repeated.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Where the log is: embedded:DIR or postgres://USER@HOST/DATABASE. What the configuration names, if absent.
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// Where it goes, to an empty place: embedded:DIR or postgres://USER@HOST/DATABASE.
    #[arg(long, value_name = "PLACE")]
    to: String,
    #[command(flatten)]
    details: DatabaseDetails,
}

impl Ledger {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let config = place::required(globals.config.as_deref())?;
        let (work, verb, verdict) = match self {
            Self::Archive(archive) => return archive.run(&config, terminal),
            Self::Rebuild(Rebuild {}) => (LedgerWork::Rebuild, "rebuilding", "The index was made anew."),
            Self::Check(Check {}) => {
                (LedgerWork::Check, "checking", "Everything is what the journal makes of it.")
            }
            Self::Migrate(migrate) => return migrate.run(&config, terminal).await,
        };
        let bar = terminal.bar(0, verb);
        let shown = bar.clone();
        let holding = authority_side::work_on_ledger(work, &config, move |done, of| {
            shown.set_length(of.unwrap_or(done));
            shown.set_position(done);
        })
        .await;
        bar.finish_and_clear();
        let holding = holding?;
        terminal.data(&holding, || {
            let verdict = terminal.paint(Tone::Good, verdict);
            let mut fields =
                vec![("entries", holding.entries.to_string()), ("root", holding.root.to_string())];
            fields.extend(holding.model.map(|model| ("read model", model.to_string())));
            format!("{verdict}\n") + &terminal.fields(fields)
        })
    }
}

impl Migrate {
    async fn run(&self, config: &Path, terminal: &Terminal) -> Result<()> {
        let bar = terminal.bar(0, "copying");
        let shown = bar.clone();
        let to = self.details.of(&self.to);
        let moved = authority_side::move_ledger(config, self.from.as_deref(), &to, move |done, of| {
            shown.set_length(of);
            shown.set_position(done);
        })
        .await;
        bar.finish_and_clear();
        let moved = moved?;
        terminal.data(&moved, || {
            let verdict =
                terminal.paint(Tone::Good, "The log is at its new place, and has ended at the old one.");
            format!("{verdict}\n")
                + &terminal.fields([
                    ("entries", moved.entries.to_string()),
                    ("root", moved.root.to_string()),
                    ("nobody could sign", format!("{:.3} s", moved.paused_seconds)),
                ])
        })?;
        if !terminal.is_json() {
            let file = config.display();
            terminal.note(format_args!("\nNext: write this into {file} and start:\n\n{}", moved.settings));
        }
        Ok(())
    }
}
