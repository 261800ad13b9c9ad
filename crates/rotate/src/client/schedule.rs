//! When one credential is due.

use chancery_types::Timestamp;

use super::{Due, Failed, Held, Life, Reason, Seed, Window, next_attempt};

/// The part of a life before which no credential is renewed regularly.
const EARLIEST: f64 = 0.20;

/// The part of a life after which no credential waits any longer. An authority that goes away just before, for
/// half of a life, comes back with a twentieth of the life left; attempts are a hundred-and-sixtieth of a life apart
/// by then, so that several find it. With a quarter of a life between the two limits, and a renewal at a third of it
/// on average, credentials that began together ask at no more than 1.3 times the mean rate.
const LATEST: f64 = 0.45;

/// The part of a life before which a suggested window is not heeded: a window that lies in the past would have
/// the credential renewed without a pause.
const PAUSE: f64 = 0.05;

/// When it is due: not a matter of `now`, except when the last attempt lies ahead of it, which tells that the
/// clock was set back and nothing of when to try again.
#[must_use]
pub fn due(held: &Held, now: Timestamp) -> Due {
    match held.failed {
        Some(failed) if failed.at <= now => next_attempt(failed, held.life),
        Some(Failed { attempts, .. }) => at_once(now, Reason::Retry { failed: attempts }),
        None => first_attempt(held, now),
    }
}

/// The latest moment for a first attempt.
#[must_use]
pub fn latest(life: Life) -> Timestamp {
    point(life, LATEST)
}

/// When it is due if the authority has nothing to say about it.
#[must_use]
pub fn regular(life: Life, seed: Seed) -> Timestamp {
    let fraction = seed.at(life.from).at(life.until).fraction();
    point(life, EARLIEST + (LATEST - EARLIEST) * fraction)
}

fn first_attempt(held: &Held, now: Timestamp) -> Due {
    let Some(life) = held.life else { return at_once(now, Reason::Missing) };
    let mut due = suggested(held, life);
    if let Some(asked) = held.asked {
        let moment = within(asked, held.seed);
        if moment < due.at {
            due = Due { at: moment, not_before: asked.from, reason: Reason::Asked };
        }
    }
    if life.until <= now { at_once(due.at.min(now), Reason::Ended) } else { due }
}

fn suggested(held: &Held, life: Life) -> Due {
    let Some(window) = held.window else {
        let at = regular(life, held.seed);
        return Due { at, not_before: life.from, reason: Reason::Regular };
    };
    let wished = within(window, held.seed);
    let earliest = window.from.clamp(life.from, latest(life));
    if wished > latest(life) {
        return Due { at: latest(life), not_before: earliest, reason: Reason::Latest };
    }
    Due { at: wished.max(point(life, PAUSE)), not_before: earliest, reason: Reason::Window }
}

/// A moment of a window, everybody's own.
fn within(window: Window, seed: Seed) -> Timestamp {
    let fraction = seed.at(window.from).at(window.until).fraction();
    window.from + window.until.since(window.from).mul_f64(fraction)
}

fn at_once(at: Timestamp, reason: Reason) -> Due {
    Due { at, not_before: at, reason }
}

fn point(life: Life, fraction: f64) -> Timestamp {
    life.from + life.length().mul_f64(fraction)
}
