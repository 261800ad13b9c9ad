//! Roots, and keys without certificates: the next step of each.

use chancery_types::Timestamp;

use super::{Change, Issuer, Key, Phase, Reason, Root, Rules, State, Subject, What, Wish};

/// The next step of every root. New ones are brought by operators.
pub(super) fn roots(state: &State, rules: &Rules, now: Timestamp) -> Vec<Change> {
    let steps = state.roots.iter().filter_map(|root| root_step(root, state, rules, now));
    steps.chain(next_root(state)).collect()
}

/// Somebody has to make the next root in time: a fifth of its life before the last one ends.
fn next_root(state: &State) -> Option<Change> {
    let bundled = state.roots.iter().filter(|root| is_met(root.phase));
    let last = bundled.max_by_key(|root| root.age())?;
    let until = last.life.until;
    Some(Change {
        what: What::MakeRoot,
        due: until - last.life.length() / 5,
        reason: Reason::Ending { until },
    })
}

fn root_step(root: &Root, state: &State, rules: &Rules, now: Timestamp) -> Option<Change> {
    let is_paused = matches!(state.wishes.get(&Subject::Root), Some(Wish::Pause { .. }));
    match root.phase {
        Phase::Published(since) if !is_paused => Some(Change {
            what: What::ActivateRoot(root.id),
            due: state.noticed(since, rules, now).max(root.life.from),
            reason: Reason::Noticed { since: since.at },
        }),
        Phase::Active(_) if state.newest_root().is_some_and(|newest| newest.age() > root.age()) => {
            let under: Vec<&Issuer> = state
                .issuers
                .iter()
                .filter(|issuer| issuer.root == root.id && is_met(issuer.phase))
                .collect();
            if under.iter().any(|issuer| !matches!(issuer.phase, Phase::Superseded(_))) {
                return None;
            }
            let last = under.iter().map(|issuer| issuer.life.until).max();
            let due = last.map_or(now, |last| last + rules.keep).max(state.settled(rules, now));
            Some(Change { what: What::WithdrawRoot(root.id), due, reason: Reason::Unused })
        }
        _ => None,
    }
}

/// Whether certificates under an issuer may be met now or soon.
pub(super) fn is_met(phase: Phase) -> bool {
    matches!(phase, Phase::Published(_) | Phase::Active(_) | Phase::Superseded(_))
}

/// The next step of the keys of one kind.
pub(super) fn of(subject: Subject, state: &State, rules: &Rules, now: Timestamp) -> Vec<Change> {
    let keys = state.keys(subject);
    let mut changes: Vec<Change> =
        keys.iter().filter_map(|key| withdrawal(subject, key, state, rules, now)).collect();
    changes.extend(succession(subject, keys, state, rules, now));
    changes
}

fn withdrawal(subject: Subject, key: &Key, state: &State, rules: &Rules, now: Timestamp) -> Option<Change> {
    let Phase::Superseded(since) = key.phase else { return None };
    let (due, reason) = match subject {
        // For weeks, through which few processes live: the log's time counts, once everybody could know the next key.
        Subject::Log => {
            let overlap = rules.log_overlap;
            (state.noticed(since, rules, now).max(since.at + overlap), Reason::BothSigned { overlap })
        }
        // Tokens that a key signed end by the clock of nobody in particular, so this is counted, not read.
        _ => {
            let left = (rules.token_life + rules.notice()).saturating_sub(since.seen_for);
            let due = (now + left).max(state.settled(rules, now));
            (due, Reason::TokensEnded { life: rules.token_life })
        }
    };
    Some(Change { what: What::WithdrawKey { subject, id: key.id }, due, reason })
}

fn succession(
    subject: Subject,
    keys: &[Key],
    state: &State,
    rules: &Rules,
    now: Timestamp,
) -> Option<Change> {
    let (active, since) = keys.iter().find_map(|key| match key.phase {
        Phase::Active(since) => Some((key, since)),
        _ => None,
    })?;
    let period = if subject == Subject::Log { rules.log_period } else { rules.jwt_period };
    let (wanted, reason, is_urgent) = match state.wishes.get(&subject) {
        Some(Wish::Pause { .. }) => return None,
        Some(Wish::Now { by, at }) => ((*at).min(now), Reason::Asked { by: by.clone() }, true),
        // The log's time may be that of a clock which was wrong: what was seen counts too.
        None => {
            let left = period?.saturating_sub(since.seen_for);
            ((since.at + period?).min(now + left), Reason::TurnOver { since: since.at }, false)
        }
    };
    let next = keys.iter().find_map(|key| Some((key, key.phase.published()?)));
    if let Some((next, since)) = next {
        let due = wanted.max(state.noticed(since, rules, now));
        let what = What::ActivateKey { subject, id: next.id, supersedes: active.id };
        return Some(Change { what, due, reason });
    }
    let due = if is_urgent { wanted } else { wanted - rules.notice() * 2 };
    let reason = if is_urgent { reason } else { Reason::WantedAt { at: wanted } };
    Some(Change { what: What::PublishKey(subject), due, reason })
}
