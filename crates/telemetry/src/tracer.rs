//! What collects the steps of this process, if anything does.

use std::fmt;
use std::sync::OnceLock;

use tracing::Span;

use crate::TraceContext;

/// Collects steps. Every method is called while requests wait, so it must answer at once.
pub trait Tracer: fmt::Debug + Send + Sync {
    /// The step that this thread is in, as the next process is to see it.
    fn current(&self) -> Option<TraceContext>;

    /// Makes a step that was not entered yet a part of the caller's trace.
    fn adopt(&self, step: &Span, caller: &TraceContext, trust: Trust);
}

/// Whether a caller decides that a trace is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It showed a good certificate, or sits on this machine: what it records is recorded here.
    Known,
    /// Anybody: it can join a trace, but only the share of traces that is recorded anyway is recorded for it.
    Stranger,
}

/// There is a tracer already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadyInstalled;

impl fmt::Display for AlreadyInstalled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("this process has a tracer already")
    }
}

impl std::error::Error for AlreadyInstalled {}

static TRACER: OnceLock<Box<dyn Tracer>> = OnceLock::new();

/// Has this tracer collect the steps of the whole process, for as long as it lives.
///
/// # Errors
/// [`AlreadyInstalled`]; the first one stays.
pub fn install(tracer: Box<dyn Tracer>) -> Result<(), AlreadyInstalled> {
    TRACER.set(tracer).map_err(|_| AlreadyInstalled)
}

/// The context to send along with what this thread asks of others; nothing without a tracer.
#[must_use]
pub fn current() -> Option<TraceContext> {
    TRACER.get()?.current()
}

/// Makes a step that was not entered yet a part of the caller's trace; nothing without a tracer.
pub fn adopt(step: &Span, caller: &TraceContext, trust: Trust) {
    if let Some(tracer) = TRACER.get() {
        tracer.adopt(step, caller, trust);
    }
}

/// A command that was started within somebody's trace: it records nothing, and passes the context on.
#[derive(Debug)]
pub struct Inherited(pub TraceContext);

impl Tracer for Inherited {
    fn current(&self) -> Option<TraceContext> {
        Some(self.0.clone())
    }

    fn adopt(&self, _: &Span, _: &TraceContext, _: Trust) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because a process has one tracer.
    #[test]
    fn a_process_has_no_tracer_and_then_one() {
        assert_eq!(current(), None);
        let context = TraceContext { trace: [1; 16], span: [2; 8], sampled: true, state: String::new() };
        install(Box::new(Inherited(context.clone()))).unwrap();
        assert_eq!(current(), Some(context.clone()));
        assert_eq!(install(Box::new(Inherited(context))), Err(AlreadyInstalled));
    }
}
