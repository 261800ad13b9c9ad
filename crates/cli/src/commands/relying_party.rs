//! `chancery relying-party`: who enforces status, and how far.

use anyhow::Result;
use chancery_api::{EventStreamView, PUSH, RelyingPartyView, StreamState};
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
    /// List streams of security events (OpenID SSF), and how far each has come.
    Streams(List),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    connection: Connection,
}

impl RelyingParty {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        match self {
            Self::List(list) => list.parties(globals, terminal).await,
            Self::Streams(list) => list.streams(globals, terminal).await,
        }
    }
}

impl List {
    async fn parties(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let answer = self.connection.open(globals).await?.relying_parties().await?;
        terminal.data(&answer, || {
            let header =
                ["identity", "instance", "kind", "connected", "confirmed", "at", "if unknown", "closed"];
            let rows = answer.relying_parties.iter().map(|party| row(terminal, party, answer.sequence));
            terminal.table(&header, rows)
        })
    }

    async fn streams(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let answer = self.connection.open(globals).await?.event_streams().await?;
        terminal.data(&answer, || {
            let header =
                ["stream", "owner", "delivery", "status", "arrived", "waiting", "last contact", "trouble"];
            let rows = answer.streams.iter().map(|stream| stream_row(terminal, stream, answer.sequence));
            terminal.table(&header, rows)
        })
    }
}

fn stream_row(terminal: &Terminal, stream: &EventStreamView, sequence: u64) -> Vec<String> {
    let delivery = match &stream.endpoint_url {
        Some(url) if stream.method == PUSH => format!("push to {url}"),
        _ => "poll".to_owned(),
    };
    let tone = if stream.status == StreamState::Enabled { Tone::Good } else { Tone::Warning };
    vec![
        stream.stream_id.clone(),
        stream.owner.to_string(),
        delivery,
        terminal.paint(tone, text_of(&stream.status)),
        format!("{} of {sequence}", stream.position),
        stream.waiting.to_string(),
        stream.last_contact.map_or_else(|| "never".to_owned(), |at| at.to_string()),
        stream.last_error.as_ref().or(stream.reason.as_ref()).cloned().unwrap_or_default(),
    ]
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
