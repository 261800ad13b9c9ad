//! What the log says of certificates, fact by fact, as far back as there is room for.

use std::collections::VecDeque;

use chancery_entry::{Body, Entry};
use chancery_ledger::{CertificateState, Ledger, ModelError};
use chancery_revoke::serials;
use chancery_types::{RevocationReason, SerialNumber, Timestamp};

/// Facts that are kept: a stream that is further behind has to begin anew. 5 MiB.
const MOST: usize = 100_000;

/// What happened to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// For good.
    Revoked(RevocationReason),
    /// For now.
    Held,
    /// It is good again.
    Released,
}

/// Whose doing it was, in the words of CAEP (section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Initiator {
    /// An operator.
    Admin,
    /// The holder of the key.
    User,
    /// A rule of the authority.
    Policy,
}

impl Initiator {
    fn of(by: &str) -> Self {
        if by.starts_with("key-holder:") { Self::User } else { Self::Admin }
    }

    /// As CAEP writes it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Policy => "policy",
        }
    }
}

/// One thing that happened to one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact {
    /// The size of the log with its entry.
    pub(super) position: u64,
    /// Which certificate.
    pub(super) serial: SerialNumber,
    /// What.
    pub(super) what: What,
    /// By whom.
    pub(super) by: Initiator,
    /// When.
    pub(super) at: Timestamp,
}

impl Fact {
    /// The facts of an entry. A release is one only of certificates that are good by now: what is held or revoked for
    /// another reason has its own entry.
    pub(super) async fn of(ledger: &dyn Ledger, index: u64, entry: &Entry) -> Result<Vec<Self>, ModelError> {
        let (what, by) = match &entry.body {
            Body::Revocation(revocation) => (What::Revoked(revocation.reason), Initiator::of(&revocation.by)),
            Body::Hold(hold) if hold.cause == "lineage-fork" => (What::Held, Initiator::Policy),
            Body::Hold(hold) => (What::Held, Initiator::of(&hold.by)),
            Body::Release(release) => (What::Released, Initiator::of(&release.by)),
            _ => return Ok(Vec::new()),
        };
        let mut facts = Vec::new();
        for serial in serials(ledger, entry).await? {
            if what == What::Released {
                let record = ledger.certificate(serial).await?;
                if record.is_none_or(|record| record.state != CertificateState::Good) {
                    continue;
                }
            }
            facts.push(Self { position: index + 1, serial, what, by, at: entry.time });
        }
        Ok(facts)
    }
}

/// Facts in the order of the log.
#[derive(Debug)]
pub(super) struct Facts {
    facts: VecDeque<Fact>,
    most: usize,
    /// Everything after this position is in `facts`.
    floor: u64,
    /// Up to this one.
    head: u64,
}

impl Facts {
    /// Nothing is known before this position.
    pub(super) fn from(position: u64) -> Self {
        Self { facts: VecDeque::new(), most: MOST, floor: position, head: position }
    }

    /// Takes in what happened up to a position.
    pub(super) fn add(&mut self, facts: Vec<Fact>, position: u64) {
        self.facts.extend(facts);
        self.head = self.head.max(position);
        while self.facts.len() > self.most
            && let Some(oldest) = self.facts.pop_front()
        {
            self.floor = oldest.position;
        }
    }

    /// How far the log was read.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Whether everything after this position is known.
    pub(super) fn covers(&self, position: u64) -> bool {
        position >= self.floor
    }

    /// What happened after this position.
    pub(super) fn after(&self, position: u64) -> impl Iterator<Item = &Fact> {
        let start = self.facts.partition_point(|fact| fact.position <= position);
        self.facts.range(start..)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use chancery_types::IssuerEpoch;

    use super::*;

    pub(in crate::ssf) fn fact(position: u64, counter: u64) -> Fact {
        let serial = SerialNumber::compose(IssuerEpoch(1), counter, [7; 8]).unwrap();
        let at = Timestamp::from_seconds(1_700_000_000);
        Fact { position, serial, what: What::Held, by: Initiator::Admin, at }
    }

    #[test]
    fn forgets_the_oldest_and_knows_that_it_did() {
        let mut facts = Facts { most: 2, ..Facts::from(4) };
        facts.add(vec![fact(6, 1), fact(6, 2)], 6);
        facts.add(Vec::new(), 9);
        assert!(facts.covers(4) && facts.head() == 9);
        assert_eq!(facts.after(5).count(), 2);
        facts.add(vec![fact(10, 3)], 10);
        assert!(!facts.covers(5), "one of two facts is gone");
        assert!(facts.covers(6));
        assert_eq!(facts.after(6).count(), 1);
    }

    #[test]
    fn a_key_holder_is_a_user_and_everybody_else_an_operator() {
        assert_eq!(Initiator::of("key-holder:00ff").as_str(), "user");
        assert_eq!(Initiator::of("spiffe://example.org/operator/ada").as_str(), "admin");
        assert_eq!(Initiator::of("uid:0").as_str(), "admin");
    }
}
