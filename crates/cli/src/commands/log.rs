//! `chancery log`: the transparency log as it is served.

use std::path::PathBuf;

use anyhow::Result;
use chancery_api::{LogEntriesQuery, LogKeyView};
use chancery_types::SerialNumber;
use chancery_verify::log_keys::{follow_log_keys, stated_log_keys};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::commands::verify::{ReceiptFile, log_key};
use crate::connection::{Connection, Reach};
use crate::failure::verification;
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
    /// List every key that has signed checkpoints, does or will.
    ///
    /// With a key that is known to be the log's, those that it leads to are proved: each was named by the log as the one
    /// before it has signed it.
    Keys(Keys),
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
pub(crate) struct Keys {
    /// A key that is known, or a file with some, one a line: only what it leads to is believed.
    #[arg(long, value_name = "VKEY", env = "CHANCERY_LOG_KEY")]
    log_key: Option<String>,
    /// Write the keys that sign now to this file, one a line, for --log-key elsewhere.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
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
            Self::Keys(keys) => keys.run(globals, terminal).await,
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

impl Keys {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let known = self.log_key.as_deref().map(log_key).transpose()?;
        let place = Place::find(globals.config.as_deref())?;
        let found = self.reach.open(place.as_ref(), None).await?.log_keys().await?;
        let believed = match &known {
            Some(known) => follow_log_keys(known, &found).map_err(verification)?,
            None => stated_log_keys(&found).map_err(verification)?,
        };
        if let Some(path) = &self.out {
            files::replace(path, format!("{believed}\n").as_bytes(), files::PUBLIC)?;
        }
        let is_believed = |view: &LogKeyView| believed.as_slice().iter().any(|key| key.vkey() == view.vkey);
        let keys = found.keys.iter().map(|view| {
            let mut key = json!({ "vkey": view.vkey, "phase": view.phase, "since": view.since });
            if known.is_some() {
                key["proved"] = is_believed(view).into();
            }
            key
        });
        let data = json!({ "origin": found.origin, "keys": keys.collect::<Vec<_>>() });
        terminal.data(&data, || {
            let rows = found.keys.iter().map(|view| {
                let proved = if known.is_some() && is_believed(view) { "proved" } else { "" };
                let phase = view.phase.to_string();
                vec![short(&view.vkey), phase, view.since.whole_second().to_string(), proved.to_owned()]
            });
            terminal.table(&["key", "state", "since", ""], rows)
        })
    }
}

/// The identifier of a key, which stands between its name and the key itself.
fn short(vkey: &str) -> String {
    vkey.split('+').nth(1).unwrap_or(vkey).to_owned()
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
