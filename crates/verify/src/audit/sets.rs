//! Whether every version of the exact set says what the log said: each is made again, and its hash compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chancery_entry::{HoldTarget, StatusSetPublished};
use chancery_status::{BuildError, ExactSet, SetBuilder};
use chancery_types::{IssuerEpoch, LineageId, SerialNumber, Timestamp};

use super::finding::{Check, Finding, Findings};
use super::holds::{HoldEvent, members};
use super::status::{Issued, Revoked};

/// Events between the position of a set and its record that are looked at one by one.
const STEPS: usize = 256;
/// Certificates that ended so long before a set was made are forgotten, even if the clock steps back.
const FORGOTTEN: i64 = 24 * 60 * 60 * 1000;

/// What the log has, as far as sets depend on it. `issued` is sorted by serial.
pub(crate) struct Material<'a> {
    pub(crate) issued: &'a [Issued],
    pub(crate) revoked: &'a HashMap<SerialNumber, Revoked>,
    pub(crate) holds: &'a [HoldEvent],
    pub(crate) published: &'a [(u64, IssuerEpoch)],
}

/// Makes every recorded set again. An authority reads how certificates stand a moment after the position that it
/// writes into a set, so what was recorded before the set itself may show in it.
pub(crate) fn check(sets: &[(u64, StatusSetPublished)], material: &Material<'_>, findings: &mut Findings) {
    if sets.is_empty() {
        return;
    }
    let mut replay = Replay::of(material);
    for (index, set) in sets {
        replay.until(set.sequence.min(*index));
        replay.forget(set.made);
        let judged = replay.judge(*index, set);
        let finding = match judged {
            Ok(Judged::Made) => continue,
            Ok(Judged::Other(made)) => {
                let (sequence, entries) = (set.sequence, set.entries);
                let detail = format!(
                    "set {sequence} has {entries} certificates and hash {}; the log makes {} with hash {}",
                    set.hash,
                    made.len(),
                    made.hash()
                );
                Finding::new(Check::StatusSetRecord, detail)
            }
            Ok(Judged::Unclear) => {
                let detail = format!(
                    "set {} is none of those that the log makes between its position and its record",
                    set.sequence
                );
                Finding::new(Check::StatusSetUnclear, detail)
            }
            Err(error) => {
                Finding::new(Check::StatusSetRecord, format!("set {} cannot be made: {error}", set.sequence))
            }
        };
        findings.push(finding.at(*index));
    }
}

enum Judged {
    /// It is what the log makes.
    Made,
    /// The log makes this one, and nothing happened that could explain the difference.
    Other(ExactSet),
    /// Things changed between its position and its record, and in no order of theirs it comes out.
    Unclear,
}

/// Something that sets depend on.
enum Event<'a> {
    Published(IssuerEpoch),
    Revoked(SerialNumber),
    Held(&'a HoldEvent),
}

/// The log up to some position, as the authority's own read model has it.
struct Replay<'a> {
    world: World<'a>,
    events: Vec<(u64, Event<'a>)>,
    /// The first that is not taken in yet.
    next: usize,
    state: State,
}

struct World<'a> {
    issued: &'a [Issued],
    members: HashMap<LineageId, Vec<(u64, SerialNumber)>>,
}

#[derive(Clone, Default)]
struct State {
    epochs: BTreeSet<IssuerEpoch>,
    /// What is not good.
    bad: BTreeMap<SerialNumber, Bad>,
    /// Since when lineages are held.
    lineages: HashMap<LineageId, Timestamp>,
}

#[derive(Clone, Copy)]
struct Bad {
    not_after: Timestamp,
    /// Nothing when it is revoked.
    held_since: Option<Timestamp>,
}

impl<'a> Replay<'a> {
    fn of(material: &Material<'a>) -> Self {
        let published = material.published.iter().map(|(index, epoch)| (*index, Event::Published(*epoch)));
        let revoked = material.revoked.iter().map(|(serial, one)| (one.index, Event::Revoked(*serial)));
        let held = material.holds.iter().map(|event| (event.index, Event::Held(event)));
        let mut events: Vec<_> = published.chain(revoked).chain(held).collect();
        events.sort_unstable_by_key(|(index, _)| *index);
        let world = World { issued: material.issued, members: members(material.holds, material.issued) };
        Self { world, events, next: 0, state: State::default() }
    }

    /// Takes in what was recorded before this position.
    fn until(&mut self, position: u64) {
        while let Some((index, event)) = self.events.get(self.next).filter(|(index, _)| *index < position) {
            self.state.apply(*index, event, &self.world);
            self.next += 1;
        }
    }

    fn forget(&mut self, made: Timestamp) {
        self.state.bad.retain(|_, bad| bad.not_after.millis() + FORGOTTEN >= made.millis());
    }

    fn judge(&self, index: u64, set: &StatusSetPublished) -> Result<Judged, BuildError> {
        let made = self.state.set(&self.state.epochs, set)?;
        if made.hash() == set.hash && made.len() as u64 == set.entries {
            return Ok(Judged::Made);
        }
        let between = self.events[self.next..].iter().take_while(|(event, _)| *event < index);
        let mut state = self.state.clone();
        let mut is_quiet = true;
        for (at, event) in between.take(STEPS) {
            is_quiet = false;
            state.apply(*at, event, &self.world);
            // Issuers are read before certificates, and again after them.
            let (before, after) = (&self.state, &state);
            for (certificates, issuers) in [(after, after), (after, before), (before, after)] {
                if certificates.set(&issuers.epochs, set)?.hash() == set.hash {
                    return Ok(Judged::Made);
                }
            }
        }
        Ok(if is_quiet { Judged::Other(made) } else { Judged::Unclear })
    }
}

impl State {
    fn apply(&mut self, index: u64, event: &Event<'_>, world: &World<'_>) {
        match event {
            Event::Published(epoch) => drop(self.epochs.insert(*epoch)),
            Event::Revoked(serial) => self.put(*serial, None, world),
            Event::Held(HoldEvent { target: HoldTarget::Certificate(serial), begins, time, .. }) => {
                match begins {
                    true => self.put(*serial, Some(*time), world),
                    false => self.release(*serial, None),
                }
            }
            Event::Held(HoldEvent { target: HoldTarget::Lineage(lineage), begins, time, .. }) => {
                let all = world.members.get(lineage).map_or(&[] as &[_], Vec::as_slice);
                let there = all.iter().filter(|(issued, _)| *issued < index).map(|(_, serial)| *serial);
                if *begins {
                    self.lineages.insert(*lineage, *time);
                    for serial in there {
                        if !self.bad.contains_key(&serial) {
                            self.put(serial, Some(*time), world);
                        }
                    }
                } else if let Some(since) = self.lineages.remove(lineage) {
                    // What was held by itself before its lineage was stays so.
                    there.for_each(|serial| self.release(serial, Some(since)));
                }
            }
        }
    }

    /// Whatever was never issued is reported elsewhere, and a revoked certificate stays revoked.
    fn put(&mut self, serial: SerialNumber, held_since: Option<Timestamp>, world: &World<'_>) {
        let at = world.issued.partition_point(|issued| issued.serial < serial);
        let Some(issued) = world.issued.get(at).filter(|issued| issued.serial == serial) else { return };
        let is_final = self.bad.get(&serial).is_some_and(|bad| bad.held_since.is_none());
        if !is_final {
            self.bad.insert(serial, Bad { not_after: issued.not_after, held_since });
        }
    }

    fn release(&mut self, serial: SerialNumber, since: Option<Timestamp>) {
        let held = self.bad.get(&serial).and_then(|bad| bad.held_since);
        if held.is_some() && (since.is_none() || held == since) {
            self.bad.remove(&serial);
        }
    }

    /// The set of these issuers as it is now.
    fn set(
        &self,
        epochs: &BTreeSet<IssuerEpoch>,
        published: &StatusSetPublished,
    ) -> Result<ExactSet, BuildError> {
        let mut lists: BTreeMap<IssuerEpoch, Vec<u64>> =
            epochs.iter().map(|epoch| (*epoch, Vec::new())).collect();
        for (serial, bad) in &self.bad {
            if let Some(list) = lists.get_mut(&serial.epoch()).filter(|_| bad.not_after >= published.made) {
                list.push(serial.counter());
            }
        }
        let mut builder = SetBuilder::new(published.sequence, published.made);
        for (epoch, counters) in &lists {
            builder.issuer(*epoch, counters.iter().copied())?;
        }
        builder.build()
    }
}
