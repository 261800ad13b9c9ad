//! What is known of status at one moment: the signed set, and what the feed told after it.
//!
//! The feed takes away, and only the signed set gives back. So nothing that the feed can say makes good what a set
//! calls not good; a release is a reason to fetch the set in which it shows.

use std::collections::HashMap;
use std::sync::Arc;

use chancery_api::{FeedChange, FeedEvent};
use chancery_status::ExactSet;
use chancery_types::{RevocationReason, SerialNumber};
use serde::{Deserialize, Serialize};

use super::{NotGood, Standing, Unknown};

/// Certificates that the feed may name beyond the set. A feed that names more is not answered by more memory: the set
/// is needed then.
const MOST_TOLD: usize = 65_536;

/// Why a set is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signed set is of position {offered}, and one of {held} is held: it never goes back")]
pub(crate) struct RolledBack {
    pub(crate) offered: u64,
    pub(crate) held: u64,
}

/// What is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Knowledge {
    set: Option<ExactSet>,
    /// Shared with what was published before, until it changes.
    told: Arc<HashMap<SerialNumber, Told>>,
    parts: Parts,
    position: u64,
    gap: Option<Gap>,
}

/// What was told of a position that is not told whole yet: all but its last event stay where they speak from.
#[derive(Debug, Clone, Default)]
struct Parts {
    taken: Vec<SerialNumber>,
    wants_set: bool,
}

/// A certificate that the feed says is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) sequence: u64,
    /// `certificate-hold` when it is held.
    pub(crate) reason: RevocationReason,
}

/// Something was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    /// A set of this position or later closes it,
    needed: u64,
    /// and then everything is known up to here.
    tail: u64,
}

/// What follows from an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Certificates that are not good from now on.
    pub(crate) taken: Vec<SerialNumber>,
    /// A set of this position or later is to be fetched.
    pub(crate) wanted: Option<u64>,
}

impl Knowledge {
    /// What was known before a restart: the set, if it still verifies, and what the feed had told after it.
    pub(crate) fn kept(set: ExactSet, position: u64, told: HashMap<SerialNumber, Told>) -> Self {
        let mut kept = Self { told: Arc::new(told), position, ..Self::default() };
        kept.put(set);
        kept
    }

    /// How a certificate stands, however old this knowledge is.
    pub(crate) fn standing(&self, serial: SerialNumber) -> Standing {
        if let Some(told) = self.told.get(&serial) {
            return Standing::NotGood(told.why());
        }
        let Some(set) = &self.set else { return Standing::Unknown(Unknown::Nothing) };
        match set.standing(serial) {
            chancery_status::Standing::Good => Standing::Good,
            chancery_status::Standing::NotGood => Standing::NotGood(NotGood::Listed),
            chancery_status::Standing::UnknownIssuer => Standing::Unknown(Unknown::Issuer(serial.epoch())),
        }
    }

    /// Takes an event in. One that the set already knows of says nothing new.
    pub(crate) fn hear(&mut self, event: &FeedEvent) -> Heard {
        let mut heard = Heard::default();
        let is_part = event.sequence <= event.after;
        let is_news = is_part || self.set.as_ref().is_none_or(|set| event.sequence > set.sequence());
        self.advance(event.after, event.sequence);
        match &event.change {
            _ if !is_news => {}
            FeedChange::Revoke { serials, reason, .. } => {
                heard.taken = self.take_away(serials, *reason, event, is_part);
            }
            FeedChange::Hold { serials, .. } => {
                heard.taken = self.take_away(serials, RevocationReason::CertificateHold, event, is_part);
            }
            FeedChange::Release { .. } | FeedChange::Issuer { .. } => self.parts.wants_set = true,
            FeedChange::Bulk { .. } => self.miss(event.sequence, event.sequence),
            FeedChange::Heartbeat | FeedChange::End { .. } => {}
        }
        if !is_part {
            heard.wanted = self.finish_parts(event.sequence);
        }
        heard.wanted = heard.wanted.max(self.gap.map(|gap| gap.needed));
        heard
    }

    /// Takes a verified set in.
    pub(crate) fn settle(&mut self, set: ExactSet) -> Result<(), RolledBack> {
        let (offered, held) = (set.sequence(), self.set_sequence());
        if offered < held {
            return Err(RolledBack { offered, held });
        }
        self.put(set);
        Ok(())
    }

    /// Everything up to this position is in here; nothing else may be while something was missed.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Whether nothing was missed.
    pub(crate) fn is_whole(&self) -> bool {
        self.set.is_some() && self.gap.is_none()
    }

    /// The position of the set; 0 when there is none.
    pub(crate) fn set_sequence(&self) -> u64 {
        self.set.as_ref().map_or(0, ExactSet::sequence)
    }

    /// What the feed told after the set.
    pub(crate) fn told(&self) -> &HashMap<SerialNumber, Told> {
        &self.told
    }

    fn put(&mut self, set: ExactSet) {
        let sequence = set.sequence();
        Arc::make_mut(&mut self.told).retain(|_, told| told.sequence > sequence);
        self.position = self.position.max(sequence);
        if let Some(gap) = self.gap.filter(|gap| gap.needed <= sequence) {
            self.position = self.position.max(gap.tail);
            self.gap = None;
        }
        self.set = Some(set);
    }

    fn take_away(
        &mut self,
        serials: &[SerialNumber],
        reason: RevocationReason,
        event: &FeedEvent,
        is_part: bool,
    ) -> Vec<SerialNumber> {
        // No set is late enough for a part whose end is not known yet.
        let sequence = if is_part { u64::MAX } else { event.sequence };
        for serial in serials {
            let is_full = self.told.len() >= MOST_TOLD && !self.told.contains_key(serial);
            if is_full {
                self.miss(event.sequence.max(event.after + 1), event.sequence);
                break;
            }
            let told = Arc::make_mut(&mut self.told).entry(*serial).or_insert(Told { sequence, reason });
            if told.sequence <= sequence {
                *told = Told { sequence, reason };
            }
            if is_part {
                self.parts.taken.push(*serial);
            }
        }
        serials.to_vec()
    }

    /// A position was told to its end: the set in which all of it shows, if one is needed.
    fn finish_parts(&mut self, sequence: u64) -> Option<u64> {
        let parts = std::mem::take(&mut self.parts);
        let known = self.set_sequence();
        if !parts.taken.is_empty() {
            let told = Arc::make_mut(&mut self.told);
            for serial in parts.taken {
                if let Some(told) = told.get_mut(&serial).filter(|told| told.sequence == u64::MAX) {
                    told.sequence = sequence;
                }
            }
            told.retain(|_, told| told.sequence > known);
        }
        parts.wants_set.then_some(sequence)
    }

    /// Follows the events from one position to the next, and notices when some are missing.
    fn advance(&mut self, after: u64, sequence: u64) {
        match &mut self.gap {
            None if after <= self.position => self.position = self.position.max(sequence),
            None => self.gap = Some(Gap { needed: after, tail: sequence }),
            Some(gap) if after <= gap.tail => gap.tail = gap.tail.max(sequence),
            Some(_) => self.miss(after, sequence),
        }
    }

    fn miss(&mut self, needed: u64, tail: u64) {
        let before = self.gap.unwrap_or(Gap { needed, tail });
        self.gap = Some(Gap { needed: before.needed.max(needed), tail: before.tail.max(tail) });
    }
}

impl Told {
    fn why(self) -> NotGood {
        match self.reason {
            RevocationReason::CertificateHold => NotGood::Held,
            reason => NotGood::Revoked(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use chancery_status::SetBuilder;
    use chancery_types::{IssuerEpoch, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn serial(counter: u64) -> SerialNumber {
        SerialNumber::compose(IssuerEpoch(1), counter, [7; 8]).unwrap()
    }

    fn set(sequence: u64, counters: &[u64]) -> ExactSet {
        let mut builder = SetBuilder::new(sequence, Timestamp::from_seconds(1));
        builder.issuer(IssuerEpoch(1), counters.iter().copied()).unwrap();
        builder.build().unwrap()
    }

    fn event(after: u64, sequence: u64, change: FeedChange) -> FeedEvent {
        FeedEvent { after, sequence, change }
    }

    fn revoke(counter: u64) -> FeedChange {
        let at = Timestamp::from_seconds(1);
        FeedChange::Revoke { serials: vec![serial(counter)], reason: RevocationReason::KeyCompromise, at }
    }

    fn hold(counter: u64) -> FeedChange {
        FeedChange::Hold { serials: vec![serial(counter)], at: Timestamp::from_seconds(1) }
    }

    fn release(counter: u64) -> FeedChange {
        FeedChange::Release { serials: vec![serial(counter)] }
    }

    fn knowing(sequence: u64, counters: &[u64]) -> Knowledge {
        let mut knowledge = Knowledge::default();
        knowledge.settle(set(sequence, counters)).unwrap();
        knowledge
    }

    #[test]
    fn nothing_is_known_before_the_first_set_but_what_the_feed_takes_away() {
        let mut knowledge = Knowledge::default();
        assert_eq!(knowledge.standing(serial(1)), Standing::Unknown(Unknown::Nothing));
        let heard = knowledge.hear(&event(5, 6, revoke(1)));
        assert_eq!(heard, Heard { taken: vec![serial(1)], wanted: Some(5) });
        assert!(matches!(knowledge.standing(serial(1)), Standing::NotGood(NotGood::Revoked(_))));
        assert!(!knowledge.is_whole());
        knowledge.settle(set(5, &[])).unwrap();
        assert!(knowledge.is_whole());
        assert_eq!(knowledge.position(), 6);
        assert!(matches!(knowledge.standing(serial(1)), Standing::NotGood(_)));
    }

    #[test]
    fn issuers_that_the_set_does_not_cover_are_unknown() {
        let other = SerialNumber::compose(IssuerEpoch(2), 1, [7; 8]).unwrap();
        let standing = knowing(5, &[]).standing(other);
        assert_eq!(standing, Standing::Unknown(Unknown::Issuer(IssuerEpoch(2))));
    }

    #[test]
    fn a_release_shows_only_in_the_signed_set() {
        let mut knowledge = knowing(5, &[1]);
        knowledge.hear(&event(5, 6, hold(2)));
        assert_eq!(knowledge.standing(serial(2)), Standing::NotGood(NotGood::Held));
        for (counter, sequence) in [(1, 7), (2, 8)] {
            let heard = knowledge.hear(&event(sequence - 1, sequence, release(counter)));
            assert_eq!(heard, Heard { taken: vec![], wanted: Some(sequence) });
            assert!(matches!(knowledge.standing(serial(counter)), Standing::NotGood(_)));
        }
        // A set from between does not know of the second release.
        knowledge.settle(set(7, &[2])).unwrap();
        assert_eq!(knowledge.standing(serial(1)), Standing::Good);
        assert!(matches!(knowledge.standing(serial(2)), Standing::NotGood(_)));
        knowledge.settle(set(8, &[])).unwrap();
        assert_eq!(knowledge.standing(serial(2)), Standing::Good);
    }

    #[test]
    fn an_older_set_is_refused_and_an_older_event_says_nothing() {
        let mut knowledge = knowing(9, &[1]);
        assert_eq!(knowledge.settle(set(8, &[])), Err(RolledBack { offered: 8, held: 9 }));
        assert!(matches!(knowledge.standing(serial(1)), Standing::NotGood(_)));
        assert_eq!(knowledge.hear(&event(7, 8, revoke(2))), Heard::default());
        assert_eq!(knowledge.standing(serial(2)), Standing::Good);
        assert_eq!(knowledge.position(), 9);
    }

    #[test]
    fn what_was_missed_is_closed_by_a_set_that_is_late_enough_and_by_no_other() {
        let mut knowledge = knowing(5, &[]);
        assert_eq!(knowledge.hear(&event(7, 8, revoke(1))).wanted, Some(7));
        assert_eq!(knowledge.hear(&event(8, 9, FeedChange::Heartbeat)).wanted, Some(7));
        assert_eq!((knowledge.position(), knowledge.is_whole()), (5, false));
        knowledge.settle(set(6, &[3])).unwrap();
        assert!(!knowledge.is_whole());
        knowledge.settle(set(7, &[3])).unwrap();
        assert_eq!((knowledge.position(), knowledge.is_whole()), (9, true));
        let bulk = event(9, 20, FeedChange::Bulk { count: None });
        assert_eq!(knowledge.hear(&bulk).wanted, Some(20));
        assert!(!knowledge.is_whole());
        knowledge.settle(set(21, &[3])).unwrap();
        assert_eq!((knowledge.position(), knowledge.is_whole()), (21, true));
    }

    #[test]
    fn what_is_told_in_parts_counts_at_once_and_until_a_set_of_its_end() {
        let mut knowledge = knowing(5, &[1]);
        let part = knowledge.hear(&event(5, 5, revoke(2)));
        assert_eq!(part, Heard { taken: vec![serial(2)], wanted: None });
        assert_eq!(knowledge.hear(&event(5, 5, release(1))), Heard::default());
        assert_eq!(knowledge.position(), 5);
        let end = knowledge.hear(&event(5, 7, hold(3)));
        assert_eq!(end, Heard { taken: vec![serial(3)], wanted: Some(7) });
        assert_eq!(knowledge.position(), 7);
        // Of the two positions that were told together, the first alone.
        knowledge.settle(set(6, &[])).unwrap();
        assert!(matches!(knowledge.standing(serial(2)), Standing::NotGood(_)));
        knowledge.settle(set(7, &[3])).unwrap();
        assert_eq!(knowledge.standing(serial(2)), Standing::Good);
        assert!(knowledge.told().is_empty());
    }

    #[test]
    fn a_feed_that_names_too_many_is_answered_by_the_set() {
        let mut knowledge = knowing(5, &[]);
        let serials: Vec<_> = (0..MOST_TOLD as u64 + 1).map(serial).collect();
        let at = Timestamp::from_seconds(1);
        let heard = knowledge.hear(&event(5, 6, FeedChange::Hold { serials: serials.clone(), at }));
        assert_eq!((heard.taken.len(), heard.wanted), (serials.len(), Some(6)));
        assert_eq!(knowledge.told().len(), MOST_TOLD);
        assert!(!knowledge.is_whole());
    }

    proptest! {
        /// Whatever the feed says: what the latest set calls not good is not good, and the position never falls.
        #[test]
        fn no_feed_makes_good_what_the_set_calls_not_good(
            steps in prop::collection::vec((0_u64..40, 0_u64..40, 0_u8..7, 0_u64..4), 0..60),
        ) {
            let mut knowledge = knowing(10, &[0, 1]);
            let mut listed = vec![0, 1];
            for (after, sequence, kind, counter) in steps {
                let before = knowledge.position();
                let change = match kind {
                    0 => revoke(counter),
                    1 => hold(counter),
                    2 | 3 => release(counter),
                    4 => FeedChange::Bulk { count: None },
                    5 => FeedChange::Heartbeat,
                    _ => {
                        if knowledge.settle(set(sequence, &[counter])).is_ok() {
                            listed = vec![counter];
                        }
                        FeedChange::Heartbeat
                    }
                };
                knowledge.hear(&event(after, sequence, change));
                for counter in &listed {
                    prop_assert!(matches!(knowledge.standing(serial(*counter)), Standing::NotGood(_)));
                }
                prop_assert!(knowledge.position() >= before);
                prop_assert!(knowledge.position() >= knowledge.set_sequence());
            }
        }
    }
}
