//! `chancery relying-party`: who enforces status, and how far.

use anyhow::Result;
use chancery_api::RelyingPartyView;
use clap::{Args, Subcommand};

use crate::commands::text_of;
use crate::connection::Connection;
use crate::flags::Globals;
use crate::terminal::{Terminal, Tone};

/// Shows who enforces status.
#[derive(Debug, Subcommand)]
pub(crate) enum RelyingParty {
    /// List relying parties, and how far each has confirmed to enforce.
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    connection: Connection,
}

impl RelyingParty {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let Self::List(list) = self;
        let answer = list.connection.open(globals).await?.relying_parties().await?;
        terminal.data(&answer, || {
            let header =
                ["identity", "instance", "kind", "connected", "confirmed", "at", "if unknown", "closed"];
            let rows = answer.relying_parties.iter().map(|party| row(terminal, party, answer.sequence));
            terminal.table(&header, rows)
        })
    }
}

fn row(terminal: &Terminal, party: &RelyingPartyView, sequence: u64) -> Vec<String> {
    let word = &party.acknowledgement;
    let confirmed = match party.went_back_from {
        Some(before) => {
            terminal.paint(Tone::Bad, format!("{} of {sequence}, before {before}", word.sequence))
        }
        None => format!("{} of {sequence}", word.sequence),
    };
    let connected = match party.connected {
        true => terminal.paint(Tone::Good, "yes"),
        false => terminal.paint(Tone::Warning, "no"),
    };
    vec![
        party.spiffe_id.to_string(),
        word.instance.clone(),
        text_of(&word.kind),
        connected,
        confirmed,
        party.acknowledged_at.to_string(),
        text_of(&word.when_unknown),
        word.connections_closed.to_string(),
    ]
}
