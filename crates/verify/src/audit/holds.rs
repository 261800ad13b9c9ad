//! Which certificates are held in the end: holds and releases, of certificates and of whole lineages, replayed.

use std::collections::HashMap;

use chancery_entry::HoldTarget;
use chancery_types::{LineageId, SerialNumber, Timestamp};

use super::finding::{Check, Finding, Findings};
use super::status::{Issued, Revoked};

/// A hold or a release.
#[derive(Debug, Clone)]
pub(crate) struct HoldEvent {
    pub(crate) index: u64,
    pub(crate) time: Timestamp,
    pub(crate) target: HoldTarget,
    /// Whether it is a hold.
    pub(crate) begins: bool,
}

/// The last time for which a certificate was held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldSpan {
    /// Of the hold.
    pub(crate) index: u64,
    pub(crate) since: Timestamp,
    /// Nothing while it lasts.
    pub(crate) until: Option<Timestamp>,
}

impl HeldSpan {
    fn lasts(&self) -> bool {
        self.until.is_none()
    }
}

/// Replays the events in their order. `issued` is sorted by serial.
///
/// The last word counts: a released lineage takes all its certificates along, also one that was held by itself,
/// and a certificate may be released while its lineage stays held.
pub(crate) fn replay(
    events: &[HoldEvent],
    issued: &[Issued],
    revoked: &HashMap<SerialNumber, Revoked>,
    findings: &mut Findings,
) -> HashMap<SerialNumber, HeldSpan> {
    let members = members(events, issued);
    let mut held: HashMap<SerialNumber, HeldSpan> = HashMap::new();
    let mut lineages: HashMap<LineageId, bool> = HashMap::new();
    for event in events {
        let mut report = |detail: String, serial: Option<SerialNumber>| {
            let finding = Finding::new(Check::Revocation, detail).at(event.index);
            findings.push(Finding { serial, ..finding });
        };
        match event.target {
            HoldTarget::Certificate(serial) => {
                let is_held = held.get(&serial).is_some_and(HeldSpan::lasts);
                if is_held == event.begins {
                    report(format!("{}: certificate {serial}", event.complaint()), Some(serial));
                }
                if event.begins && revoked.get(&serial).is_some_and(|revoked| revoked.index < event.index) {
                    report("held after it was revoked".to_owned(), Some(serial));
                }
                event.apply(serial, &mut held);
            }
            HoldTarget::Lineage(lineage) => {
                let was_held = lineages.insert(lineage, event.begins).unwrap_or(false);
                if was_held == event.begins {
                    report(format!("{}: lineage {lineage}", event.complaint()), None);
                }
                let all = members.get(&lineage).map_or(&[] as &[(u64, SerialNumber)], Vec::as_slice);
                if all.iter().all(|(index, _)| *index > event.index) {
                    report(format!("lineage {lineage} does not exist"), None);
                }
                for (_, serial) in all.iter().filter(|(index, _)| *index < event.index) {
                    event.apply(*serial, &mut held);
                }
            }
        }
    }
    held
}

impl HoldEvent {
    fn apply(&self, serial: SerialNumber, held: &mut HashMap<SerialNumber, HeldSpan>) {
        if self.begins {
            held.insert(serial, HeldSpan { index: self.index, since: self.time, until: None });
        } else if let Some(span) = held.get_mut(&serial).filter(|span| span.lasts()) {
            span.until = Some(self.time);
        }
    }

    fn complaint(&self) -> &'static str {
        if self.begins { "held, and was held before" } else { "released, and was not held" }
    }
}

/// The certificates of the lineages that events are about, with the entries that promised them.
pub(super) fn members(
    events: &[HoldEvent],
    issued: &[Issued],
) -> HashMap<LineageId, Vec<(u64, SerialNumber)>> {
    let lineage = |event: &HoldEvent| match event.target {
        HoldTarget::Lineage(lineage) => Some((lineage, Vec::new())),
        HoldTarget::Certificate(_) => None,
    };
    let mut members: HashMap<LineageId, Vec<(u64, SerialNumber)>> =
        events.iter().filter_map(lineage).collect();
    if members.is_empty() {
        return members;
    }
    for certificate in issued {
        if let Some(all) = members.get_mut(&certificate.lineage) {
            all.push((certificate.index, certificate.serial));
        }
    }
    members
}
