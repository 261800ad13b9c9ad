//! When to try again.

use std::time::Duration;

use super::{Due, Failed, Life, Reason};

/// The longest wait after the first failure; it doubles with each one.
const FIRST: Duration = Duration::from_secs(2);

/// The longest wait after any number of failures. It bounds how long a holder does not notice that the authority
/// is back, and over what time those who missed it together return to it.
const LONGEST: Duration = Duration::from_mins(5);

/// The shortest wait, for credentials of hours; those that live for minutes or less wait a thousandth of it.
const SHORTEST: Duration = Duration::from_secs(1);

/// No wait is longer than this part (one in so many) of what is left of a life: the closer the end, the denser the
/// attempts, and Retry-After is no reason to let a credential come to its end.
const SHARE: u32 = 8;

/// What a server may ask for at most when there is no life left to bound it: a day is a mistake, not advice.
const MOST_ADVISED: Duration = Duration::from_hours(1);

/// When to try again after a failure, for a credential that lives, has ended, or (`None`) was never there.
///
/// The wait is uniform between nothing and a bound that doubles with every failure ("full jitter"), so that those
/// who failed together do not come back together; never shorter than the authority asked for, while life is left.
#[must_use]
pub fn next_attempt(failed: Failed, life: Option<Life>) -> Due {
    let left = life.map(|life| life.until.since(failed.at)).filter(|left| !left.is_zero());
    let share = left.map_or(Duration::MAX, |left| left / SHARE);
    let shortest = life.map_or(SHORTEST, |life| shortest(life.length()));

    let bound = doubled(failed.attempts).min(LONGEST).min(share);
    let jitter = bound.mul_f64(failed.seed.at(failed.at).fraction());
    let advised = failed.retry_after.unwrap_or_default().min(MOST_ADVISED);
    let wait = (advised + jitter).min(share).max(shortest);

    Due {
        at: failed.at + wait,
        not_before: failed.at + advised.min(wait).max(shortest),
        reason: Reason::Retry { failed: failed.attempts },
    }
}

fn doubled(attempts: u32) -> Duration {
    let factor = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST.saturating_mul(factor)
}

fn shortest(life: Duration) -> Duration {
    (life / 1000).clamp(Duration::from_millis(50), SHORTEST)
}
