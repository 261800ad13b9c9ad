//! What must hold whatever is planned, asked for or believed.

use chancery_types::{Digest, IssuerEpoch, Timestamp};

use super::keys::is_met;
use super::{Issuer, Phase, Rules, Since, State, Subject, TaintStep, What};

/// Why a change is not made, or how things must not stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not exactly one issuer signs.
    #[error("{0} issuers are active where one has to be")]
    ActiveIssuers(usize),
    /// Not exactly one key signs.
    #[error("{count} {} keys are active where one has to be", subject.name())]
    ActiveKeys {
        /// Of which kind.
        subject: Subject,
        /// How many.
        count: usize,
    },
    /// The root of an issuer that may be met is not in the bundle.
    #[error("issuer {0} stands under a root that is not in the bundle")]
    RootMissing(IssuerEpoch),
    /// There is no such thing.
    #[error("{0} is not known here")]
    Unknown(String),
    /// It is in another phase.
    #[error("{0} is in another phase: look at `chancery ca status`")]
    Phase(String),
    /// Not every relying party can know it.
    #[error("{what} is published, and relying parties may take until {ready} to fetch it")]
    TooEarly {
        /// What.
        what: String,
        /// When they will have.
        ready: Timestamp,
    },
    /// The clock was just set, or the server has just started.
    #[error("the clock is believed from {0} on: the server has just started, or the clock was set")]
    Unsettled(Timestamp),
    /// It is not valid at this time.
    #[error("issuer {0} is not valid now")]
    NotValid(IssuerEpoch),
    /// It is not to be trusted.
    #[error("issuer {0} is tainted")]
    Tainted(IssuerEpoch),
    /// Something under it lives.
    #[error("{what} is still needed until {until}")]
    StillNeeded {
        /// What.
        what: String,
        /// Until when.
        until: Timestamp,
    },
    /// There is nothing that could be undone.
    #[error("there is nothing to roll back: no {} is published that does not sign, and none before it could sign again", .0.name())]
    NothingToRollBack(Subject),
}

/// Whether things stand as they must.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(state: &State) -> Result<(), Violation> {
    let active = state.issuers.iter().filter(|issuer| issuer.phase.is_active()).count();
    if active != 1 {
        return Err(Violation::ActiveIssuers(active));
    }
    for subject in [Subject::Jwt, Subject::Log] {
        let keys = state.keys(subject);
        let count = keys.iter().filter(|key| key.phase.is_active()).count();
        if count != 1 && !keys.is_empty() {
            return Err(Violation::ActiveKeys { subject, count });
        }
    }
    let is_bundled = |id: Digest| state.root(id).is_some_and(|root| is_met(root.phase));
    match state.issuers.iter().find(|issuer| is_met(issuer.phase) && !is_bundled(issuer.root)) {
        Some(issuer) => Err(Violation::RootMissing(issuer.epoch)),
        None => Ok(()),
    }
}

/// Whether a change may be made at this moment, whoever wants it.
///
/// # Errors
/// Why not.
pub fn admit(state: &State, rules: &Rules, what: &What, now: Timestamp) -> Result<(), Violation> {
    match what {
        What::RenewCredential(_) | What::BuildList(_) | What::SignRequest(_) | What::MakeRoot => Ok(()),
        What::RequestIssuer => {
            let waits = state.issuers.iter().find(|issuer| issuer.phase == Phase::Requested);
            waits.map_or(Ok(()), |issuer| Err(Violation::Phase(format!("issuer {}", issuer.epoch))))
        }
        What::PublishKey(subject) => {
            let waits = state.keys(*subject).iter().any(|key| key.phase.published().is_some());
            if waits { Err(Violation::Phase(format!("a {} key", subject.name()))) } else { Ok(()) }
        }
        What::PublishIssuer(epoch) => publish_issuer(known(state, *epoch)?, state, now),
        What::ActivateIssuer { epoch, supersedes } => {
            activate_issuer(known(state, *epoch)?, known(state, *supersedes)?, state, rules, now)
        }
        What::WithdrawIssuer(epoch) => withdraw_issuer(known(state, *epoch)?, state, rules, now),
        What::AskRenewals(epoch) => match known(state, *epoch)?.taint.map(|taint| taint.step) {
            Some(TaintStep::Marked) => settled(state, rules, now),
            _ => Err(Violation::Phase(format!("issuer {epoch}"))),
        },
        What::Distrust(epoch) => {
            let issuer = known(state, *epoch)?;
            match issuer.taint.map(|taint| taint.step) {
                Some(TaintStep::Renewing { until }) if !issuer.phase.is_active() => {
                    settled(state, rules, now)?;
                    not_before(until, || format!("issuer {epoch}"), now)
                }
                _ => Err(Violation::Phase(format!("issuer {epoch}"))),
            }
        }
        What::ActivateRoot(id) => match state.root(*id).map(|root| root.phase) {
            Some(Phase::Published(since)) => noticed(since, || "the root".into(), state, rules, now),
            Some(_) => Err(Violation::Phase("the root".into())),
            None => Err(Violation::Unknown("the root".into())),
        },
        What::WithdrawRoot(id) => withdraw_root(*id, state, rules, now),
        What::ActivateKey { subject, id, supersedes } => {
            let phase = |id: Digest| key_phase(state, *subject, id);
            if !phase(*supersedes)?.is_active() {
                return Err(Violation::Phase(format!("the {} key that signs", subject.name())));
            }
            match phase(*id)? {
                Phase::Published(since) => {
                    noticed(since, || format!("the {} key", subject.name()), state, rules, now)
                }
                Phase::Superseded(_) => Ok(()),
                _ => Err(Violation::Phase(format!("the {} key", subject.name()))),
            }
        }
        What::WithdrawKey { subject, id } => match key_phase(state, *subject, *id)? {
            Phase::Published(_) => Ok(()),
            Phase::Superseded(since) if *subject == Subject::Log => {
                noticed(since, || "the log key after it".into(), state, rules, now)?;
                not_before(since.at + rules.log_overlap, || "the log key".into(), now)
            }
            Phase::Superseded(since) => {
                let until = now + rules.token_life.saturating_sub(since.seen_for);
                not_before(until, || format!("the {} key", subject.name()), now)
            }
            _ => Err(Violation::Phase(format!("the {} key", subject.name()))),
        },
    }
}

/// The step that undoes the last one of a subject: what is published and does not sign is withdrawn; else whoever
/// signed before signs again.
///
/// # Errors
/// [`Violation::NothingToRollBack`].
pub fn rollback(state: &State, subject: Subject, now: Timestamp) -> Result<What, Violation> {
    let found = match subject {
        Subject::Issuer => rollback_issuer(state, now),
        Subject::Root => state
            .roots
            .iter()
            .filter(|root| root.phase.published().is_some())
            .max_by_key(|root| root.age())
            .map(|root| What::WithdrawRoot(root.id)),
        Subject::Jwt | Subject::Log => rollback_key(state, subject),
    };
    found.ok_or(Violation::NothingToRollBack(subject))
}

/// One that is about to end is no way back.
fn rollback_issuer(state: &State, now: Timestamp) -> Option<What> {
    let waiting = state.issuers.iter().filter(|issuer| issuer.phase.published().is_some());
    if let Some(last) = waiting.max_by_key(|issuer| issuer.epoch) {
        return Some(What::WithdrawIssuer(last.epoch));
    }
    let active = state.active_issuer()?;
    let before = state.issuers.iter().filter(|issuer| {
        let left = issuer.life.until.since(now);
        matches!(issuer.phase, Phase::Superseded(_))
            && issuer.taint.is_none()
            && left > issuer.life.length() / 6
    });
    let before = before.max_by_key(|issuer| issuer.epoch)?;
    Some(What::ActivateIssuer { epoch: before.epoch, supersedes: active.epoch })
}

fn rollback_key(state: &State, subject: Subject) -> Option<What> {
    let keys = state.keys(subject);
    if let Some(waiting) = keys.iter().rev().find(|key| key.phase.published().is_some()) {
        return Some(What::WithdrawKey { subject, id: waiting.id });
    }
    let active = keys.iter().find(|key| key.phase.is_active())?;
    let before = keys.iter().filter_map(|key| match key.phase {
        Phase::Superseded(since) => Some((since.at, key.id)),
        _ => None,
    });
    let (_, id) = before.max()?;
    Some(What::ActivateKey { subject, id, supersedes: active.id })
}

fn known(state: &State, epoch: IssuerEpoch) -> Result<&Issuer, Violation> {
    state.issuer(epoch).ok_or_else(|| Violation::Unknown(format!("issuer {epoch}")))
}

fn key_phase(state: &State, subject: Subject, id: Digest) -> Result<Phase, Violation> {
    let key = state.keys(subject).iter().find(|key| key.id == id);
    key.map(|key| key.phase).ok_or_else(|| Violation::Unknown(format!("the {} key", subject.name())))
}

fn publish_issuer(issuer: &Issuer, state: &State, now: Timestamp) -> Result<(), Violation> {
    let epoch = issuer.epoch;
    if issuer.phase != Phase::Spare {
        return Err(Violation::Phase(format!("issuer {epoch}")));
    }
    if issuer.taint.is_some() {
        return Err(Violation::Tainted(epoch));
    }
    if issuer.life.until <= now {
        return Err(Violation::NotValid(epoch));
    }
    match state.root(issuer.root) {
        Some(root) if is_met(root.phase) => Ok(()),
        _ => Err(Violation::RootMissing(epoch)),
    }
}

fn activate_issuer(
    next: &Issuer,
    active: &Issuer,
    state: &State,
    rules: &Rules,
    now: Timestamp,
) -> Result<(), Violation> {
    if !active.phase.is_active() {
        return Err(Violation::Phase(format!("issuer {}", active.epoch)));
    }
    if next.taint.is_some() {
        return Err(Violation::Tainted(next.epoch));
    }
    if now < next.life.from || next.life.until <= now {
        return Err(Violation::NotValid(next.epoch));
    }
    if !state.root(next.root).is_some_and(|root| root.phase.is_active()) {
        return Err(Violation::RootMissing(next.epoch));
    }
    match next.phase {
        Phase::Published(since) => noticed(since, || format!("issuer {}", next.epoch), state, rules, now),
        // It has signed before: everybody knows it.
        Phase::Superseded(_) => Ok(()),
        _ => Err(Violation::Phase(format!("issuer {}", next.epoch))),
    }
}

fn withdraw_issuer(issuer: &Issuer, state: &State, rules: &Rules, now: Timestamp) -> Result<(), Violation> {
    match issuer.phase {
        // It has signed nothing.
        Phase::Published(_) => Ok(()),
        Phase::Superseded(_) => {
            settled(state, rules, now)?;
            not_before(issuer.life.until + rules.keep, || format!("issuer {}", issuer.epoch), now)
        }
        _ => Err(Violation::Phase(format!("issuer {}", issuer.epoch))),
    }
}

fn withdraw_root(id: Digest, state: &State, rules: &Rules, now: Timestamp) -> Result<(), Violation> {
    let root = state.root(id).ok_or_else(|| Violation::Unknown("the root".into()))?;
    let under = state.issuers.iter().filter(|issuer| issuer.root == id && is_met(issuer.phase));
    let last =
        under.map(|issuer| if issuer.phase.is_active() { Timestamp::MAX } else { issuer.life.until }).max();
    if let Some(last) = last {
        settled(state, rules, now)?;
        not_before(last, || "the root".into(), now)?;
    }
    let others = state.roots.iter().any(|other| other.id != id && other.phase.is_active());
    match root.phase {
        Phase::Published(_) => Ok(()),
        Phase::Active(_) if others => Ok(()),
        _ => Err(Violation::Phase("the root".into())),
    }
}

fn noticed(
    since: Since,
    what: impl FnOnce() -> String,
    state: &State,
    rules: &Rules,
    now: Timestamp,
) -> Result<(), Violation> {
    let left = rules.notice().saturating_sub(since.seen_for);
    if !left.is_zero() {
        return Err(Violation::TooEarly { what: what(), ready: now + left });
    }
    settled(state, rules, now)
}

fn settled(state: &State, rules: &Rules, now: Timestamp) -> Result<(), Violation> {
    let settled = state.settled(rules, now);
    if settled > now { Err(Violation::Unsettled(settled)) } else { Ok(()) }
}

fn not_before(until: Timestamp, what: impl FnOnce() -> String, now: Timestamp) -> Result<(), Violation> {
    if until > now { Err(Violation::StillNeeded { what: what(), until }) } else { Ok(()) }
}
