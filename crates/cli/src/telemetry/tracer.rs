//! Between the contexts of the wire and those of the SDK.

use std::str::FromStr as _;

use chancery_telemetry::{TraceContext, Tracer, Trust};
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Steps are collected, of this share of the traces that begin here.
#[derive(Debug)]
pub(super) struct Collecting {
    pub(super) sample: f64,
}

impl Tracer for Collecting {
    fn current(&self) -> Option<TraceContext> {
        let context = Context::current();
        let span = context.span();
        let known = span.span_context();
        known.is_valid().then(|| TraceContext {
            trace: known.trace_id().to_bytes(),
            span: known.span_id().to_bytes(),
            sampled: known.is_sampled(),
            state: known.trace_state().header(),
        })
    }

    fn adopt(&self, step: &Span, caller: &TraceContext, trust: Trust) {
        let trace = TraceId::from_bytes(caller.trace);
        let is_sampled = caller.sampled && (trust == Trust::Known || self.keeps(trace));
        let flags = if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let state = TraceState::from_str(&caller.state).unwrap_or_default();
        let remote = SpanContext::new(trace, SpanId::from_bytes(caller.span), flags, true, state);
        // A step that is not collected has no parent to set.
        let _ = step.set_parent(Context::new().with_remote_span_context(remote));
    }
}

impl Collecting {
    /// Whether a trace of this id would be recorded if it had begun here.
    fn keeps(&self, trace: TraceId) -> bool {
        let sampler = Sampler::TraceIdRatioBased(self.sample);
        let found = sampler.should_sample(None, trace, "", &SpanKind::Server, &[], &[]);
        found.decision == SamplingDecision::RecordAndSample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_gets_the_share_that_everybody_gets() {
        let low = TraceId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let high = TraceId::from_bytes([0xff; 16]);
        let half = Collecting { sample: 0.5 };
        assert!(half.keeps(low) && !half.keeps(high));
        let (all, none) = (Collecting { sample: 1.0 }, Collecting { sample: 0.0 });
        assert!(all.keeps(high) && !none.keeps(low));
    }
}
