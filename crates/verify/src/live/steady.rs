//! A clock that only goes forward, at its own pace, also while the machine sleeps: ages are measured by it, so that
//! nobody makes stale knowledge fresh, or fresh knowledge stale, by setting the time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since the machine was started.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(CLOCK);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
/// Elsewhere sleep is not counted, or is by this one.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;
