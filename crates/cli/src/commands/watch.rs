//! Watching a change reach the relying parties: who has confirmed it, who has not, and what is left of the danger.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use chancery_api::{ChangeResponse, RelyingPartyView, WhenUnknown};
use chancery_client::Client;
use chancery_types::{HumanDuration, SerialNumber, Timestamp};
use clap::Args;
use serde::Serialize;

use crate::failure::verification;
use crate::terminal::{Terminal, Tone};

/// How often relying parties are asked about.
const PERIOD: Duration = Duration::from_millis(250);
/// How often a relying party that follows the feed confirms at least, though nothing changes.
const CONFIRMED_EVERY: Duration = Duration::from_secs(30);
/// Certificates of which it is looked up when they end.
const LOOKED_UP: usize = 20;

/// Whether to wait until relying parties enforce the change.
#[derive(Debug, Clone, Args)]
pub(super) struct Waiting {
    /// Stay until every relying party that is known has confirmed, and show who has.
    #[arg(long)]
    pub(super) wait: bool,
    /// How long to stay at most.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(super) timeout: HumanDuration,
}

/// How far a change has got.
#[derive(Debug, Serialize)]
pub(super) struct Reached {
    /// The position of the log that a relying party has to confirm.
    sequence: u64,
    /// Those who have.
    confirmed: Vec<RelyingPartyView>,
    /// Those who have not.
    waiting: Vec<RelyingPartyView>,
    /// Connections that those who have confirmed closed meanwhile.
    connections_closed: u64,
    /// Seconds for which somebody may still be let in, at worst; nothing when everybody has confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    worst_exposure_seconds: Option<u64>,
}

/// How things stood before a change that is to be watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// Connections that relying parties had closed by then, all together.
    closed: u64,
}

impl Before {
    /// Asks for it. The change comes after this: a relying party may enforce it before its answer is here.
    pub(super) async fn look(client: &Client) -> Result<Self> {
        Ok(Self { closed: closed(&client.relying_parties().await?.relying_parties) })
    }
}

fn closed(parties: &[RelyingPartyView]) -> u64 {
    parties.iter().map(|party| party.acknowledgement.connections_closed).sum()
}

/// Waits until everybody has confirmed a change, or for so long; fails when somebody has not.
pub(super) async fn watch(
    client: &Client,
    terminal: &Terminal,
    before: Before,
    changed: &ChangeResponse,
    timeout: Duration,
) -> Result<()> {
    let Some(sequence) = changed.sequence else { return Ok(()) };
    let deadline = Instant::now() + timeout;
    let ends = latest_end(client, &changed.serials).await;
    let mut told = BTreeSet::new();
    loop {
        let parties = client.relying_parties().await?.relying_parties;
        let connections_closed = closed(&parties).saturating_sub(before.closed);
        let (confirmed, waiting): (Vec<_>, Vec<_>) =
            parties.into_iter().partition(|party| party.acknowledgement.sequence >= sequence);
        for party in &confirmed {
            if told.insert(name(party)) {
                terminal.note(format!("confirmed: {}", name(party)));
            }
        }
        let is_over = waiting.is_empty() || Instant::now() >= deadline;
        if is_over {
            let worst_exposure_seconds = waiting.iter().map(|party| exposure(party, ends)).max();
            let reached =
                Reached { sequence, confirmed, waiting, connections_closed, worst_exposure_seconds };
            terminal.data(&reached, || text(terminal, &reached))?;
            return finish(&reached);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn finish(reached: &Reached) -> Result<()> {
    match reached.waiting.len() {
        0 => Ok(()),
        waiting => Err(verification(format!(
            "{waiting} relying parties have not confirmed position {}; look at each, or wait longer with --timeout",
            reached.sequence
        ))),
    }
}

fn name(party: &RelyingPartyView) -> String {
    format!("{} {}", party.spiffe_id, party.acknowledgement.instance)
}

/// Seconds for which a relying party that has not confirmed may still let somebody in: until what it knows is too
/// old, if it keeps peers out then; else until the last of the certificates ends. One that follows the feed may have
/// heard the authority's word just now; one that does not, a while after it last confirmed anything.
fn exposure(party: &RelyingPartyView, ends: Option<Timestamp>) -> u64 {
    let now = chancery_types::Clock::now(&chancery_types::SystemClock);
    let left = |until: Timestamp| u64::try_from((until.millis() - now.millis()).max(0) / 1000).unwrap_or(0);
    let life = ends.map_or(u64::MAX, left);
    let word = &party.acknowledgement;
    match word.when_unknown {
        WhenUnknown::Open => life,
        WhenUnknown::Closed => {
            let heard = if party.connected { now } else { party.acknowledged_at + CONFIRMED_EVERY };
            life.min(left(heard + Duration::from_secs(word.maximum_age_seconds)))
        }
    }
}

/// When the last of these certificates ends, as far as that can be seen.
async fn latest_end(client: &Client, serials: &[SerialNumber]) -> Option<Timestamp> {
    let mut latest = None;
    for serial in serials.iter().take(LOOKED_UP) {
        if let Ok(detail) = client.read_certificate(*serial).await {
            latest = latest.max(Some(detail.certificate.not_after));
        }
    }
    latest
}

fn text(terminal: &Terminal, reached: &Reached) -> String {
    let row = |party: &RelyingPartyView, tone, state: &str| {
        vec![
            terminal.paint(tone, state),
            party.spiffe_id.to_string(),
            party.acknowledgement.instance.clone(),
            party.acknowledgement.sequence.to_string(),
            party.acknowledgement.connections_closed.to_string(),
            if party.connected { "follows" } else { "silent" }.to_owned(),
        ]
    };
    let confirmed = reached.confirmed.iter().map(|party| row(party, Tone::Good, "confirmed"));
    let waiting = reached.waiting.iter().map(|party| row(party, Tone::Bad, "waiting"));
    let header = ["STATE", "IDENTITY", "INSTANCE", "AT", "CLOSED", "FEED"];
    let mut text = terminal.table(&header, confirmed.chain(waiting));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!(
        "position {}: {} confirmed, {} waiting, {} connections closed\n",
        reached.sequence,
        reached.confirmed.len(),
        reached.waiting.len(),
        reached.connections_closed
    ));
    match reached.worst_exposure_seconds {
        Some(u64::MAX) => text.push_str("worst exposure left: until the certificates end\n"),
        Some(seconds) => {
            text.push_str(&format!("worst exposure left: {}\n", HumanDuration(Duration::from_secs(seconds))))
        }
        None => {}
    }
    text
}
