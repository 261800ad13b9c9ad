//! What the feed has told and the lists do not show yet: nothing of it is confirmed before they do.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use chancery_api::{FeedChange, FeedEvent};
use chancery_types::{IssuerEpoch, SerialNumber, Timestamp};
use chancery_x509::crl::CrlView;

use super::list::RevocationList;

/// What is awaited.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Whether each of these must be on its issuer's list, or must not.
    changes: BTreeMap<SerialNumber, bool>,
    /// Something happened that was not told singly, then.
    untold: Option<Timestamp>,
    /// Up to here the feed was heard.
    position: u64,
}

impl Pending {
    /// Takes an event in; whether it is a reason to look.
    pub(super) fn hear(&mut self, event: &FeedEvent, now: Timestamp) -> bool {
        if event.leaves_gap(self.position) || self.position == 0 {
            self.untold = Some(now);
        }
        self.position = self.position.max(event.sequence);
        match &event.change {
            FeedChange::Revoke { serials, .. } | FeedChange::Hold { serials, .. } => {
                self.expect(serials, true, now)
            }
            FeedChange::Release { serials } => self.expect(serials, false, now),
            FeedChange::Bulk { .. } => {
                // After a restore from a backup it may be lower than it was.
                self.position = event.sequence;
                self.untold = Some(now);
            }
            FeedChange::Issuer { .. } => {}
            FeedChange::End { .. } | FeedChange::Heartbeat => return false,
        }
        true
    }

    fn expect(&mut self, serials: &[SerialNumber], listed: bool, now: Timestamp) {
        if self.changes.len() + serials.len() > MOST {
            self.changes.clear();
            self.untold = Some(now);
            return;
        }
        self.changes.extend(serials.iter().map(|serial| (*serial, listed)));
    }

    /// Forgets what these lists show, which are in force now. What was not told singly is shown by lists that were
    /// made later, or by none having been made for longer than the authority ever gathers changes.
    pub(super) fn settle<'a>(
        &mut self,
        lists: impl Iterator<Item = (IssuerEpoch, &'a RevocationList)>,
        now: Timestamp,
    ) {
        let mut known = HashSet::new();
        let mut all_later = true;
        for (epoch, list) in lists {
            known.insert(epoch);
            // Numbers are the authority's milliseconds.
            let made = Timestamp::from_millis(i64::try_from(list.number()).unwrap_or(i64::MAX));
            all_later &= self.untold.is_some_and(|untold| made > untold);
            if self.changes.is_empty() {
                continue;
            }
            let Ok(view) = CrlView::from_der(list.der()) else { continue };
            let listed: HashSet<&[u8]> = view.entries().map(|entry| entry.serial).collect();
            self.changes.retain(|serial, expected| {
                serial.epoch() != epoch || listed.contains(serial.as_bytes().as_slice()) != *expected
            });
        }
        // Certificates of issuers that are not there any more are nobody's.
        self.changes.retain(|serial, _| known.contains(&serial.epoch()));
        let all_later = all_later && !known.is_empty();
        if self.untold.is_some_and(|untold| all_later || now.since(untold) > LONG_ENOUGH) {
            self.untold = None;
        }
    }

    /// Whether the lists show everything.
    pub(super) fn is_settled(&self) -> bool {
        self.changes.is_empty() && self.untold.is_none()
    }

    /// Up to here everything is in force, if it is settled.
    pub(super) fn position(&self) -> u64 {
        self.position
    }
}

/// Certificates that are awaited singly.
const MOST: usize = 65_536;
/// Longer than the authority gathers changes at the most.
const LONG_ENOUGH: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn event(after: u64, sequence: u64, change: FeedChange) -> FeedEvent {
        FeedEvent { after, sequence, change }
    }

    #[test]
    fn nothing_is_settled_before_the_first_lists_are_old_enough_and_gaps_open_it_again() {
        let mut pending = Pending::default();
        let start = Timestamp::from_seconds(1_795_000_000);
        assert!(!pending.hear(&event(0, 7, FeedChange::Heartbeat), start));
        pending.settle(std::iter::empty(), start + Duration::from_secs(15));
        assert!(!pending.is_settled());
        pending.settle(std::iter::empty(), start + Duration::from_secs(16));
        assert!(pending.is_settled() && pending.position() == 7);
        let later = start + Duration::from_secs(60);
        pending.hear(&event(7, 9, FeedChange::Heartbeat), later);
        assert!(pending.is_settled() && pending.position() == 9);
        pending.hear(&event(10, 11, FeedChange::Heartbeat), later);
        assert!(!pending.is_settled());
    }

    #[test]
    fn a_flood_is_awaited_as_one() {
        let mut pending = Pending { position: 1, ..Pending::default() };
        let serials: Vec<_> = (0..=MOST as u64)
            .map(|counter| SerialNumber::compose(IssuerEpoch(1), counter, [1; 8]).unwrap())
            .collect();
        let now = Timestamp::from_seconds(1_795_000_000);
        assert!(pending.hear(&event(1, 2, FeedChange::Release { serials }), now));
        assert!(pending.changes.is_empty() && !pending.is_settled());
    }
}
