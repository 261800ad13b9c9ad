//! How long a process has seen things as they are, by a clock that nobody sets.

use std::collections::BTreeMap;
use std::time::Duration;

use chancery_types::{Digest, IssuerEpoch, Timestamp};

use super::{Phase, State, Steady, Subject};

/// What a process has seen since it started. Nothing of it is kept: after a start everything is waited for anew.
#[derive(Debug, Clone, Default)]
pub struct Observer {
    steady: Steady,
    seen: BTreeMap<Thing, Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Thing {
    id: Id,
    phase: u8,
    at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    Issuer(IssuerEpoch),
    Root(Digest),
    Key(Subject, Digest),
}

impl Observer {
    /// Looks at how things stand and fills in for how long they have been seen so. `uptime` is how long the process has
    /// run, by a clock that nobody sets.
    pub fn look(&mut self, state: &mut State, now: Timestamp, uptime: Duration) {
        state.steady_for = self.steady.look(now, uptime);
        let before = std::mem::take(&mut self.seen);
        let mut look = |id: Id, phase: &mut Phase| {
            let number = number(*phase);
            let Some(since) = phase.since_mut() else { return };
            let thing = Thing { id, phase: number, at: since.at };
            let first = before.get(&thing).copied().unwrap_or(uptime);
            since.seen_for = uptime.saturating_sub(first);
            self.seen.insert(thing, first);
        };
        state.issuers.iter_mut().for_each(|issuer| look(Id::Issuer(issuer.epoch), &mut issuer.phase));
        state.roots.iter_mut().for_each(|root| look(Id::Root(root.id), &mut root.phase));
        state.jwt_keys.iter_mut().for_each(|key| look(Id::Key(Subject::Jwt, key.id), &mut key.phase));
        state.log_keys.iter_mut().for_each(|key| look(Id::Key(Subject::Log, key.id), &mut key.phase));
    }
}

fn number(phase: Phase) -> u8 {
    match phase {
        Phase::Requested => 0,
        Phase::Spare => 1,
        Phase::Published(_) => 2,
        Phase::Active(_) => 3,
        Phase::Superseded(_) => 4,
        Phase::Withdrawn => 5,
    }
}
