//! Traces out of this process: what `chancery_telemetry` calls steps, sent to a collector as OTLP over HTTP.
//!
//! Nothing waits for a collector. Spans that ended lie in a bounded queue, a thread of the SDK takes them from there, and
//! what finds the queue full is dropped and counted. Without an address there is no queue, no thread and no layer.

mod counting;
mod http;
mod tracer;

use std::time::Duration;

use anyhow::{Context as _, Result};
use chancery_telemetry::{TARGET, TelemetryConfig, install};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer, Registry};

use self::counting::{CountingExporter, CountingProcessor};
use self::http::HttpSender;
use self::tracer::Collecting;

/// What is put in front of the log: collects steps.
pub(crate) type StepLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Exports until it is dropped; then what waits is sent, if the collector takes it soon.
#[derive(Debug)]
pub(crate) struct Exporter(SdkTracerProvider);

/// How long the end of the process waits for the collector.
const LAST: Duration = Duration::from_secs(2);
/// How long spans gather before they are sent.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take for one batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Spans that are sent at once.
const BATCH: usize = 512;
/// Where the environment names a collector, the narrower one first (OpenTelemetry protocol exporter specification).
const VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

impl Drop for Exporter {
    fn drop(&mut self) {
        // Said by the counting exporter already.
        let _ = self.0.shutdown_with_timeout(LAST);
    }
}

/// Begins to export, where the configuration or the environment names a collector; nothing where none does.
///
/// # Errors
/// An address or a file of roots that cannot be used.
pub(crate) fn start(
    service: &'static str,
    config: &TelemetryConfig,
) -> Result<Option<(StepLayer, Exporter)>> {
    let Some(address) = address(config, |name| std::env::var(name).ok())? else { return Ok(None) };
    let sender = HttpSender::new(config.roots.as_deref(), PATIENCE)
        .with_context(|| format!("traces cannot be sent to {address}"))?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(sender)
        .with_endpoint(&address)
        .with_timeout(PATIENCE)
        .build()
        .with_context(|| format!("traces cannot be sent to {address}"))?;
    let limits = BatchConfigBuilder::default()
        .with_max_queue_size(config.queue)
        .with_max_export_batch_size(BATCH.min(config.queue))
        .with_scheduled_delay(GATHER)
        .build();
    let queue = BatchSpanProcessor::builder(CountingExporter::new(exporter, address))
        .with_batch_config(limits)
        .build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(service))
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample))))
        .with_span_processor(CountingProcessor(queue))
        .build();
    install(Box::new(Collecting { sample: config.sample })).context("traces are exported already")?;
    global::set_tracer_provider(provider.clone());
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
        .with_context_activation(true)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false);
    let steps = filter_fn(is_step).with_max_level_hint(LevelFilter::DEBUG);
    Ok(Some((Box::new(layer.with_filter(steps)), Exporter(provider))))
}

/// Nothing but steps leaves the process: no other crate's spans, and no log lines.
fn is_step(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// Where traces go, whole; the configuration before the environment.
fn address(config: &TelemetryConfig, variable: impl Fn(&str) -> Option<String>) -> Result<Option<String>> {
    let set = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
    if set("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let base = config.otlp.clone().or_else(|| set(VARIABLES[1]));
    let narrow = set(VARIABLES[0]).filter(|_| config.otlp.is_none());
    let whole = narrow.or_else(|| base.map(|base| format!("{}/v1/traces", base.trim_end_matches('/'))));
    let Some(whole) = whole else { return Ok(None) };
    let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(protocol) = protocol.filter(|protocol| protocol != "http/protobuf") {
        anyhow::bail!("OTEL_EXPORTER_OTLP_PROTOCOL is {protocol:?}; only http/protobuf is spoken");
    }
    if !whole.starts_with("http://") && !whole.starts_with("https://") {
        anyhow::bail!("{whole:?} is no address of OTLP over HTTP; write it like http://127.0.0.1:4318");
    }
    Ok(Some(whole))
}

/// Who sends. What the environment says in OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES goes first.
fn resource(service: &'static str) -> Resource {
    let own = [
        KeyValue::new("service.name", service),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance()),
    ];
    let told = Resource::builder().build();
    let is_told = |key: &KeyValue| {
        let value = told.get(&key.key).map(|value| value.to_string());
        value.is_some_and(|value| !value.starts_with("unknown_service"))
    };
    Resource::builder().with_attributes(own.into_iter().filter(|key| !is_told(key))).build()
}

/// This process among those of the same kind.
fn instance() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let config = TelemetryConfig { otlp: config.map(str::to_owned), ..TelemetryConfig::default() };
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        address(&config, variable).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_goes_before_the_environment_and_nothing_is_nowhere() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318/");
        let narrow = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/x");
        let is = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(found(None, &[]), Ok(None));
        assert_eq!(found(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(found(None, &[base]), is("http://env:4318/v1/traces"));
        assert_eq!(found(None, &[base, narrow]), is("http://traces:1/x"));
        assert_eq!(found(Some("http://file:4318"), &[base, narrow]), is("http://file:4318/v1/traces"));
        assert_eq!(found(Some("http://file:4318"), &[("OTEL_SDK_DISABLED", "true")]), Ok(None));
    }

    #[test]
    fn what_is_not_spoken_is_refused_at_the_start() {
        let grpc = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        assert!(found(None, &grpc).unwrap_err().contains("http/protobuf"));
        assert!(found(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "x:4317")]).unwrap_err().contains("x:4317"));
        // A protocol without an address is nobody's business.
        assert_eq!(found(None, &grpc[1..]), Ok(None));
    }
}
