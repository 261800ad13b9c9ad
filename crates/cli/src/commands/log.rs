//! `chancery log`: the transparency log as it is served.

use std::path::PathBuf;

use anyhow::Result;
use chancery_api::LogEntriesQuery;
use chancery_types::SerialNumber;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::commands::verify::ReceiptFile;
use crate::connection::{Connection, Reach};
use crate::files;
use crate::flags::Globals;
use crate::place::Place;
use crate::terminal::Terminal;

/// Reads the transparency log.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Print the latest signed checkpoint: keep it, and audit against it later.
    Checkpoint(Checkpoint),
    /// Print the key that verifies checkpoints.
    Key(Key),
    /// Print the proof that a certificate stands in the log.
    Proof(Proof),
    /// Print entries as the server reads them.
    Entries(Entries),
}

#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    /// Write to this file instead of printing.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(crate) struct Proof {
    /// The certificate's serial number.
    serial: SerialNumber,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Entries {
    /// The first entry's index.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    start: u64,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 20)]
    count: u64,
    #[command(flatten)]
    connection: Connection,
}

impl Log {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.run(globals, terminal).await,
            Self::Key(key) => key.run(globals, terminal).await,
            Self::Proof(proof) => proof.run(globals, terminal).await,
            Self::Entries(entries) => entries.run(globals, terminal).await,
        }
    }
}

impl Checkpoint {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let note = self.reach.open(place.as_ref(), None).await?.log_checkpoint().await?;
        if let Some(path) = &self.out {
            return files::replace(path, &note, files::PUBLIC);
        }
        let text = String::from_utf8_lossy(&note);
        terminal.data(&json!({ "checkpoint": text }), || text.clone().into_owned())
    }
}

impl Key {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let key = self.reach.open(place.as_ref(), None).await?.log_key().await?;
        let text = String::from_utf8_lossy(&key);
        terminal.data(&json!({ "vkey": text.trim() }), || text.trim().to_owned())
    }
}

impl Proof {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let proof = self.connection.open(globals).await?.log_proof(self.serial).await?;
        if terminal.is_json() {
            return terminal.json(&proof);
        }
        terminal.text(ReceiptFile::of(&proof)?.text())
    }
}

impl Entries {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let query = LogEntriesQuery { start: self.start, count: Some(self.count) };
        let answer = self.connection.open(globals).await?.log_entries(&query).await?;
        terminal.data(&answer, || {
            let rows = answer.entries.iter().map(|entry| {
                let text = |name: &str| entry.entry[name].as_str().unwrap_or_default().to_owned();
                let body = &entry.entry["body"];
                let about = ["serial", "identity", "token", "name", "origin"]
                    .iter()
                    .find_map(|name| body[*name].as_str())
                    .unwrap_or_default();
                vec![entry.index.to_string(), text("time"), text("kind"), about.to_owned()]
            });
            terminal.table(&["index", "time", "kind", "about"], rows)
        })
    }
}
