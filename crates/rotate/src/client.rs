//! The half of the one who holds credentials: what to renew now, in which requests, and when to look again.
//!
//! [`plan`] is a function of what is held and of the time. It keeps these promises, each with a test of its name:
//!
//! - A credential is due between a fifth and 45 % of its life, never later, unless attempts have failed: the
//!   authority may be away for half of a life, and there is still time to try several times.
//! - Credentials that came into use together are due apart: the authority never sees more than twice the mean rate.
//! - A failed attempt is followed by others until the end and beyond it, and closer together as the end nears.
//! - What is due at about the same time goes into one request, [`BATCH`] at a time.
//! - A clock that is set back makes nothing due that was not.

mod retry;
mod schedule;
mod seed;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use chancery_types::Timestamp;

pub use self::retry::next_attempt;
pub use self::schedule::{due, latest, regular};
pub use self::seed::Seed;

/// How many credentials one request asks for at most.
pub const BATCH: usize = 100;

/// The part of a life (one in so many) by which a credential may be renewed early for company in a request.
const GATHER: u32 = 50;

/// The life of a credential in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// When it came into use: when it was received, or its start of validity if that is not known. The start of
    /// validity lies before it where an authority allows for slow clocks, and nobody lived through that time.
    pub from: Timestamp,
    /// The end of its validity.
    pub until: Timestamp,
}

impl Life {
    /// How long it is; zero when it ends before it begins.
    #[must_use]
    pub fn length(self) -> Duration {
        self.until.since(self.from)
    }
}

/// A span in which the authority would like to see a credential renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

/// The last attempt at a credential, when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// How many attempts in a row have failed, this one included.
    pub attempts: u32,
    /// When it failed.
    pub at: Timestamp,
    /// How long the authority asked to be left alone.
    pub retry_after: Option<Duration>,
    /// Where the jitter of the next attempt comes from. All that failed in one request share it, so that they
    /// come back in one request.
    pub seed: Seed,
}

/// Something that a credential is held for, or should be. What is being renewed at this moment is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Where the jitter of its renewals comes from; see [`Seed::of`].
    pub seed: Seed,
    /// The credential; `None` when there is none yet, or none any more.
    pub life: Option<Life>,
    /// When the authority would like to see it renewed.
    pub window: Option<Window>,
    /// When it is to be renewed early, because the authority asked for that or would issue something else now.
    pub asked: Option<Window>,
    /// The last attempt, if that failed.
    pub failed: Option<Failed>,
}

/// Why a credential is due when it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is none.
    Missing,
    /// It has ended.
    Ended,
    /// Its regular time has come.
    Regular,
    /// The window that the authority suggested.
    Window,
    /// The latest moment that leaves time to try again; the authority's window would have been later.
    Latest,
    /// The authority asked for it.
    Asked,
    /// Another attempt, after so many that failed.
    Retry {
        /// How many failed.
        failed: u32,
    },
    /// Not due yet, but soon, and there was room in a request.
    Company {
        /// When it would have been due.
        due: Timestamp,
    },
}

/// When something is due, and why then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The moment.
    pub at: Timestamp,
    /// Not before this, whatever company there is: the authority asked to be left alone until then.
    pub not_before: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// One member of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its place in what was planned for.
    pub held: usize,
    /// Why it is in.
    pub reason: Reason,
}

/// One request: one to [`BATCH`] members, the most urgent first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// What to ask for.
    pub members: Vec<Member>,
}

/// When to plan again, unless what is held changes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// The moment; always after the `now` of the plan.
    pub at: Timestamp,
    /// What will be due.
    pub held: usize,
    /// Why it will be.
    pub reason: Reason,
}

/// What to do now, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Requests to send now, the most urgent first.
    pub batches: Vec<Batch>,
    /// When the first of the rest is due; `None` when there is no rest.
    pub next: Option<Wake>,
}

/// What is to be done at `now`.
#[must_use]
pub fn plan(held: &[Held], now: Timestamp) -> Plan {
    let (open, mut rest): (Vec<_>, Vec<_>) =
        held.iter().map(|held| due(held, now)).enumerate().partition(|(_, due)| due.at <= now);
    let mut chosen: Vec<Member> =
        open.iter().map(|(index, due)| Member { held: *index, reason: due.reason }).collect();
    let room = chosen.len().next_multiple_of(BATCH) - chosen.len();
    let company = company(held, &rest, room, now);
    let taken: HashSet<usize> = company.iter().map(|member| member.held).collect();
    rest.retain(|(index, _)| !taken.contains(index));
    chosen.extend(company);
    chosen.sort_by_key(|member| (held[member.held].life.map(|life| life.until), member.held));

    Plan {
        batches: chosen.chunks(BATCH).map(|members| Batch { members: members.to_vec() }).collect(),
        next: rest.iter().min_by_key(|(_, due)| due.at).map(|(index, due)| Wake {
            at: due.at,
            held: *index,
            reason: due.reason,
        }),
    }
}

/// Who fills up the last request: what is due soon, the earliest first.
fn company(held: &[Held], rest: &[(usize, Due)], room: usize, now: Timestamp) -> Vec<Member> {
    if room == 0 {
        return Vec::new();
    }
    let is_soon = |life: Life, due: &Due| due.at.since(now) <= life.length() / GATHER;
    let mut soon: Vec<&(usize, Due)> = rest
        .iter()
        .filter(|(index, due)| {
            held[*index].life.is_some_and(|life| is_soon(life, due)) && due.not_before <= now
        })
        .collect();
    soon.sort_by_key(|(index, due)| (due.at, *index));
    let company =
        |(index, due): &(usize, Due)| Member { held: *index, reason: Reason::Company { due: due.at } };
    soon.into_iter().take(room).map(company).collect()
}
