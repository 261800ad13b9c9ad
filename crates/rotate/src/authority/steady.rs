//! For how long a clock has gone as evenly as one that nobody sets.

use std::time::Duration;

use chancery_types::Timestamp;

/// Clocks that differ by more since the last look were set.
const EVEN: Duration = Duration::from_secs(5);

/// What a process has seen of its clock since it first looked.
#[derive(Debug, Clone, Default)]
pub struct Steady {
    last: Option<(Timestamp, Duration)>,
    since: Duration,
}

impl Steady {
    /// Looks at the clock: for how long it has gone evenly. `uptime` is how long the process has run, by a clock that
    /// nobody sets.
    pub fn look(&mut self, now: Timestamp, uptime: Duration) -> Duration {
        let is_even = self.last.is_some_and(|(then, up)| {
            let by_clock = now.millis() - then.millis();
            let by_uptime = i64::try_from(uptime.saturating_sub(up).as_millis()).unwrap_or(i64::MAX);
            Duration::from_millis(by_clock.abs_diff(by_uptime)) <= EVEN
        });
        if !is_even {
            self.since = uptime;
        }
        self.last = Some((now, uptime));
        uptime.saturating_sub(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_waited_for_anew() {
        const HOUR: Duration = Duration::from_hours(1);
        let began = Timestamp::from_seconds(1_800_000_000);
        let mut steady = Steady::default();
        assert_eq!(steady.look(began, HOUR), Duration::ZERO);
        assert!(steady.look(began + 2 * HOUR, 3 * HOUR) >= 2 * HOUR);
        assert!(steady.look(began + 400 * 24 * HOUR, 3 * HOUR) < HOUR);
    }
}
