//! The half of the authority: its issuers, roots and keys, each followed by the next.
//!
//! ```text
//! issuer:  requested -> spare -> published -> active -> superseded -> withdrawn
//! root:                          published -> active               -> withdrawn
//! key:                           published -> active -> superseded -> withdrawn
//! ```
//! [`plan`] is a function of how things stand and of the time; [`timeline`] carries plans out in mind, to tell what
//! will happen when and why. Whatever the plan, [`admit`] judges a change by how things stand at the moment at which it
//! is applied, and [`check`] the whole. Together they keep these promises, each with a test of its name, over decades
//! of crashes, missed looks and clocks that are set:
//!
//! - There is always exactly one active issuer, and one active key of each kind.
//! - Nothing is activated before every relying party had time to fetch it: [`Rules::notice`] of time that nobody can
//!   set, seen from within one process.
//! - Nothing is withdrawn while a certificate or a token under it may live.
//! - A clock that was just set decides nothing: see [`Rules::settle`].

mod change;
mod invariants;
mod issuers;
mod keys;
mod observer;
mod state;
mod steady;
#[cfg(test)]
mod tests;
mod timeline;

pub use self::change::{Actor, Change, Reason, What};
pub use self::invariants::{Violation, admit, check, rollback};
pub use self::observer::Observer;
pub use self::state::{
    Credential, Issuer, Key, Life, List, Phase, Root, Rules, Since, State, Subject, Taint, TaintStep, Wish,
};
pub use self::steady::Steady;
pub use self::timeline::timeline;

use chancery_types::Timestamp;

/// What is to be done now, the first due first. What waits for a person is among it: see [`What::actor`].
#[must_use]
pub fn plan(state: &State, rules: &Rules, now: Timestamp) -> Vec<Change> {
    let mut due = upcoming(state, rules, now);
    due.retain(|change| change.due <= now);
    due
}

/// The next step of everything, the first due first, whether due or not.
#[must_use]
pub fn upcoming(state: &State, rules: &Rules, now: Timestamp) -> Vec<Change> {
    let mut changes = issuers::upcoming(state, rules, now);
    changes.extend(keys::roots(state, rules, now));
    changes.extend(keys::of(Subject::Jwt, state, rules, now));
    changes.extend(keys::of(Subject::Log, state, rules, now));
    changes.extend(state.credentials.iter().map(Credential::renewal));
    changes.extend(state.lists.iter().map(List::next));
    changes.sort_by_key(|change| change.due);
    changes
}
