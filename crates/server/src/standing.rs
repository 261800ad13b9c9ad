//! What the authority itself shows to those who watch it, read at the moment of the scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chancery_ledger::Turns;
use chancery_revoke::{CrlPublisher, OcspResponder, SetPublisher, StatusBoard};
use chancery_telemetry::Counts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::agents::Agents;
use crate::authority::Authority;
use crate::feed::Feed;
use crate::prober::Prober;
use crate::process::encode_gauge;
use crate::rotation::Rotation;
use crate::ssf::Transmitter;
use crate::tidy::Tidier;
use crate::tiles::{Tallies, TileStore};

/// The state of the ledger and of the published list.
#[derive(Debug)]
pub(crate) struct StandingCollector {
    pub(crate) authority: Arc<Authority>,
    pub(crate) crl: Arc<CrlPublisher>,
    pub(crate) ocsp: Arc<OcspResponder>,
    pub(crate) prober: Arc<Prober>,
    pub(crate) set: Arc<SetPublisher>,
    pub(crate) agents: Arc<Agents>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) ssf: Arc<Transmitter>,
    pub(crate) board: Arc<StatusBoard>,
    pub(crate) rotation: Arc<Rotation>,
    pub(crate) tidier: Option<Arc<Tidier>>,
    pub(crate) tiles: Option<Arc<TileStore>>,
}

impl Collector for StandingCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self { authority, crl, ocsp, prober, set, agents, feed, ssf, board, rotation, tidier, tiles } =
            self;
        let ledger = authority.ledger();
        let entries = i64::try_from(authority.ledger().head().size).unwrap_or(i64::MAX);
        encode_gauge(&mut encoder, "chancery_ledger_entries", "Entries in the ledger", entries)?;
        let halted = i64::from(ledger.trouble().is_some());
        let help = "1 when the ledger accepts no writes";
        encode_gauge(&mut encoder, "chancery_ledger_halted", help, halted)?;
        let now = authority.clock().now().seconds();
        let lists = || crl.places().map(|place| place.current());
        let left = lists().map(|list| list.map_or(0, |list| list.next_update.seconds() - now)).min();
        let help = "Seconds until the first published revocation list runs out";
        encode_gauge(&mut encoder, "chancery_crl_seconds_left", help, left.unwrap_or(0))?;
        let made = lists().map(|list| list.map_or(0, |list| list.made.seconds())).min();
        let help = "Seconds since the oldest published revocation list was made";
        encode_gauge(&mut encoder, "chancery_crl_age_seconds", help, now - made.unwrap_or(0))?;
        let troubles = prober.found().map_or(0, |round| round.troubles.len());
        let help = "Published revocation lists that did not arrive as they should";
        let troubles = i64::try_from(troubles).unwrap_or(i64::MAX);
        encode_gauge(&mut encoder, "chancery_crl_probe_troubles", help, troubles)?;
        let answers = ocsp.counts();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, count) in [
            ("chancery_crls_published", "Revocation lists published", crl.published()),
            ("chancery_crl_failures", "Revocation lists that could not be published", crl.failures()),
            ("chancery_ocsp_kept", "OCSP answers that were given again", count(&answers.kept)),
            ("chancery_ocsp_signed", "OCSP answers that were signed on demand", count(&answers.signed)),
            ("chancery_ocsp_shed", "OCSP requests that were told to try later", count(&answers.shed)),
        ] {
            encode_counter(&mut encoder, name, help, count)?;
        }
        encode_set(&mut encoder, set, now)?;
        let issuer = authority.workflow().issuer();
        let left = issuer.certificate().tbs().not_after().seconds() - now;
        encode_gauge(&mut encoder, "chancery_issuer_seconds_left", "Seconds until the issuer ends", left)?;
        let streams = i64::try_from(agents.open_streams()).unwrap_or(i64::MAX);
        let help = "Agents that follow what their nodes may serve";
        encode_gauge(&mut encoder, "chancery_agent_streams", help, streams)?;
        let (followers, dropped) = feed.counts();
        let followers = i64::try_from(followers).unwrap_or(i64::MAX);
        encode_gauge(
            &mut encoder,
            "chancery_feed_followers",
            "Programs that follow the status feed",
            followers,
        )?;
        let help = "Programs that were dropped from the status feed because they did not read it";
        encode_counter(&mut encoder, "chancery_feed_dropped", help, dropped)?;
        let (streams, behind) = ssf.counts();
        for (name, help, count) in [
            ("chancery_event_streams", "Streams of security events", streams),
            ("chancery_event_streams_behind", "Streams of security events that have fallen behind", behind),
        ] {
            encode_gauge(&mut encoder, name, help, i64::try_from(count).unwrap_or(i64::MAX))?;
        }
        encode_spans(&mut encoder)?;
        let help = "1 when the last look at rotation failed";
        encode_gauge(
            &mut encoder,
            "chancery_rotation_trouble",
            help,
            i64::from(rotation.trouble().is_some()),
        )?;
        let behind = ledger.head().size.saturating_sub(board.read().position());
        let help = "Entries that are recorded and not yet on the board that status is answered from";
        encode_gauge(&mut encoder, "chancery_status_behind_entries", help, number(behind))?;
        encode_leases(&mut encoder, ledger.turns())?;
        let help =
            "Certificates that ended long ago and that this process has taken out of what searches find";
        let tidied = tidier.as_ref().map_or(0, |tidier| tidier.tidied());
        encode_counter(&mut encoder, "chancery_certificates_tidied", help, tidied)?;
        encode_tiles(&mut encoder, tiles.as_deref())?;
        let help = "Times that this process made something durable in the ledger";
        encode_counter(&mut encoder, "chancery_ledger_syncs", help, ledger.syncs())?;
        let help = "Searches and parts of exports that a standby of the database answered";
        encode_counter(&mut encoder, "chancery_standby_answers", help, ledger.answered_by_standbys())
    }
}

fn encode_counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    count: u64,
) -> Result<(), fmt::Error> {
    let counter = ConstCounter::new(count);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

/// What became of the spans of traces; zero while none are exported.
fn encode_spans(encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let spans = Counts::of_process().read();
    let help = "Spans of traces: ended here, taken by the collector, not taken";
    let mut family = encoder.encode_descriptor("chancery_trace_spans", help, None, MetricType::Counter)?;
    for (outcome, count) in [("ended", spans.ended), ("exported", spans.exported), ("failed", spans.failed)] {
        ConstCounter::new(count).encode(family.encode_family(&[("outcome", outcome)])?)?;
    }
    Ok(())
}

/// Full tiles outside the ledger; zero where they are kept nowhere.
fn encode_tiles(encoder: &mut DescriptorEncoder<'_>, tiles: Option<&TileStore>) -> Result<(), fmt::Error> {
    let nothing = Tallies::default();
    let tallies = tiles.map_or(&nothing, TileStore::tallies);
    let help = "Tiles that were served where full ones are kept outside the ledger, by where they came from";
    let mut family = encoder.encode_descriptor("chancery_tile_answers", help, None, MetricType::Counter)?;
    for (from, count) in [("store", &tallies.kept), ("ledger", &tallies.made)] {
        let count = ConstCounter::new(count.load(Ordering::Relaxed));
        count.encode(family.encode_family(&[("from", from)])?)?;
    }
    let help = "Entries whose full tiles are kept outside the ledger, as far as this process knows";
    encode_gauge(encoder, "chancery_tiles_entries", help, number(tallies.entries.load(Ordering::Relaxed)))?;
    let help = "1 while full tiles cannot be kept outside the ledger";
    let is_in_trouble = tallies.is_in_trouble.load(Ordering::Relaxed);
    encode_gauge(encoder, "chancery_tiles_trouble", help, i64::from(is_in_trouble))
}

/// What only one of several replicas does at a time, and whether it is this one.
fn encode_leases(encoder: &mut DescriptorEncoder<'_>, turns: &Turns) -> Result<(), fmt::Error> {
    let help = "1 while this process does what only one does at a time";
    let mut family = encoder.encode_descriptor("chancery_lease_held", help, None, MetricType::Gauge)?;
    for (work, is_held) in turns.held() {
        ConstGauge::new(i64::from(is_held)).encode(family.encode_family(&[("work", work)])?)?;
    }
    Ok(())
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Nothing before the first version.
fn encode_set(encoder: &mut DescriptorEncoder<'_>, set: &SetPublisher, now: i64) -> Result<(), fmt::Error> {
    let Some(current) = set.current() else { return Ok(()) };
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let set = current.set();
    let help = "Seconds since the exact set in place was made";
    encode_gauge(encoder, "chancery_status_set_age_seconds", help, now - set.made().seconds())?;
    let help = "Bytes of the exact set with its signature";
    encode_gauge(encoder, "chancery_status_set_bytes", help, number(current.bytes().len()))?;
    let help = "Certificates in the exact set";
    encode_gauge(encoder, "chancery_status_set_entries", help, number(set.len()))?;
    let sequence = i64::try_from(set.sequence()).unwrap_or(i64::MAX);
    let help = "Position in the log at which the exact set is right";
    encode_gauge(encoder, "chancery_status_set_sequence", help, sequence)
}
