//! What the server counts and measures, in the text format that Prometheus reads.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chancery_api::Operation;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::process::ProcessCollector;

/// The media type of [`Metrics::encode`].
pub(crate) const METRICS_MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of the server. The domain adds its own with [`Metrics::register`].
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<OperationLabels, Histogram, fn() -> Histogram>,
    pub(crate) in_flight: Gauge,
    pub(crate) connections: Gauge,
    connections_refused: Family<ReasonLabels, Counter>,
    connections_closed: Family<ReasonLabels, Counter>,
    pub(crate) handshakes: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// From a quarter of a millisecond to 8 seconds, doubling.
const BUCKETS: [f64; 16] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096, 8.192,
];

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            connections_closed: Family::default(),
            handshakes: Counter::default(),
        };
        metrics.register(|registry| {
            let http = registry.sub_registry_with_prefix("chancery");
            http.register("http_requests", "Requests answered", metrics.requests.clone());
            http.register("http_request_seconds", "Time until the answer began", metrics.seconds.clone());
            http.register("http_requests_in_flight", "Requests being worked on", metrics.in_flight.clone());
            http.register("connections", "Open connections", metrics.connections.clone());
            http.register(
                "connections_refused",
                "Connections closed before they could ask anything",
                metrics.connections_refused.clone(),
            );
            http.register(
                "connections_closed",
                "Connections that the server closed",
                metrics.connections_closed.clone(),
            );
            http.register("tls_handshakes", "TLS handshakes that succeeded", metrics.handshakes.clone());
            registry.register_collector(Box::new(ProcessCollector));
        });
        metrics
    }

    /// Lets a part of the server add its metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All of them, as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))
            .expect("writing to a string does not fail");
        text
    }

    pub(crate) fn answered(&self, operation: Option<Operation>, status: u16, elapsed: Duration) {
        let operation = operation.map_or("none", Operation::id);
        self.requests.get_or_create(&RequestLabels { operation, status }).inc();
        self.seconds.get_or_create(&OperationLabels { operation }).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn refused_connection(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(crate) fn closed_connection(&self, reason: &'static str) {
        self.connections_closed.get_or_create(&ReasonLabels { reason }).inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Adds one to a gauge for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_operation_and_status_and_shows_the_process() {
        let metrics = Metrics::new();
        metrics.answered(Some(Operation::Enroll), 403, Duration::from_millis(3));
        metrics.answered(None, 404, Duration::ZERO);
        let in_flight = Counted::new(&metrics.in_flight);
        let text = metrics.encode();
        for line in [
            "chancery_http_requests_total{operation=\"enroll\",status=\"403\"} 1",
            "chancery_http_requests_total{operation=\"none\",status=\"404\"} 1",
            "chancery_http_request_seconds_bucket{le=\"0.004\",operation=\"enroll\"} 1",
            "chancery_http_requests_in_flight 1",
            "# TYPE process_cpu_seconds counter",
            "# TYPE process_resident_memory_bytes gauge",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        drop(in_flight);
        assert!(metrics.encode().contains("chancery_http_requests_in_flight 0"));
    }

    #[test]
    fn others_can_add_theirs() {
        let metrics = Metrics::new();
        let issued: Counter = Counter::default();
        metrics
            .register(|registry| registry.register("chancery_issued", "Certificates issued", issued.clone()));
        issued.inc();
        assert!(metrics.encode().contains("chancery_issued_total 1"));
    }
}
