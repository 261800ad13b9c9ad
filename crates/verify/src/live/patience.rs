//! How long to wait before something is tried again.

use std::time::Duration;

use chancery_types::{Random, SystemRandom};

/// Counts failures in a row. Each doubles the wait, which is drawn anew between a tenth of a bound and the bound: an
/// authority that restarts loses all its readers at one moment, and they come back spread.
#[derive(Debug)]
pub(crate) struct Patience {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Patience {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure, and says how long to wait after it.
    pub(crate) fn fail(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let bound = self.first.saturating_mul(factor).min(self.longest);
        bound.mul_f64(0.1 + 0.9 * fraction())
    }
}

/// Uniform in [0, 1). Without randomness the middle: a delay is no secret.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match SystemRandom.fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}
