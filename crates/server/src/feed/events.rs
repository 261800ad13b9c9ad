//! From what changed to what is said of it: certificates that changed alike in one event.

use std::collections::HashMap;

use chancery_api::{FeedChange, FeedEvent, IssuerEvent};
use chancery_ledger::CertificateState;
use chancery_revoke::{IssuerChange, StatusChange};
use chancery_types::{RevocationReason, SerialNumber, Timestamp};

/// Certificates in one event.
const SERIALS: usize = 1000;
/// Events about one step; more are one `bulk`. Those who listen may be as far behind as a few steps.
const EVENTS: usize = 32;

/// What was heard since the last step.
#[derive(Debug, Default)]
pub(super) struct Heard {
    certificates: Vec<StatusChange>,
    issuers: Vec<IssuerChange>,
    /// It was so much that it is not kept, or not known.
    is_too_much: bool,
    has_missed: bool,
    /// Certificates, kept or not.
    count: u64,
}

impl Heard {
    /// Takes in what changed; past `most` certificates only how many.
    pub(super) fn add(&mut self, certificates: &[StatusChange], issuers: &[IssuerChange], most: usize) {
        self.count += certificates.len() as u64;
        self.issuers.extend_from_slice(issuers);
        if self.is_too_much || self.certificates.len() + certificates.len() > most {
            self.is_too_much = true;
            self.certificates = Vec::new();
        } else {
            self.certificates.extend_from_slice(certificates);
        }
    }

    /// What changed is not known.
    pub(super) fn miss(&mut self) {
        (self.is_too_much, self.has_missed) = (true, true);
        self.certificates = Vec::new();
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_too_much && self.certificates.is_empty() && self.issuers.is_empty()
    }

    /// The events from one position to another; the last reaches it.
    pub(super) fn tell(self, after: u64, sequence: u64) -> Vec<FeedEvent> {
        let mut changes: Vec<FeedChange> = self.issuers.iter().map(issuer).collect();
        let of_certificates = if self.is_too_much { Vec::new() } else { groups(&self.certificates) };
        if self.is_too_much || of_certificates.len() > EVENTS {
            changes.push(FeedChange::Bulk { count: (!self.has_missed).then_some(self.count) });
        } else {
            changes.extend(of_certificates);
        }
        let last = changes.len().saturating_sub(1);
        let position = |number| if number == last { sequence } else { after };
        let event = |(number, change)| FeedEvent { after, sequence: position(number), change };
        changes.into_iter().enumerate().map(event).collect()
    }
}

/// What certificates that changed alike have in common. Seconds are what CRL and OCSP say too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Alike {
    Revoked(RevocationReason, Timestamp),
    Held(Timestamp),
    Good,
}

/// Each certificate as it stands at last, with those that stand so too.
fn groups(changes: &[StatusChange]) -> Vec<FeedChange> {
    let last: HashMap<SerialNumber, usize> =
        changes.iter().enumerate().map(|(number, change)| (change.serial, number)).collect();
    let mut order: Vec<(Alike, Vec<SerialNumber>)> = Vec::new();
    let mut places: HashMap<Alike, usize> = HashMap::new();
    for (_, change) in changes.iter().enumerate().filter(|(number, one)| last[&one.serial] == *number) {
        let alike = match change.state {
            CertificateState::Revoked { at, reason } => Alike::Revoked(reason, at.whole_second()),
            CertificateState::Held { since } => Alike::Held(since.whole_second()),
            CertificateState::Good => Alike::Good,
        };
        let place = *places.entry(alike).or_insert_with(|| {
            order.push((alike, Vec::new()));
            order.len() - 1
        });
        order[place].1.push(change.serial);
    }
    let events = |(alike, serials): (Alike, Vec<SerialNumber>)| {
        serials.chunks(SERIALS).map(|some| change(alike, some.to_vec())).collect::<Vec<_>>()
    };
    order.into_iter().flat_map(events).collect()
}

fn change(alike: Alike, serials: Vec<SerialNumber>) -> FeedChange {
    match alike {
        Alike::Revoked(reason, at) => FeedChange::Revoke { serials, reason, at },
        Alike::Held(at) => FeedChange::Hold { serials, at },
        Alike::Good => FeedChange::Release { serials },
    }
}

fn issuer(change: &IssuerChange) -> FeedChange {
    match *change {
        IssuerChange::Activated(epoch) => FeedChange::Issuer { epoch, change: IssuerEvent::Activated },
        IssuerChange::Retired(epoch) => FeedChange::Issuer { epoch, change: IssuerEvent::Retired },
        IssuerChange::Tainted(epoch) => FeedChange::Issuer { epoch, change: IssuerEvent::Tainted },
    }
}

#[cfg(test)]
mod tests {
    use chancery_types::IssuerEpoch;

    use super::*;

    fn serial(counter: u64) -> SerialNumber {
        SerialNumber::compose(IssuerEpoch(1), counter, [7; 8]).unwrap()
    }

    fn change(counter: u64, state: CertificateState) -> StatusChange {
        StatusChange { serial: serial(counter), not_after: Timestamp::from_seconds(100), state }
    }

    fn revoked(millis: i64) -> CertificateState {
        let reason = RevocationReason::Superseded;
        CertificateState::Revoked { at: Timestamp::from_millis(millis), reason }
    }

    fn told(changes: &[StatusChange], most: usize) -> Vec<FeedEvent> {
        let mut heard = Heard::default();
        heard.add(changes, &[], most);
        heard.tell(10, 20)
    }

    #[test]
    fn what_changed_alike_within_a_second_is_one_event_and_the_last_reaches_the_position() {
        let held = CertificateState::Held { since: Timestamp::from_seconds(3) };
        let changes =
            [change(1, revoked(2001)), change(2, held), change(3, revoked(2999)), change(4, revoked(3000))];
        let events = told(&changes, 100);
        let serials: Vec<_> = events.iter().map(|event| names(&event.change)).collect();
        assert_eq!(serials, [vec![serial(1), serial(3)], vec![serial(2)], vec![serial(4)]]);
        let positions: Vec<_> = events.iter().map(|event| (event.after, event.sequence)).collect();
        assert_eq!(positions, [(10, 10), (10, 10), (10, 20)]);
    }

    #[test]
    fn only_how_a_certificate_stands_at_last_is_told() {
        let held = CertificateState::Held { since: Timestamp::from_seconds(3) };
        let events = told(&[change(1, held), change(2, held), change(1, CertificateState::Good)], 100);
        assert_eq!(names(&events[0].change), [serial(2)]);
        assert!(matches!(&events[1].change, FeedChange::Release { serials } if *serials == [serial(1)]));
    }

    #[test]
    fn long_lists_are_cut_and_too_much_is_said_to_be_so() {
        let many: Vec<_> = (0..2500).map(|counter| change(counter, revoked(0))).collect();
        let events = told(&many, 2500);
        let lengths: Vec<_> = events.iter().map(|event| names(&event.change).len()).collect();
        assert_eq!(lengths, [1000, 1000, 500]);
        let events = told(&many, 2499);
        assert_eq!(
            events,
            [FeedEvent { after: 10, sequence: 20, change: FeedChange::Bulk { count: Some(2500) } }]
        );
        let fragments: Vec<_> =
            (0..=EVENTS as u64).map(|second| change(second, revoked(second as i64 * 1000))).collect();
        assert!(matches!(told(&fragments, 100)[..], [FeedEvent { change: FeedChange::Bulk { .. }, .. }]));
    }

    #[test]
    fn what_was_missed_is_bulk_without_a_count_and_issuers_are_told_all_the_same() {
        let mut heard = Heard::default();
        heard.add(&[change(1, revoked(0))], &[IssuerChange::Retired(IssuerEpoch(1))], 100);
        heard.miss();
        assert!(!heard.is_empty());
        let [issuer, bulk] = heard.tell(1, 2).try_into().unwrap();
        assert!(matches!(issuer.change, FeedChange::Issuer { change: IssuerEvent::Retired, .. }));
        assert_eq!(bulk, FeedEvent { after: 1, sequence: 2, change: FeedChange::Bulk { count: None } });
    }

    fn names(change: &FeedChange) -> Vec<SerialNumber> {
        match change {
            FeedChange::Revoke { serials, .. }
            | FeedChange::Hold { serials, .. }
            | FeedChange::Release { serials } => serials.clone(),
            other => panic!("{other:?}"),
        }
    }
}
