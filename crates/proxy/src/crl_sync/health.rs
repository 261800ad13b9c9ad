//! How the lists are, for Prometheus, a supervisor and a log that somebody reads: when one is too old, it is an alarm.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chancery_types::{Clock, HumanDuration, Timestamp};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::report::ListReport;
use crate::console::Console;

/// The labels of a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfIssuer {
    issuer: String,
}

/// What is known of the lists in place; shared by the rounds and by whoever asks.
pub(super) struct Health {
    clock: std::sync::Arc<dyn Clock>,
    maximum_age: Duration,
    state: Mutex<State>,
    registry: Registry,
    rounds: Counter,
    failures: Counter,
    age: Gauge,
    too_old: Gauge,
    made: Family<OfIssuer, Gauge>,
    ends: Family<OfIssuer, Gauge>,
    entries: Family<OfIssuer, Gauge>,
}

#[derive(Debug)]
struct State {
    began: Timestamp,
    /// When the lists in place were last known to be the authority's newest.
    current: Option<Timestamp>,
    first_end: Option<Timestamp>,
    is_alarmed: bool,
}

impl Health {
    pub(super) fn new(clock: std::sync::Arc<dyn Clock>, maximum_age: Duration) -> Self {
        let mut registry = Registry::with_prefix("chancery_crl_sync");
        let (rounds, failures) = (Counter::default(), Counter::default());
        let (age, too_old) = (Gauge::default(), Gauge::default());
        let (made, ends, entries) = (Family::default(), Family::default(), Family::default());
        registry.register("rounds", "Looks at the authority's lists", rounds.clone());
        registry.register("rounds_failed", "Those that left something undone", failures.clone());
        registry.register(
            "age_seconds",
            "Since the lists in place were known to be the newest; -1 before the first time",
            age.clone(),
        );
        registry.register(
            "too_old",
            "1 when that is longer than allowed, or a list has ended",
            too_old.clone(),
        );
        registry.register("list_made_timestamp_seconds", "When a list was made", Family::clone(&made));
        registry.register("list_ends_timestamp_seconds", "When a list ends", Family::clone(&ends));
        registry.register("list_entries", "Certificates on a list", Family::clone(&entries));
        let state = State { began: clock.now(), current: None, first_end: None, is_alarmed: false };
        let state = Mutex::new(state);
        Self { clock, maximum_age, state, registry, rounds, failures, age, too_old, made, ends, entries }
    }

    /// A round has ended, well or not, with these lists in place.
    pub(super) fn round(&self, is_whole: bool, lists: &[ListReport]) {
        self.rounds.inc();
        let mut state = self.state();
        match is_whole {
            true => state.current = Some(self.clock.now()),
            false => drop(self.failures.inc()),
        }
        state.first_end = lists.iter().map(|list| list.next_update).min();
        for list in lists {
            let label = OfIssuer { issuer: list.issuer.clone() };
            self.made.get_or_create(&label).set(list.this_update.seconds());
            self.ends.get_or_create(&label).set(list.next_update.seconds());
            self.entries.get_or_create(&label).set(i64::try_from(list.entries).unwrap_or(i64::MAX));
        }
        let trouble = self.trouble_of(&state);
        match (&trouble, state.is_alarmed) {
            (Some(trouble), false) => tracing::error!(%trouble, "THE LISTS IN PLACE ARE TOO OLD"),
            (None, true) => tracing::info!("the lists in place are the newest again"),
            _ => {}
        }
        state.is_alarmed = trouble.is_some();
    }

    fn trouble_of(&self, state: &State) -> Option<String> {
        let now = self.clock.now();
        if let Some(end) = state.first_end.filter(|end| *end <= now) {
            return Some(format!("a list in place ended at {end}: programs refuse everybody"));
        }
        let age = now.since(state.current.unwrap_or(state.began));
        (age > self.maximum_age).then(|| {
            let (age, most) =
                (HumanDuration(Duration::from_secs(age.as_secs())), HumanDuration(self.maximum_age));
            format!("the lists in place were last known to be the newest {age} ago, {most} is allowed")
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console for Health {
    fn metrics(&self) -> String {
        let state = self.state();
        let seconds = |since| i64::try_from(self.clock.now().since(since).as_secs()).unwrap_or(i64::MAX);
        self.age.set(state.current.map_or(-1, seconds));
        self.too_old.set(i64::from(self.trouble_of(&state).is_some()));
        drop(state);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    fn trouble(&self) -> Option<String> {
        let state = self.state();
        let first = state.current.is_none().then(|| "no round has succeeded yet".to_owned());
        self.trouble_of(&state).or(first)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chancery_types::ManualClock;

    use super::*;

    #[test]
    fn lists_that_nobody_confirmed_for_too_long_or_that_have_ended_are_an_alarm() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000_000)));
        let health = Health::new(clock.clone(), Duration::from_secs(600));
        let list = |ends: i64| ListReport {
            issuer: "CN=issuer".into(),
            number: 7,
            this_update: Timestamp::from_seconds(999_000),
            next_update: Timestamp::from_seconds(ends),
            entries: 3,
        };
        let gauge = |name: &str| {
            let text = health.metrics();
            let line = text.lines().find(|line| line.starts_with(&format!("chancery_crl_sync_{name}")));
            line.and_then(|line| line.rsplit(' ').next()).unwrap().to_owned()
        };
        assert_eq!((gauge("age_seconds"), gauge("too_old")), ("-1".into(), "0".into()));
        assert!(health.trouble().unwrap().contains("no round"));
        health.round(true, &[list(1_002_000)]);
        assert_eq!(health.trouble(), None);
        assert_eq!((gauge("list_entries"), gauge("list_ends")), ("3".into(), "1002000".into()));

        clock.advance(Duration::from_secs(601));
        health.round(false, &[list(1_002_000)]);
        assert!(health.trouble().unwrap().contains("10m"));
        assert_eq!((gauge("too_old"), gauge("rounds_failed")), ("1".into(), "1".into()));
        health.round(true, &[list(1_002_000)]);
        assert_eq!((health.trouble(), gauge("age_seconds")), (None, "0".into()));

        clock.advance(Duration::from_secs(1500));
        health.round(true, &[list(1_002_000)]);
        assert!(health.trouble().unwrap().contains("ended at"));
    }
}
