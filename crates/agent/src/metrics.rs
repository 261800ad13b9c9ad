//! What the agent counts, as Prometheus reads it.

use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::status::AgentStatus;

/// Counters that rise where things happen, and gauges that are set when somebody looks.
#[derive(Debug)]
pub(crate) struct Metrics {
    registries: Mutex<Vec<Registry>>,
    pub(crate) issued: Counter,
    pub(crate) refused: Counter,
    pub(crate) failed: Counter,
    pub(crate) unfit: Counter,
    pub(crate) tokens: Counter,
    gauges: Gauges,
}

#[derive(Debug, Default)]
struct Gauges {
    identities: Gauge,
    svids: Gauge,
    workloads: Gauge,
    troubled: Gauge,
    connected: Gauge,
    revision: Gauge,
    node_ends: Gauge,
    first_end: Gauge,
    sinks: Gauge,
    sinks_failing: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut root = Registry::default();
        let registry = root.sub_registry_with_prefix("chancery_agent");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let issued = counter("svids_issued", "Certificates that were verified and put in place");
        let refused = counter("svids_refused", "Certificates that the authority refused");
        let failed = counter("svids_failed", "Certificates that were asked for in vain, refusals included");
        let unfit = counter("svids_unfit", "Certificates that came and did not pass verification");
        let tokens = counter("tokens_issued", "JWT-SVIDs that the authority made");
        let gauges = Gauges::default();
        for (name, help, gauge) in [
            ("identities", "Identities that this node may serve", &gauges.identities),
            ("svids", "Certificates held", &gauges.svids),
            ("workloads", "Workloads that are told of changes", &gauges.workloads),
            ("identities_troubled", "Identities whose last attempt failed", &gauges.troubled),
            ("connected", "1 while the stream from the authority lives", &gauges.connected),
            ("revision", "Size of the log up to which everything was taken in", &gauges.revision),
            ("node_not_after_seconds", "When the node's credential ends", &gauges.node_ends),
            ("sinks", "File sinks", &gauges.sinks),
            ("sinks_failing", "File sinks whose files, hook or probe failed", &gauges.sinks_failing),
            ("first_not_after_seconds", "When the first certificate ends; 0 without any", &gauges.first_end),
        ] {
            registry.register(name, help, gauge.clone());
        }
        Self { registries: Mutex::new(vec![root]), issued, refused, failed, unfit, tokens, gauges }
    }

    /// Shows the metrics of another part too.
    pub(crate) fn add(&self, part: Registry) {
        self.registries.lock().unwrap_or_else(PoisonError::into_inner).push(part);
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self, status: &AgentStatus) -> String {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let held = || status.identities.iter().filter_map(|identity| identity.not_after);
        let troubled = status.identities.iter().filter(|identity| identity.trouble.is_some());
        let gauges = &self.gauges;
        gauges.identities.set(count(status.identities.len()));
        gauges.svids.set(count(held().count()));
        gauges.workloads.set(count(status.workloads));
        gauges.troubled.set(count(troubled.count()));
        gauges.connected.set(i64::from(status.server.connected_since.is_some()));
        gauges.revision.set(status.revision.and_then(|revision| revision.try_into().ok()).unwrap_or(0));
        gauges.node_ends.set(status.node.not_after.map_or(0, |end| end.seconds()));
        gauges.first_end.set(held().min().map_or(0, |end| end.seconds()));
        gauges.sinks.set(count(status.sinks.len()));
        gauges.sinks_failing.set(count(status.sinks.iter().filter(|sink| sink.is_failing).count()));
        let mut text = String::new();
        let registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        let written = registries.iter().try_for_each(|registry| encode_registry(&mut text, registry));
        written.and_then(|()| encode_eof(&mut text)).expect("writing to a string does not fail");
        text
    }
}
