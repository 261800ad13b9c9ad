//! What became of the spans of this process.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the exporter, for the page of metrics.
#[derive(Debug, Default)]
pub struct Counts {
    ended: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
}

/// What [`Counts`] say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanCounts {
    /// Spans that were to be exported.
    pub ended: u64,
    /// Spans that the collector took.
    pub exported: u64,
    /// Spans that it did not take. What is in none of the two waits, or found the queue full.
    pub failed: u64,
}

static COUNTS: Counts =
    Counts { ended: AtomicU64::new(0), exported: AtomicU64::new(0), failed: AtomicU64::new(0) };

impl Counts {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> &'static Self {
        &COUNTS
    }

    /// A span ended, and was put into the queue if there was room.
    pub fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// The collector took so many.
    pub fn exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// The collector did not take so many.
    pub fn failed(&self, spans: usize) {
        self.failed.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// All of them.
    #[must_use]
    pub fn read(&self) -> SpanCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SpanCounts { ended: read(&self.ended), exported: read(&self.exported), failed: read(&self.failed) }
    }
}
