//! Issuers: which comes next, when, and what becomes of those before.

use std::cmp::Reverse;

use chancery_types::Timestamp;

use super::{Change, Issuer, Phase, Reason, Rules, State, Subject, TaintStep, What, Wish};

/// The next step of every issuer.
pub(super) fn upcoming(state: &State, rules: &Rules, now: Timestamp) -> Vec<Change> {
    let mut changes: Vec<Change> =
        state.issuers.iter().filter_map(|issuer| own_step(issuer, state, rules, now)).collect();
    changes.extend(succession(state, rules, now));
    changes
}

/// What becomes of an issuer that does not sign, whatever the others do.
fn own_step(issuer: &Issuer, state: &State, rules: &Rules, now: Timestamp) -> Option<Change> {
    let ended = || Change {
        what: What::WithdrawIssuer(issuer.epoch),
        due: (issuer.life.until + rules.keep).max(state.settled(rules, now)),
        reason: Reason::Ended { until: issuer.life.until },
    };
    match (issuer.phase, issuer.taint.map(|taint| taint.step)) {
        (Phase::Requested | Phase::Spare | Phase::Active(_) | Phase::Withdrawn, _) => None,
        (Phase::Published(since), Some(_)) => {
            let what = What::WithdrawIssuer(issuer.epoch);
            Some(Change { what, due: since.at.min(now), reason: Reason::NeverUsed })
        }
        (Phase::Published(_) | Phase::Superseded(_), None) => Some(ended()),
        (Phase::Superseded(_), Some(step)) => {
            Some(tainted(issuer, step, state, rules, now).unwrap_or_else(ended))
        }
    }
}

/// What an issuer signed is replaced before it is revoked.
fn tainted(issuer: &Issuer, step: TaintStep, state: &State, rules: &Rules, now: Timestamp) -> Option<Change> {
    if issuer.life.until <= now {
        return None;
    }
    let at = issuer.taint?.at;
    match step {
        TaintStep::Marked => Some(Change {
            what: What::AskRenewals(issuer.epoch),
            due: at.min(now).max(state.settled(rules, now)),
            reason: Reason::Tainted { at },
        }),
        TaintStep::Renewing { until } => Some(Change {
            what: What::Distrust(issuer.epoch),
            due: (until + rules.grace).max(state.settled(rules, now)),
            reason: Reason::Replaced { until },
        }),
        TaintStep::Distrusted => None,
    }
}

/// The next steps towards another active issuer.
fn succession(state: &State, rules: &Rules, now: Timestamp) -> Vec<Change> {
    let Some(active) = state.active_issuer() else { return Vec::new() };
    let Some((wanted, reason, is_urgent)) = occasion(active, state, rules, now) else { return Vec::new() };
    let at = wanted.max(now);
    let publish = if is_urgent { wanted } else { wanted - rules.lead(active.life) };
    let candidates = state.issuers.iter().filter(|issuer| is_candidate(issuer, state, at, rules));
    let next = candidates.min_by_key(|issuer| order(issuer, state, rules, at));
    let step = next.map(|next| match next.phase {
        Phase::Published(since) => Change {
            what: What::ActivateIssuer { epoch: next.epoch, supersedes: active.epoch },
            due: wanted.max(next.life.from).max(state.noticed(since, rules, now)),
            reason: reason.clone(),
        },
        _ => Change {
            what: What::PublishIssuer(next.epoch),
            due: publish.max(next.life.from),
            reason: if is_urgent { reason.clone() } else { Reason::WantedAt { at: wanted } },
        },
    });
    let mut changes: Vec<Change> = step.into_iter().collect();
    let requested = state.issuers.iter().find(|issuer| issuer.phase == Phase::Requested);
    let request = || requested.map_or(What::RequestIssuer, |issuer| What::SignRequest(issuer.epoch));
    if next.is_none_or(|next| class(next, state, rules, at).is_late) {
        changes.push(Change {
            what: request(),
            // Somebody has to fetch the root: that takes days.
            due: if is_urgent { publish } else { publish - rules.turn(active.life) / 2 },
            reason: Reason::NoSpare { until: active.life.until },
        });
    } else if is_new_root_bare(active, state, now) {
        changes.push(Change { what: request(), due: now, reason: Reason::NewRoot });
    }
    changes
}

/// Whether there is a newer root, and no issuer below it that could sign one day.
fn is_new_root_bare(active: &Issuer, state: &State, now: Timestamp) -> bool {
    state.newest_root().is_some_and(|newest| {
        let is_below = |issuer: &Issuer| {
            issuer.root == newest.id
                && matches!(issuer.phase, Phase::Spare | Phase::Published(_))
                && issuer.life.until > now
        };
        newest.id != active.root && !state.issuers.iter().any(is_below)
    })
}

/// When another issuer is wanted and why; whether at once. `None` while somebody wants none.
fn occasion(
    active: &Issuer,
    state: &State,
    rules: &Rules,
    now: Timestamp,
) -> Option<(Timestamp, Reason, bool)> {
    if let Some(taint) = active.taint {
        return Some((taint.at.min(now), Reason::Tainted { at: taint.at }, true));
    }
    match state.wishes.get(&Subject::Issuer) {
        Some(Wish::Pause { .. }) => return None,
        Some(Wish::Now { by, at }) => {
            return Some(((*at).min(now), Reason::Asked { by: by.clone() }, true));
        }
        None => {}
    }
    if let Some(newest) = state.newest_root()
        && newest.id != active.root
        && state
            .issuers
            .iter()
            .any(|issuer| issuer.root == newest.id && is_candidate(issuer, state, now, rules))
    {
        return Some((now, Reason::NewRoot, true));
    }
    let Phase::Active(since) = active.phase else { return None };
    let turn = rules.turn(active.life);
    // The log's time may be that of a clock which was wrong: what was seen counts too.
    let turn_over = (since.at + turn).min(now + turn.saturating_sub(since.seen_for));
    let ending = active.life.until - turn;
    Some(match turn_over <= ending {
        true => (turn_over, Reason::TurnOver { since: since.at }, false),
        false => (ending, Reason::Ending { until: active.life.until }, false),
    })
}

/// What counts when one of several is to be the next; less is better, the first first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Class {
    /// It cannot sign long before the one that signs has ended.
    is_late: bool,
    /// There is a newer root.
    is_old: bool,
    /// Less than half of its life is left.
    is_short: bool,
    /// Nobody knows it yet.
    is_unknown: bool,
}

fn class(issuer: &Issuer, state: &State, rules: &Rules, at: Timestamp) -> Class {
    let from = issuer.life.from.max(at);
    let late = state.active_issuer().map(|active| active.life.until - rules.turn(active.life) / 2);
    Class {
        is_late: issuer.life.from > at && late.is_some_and(|late| from > late),
        is_old: state.newest_root().is_none_or(|newest| newest.id != issuer.root),
        is_short: issuer.life.until.since(from) < issuer.life.length() / 2,
        is_unknown: issuer.phase.published().is_none(),
    }
}

/// Whichever can be used first of the best class; of those that are short, whichever ends last.
fn order(
    issuer: &Issuer,
    state: &State,
    rules: &Rules,
    at: Timestamp,
) -> (Class, Reverse<Timestamp>, Timestamp, u16) {
    let class = class(issuer, state, rules, at);
    let end = if class.is_short { issuer.life.until } else { Timestamp::MAX };
    (class, Reverse(end), issuer.life.from.max(at), issuer.epoch.0)
}

/// Whether it may sign next: nobody distrusts it, its root may be used, some of its life is left then; and, unless there
/// is need, it stands under a newer root than the one that signs, or under the same and ends no sooner.
fn is_candidate(issuer: &Issuer, state: &State, at: Timestamp, rules: &Rules) -> bool {
    let is_waiting = matches!(issuer.phase, Phase::Spare | Phase::Published(_));
    let Some(root) = state.root(issuer.root).filter(|root| root.phase.is_active()) else { return false };
    let gains = |active: &Issuer| match state.root(active.root) {
        Some(before) if before.id != root.id => before.age() < root.age(),
        _ => active.life.until <= issuer.life.until,
    };
    is_waiting
        && issuer.taint.is_none()
        && issuer.life.until > at + rules.notice() * 2
        && state.active_issuer().filter(|active| active.taint.is_none()).is_none_or(gains)
}
