//! Counts what becomes of spans, and says once when a collector goes away or comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chancery_telemetry::Counts;
use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};

/// The queue, with a counter before it.
#[derive(Debug)]
pub(super) struct CountingProcessor(pub(super) BatchSpanProcessor);

impl SpanProcessor for CountingProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            Counts::of_process().ended();
        }
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// The exporter, with counters behind it.
#[derive(Debug)]
pub(super) struct CountingExporter<E> {
    exporter: E,
    address: String,
    is_away: AtomicBool,
}

impl<E> CountingExporter<E> {
    pub(super) fn new(exporter: E, address: String) -> Self {
        Self { exporter, address, is_away: AtomicBool::new(false) }
    }

    fn say(&self, result: &OTelSdkResult) {
        let was_away = self.is_away.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Err(error) if !was_away => {
                tracing::warn!(address = %self.address, %error, "the collector does not take traces; they are dropped");
            }
            Ok(()) if was_away => tracing::info!(address = %self.address, "the collector takes traces again"),
            _ => {}
        }
    }
}

impl<E: SpanExporter> SpanExporter for CountingExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => Counts::of_process().exported(spans),
            Err(_) => Counts::of_process().failed(spans),
        }
        self.say(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
