//! What the proxy counts, as Prometheus reads it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::source::Source;

/// The labels of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfListener {
    pub(super) listener: String,
}

/// The labels of an end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfEnd {
    pub(super) listener: String,
    /// `done`, or one word for what went wrong.
    pub(super) end: &'static str,
}

/// Counters that rise where things happen, and gauges that are set when somebody looks.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) accepted: Family<OfListener, Counter>,
    pub(super) open: Family<OfListener, Gauge>,
    pub(super) ended: Family<OfEnd, Counter>,
    pub(super) up: Family<OfListener, Counter>,
    pub(super) down: Family<OfListener, Counter>,
    status: StatusGauges,
}

#[derive(Debug, Default)]
struct StatusGauges {
    sequence: Gauge,
    age: Gauge,
    peers: Gauge,
    cut: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("chancery_proxy");
        let (accepted, open, ended) = (Family::default(), Family::default(), Family::default());
        let (up, down) = (Family::default(), Family::default());
        registry.register("connections_accepted", "Connections that came in", Family::clone(&accepted));
        registry.register("connections_open", "Connections that are open", Family::clone(&open));
        registry.register("connections_ended", "Connections that ended, and how", Family::clone(&ended));
        registry.register(
            "bytes_up",
            "Bytes passed on to backends, of connections that ended",
            Family::clone(&up),
        );
        registry.register(
            "bytes_down",
            "Bytes passed on to clients, of connections that ended",
            Family::clone(&down),
        );
        let status = StatusGauges::default();
        for (name, help, gauge) in [
            ("status_sequence", "Position in the log up to which everything is enforced", &status.sequence),
            ("status_age_seconds", "Age of the authority's last word; -1 without one", &status.age),
            ("peers_connected", "Connections with a verified peer", &status.peers),
            ("peers_cut", "Connections ended because of the peer's certificate", &status.cut),
        ] {
            registry.register(name, help, gauge.clone());
        }
        Self { registry, accepted, open, ended, up, down, status }
    }

    /// The text that Prometheus reads.
    pub(super) fn text(&self, source: &Source) -> String {
        let view = source.view();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.status.sequence.set(number(view.sequence));
        self.status.age.set(view.age.map_or(-1, |age| number(age.as_secs())));
        self.status.peers.set(number(view.connections_open));
        self.status.cut.set(number(view.connections_ended));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}
