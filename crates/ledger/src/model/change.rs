//! Changes to many certificates, from the asking to the end, and what each of them holds.

use chancery_entry::{ChangeProposal, ChangeStep, Step};
use chancery_types::{SerialNumber, Timestamp};
use serde::{Deserialize, Serialize};

use super::query::{Page, PageRequest, Walk, serial_at_end};
use super::record::{CertificateState, from_json, time_from_bytes, to_json};
use super::{ModelError, Table, View, Write, prefix_end, query};

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeState {
    /// It waits for approval.
    Pending,
    /// It runs.
    Running,
    /// It rests.
    Paused,
    /// What it held is being released.
    Undoing,
    /// It was given up; what it did by then stays.
    Withdrawn,
    /// It is done.
    Ended,
    /// What it held was released.
    Undone,
}

impl ChangeState {
    /// Where a step leads from here; nothing when it cannot be taken.
    #[must_use]
    pub fn after(self, step: Step) -> Option<Self> {
        match (self, step) {
            (Self::Pending, Step::Begun | Step::Approved | Step::Overridden) => Some(Self::Running),
            (Self::Running, Step::Wave) => Some(Self::Running),
            (Self::Running, Step::Paused) => Some(Self::Paused),
            (Self::Paused, Step::Resumed) => Some(Self::Running),
            (Self::Pending | Self::Running | Self::Paused, Step::Withdrawn) => Some(Self::Withdrawn),
            (Self::Running | Self::Paused | Self::Withdrawn | Self::Ended, Step::Undone) => {
                Some(Self::Undoing)
            }
            (Self::Running, Step::Ended) => Some(Self::Ended),
            (Self::Undoing, Step::Ended) => Some(Self::Undone),
            _ => None,
        }
    }

    /// Whether something has still to be done for it.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Running | Self::Undoing)
    }
}

/// A change to many certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Its number: the index of the entry that asked for it.
    pub change: u64,
    /// What is to be done, and to which certificates.
    pub request: serde_json::Value,
    /// What that would have touched when it was asked for.
    pub radius: serde_json::Value,
    /// When nobody can approve it any more.
    pub expires: Timestamp,
    /// Who asked.
    pub by: String,
    /// Why.
    pub note: String,
    /// When.
    pub asked: Timestamp,
    /// How far it has come.
    pub state: ChangeState,
    /// Steps taken: what a precondition compares.
    pub steps: u32,
    /// Waves done.
    pub waves: u32,
    /// When the last wave was done.
    pub last_wave: Option<Timestamp>,
    /// The step that set it going, and who took it.
    pub permitted: Option<(String, String)>,
    /// What was known at the last step.
    pub details: serde_json::Value,
    /// When the last step was taken.
    pub stepped: Timestamp,
    /// Who took it.
    pub stepped_by: String,
    /// Certificates that it has changed.
    #[serde(default)]
    pub changed: u64,
}

impl ChangeRecord {
    /// steps | JSON. The steps stand in front so that a precondition need not read the rest.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.steps.to_be_bytes().to_vec();
        bytes.extend_from_slice(&to_json(self));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        from_json("change", bytes.get(4..).unwrap_or_default())
    }
}

/// The name under which a change signs what it does: `change:1234`.
#[must_use]
pub fn change_name(change: u64) -> String {
    format!("{PREFIX}{change}")
}

/// The number of the change that has this name.
#[must_use]
pub fn change_number(by: &str) -> Option<u64> {
    by.strip_prefix(PREFIX)?.parse().ok()
}

const PREFIX: &str = "change:";

fn key(change: u64) -> Vec<u8> {
    Table::Change.key(&[&change.to_be_bytes()])
}

pub(super) fn propose(index: u64, time: Timestamp, proposal: &ChangeProposal) -> Vec<Write> {
    let record = ChangeRecord {
        change: index,
        request: super::apply::json(&proposal.request),
        radius: super::apply::json(&proposal.radius),
        expires: proposal.expires,
        by: proposal.by.clone(),
        note: proposal.note.clone(),
        asked: time,
        state: ChangeState::Pending,
        steps: 0,
        waves: 0,
        last_wave: None,
        permitted: None,
        details: serde_json::Value::Null,
        stepped: time,
        stepped_by: proposal.by.clone(),
        changed: 0,
    };
    vec![(key(index), Some(record.to_bytes()))]
}

/// A step that cannot be taken from where the change stands changes nothing.
pub(super) fn step(time: Timestamp, step: &ChangeStep, view: &dyn View) -> Result<Vec<Write>, ModelError> {
    let Some(bytes) = view.value(&key(step.change))? else { return Ok(Vec::new()) };
    let mut record = ChangeRecord::from_bytes(&bytes)?;
    let Some(state) = record.state.after(step.step) else { return Ok(Vec::new()) };
    record.state = state;
    record.steps += 1;
    record.details = super::apply::json(&step.details);
    record.stepped = time;
    step.by.clone_into(&mut record.stepped_by);
    let mut taken = None;
    match step.step {
        Step::Wave => {
            record.waves += 1;
            record.last_wave = Some(time);
        }
        Step::Begun | Step::Approved | Step::Overridden => {
            let name = serde_json::to_value(step.step).ok();
            let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
            record.permitted = Some((name, step.by.clone()));
            if step.step == Step::Begun {
                taken = Some(super::taken::count(&record.by, time, parts(&record.radius), view)?);
            }
        }
        _ => {}
    }
    Ok(std::iter::once((key(step.change), Some(record.to_bytes()))).chain(taken).collect())
}

/// What a radius takes out of force of each environment: what it changes, without what is held already.
fn parts(radius: &serde_json::Value) -> Vec<(String, u64)> {
    let environments = radius["environments"].as_array().map(Vec::as_slice).unwrap_or_default();
    let number = |part: &serde_json::Value, field: &str| part[field].as_u64().unwrap_or(0);
    let part = |part: &serde_json::Value| {
        let taken = number(part, "certificates").saturating_sub(number(part, "held"));
        (part["name"].as_str().unwrap_or_default().to_owned(), taken)
    };
    environments.iter().map(part).collect()
}

/// Remembers that this certificate is held by a change since this time.
pub(super) fn holds(change: u64, serial: SerialNumber, since: Timestamp) -> Write {
    let key = Table::ChangeHeld.key(&[&change.to_be_bytes(), serial.as_bytes()]);
    (key, Some(since.millis().to_be_bytes().to_vec()))
}

/// Counts one more certificate that a change has changed.
pub(super) fn counts(change: u64, view: &dyn View) -> Result<Write, ModelError> {
    let count = changed(view, change)? + 1;
    Ok((Table::ChangeCount.key(&[&change.to_be_bytes()]), Some(count.to_be_bytes().to_vec())))
}

fn changed(view: &dyn View, change: u64) -> Result<u64, ModelError> {
    let Some(bytes) = view.value(&Table::ChangeCount.key(&[&change.to_be_bytes()]))? else { return Ok(0) };
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| ModelError::Malformed { table: "change" })
}

pub(crate) fn change(view: &dyn View, change: u64) -> Result<Option<ChangeRecord>, ModelError> {
    let Some(bytes) = view.value(&key(change))? else { return Ok(None) };
    Ok(Some(ChangeRecord { changed: changed(view, change)?, ..ChangeRecord::from_bytes(&bytes)? }))
}

/// How many steps a change has taken.
pub(crate) fn steps(view: &dyn View, change: u64) -> Result<Option<u32>, ModelError> {
    let Some(bytes) = view.value(&key(change))? else { return Ok(None) };
    let steps = bytes.first_chunk().ok_or(ModelError::Malformed { table: "change" })?;
    Ok(Some(u32::from_be_bytes(*steps)))
}

pub(crate) fn changes(view: &dyn View, page: &PageRequest) -> Result<Page<ChangeRecord>, ModelError> {
    let start = Table::Change.key(&[]);
    Walk::new(view, page).range(&start, &prefix_end(&start), &mut |_, value| {
        let record = ChangeRecord::from_bytes(value)?;
        Ok(Some(ChangeRecord { changed: changed(view, record.change)?, ..record }))
    })
}

/// What this change has held and nobody has released or revoked since.
pub(crate) fn held_by(
    view: &dyn View,
    change: u64,
    page: &PageRequest,
) -> Result<Page<SerialNumber>, ModelError> {
    let start = Table::ChangeHeld.key(&[&change.to_be_bytes()]);
    Walk::new(view, page).range(&start, &prefix_end(&start), &mut |key, value| {
        let (serial, since) = (serial_at_end(key)?, time_from_bytes("change", value)?);
        let state = query::certificate(view, serial)?.map(|record| record.state);
        Ok((state == Some(CertificateState::Held { since })).then_some(serial))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_runs_only_after_somebody_let_it_and_ends_once() {
        use ChangeState::{Ended, Paused, Pending, Running, Undoing, Undone, Withdrawn};
        for (state, step, next) in [
            (Pending, Step::Approved, Some(Running)),
            (Pending, Step::Wave, None),
            (Pending, Step::Undone, None),
            (Running, Step::Approved, None),
            (Running, Step::Wave, Some(Running)),
            (Running, Step::Paused, Some(Paused)),
            (Paused, Step::Wave, None),
            (Paused, Step::Resumed, Some(Running)),
            (Paused, Step::Undone, Some(Undoing)),
            (Undoing, Step::Paused, None),
            (Undoing, Step::Ended, Some(Undone)),
            (Undone, Step::Undone, None),
            (Ended, Step::Resumed, None),
            (Withdrawn, Step::Approved, None),
        ] {
            assert_eq!(state.after(step), next, "{state:?} {step:?}");
        }
    }

    #[test]
    fn a_change_is_found_by_the_name_it_signs_with() {
        assert_eq!(change_number(&change_name(u64::MAX)), Some(u64::MAX));
        for name in ["change:", "change:x", "change:-1", "spiffe://e/x", "changes:1"] {
            assert_eq!(change_number(name), None);
        }
    }
}
