//! Whether a precondition holds.

use chancery_entry::HoldTarget;
use chancery_types::{IdentityState, RevocationReason, SerialNumber};

use super::query::Recorded;
use super::record::{CertificateState, IssuerState, TokenState};
use super::{ModelError, View, change, query};
use crate::proposal::{Precondition, Standing};

/// `None` when it holds, else how things stand instead.
pub(crate) fn check(
    precondition: &Precondition,
    size: u64,
    view: &dyn View,
) -> Result<Option<Standing>, ModelError> {
    Ok(match precondition {
        Precondition::Empty => (size > 0).then_some(Standing::NotEmpty),
        Precondition::SerialUnused(serial) => {
            query::certificate_bytes(view, *serial)?.map(|_| Standing::Exists)
        }
        Precondition::TokenUsable { token, now } => match query::token_standing(view, *token)? {
            Some((state, expires)) if expires <= *now => Some(closed(state).unwrap_or(Standing::Expired)),
            Some((state, _)) => closed(state),
            None => Some(Standing::Unknown),
        },
        Precondition::TokenOpen(token) => match query::token_standing(view, *token)? {
            Some((state, _)) => closed(state),
            None => Some(Standing::Unknown),
        },
        Precondition::LineageUnused(lineage) => {
            query::lineage_head(view, *lineage)?.map(|_| Standing::Exists)
        }
        Precondition::LineageAt { lineage, generation } => match query::lineage_head(view, *lineage)? {
            None => Some(Standing::Unknown),
            Some(record) if record.held_since.is_some() => Some(Standing::Held),
            Some(record) if record.generation != *generation => Some(Standing::Generation(record.generation)),
            Some(_) => None,
        },
        Precondition::IdentityActive(id) => match query::identity_state(view, id)? {
            None => Some(Standing::Unknown),
            Some(IdentityState::Active) => None,
            Some(IdentityState::Held) => Some(Standing::Held),
            Some(IdentityState::Retired) => Some(Standing::Retired),
        },
        Precondition::IdentityRegistered(id) => match query::identity_state(view, id)? {
            None => Some(Standing::Unknown),
            Some(IdentityState::Retired) => Some(Standing::Retired),
            Some(IdentityState::Active | IdentityState::Held) => None,
        },
        Precondition::IdentityHeld(id) => match query::identity_state(view, id)? {
            None => Some(Standing::Unknown),
            Some(IdentityState::Held) => None,
            Some(IdentityState::Active) => Some(Standing::NotHeld),
            Some(IdentityState::Retired) => Some(Standing::Retired),
        },
        Precondition::IdentityUnused(id) => query::identity_state(view, id)?.map(|state| match state {
            IdentityState::Retired => Standing::Retired,
            IdentityState::Active | IdentityState::Held => Standing::Exists,
        }),
        Precondition::TemplateExists(name) => match query::template(view, name)? {
            Some(_) => None,
            None => Some(Standing::Unknown),
        },
        Precondition::IssuerActive(epoch) => match query::issuer_state(view, *epoch)? {
            None => Some(Standing::Unknown),
            Some(IssuerState::Active) => None,
            Some(IssuerState::Retired | IssuerState::Withdrawn) => Some(Standing::Retired),
            Some(IssuerState::Prepared) => Some(Standing::NotActive),
        },
        Precondition::IssuerUnused(epoch) => query::issuer_state(view, *epoch)?.map(|_| Standing::Exists),
        Precondition::IssuerAt { epoch, index } => {
            moved(query::issuer(view, *epoch)?.map(|record| record.index), *index)
        }
        Precondition::KeyAt { purpose, key, index } => {
            moved(query::key(view, *purpose, *key)?.map(|record| record.index), *index)
        }
        Precondition::Revocable { serial, reason } => match recorded_state(view, *serial)? {
            None => Some(Standing::Unknown),
            Some(Err(ended)) => Some(ended),
            Some(Ok(CertificateState::Revoked { reason: before, .. })) => {
                let moves = *reason == RevocationReason::KeyCompromise && before != *reason;
                (!moves).then_some(Standing::Revoked)
            }
            Some(Ok(CertificateState::Good | CertificateState::Held { .. })) => None,
        },
        Precondition::InForce(serial) => match standing(&HoldTarget::Certificate(*serial), view)? {
            Some(Standing::NotHeld) => None,
            other => other.or(Some(Standing::Unknown)),
        },
        Precondition::Holdable(target) => match standing(target, view)? {
            Some(Standing::NotHeld) => None,
            other => other.or(Some(Standing::Unknown)),
        },
        Precondition::Releasable(target) => match standing(target, view)? {
            Some(Standing::Held) => None,
            other => other.or(Some(Standing::Unknown)),
        },
        Precondition::IdempotencyUnused(hash) => query::idempotent(view, *hash)?.map(Standing::Issued),
        Precondition::ChangeAt { change, steps } => match change::steps(view, *change)? {
            None => Some(Standing::Unknown),
            Some(taken) => (taken != *steps).then_some(Standing::Steps(taken)),
        },
        Precondition::CrlFollows { epoch, shard, previous, number } => {
            let last = query::last_crl(view, *epoch, *shard)?.map(|last| last.number);
            let follows = last == *previous && last.is_none_or(|last| last < *number);
            (!follows).then_some(last.map_or(Standing::Unknown, Standing::Number))
        }
        Precondition::StatusSetFollows { previous, sequence } => {
            let last = query::last_status_set(view)?;
            let follows =
                last.map(|last| last.hash) == *previous && last.is_none_or(|last| last.sequence < *sequence);
            (!follows).then(|| last.map_or(Standing::Unknown, |last| Standing::Number(last.sequence)))
        }
    })
}

/// How a certificate stands; [`Standing::Expired`] where it was tidied away: nothing changes for it any more.
fn recorded_state(
    view: &dyn View,
    serial: SerialNumber,
) -> Result<Option<Result<CertificateState, Standing>>, ModelError> {
    Ok(query::recorded(view, serial)?.map(|recorded| match recorded {
        Recorded::Whole(record) => Ok(record.state),
        Recorded::Remains(_) => Err(Standing::Expired),
    }))
}

/// Whether the last entry about something is the one that the proposer knows.
fn moved(last: Option<u64>, known: Option<u64>) -> Option<Standing> {
    match (last, known) {
        (None, Some(_)) => Some(Standing::Unknown),
        (Some(_), None) => Some(Standing::Exists),
        (Some(last), Some(known)) if last != known => Some(Standing::Moved(last)),
        _ => None,
    }
}

fn closed(state: TokenState) -> Option<Standing> {
    match state {
        TokenState::Open => None,
        TokenState::Spent { .. } => Some(Standing::Spent),
        TokenState::Revoked => Some(Standing::Revoked),
    }
}

/// Held, not held or revoked; `None` when the target is not recorded.
fn standing(target: &HoldTarget, view: &dyn View) -> Result<Option<Standing>, ModelError> {
    Ok(match target {
        HoldTarget::Certificate(serial) => recorded_state(view, *serial)?.map(|state| match state {
            Ok(CertificateState::Good) => Standing::NotHeld,
            Ok(CertificateState::Held { .. }) => Standing::Held,
            Ok(CertificateState::Revoked { .. }) => Standing::Revoked,
            Err(ended) => ended,
        }),
        HoldTarget::Lineage(lineage) => {
            query::lineage_head(view, *lineage)?.map(|head| match head.held_since {
                Some(_) => Standing::Held,
                None => Standing::NotHeld,
            })
        }
    })
}
