//! Traces, as far as the whole product knows of them.
//!
//! A trace begins wherever somebody first asked, and its context travels in the headers of W3C Trace Context. Here are
//! that context, the steps that are shown of a request, and the settings. What collects steps and exports them is the
//! binary's affair: it installs a [`Tracer`] or does not, and without one a step costs one load of an atomic.
//!
//! What is written into a step leaves the machine: identities, serials, counts and codes, never evidence, keys or tokens.

mod context;
mod counts;
mod settings;
mod tracer;

pub use context::{TRACEPARENT, TRACESTATE, TraceContext};
pub use counts::{Counts, SpanCounts};
pub use settings::{RawTelemetry, TelemetryConfig};
pub use tracer::{AlreadyInstalled, Inherited, Tracer, Trust, adopt, current, install};

/// What a collector of steps tells them by, among all spans.
pub const TARGET: &str = "chancery::step";

#[doc(hidden)]
pub use tracing;

/// A step of a request, to be entered or to instrument a future with. Fields are written as in `tracing::span!`.
#[macro_export]
macro_rules! step {
    ($name:expr $(, $($fields:tt)*)?) => {
        $crate::tracing::debug_span!(target: "chancery::step", $name $(, $($fields)*)?)
    };
}
