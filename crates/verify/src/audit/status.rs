//! What the log says about every certificate in the end: issued, revoked, held.

use std::collections::HashMap;
use std::sync::Arc;

use chancery_entry::{HoldTarget, StatusSetPublished};
use chancery_types::{CrlShard, Digest, IssuerEpoch, LineageId, RevocationReason, SerialNumber, Timestamp};

use super::finding::{Check, Finding, Findings};
use super::holds::{self, HeldSpan, HoldEvent};
use super::issuers::Issuer;
use super::sets;

/// One promised certificate: 56 bytes, the largest part of an auditor's memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Issued {
    pub(crate) serial: SerialNumber,
    pub(crate) lineage: LineageId,
    pub(crate) index: u64,
    pub(crate) not_after: Timestamp,
}

/// A revocation, with the last reason that was given for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revoked {
    pub(crate) index: u64,
    pub(crate) since: Timestamp,
    pub(crate) reason: RevocationReason,
    /// When the reason was last given.
    pub(crate) changed: Timestamp,
}

/// Certificates that were tidied away, which had all ended by then.
#[derive(Debug, Clone)]
pub(crate) struct Tidied {
    pub(crate) index: u64,
    pub(crate) ended_before: Timestamp,
    pub(crate) serials: Vec<SerialNumber>,
}

/// A revocation list as its publication recorded it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordedList {
    pub(crate) index: u64,
    pub(crate) number: u64,
    pub(crate) entries: u64,
    pub(crate) hash: Digest,
}

/// What a list is about: an issuer's certificates, all of them or one part.
pub(crate) type Scope = (IssuerEpoch, Option<CrlShard>);

/// How the certificates of an issuer are divided among lists, and what the URLs of these begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) shards: u16,
    pub(crate) base: String,
}

impl Division {
    /// The URL of the list that a certificate is on.
    pub(crate) fn url(&self, serial: SerialNumber) -> String {
        CrlShard::containing(serial, self.shards).url(&self.base, serial.epoch())
    }
}

/// What the history has collected, in the order of the log.
pub(crate) struct Collected {
    pub(crate) issued: Vec<Issued>,
    pub(crate) revoked: HashMap<SerialNumber, Revoked>,
    pub(crate) holds: Vec<HoldEvent>,
    pub(crate) lists: HashMap<Scope, Vec<RecordedList>>,
    pub(crate) divisions: HashMap<IssuerEpoch, Arc<Vec<Division>>>,
    pub(crate) issuers: Vec<Arc<Issuer>>,
    pub(crate) sets: Vec<(u64, StatusSetPublished)>,
    pub(crate) published: Vec<(u64, IssuerEpoch)>,
    pub(crate) tidied: Vec<Tidied>,
}

/// The end of the history.
pub(crate) struct Status {
    /// By serial.
    issued: Vec<Issued>,
    pub(crate) revoked: HashMap<SerialNumber, Revoked>,
    /// Certificates that were held at any time, with the last time.
    pub(crate) held: HashMap<SerialNumber, HeldSpan>,
    pub(crate) lists: HashMap<Scope, Vec<RecordedList>>,
    pub(crate) divisions: HashMap<IssuerEpoch, Arc<Vec<Division>>>,
    pub(crate) issuers: Vec<Arc<Issuer>>,
}

impl Status {
    /// Sorts by serial; reports what is not unique and what was revoked or held without having been issued before.
    pub(crate) fn of(collected: Collected, findings: &mut Findings) -> Self {
        let Collected {
            mut issued,
            revoked,
            holds,
            lists,
            divisions,
            issuers,
            sets: versions,
            published,
            tidied,
        } = collected;
        issued.sort_unstable_by_key(|issued| (issued.serial, issued.index));
        report_repeated(&issued, findings);
        let held = holds::replay(&holds, &issued, &revoked, findings);
        let material =
            sets::Material { issued: &issued, revoked: &revoked, holds: &holds, published: &published };
        sets::check(&versions, &material, findings);
        let status = Self { issued, revoked, held, lists, divisions, issuers };
        for (serial, revoked) in &status.revoked {
            status.report_unissued(*serial, revoked.index, "revoked", findings);
        }
        for event in holds.iter().filter(|event| event.begins) {
            if let HoldTarget::Certificate(serial) = event.target {
                status.report_unissued(serial, event.index, "held", findings);
            }
        }
        tidied.iter().for_each(|tidied| status.report_untimely(tidied, findings));
        status
    }

    /// The certificate of this serial.
    pub(crate) fn issued(&self, serial: SerialNumber) -> Option<&Issued> {
        let at = self.issued.partition_point(|issued| issued.serial < serial);
        self.issued.get(at).filter(|issued| issued.serial == serial)
    }

    /// The certificates of one issuer.
    pub(crate) fn issued_by(&self, epoch: IssuerEpoch) -> &[Issued] {
        // The epoch stands in front of the counter, so an issuer's serials are neighbours.
        let start = self.issued.partition_point(|issued| issued.serial.epoch() < epoch);
        let end = self.issued.partition_point(|issued| issued.serial.epoch() <= epoch);
        &self.issued[start..end]
    }

    fn report_untimely(&self, tidied: &Tidied, findings: &mut Findings) {
        for serial in &tidied.serials {
            let detail = match self.issued(*serial).filter(|issued| issued.index < tidied.index) {
                None => "tidied away, and was not issued before".to_owned(),
                Some(issued) if issued.not_after >= tidied.ended_before => {
                    format!("tidied away before {}, and ended {}", tidied.ended_before, issued.not_after)
                }
                Some(_) => continue,
            };
            findings.push(Finding::new(Check::Tidied, detail).at(tidied.index).of(*serial));
        }
    }

    fn report_unissued(&self, serial: SerialNumber, index: u64, what: &str, findings: &mut Findings) {
        if self.issued(serial).is_none_or(|issued| issued.index > index) {
            let detail = format!("{what}, and was not issued before");
            findings.push(Finding::new(Check::Revocation, detail).at(index).of(serial));
        }
    }
}

fn report_repeated(issued: &[Issued], findings: &mut Findings) {
    for pair in issued.windows(2) {
        let [first, second] = pair else { continue };
        // The counter is dense and used once; the random part behind it makes no difference.
        let place = |issued: &Issued| (issued.serial.epoch(), issued.serial.counter());
        if place(first) == place(second) {
            let (earlier, later) = if first.index < second.index { (first, second) } else { (second, first) };
            let what =
                if first.serial == second.serial { "this serial" } else { "the counter in this serial" };
            let detail = format!("{what} was given to entry {} before", earlier.index);
            findings.push(Finding::new(Check::SerialReuse, detail).at(later.index).of(later.serial));
        }
    }
}
