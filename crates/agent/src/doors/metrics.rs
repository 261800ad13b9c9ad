//! What the doors count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of the doors. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct DoorMetrics {
    denied: Family<DeniedLabels, Counter>,
    streams: Family<MethodLabels, Gauge>,
    pushes: Family<MethodLabels, Counter>,
    rejected: Counter,
    pub(crate) connections: Gauge,
    connections_refused: Family<ReasonLabels, Counter>,
    connections_closed: Family<ReasonLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeniedLabels {
    method: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

impl DoorMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let doors = registry.sub_registry_with_prefix("chancery_agent");
        doors.register(
            "denied",
            "Calls and streams ended for lack of a right to them",
            metrics.denied.clone(),
        );
        doors.register("workload_streams", "Open streams of local processes", metrics.streams.clone());
        doors.register("pushes", "Messages given out on streams", metrics.pushes.clone());
        doors.register("sds_rejected", "SDS updates that Envoy refused", metrics.rejected.clone());
        doors.register("connections", "Open connections of local processes", metrics.connections.clone());
        doors.register(
            "connections_refused",
            "Connections closed before they could ask anything",
            metrics.connections_refused.clone(),
        );
        doors.register(
            "connections_closed",
            "Connections that the agent closed",
            metrics.connections_closed.clone(),
        );
        metrics
    }

    pub(crate) fn deny(&self, method: &'static str, reason: &'static str) {
        self.denied.get_or_create(&DeniedLabels { method, reason }).inc();
    }

    pub(crate) fn open_stream(&self, method: &'static str) -> Counted {
        Counted::new(self.streams.get_or_create_owned(&MethodLabels { method }))
    }

    pub(crate) fn push(&self, method: &'static str) {
        self.pushes.get_or_create(&MethodLabels { method }).inc();
    }

    pub(crate) fn reject(&self) {
        self.rejected.inc();
    }

    pub(crate) fn refuse_connection(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(crate) fn close_connection(&self, reason: &'static str) {
        self.connections_closed.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// Adds one to a gauge for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::metrics::Metrics;
    use crate::status::{AgentHealth, AgentStatus, NodeStatus, ServerStatus};

    #[test]
    fn every_metric_of_the_dashboard_is_shown() {
        let (metrics, mut registry) = (Metrics::new(), Registry::default());
        let doors = DoorMetrics::register(&mut registry);
        // What has labels stands on the page from its first time on.
        let _open = doors.open_stream("FetchX509SVID");
        doors.deny("FetchX509SVID", "no-identity");
        doors.push("FetchX509SVID");
        doors.refuse_connection("not-pinned");
        doors.close_connection("idle");
        metrics.add(registry);
        let server =
            ServerStatus { address: String::new(), connected_since: None, last_heard: None, trouble: None };
        let page = metrics.text(&AgentStatus {
            version: "1".into(),
            health: AgentHealth::Ok,
            node: NodeStatus::default(),
            server,
            revision: None,
            workloads: 0,
            identities: Vec::new(),
            sinks: Vec::new(),
        });
        let shown: BTreeSet<&str> = page.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/grafana/chancery-agent.json");
        let text = std::fs::read_to_string(path).unwrap();
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let used: BTreeSet<&str> = words.filter(|word| word.starts_with("chancery_")).collect();
        assert!(used.len() > 15, "it speaks of {used:?}");
        let missing: Vec<_> = used.difference(&shown).collect();
        assert!(missing.is_empty(), "{missing:?} are not among {shown:?}");
        let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "two panels have one id");
    }
}
