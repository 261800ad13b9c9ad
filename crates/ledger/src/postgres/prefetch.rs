//! What a batch will read, as far as it can be told beforehand.
//!
//! An optimisation and nothing else: what is not found here is read when it is asked for, in a round trip of its own.

use std::collections::BTreeSet;

use chancery_entry::{Body, HoldTarget};
use chancery_types::LineageId;

use crate::model::change::change_number;
use crate::model::query::crl_key;
use crate::model::{Table, prefix_end};
use crate::proposal::{Precondition, Proposal};

/// Keys and ranges, each once.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pub(super) keys: BTreeSet<Vec<u8>>,
    pub(super) ranges: BTreeSet<(Vec<u8>, Vec<u8>)>,
}

impl Reads {
    pub(super) fn of<'a>(proposals: impl Iterator<Item = &'a Proposal>) -> Self {
        let mut reads = Self::default();
        for proposal in proposals {
            proposal.requires.iter().for_each(|precondition| reads.check(precondition));
            proposal.entries.iter().for_each(|proposed| reads.apply(&proposed.entry.body));
        }
        reads
    }

    fn key(&mut self, table: Table, key: &[u8]) {
        self.keys.insert(table.key(&[key]));
    }

    fn check(&mut self, precondition: &Precondition) {
        match precondition {
            Precondition::SerialUnused(serial)
            | Precondition::InForce(serial)
            | Precondition::Revocable { serial, .. } => {
                self.key(Table::Certificate, serial.as_bytes());
            }
            Precondition::TokenUsable { token, .. } | Precondition::TokenOpen(token) => {
                self.key(Table::Token, token.as_bytes());
            }
            Precondition::LineageUnused(lineage) | Precondition::LineageAt { lineage, .. } => {
                self.key(Table::Lineage, lineage.as_bytes());
            }
            Precondition::IdentityActive(id)
            | Precondition::IdentityRegistered(id)
            | Precondition::IdentityHeld(id)
            | Precondition::IdentityUnused(id) => self.key(Table::Identity, id.as_str().as_bytes()),
            Precondition::IssuerActive(epoch)
            | Precondition::IssuerUnused(epoch)
            | Precondition::IssuerAt { epoch, .. } => {
                self.key(Table::Issuer, &epoch.0.to_be_bytes());
            }
            Precondition::KeyAt { purpose, key, .. } => {
                self.keys.insert(Table::Key.key(&[&[*purpose as u8], key.as_bytes()]));
            }
            Precondition::Holdable(target) | Precondition::Releasable(target) => self.target(target),
            Precondition::IdempotencyUnused(hash) => self.key(Table::Idempotency, hash.as_bytes()),
            Precondition::ChangeAt { change, .. } => self.key(Table::Change, &change.to_be_bytes()),
            Precondition::CrlFollows { epoch, shard, .. } => {
                // The key begins with the table's byte, which is put in front again.
                self.key(Table::Crl, &crl_key(*epoch, *shard)[1..]);
            }
            Precondition::StatusSetFollows { .. } => self.key(Table::StatusSet, &[]),
            Precondition::TemplateExists(_) | Precondition::Empty => {}
        }
    }

    fn apply(&mut self, body: &Body) {
        match body {
            Body::Issuance(issuance) if issuance.generation.0 > 0 => {
                self.key(Table::Lineage, issuance.lineage.as_bytes());
                self.earlier(issuance.lineage);
            }
            Body::Revocation(revocation) => {
                self.key(Table::Certificate, revocation.serial.as_bytes());
                self.counted(&revocation.by);
            }
            Body::Hold(hold) => {
                self.target(&hold.target);
                self.counted(&hold.by);
            }
            Body::ChangeStepped(step) => self.key(Table::Change, &step.change.to_be_bytes()),
            Body::Tidied(tidy) => {
                tidy.serials.iter().for_each(|serial| self.key(Table::Certificate, serial.as_bytes()))
            }
            Body::Release(release) => self.target(&release.target),
            Body::TokenCreated(created) => self.key(Table::Token, created.token.as_bytes()),
            Body::TokenSpent(spend) => self.key(Table::Token, spend.token.as_bytes()),
            _ => {}
        }
    }

    /// What a change does is counted, and what anybody else takes out of force.
    fn counted(&mut self, by: &str) {
        match change_number(by) {
            Some(change) => self.key(Table::ChangeCount, &change.to_be_bytes()),
            None => self.key(Table::Taken, by.as_bytes()),
        }
    }

    fn target(&mut self, target: &HoldTarget) {
        match target {
            HoldTarget::Certificate(serial) => self.key(Table::Certificate, serial.as_bytes()),
            HoldTarget::Lineage(lineage) => self.key(Table::Lineage, lineage.as_bytes()),
        }
    }

    /// A lineage's oldest certificates, of which a renewal forgets the expired.
    fn earlier(&mut self, lineage: LineageId) {
        let prefix = Table::Lineage.key(&[lineage.as_bytes()]);
        let end = prefix_end(&prefix);
        let mut first = prefix;
        first.push(0);
        self.ranges.insert((first, end));
    }
}
