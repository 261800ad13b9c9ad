//! Renewals before their time: because the authority asks for them, or would issue something else now.

use std::time::Duration;

use chancery_api::RenewalScope;
use chancery_rotate::client::Window;
use chancery_types::{SerialNumber, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Where a certificate comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// Its position in the log.
    pub(crate) log_index: u64,
    /// The profile that it was issued under.
    pub(crate) profile: String,
}

/// The authority would like certificates to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Whose.
    pub(crate) scope: RenewalScope,
    /// Those that the log has before this position.
    pub(crate) recorded_before: u64,
    /// By when.
    pub(crate) until: Timestamp,
}

impl Wish {
    /// Whether this certificate is meant.
    pub(crate) fn means(&self, identity: &SpiffeId, serial: SerialNumber, origin: &Origin) -> bool {
        let is_in_scope = match &self.scope {
            // A node is told what is about itself.
            RenewalScope::All | RenewalScope::Node(_) => true,
            RenewalScope::Identity(wanted) => wanted == identity,
            RenewalScope::Issuer(epoch) => *epoch == serial.epoch(),
            RenewalScope::Profile(name) => *name == origin.profile,
        };
        is_in_scope && origin.log_index < self.recorded_before
    }
}

/// The wishes that certificates are held against which were asked for before and come after.
#[derive(Debug, Default)]
pub(super) struct Wishes(Vec<Wish>);

impl Wishes {
    pub(super) fn add(&mut self, wish: Wish) {
        self.0.retain(|one| one.scope != wish.scope && wish.scope != RenewalScope::All);
        if self.0.len() == REMEMBERED {
            self.0.remove(0);
        }
        self.0.push(wish);
    }

    /// By when a certificate is to be replaced, if it is.
    pub(super) fn deadline(
        &self,
        identity: &SpiffeId,
        serial: SerialNumber,
        origin: &Origin,
    ) -> Option<Timestamp> {
        self.0.iter().filter(|wish| wish.means(identity, serial, origin)).map(|wish| wish.until).min()
    }
}

/// How many renewals changes have brought about lately: one alone follows at once, and thousands one after the other.
#[derive(Debug)]
pub(super) struct Crowd {
    waiting: f64,
    at: Instant,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { waiting: 0.0, at: Instant::now() }
    }
}

impl Crowd {
    /// One more; how long until all that came lately, and this one, are through.
    pub(super) fn join(&mut self) -> Duration {
        let now = Instant::now();
        let passed = now.duration_since(self.at).as_secs_f64() * EVERY_SECOND;
        (self.waiting, self.at) = ((self.waiting - passed).max(0.0) + 1.0, now);
        Duration::from_secs_f64(self.waiting / EVERY_SECOND)
    }
}

/// From now on, for at least so long, or until a deadline that lies further ahead.
pub(super) fn window(now: Timestamp, least: Duration, deadline: Option<Timestamp>) -> Window {
    let until = now + least;
    Window { from: now, until: deadline.map_or(until, |deadline| deadline.max(until)) }
}

/// As many as the authority remembers.
const REMEMBERED: usize = 256;

/// Renewals that changes may bring about in a second.
const EVERY_SECOND: f64 = 200.0;

#[cfg(test)]
mod tests {
    use chancery_types::IssuerEpoch;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_change_follows_at_once_and_thousands_one_after_the_other() {
        let mut crowd = Crowd::default();
        assert!(crowd.join() < Duration::from_millis(10));
        let last = (1..2000).map(|_| crowd.join()).last().unwrap();
        assert_eq!(last, Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(crowd.join(), Duration::from_millis(5005));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(crowd.join(), Duration::from_millis(5));
    }

    #[test]
    fn a_wish_means_what_the_log_had_before_it_and_nothing_else() {
        let id: SpiffeId = "spiffe://example.org/web".parse().unwrap();
        let serial = SerialNumber::compose(IssuerEpoch(2), 1, [0; 8]).unwrap();
        let origin = |log_index| Origin { log_index, profile: "workload".into() };
        let wish = |scope| Wish { scope, recorded_before: 7, until: Timestamp::from_seconds(1) };
        for scope in [
            RenewalScope::All,
            RenewalScope::Identity(id.clone()),
            RenewalScope::Issuer(IssuerEpoch(2)),
            RenewalScope::Profile("workload".into()),
        ] {
            let wish = wish(scope);
            assert!(wish.means(&id, serial, &origin(6)), "{wish:?}");
            assert!(!wish.means(&id, serial, &origin(7)), "{wish:?}");
        }
        for scope in [
            RenewalScope::Identity("spiffe://example.org/other".parse().unwrap()),
            RenewalScope::Issuer(IssuerEpoch(1)),
            RenewalScope::Profile("server".into()),
        ] {
            assert!(!wish(scope).means(&id, serial, &origin(6)));
        }
    }
}
