//! Waiting that survives sleep, jumps of the clock, and crowds.

use std::sync::Arc;
use std::time::Duration;

use chancery_types::{Clock, Random, Timestamp};

/// The longest that a wait goes without a look at the clock. Timers of the runtime stand still while the machine
/// sleeps and know nothing of a clock that is set; so no wait is longer than this.
const LOOK: Duration = Duration::from_secs(5);

/// A clock that can be waited on.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    clock: Arc<dyn Clock>,
    look: Duration,
}

impl Pace {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, look: LOOK }
    }

    /// One that looks more often, for clocks that are moved by hand.
    #[cfg(test)]
    pub(crate) fn looking_every(clock: Arc<dyn Clock>, look: Duration) -> Self {
        Self { clock, look }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns at this moment by the clock, at most a look late.
    pub(crate) async fn until(&self, moment: Timestamp) {
        loop {
            let left = moment.since(self.clock.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(self.look)).await;
        }
    }

    /// Returns when it is worth looking again: at this moment, or after the longest wait.
    pub(crate) async fn look_or(&self, moment: Option<Timestamp>) {
        let left = moment.map_or(self.look, |moment| moment.since(self.clock.now()).min(self.look));
        tokio::time::sleep(left).await;
    }
}

/// How long to wait after so many failures in a row: between a tenth of a bound and the bound, which doubles, so that
/// a crowd whose connections ended at one moment comes back spread over nearly all of it. Never less than what the
/// other side asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Backoff {
    pub(crate) fn delay(&self, failures: u32, advised: Option<Duration>, random: &dyn Random) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let bound = self.first.saturating_mul(factor).min(self.longest);
        let delay = bound.mul_f64(LEAST + (1.0 - LEAST) * fraction(random));
        // The crowd that was told the same comes back spread over a little more than it was told.
        advised.map_or(delay, |advised| advised.min(MOST_ADVISED) + delay)
    }
}

/// The part of a bound that every wait has.
const LEAST: f64 = 0.1;

/// No server may send an agent away for longer.
const MOST_ADVISED: Duration = Duration::from_secs(600);

/// Uniform in [0, 1). Without randomness the middle: a delay is no secret.
fn fraction(random: &dyn Random) -> f64 {
    let mut bytes = [0; 4];
    match random.fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use chancery_types::{FixedRandom, ManualClock};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_the_clock_was_set_forward() {
        let clock = ManualClock::at(Timestamp::from_seconds(1000));
        let pace = Pace::new(Arc::new(clock.clone()));
        let waiting = tokio::spawn({
            let pace = pace.clone();
            async move { pace.until(Timestamp::from_seconds(5000)).await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!waiting.is_finished());
        clock.set(Timestamp::from_seconds(5000));
        tokio::time::timeout(LOOK * 2, waiting).await.unwrap().unwrap();
    }

    #[test]
    fn delays_grow_to_a_bound_and_are_never_shorter_than_advised() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
        let random = FixedRandom::dangerous_seeded(1);
        for failures in 1..100 {
            let delay = backoff.delay(failures, None, &random);
            assert!(delay >= Duration::from_millis(100) && delay <= backoff.longest, "{delay:?}");
            let advised = Duration::from_secs(90);
            assert!(backoff.delay(failures, Some(advised), &random) >= advised);
        }
        assert!(backoff.delay(1, Some(Duration::MAX), &random) <= MOST_ADVISED + backoff.longest);
    }

    #[test]
    fn a_thousand_that_lost_their_connection_together_come_back_apart() {
        let backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(20) };
        let random = FixedRandom::dangerous_seeded(2);
        for (failures, advised) in [(1, None), (9, None), (1, Some(Duration::from_secs(5)))] {
            let mut tenths = [0; 10];
            for _ in 0..1000 {
                let delay = backoff.delay(failures, advised, &random) - advised.unwrap_or_default();
                let bound = if failures == 1 { backoff.first } else { backoff.longest };
                let tenth = delay.as_micros() / (bound / 10).as_micros();
                tenths[usize::try_from(tenth).unwrap().min(9)] += 1;
            }
            assert!(tenths.iter().all(|count| *count < 200), "{tenths:?}");
        }
    }
}
