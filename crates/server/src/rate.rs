//! How fast one caller may ask: token buckets in a table that cannot grow without bound.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::peer::CallerKey;

/// A rate: so many a second in the long run, so many at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Requests a second that the bucket is refilled with.
    pub per_second: f64,
    /// Requests that a full bucket holds.
    pub burst: f64,
}

/// One bucket for each caller. When the table is full of busy callers, newcomers share one bucket: what a
/// flood of addresses can take is bounded, and known callers are not disturbed by it.
#[derive(Debug)]
pub(crate) struct RateTable {
    rate: Rate,
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    buckets: HashMap<CallerKey, Bucket>,
    newcomers: Bucket,
    /// When full buckets were last thrown away: not more than once a second, since it walks the table.
    swept: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    updated: Instant,
}

impl RateTable {
    pub(crate) fn new(rate: Rate, capacity: usize, now: Instant) -> Self {
        let newcomers = Bucket { tokens: rate.burst, updated: now };
        let state = State { buckets: HashMap::new(), newcomers, swept: now };
        Self { rate, capacity, state: Mutex::new(state) }
    }

    /// Takes one request out of a caller's bucket.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&self, caller: CallerKey, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        if let Some(bucket) = state.buckets.get_mut(&caller) {
            return bucket.take(self.rate, now);
        }
        if state.buckets.len() >= self.capacity && now.duration_since(state.swept) >= SWEEP_INTERVAL {
            state.swept = now;
            state.buckets.retain(|_, bucket| !bucket.is_full(self.rate, now));
        }
        if state.buckets.len() >= self.capacity {
            return state.newcomers.take(self.rate, now);
        }
        let bucket = Bucket { tokens: self.rate.burst, updated: now };
        state.buckets.entry(caller).or_insert(bucket).take(self.rate, now)
    }
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.tokens = self.level(rate, now);
        self.updated = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::try_from_secs_f64((1.0 - self.tokens) / rate.per_second).unwrap_or(LONGEST_WAIT))
    }

    /// A full bucket says nothing that an absent one does not.
    fn is_full(&self, rate: Rate, now: Instant) -> bool {
        self.level(rate, now) >= rate.burst
    }

    fn level(&self, rate: Rate, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        (self.tokens + elapsed * rate.per_second).min(rate.burst)
    }
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// What a caller is told when the rate is zero.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn caller(number: u32) -> CallerKey {
        CallerKey::Address(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn allows_a_burst_then_the_rate_and_says_how_long_to_wait() {
        let now = Instant::now();
        let table = RateTable::new(Rate { per_second: 2.0, burst: 3.0 }, 10, now);
        for _ in 0..3 {
            table.take(caller(1), now).unwrap();
        }
        assert_eq!(table.take(caller(1), now), Err(Duration::from_millis(500)));
        table.take(caller(2), now).unwrap();
        table.take(caller(1), now + Duration::from_millis(500)).unwrap();
        assert!(table.take(caller(1), now + Duration::from_millis(500)).is_err());
    }

    #[test]
    fn the_table_is_bounded_and_known_callers_keep_their_budget() {
        let now = Instant::now();
        let table = RateTable::new(Rate { per_second: 1.0, burst: 2.0 }, 100, now);
        for number in 0..100 {
            table.take(caller(number), now).unwrap();
        }
        let admitted = (1000..2000).filter(|&number| table.take(caller(number), now).is_ok()).count();
        assert_eq!(admitted, 2, "newcomers share one bucket");
        table.take(caller(5), now).unwrap();
        // Later the old callers' buckets are full again and make room.
        let later = now + Duration::from_secs(5);
        assert_eq!((1000..1050).filter(|&number| table.take(caller(number), later).is_ok()).count(), 50);
        assert!(table.state.lock().unwrap().buckets.len() <= 100);
    }

    #[test]
    fn a_rate_of_zero_never_refills() {
        let now = Instant::now();
        let table = RateTable::new(Rate { per_second: 0.0, burst: 1.0 }, 10, now);
        table.take(caller(1), now).unwrap();
        assert_eq!(table.take(caller(1), now + Duration::from_secs(1000)), Err(LONGEST_WAIT));
    }
}
