//! Revocation lists against the log, in both directions.
//!
//! The lists are read with another DER implementation than the one that wrote them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chancery_types::{CrlShard, Digest, RevocationReason, SerialNumber, Timestamp};
use data_encoding::BASE64;
use der::asn1::BitStringRef;
use der::{Decode, Encode, Reader, SliceReader};
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::ext::pkix::crl::dp::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{CrlNumber, CrlReason};

use super::finding::{Check, Finding, Findings};
use super::issuers::Issuer;
use super::status::{Issued, RecordedList, Scope, Status};

/// A list, taken apart.
struct List {
    /// The URLs that it is for; none: it is for all certificates of its issuer.
    urls: Vec<String>,
    hash: Digest,
    number: Option<u64>,
    this_update: Timestamp,
    lines: Vec<Line>,
}

/// One certificate on a list.
struct Line {
    serial: SerialNumber,
    date: Timestamp,
    reason: RevocationReason,
}

/// Checks the lists that came with the export.
pub(crate) fn check(lists: &[String], status: &Status, findings: &mut Findings) {
    let mut covered = Vec::new();
    for (position, text) in lists.iter().enumerate() {
        let list = read(text, status).and_then(|(issuer, list)| {
            let scope = scope(&issuer, &list, status)?;
            Ok((issuer, list, scope))
        });
        match list {
            Ok((issuer, list, scope)) => {
                covered.push(scope);
                ListCheck { issuer: &issuer, scope, list: &list, status, findings }.run();
            }
            Err(detail) => {
                let detail = format!("revocation list {position} of the header: {detail}");
                findings.push(Finding::new(Check::CrlSignature, detail));
            }
        }
    }
    report_absent(&covered, status, findings);
}

/// The full list of each issuer that ever had one, and the lists of every part.
fn report_absent(covered: &[Scope], status: &Status, findings: &mut Findings) {
    for issuer in &status.issuers {
        let epoch = issuer.epoch;
        let full = Some((epoch, None)).filter(|full| status.lists.contains_key(full));
        let divisions = status.divisions.get(&epoch).map_or(&[][..], |divisions| divisions);
        let parts = divisions.iter().flat_map(|division| CrlShard::all(division.shards));
        let wanted: BTreeSet<Scope> = full.into_iter().chain(parts.map(|part| (epoch, Some(part)))).collect();
        let absent = wanted.iter().filter(|scope| !covered.contains(scope)).count();
        if absent > 0 {
            let detail = format!(
                "{absent} of {} revocation lists of issuer {epoch} did not come with the export",
                wanted.len()
            );
            findings.push(Finding::new(Check::CrlAbsent, detail));
        }
    }
}

/// Which certificates a list is about. One that is for certain URLs is about the part that they all name.
fn scope(issuer: &Issuer, list: &List, status: &Status) -> Result<Scope, String> {
    let epoch = issuer.epoch;
    let Some(first) = list.urls.first() else { return Ok((epoch, None)) };
    let divisions = status.divisions.get(&epoch).map_or(&[][..], |divisions| divisions);
    let part_of = |url: &str| {
        let parts = divisions.iter().flat_map(|division| {
            CrlShard::all(division.shards).map(move |shard| (shard, shard.url(&division.base, epoch)))
        });
        parts.into_iter().find(|(_, known)| known == url).map(|(shard, _)| shard)
    };
    let part = part_of(first).ok_or_else(|| format!("no certificate of issuer {epoch} names {first}"))?;
    match list.urls.iter().find(|url| part_of(url) != Some(part)) {
        Some(other) => Err(format!("it is for {first} and for {other}, which are different parts")),
        None => Ok((epoch, Some(part))),
    }
}

/// Reads a list and finds the issuer whose signature it carries.
fn read(text: &str, status: &Status) -> Result<(Arc<Issuer>, List), String> {
    let der = BASE64.decode(text.as_bytes()).map_err(|error| format!("not base64: {error}"))?;
    let unreadable = |error: der::Error| format!("not a revocation list: {error}");
    let (tbs, algorithm, signature) = split(&der).map_err(unreadable)?;
    let contents = TbsCertList::<x509_cert::certificate::Rfc5280>::from_der(tbs).map_err(unreadable)?;
    let inner_algorithm = contents.signature.to_der().map_err(unreadable)?;
    if inner_algorithm != algorithm {
        return Err("the signed and the unsigned signature algorithm differ".to_owned());
    }
    let name = contents.issuer.to_der().map_err(unreadable)?;
    // Several issuers have the same name after a rotation; the signature tells them apart.
    let mut named =
        status.issuers.iter().filter(|issuer| issuer.certificate.tbs().subject_der() == name).peekable();
    if named.peek().is_none() {
        return Err(format!("its issuer {:?} is none of the log's", contents.issuer.to_string()));
    }
    let mut refusal = String::new();
    for issuer in named {
        match issuer.refuses(algorithm, tbs, signature) {
            None => return List::read(&der, contents).map(|list| (Arc::clone(issuer), list)),
            Some(why) => refusal = why,
        }
    }
    Err(format!("not signed by the issuer that it names: {refusal}"))
}

/// The exact bytes of what is signed and of the algorithm, and the signature.
fn split(der: &[u8]) -> der::Result<(&[u8], &[u8], &[u8])> {
    let mut reader = SliceReader::new(der)?;
    let parts = reader.sequence(|fields| {
        let tbs = fields.tlv_bytes()?;
        let algorithm = fields.tlv_bytes()?;
        let signature = BitStringRef::decode(fields)?;
        let whole = signature.as_bytes().ok_or(der::ErrorKind::Noncanonical { tag: der::Tag::BitString })?;
        Ok::<_, der::Error>((tbs, algorithm, whole))
    })?;
    reader.finish()?;
    Ok(parts)
}

impl List {
    fn read(der: &[u8], contents: TbsCertList) -> Result<Self, String> {
        let extensions = contents.crl_extensions.unwrap_or_default();
        let number =
            extensions.iter().find(|extension| extension.extn_id == const_oid::db::rfc5280::ID_CE_CRL_NUMBER);
        let number = number.and_then(|number| CrlNumber::from_der(number.extn_value.as_bytes()).ok());
        let number = number.and_then(|number| {
            let bytes = number.0.as_bytes();
            let mut padded = [0_u8; 8];
            padded.get_mut(8_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
            Some(u64::from_be_bytes(padded))
        });
        let point = extensions
            .iter()
            .find(|extension| extension.extn_id == const_oid::db::rfc5280::ID_CE_ISSUING_DISTRIBUTION_POINT);
        let urls = point.map_or(Ok(Vec::new()), |point| urls(point.extn_value.as_bytes()))?;
        let lines = contents.revoked_certificates.unwrap_or_default();
        let lines = lines.iter().map(Line::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { urls, hash: Digest::of(der), number, this_update: moment(contents.this_update), lines })
    }
}

/// The URLs in issuingDistributionPoint, which must say nothing else.
fn urls(point: &[u8]) -> Result<Vec<String>, String> {
    let unreadable = |error: der::Error| format!("its issuingDistributionPoint is unreadable: {error}");
    let point = IssuingDistributionPoint::from_der(point).map_err(unreadable)?;
    let is_partial = point.only_contains_user_certs
        || point.only_contains_ca_certs
        || point.only_some_reasons.is_some()
        || point.indirect_crl
        || point.only_contains_attribute_certs;
    let Some(DistributionPointName::FullName(names)) = point.distribution_point.filter(|_| !is_partial)
    else {
        return Err("its issuingDistributionPoint is none of this authority's".to_owned());
    };
    let url = |name: &GeneralName| match name {
        GeneralName::UniformResourceIdentifier(url) => Ok(url.to_string()),
        _ => Err("its issuingDistributionPoint has a name that is no URL".to_owned()),
    };
    names.iter().map(url).collect()
}

impl Line {
    fn read(line: &RevokedCert) -> Result<Self, String> {
        let serial = SerialNumber::from_bytes(line.serial_number.as_bytes())
            .map_err(|error| format!("a serial on it is none of this authority's: {error}"))?;
        let extensions = line.crl_entry_extensions.as_deref().unwrap_or_default();
        let reason = extensions
            .iter()
            .find(|extension| extension.extn_id == const_oid::db::rfc5280::ID_CE_CRL_REASONS);
        let reason = match reason {
            None => RevocationReason::Unspecified,
            Some(reason) => CrlReason::from_der(reason.extn_value.as_bytes())
                .ok()
                .and_then(|reason| RevocationReason::from_code(reason as u8).ok())
                .ok_or_else(|| format!("the reason for {serial} is unreadable"))?,
        };
        Ok(Self { serial, date: moment(line.revocation_date), reason })
    }
}

fn moment(time: x509_cert::time::Time) -> Timestamp {
    Timestamp::from_seconds(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

struct ListCheck<'a> {
    issuer: &'a Issuer,
    scope: Scope,
    list: &'a List,
    status: &'a Status,
    findings: &'a mut Findings,
}

impl ListCheck<'_> {
    fn run(mut self) {
        self.compare_with_record();
        let lines: HashMap<SerialNumber, &Line> =
            self.list.lines.iter().map(|line| (line.serial, line)).collect();
        if lines.len() != self.list.lines.len() {
            let detail = format!("the list of issuer {} has a certificate twice", self.issuer.epoch);
            self.report(Finding::new(Check::CrlMismatch, detail));
        }
        for line in &self.list.lines {
            self.check_line(line);
        }
        for issued in self.status.issued_by(self.issuer.epoch) {
            if self.covers(issued.serial) && !lines.contains_key(&issued.serial) {
                self.check_absence(issued);
            }
        }
    }

    /// The list must be one that the log has recorded, by its hash.
    fn compare_with_record(&mut self) {
        let epoch = self.issuer.epoch;
        let recorded: &[RecordedList] = self.status.lists.get(&self.scope).map_or(&[], Vec::as_slice);
        let Some(record) = recorded.iter().find(|record| record.hash == self.list.hash) else {
            let newest = recorded.last().map(|last| last.number);
            // Published after the checkpoint: the log will say so later.
            let lags = self.list.number > newest;
            let check = if lags { Check::CrlLag } else { Check::CrlRecord };
            let detail = format!(
                "the list of issuer {epoch} with number {:?} is not recorded in the log, which knows lists up to {newest:?}",
                self.list.number
            );
            self.report(Finding::new(check, detail));
            return;
        };
        let (number, entries) = (self.list.number, self.list.lines.len() as u64);
        if number != Some(record.number) || entries != record.entries {
            let detail = format!(
                "the list of issuer {epoch} has number {number:?} and {entries} lines, recorded are {} and {}",
                record.number, record.entries
            );
            self.report(Finding::new(Check::CrlRecord, detail).at(record.index));
        }
        if recorded.last().is_some_and(|last| last.number > record.number) {
            let detail = format!("the list of issuer {epoch} is not the newest that the log records");
            self.report(Finding::new(Check::CrlLag, detail).at(record.index));
        }
    }

    fn covers(&self, serial: SerialNumber) -> bool {
        self.scope.1.is_none_or(|part| part.contains(serial))
    }

    fn check_line(&mut self, line: &Line) {
        if !self.covers(line.serial) {
            self.about(
                line.serial,
                None,
                Check::CrlExtra,
                "on the list of a part that it is not of".to_owned(),
            );
        }
        let Some(issued) = self.status.issued(line.serial) else {
            self.about(line.serial, None, Check::CrlExtra, "on the list, and was never issued".to_owned());
            return;
        };
        if let Some(revoked) = self.status.revoked.get(&line.serial) {
            let index = Some(revoked.index);
            if revoked.since.seconds() != line.date.seconds()
                && line.reason != RevocationReason::CertificateHold
            {
                let detail = format!("revoked on {} by the list, on {} by the log", line.date, revoked.since);
                self.about(line.serial, index, Check::CrlMismatch, detail);
            }
            if revoked.reason != line.reason {
                let check = self.unless_later(revoked.changed, Check::CrlMismatch);
                let detail = format!("reason {} on the list, {} in the log", line.reason, revoked.reason);
                self.about(line.serial, index, check, detail);
            }
            return;
        }
        match self.status.held.get(&issued.serial).copied() {
            None => self.about(
                line.serial,
                Some(issued.index),
                Check::CrlExtra,
                "on the list, and never revoked".to_owned(),
            ),
            Some(hold) => {
                if let Some(until) = hold.until {
                    let check = self.unless_later(until, Check::CrlExtra);
                    self.about(
                        line.serial,
                        Some(hold.index),
                        check,
                        format!("on the list, and released on {until}"),
                    );
                }
                if line.reason != RevocationReason::CertificateHold {
                    let detail = format!("reason {} on the list, and only held in the log", line.reason);
                    self.about(line.serial, Some(hold.index), Check::CrlMismatch, detail);
                }
            }
        }
    }

    /// A certificate that is not on the list must be good, or have expired before it was made.
    fn check_absence(&mut self, issued: &Issued) {
        if issued.not_after < self.list.this_update {
            return;
        }
        let (index, since, what) = match self.status.revoked.get(&issued.serial) {
            Some(revoked) => (revoked.index, revoked.since, "revoked"),
            None => match self.status.held.get(&issued.serial).copied() {
                Some(hold) if hold.until.is_none() => (hold.index, hold.since, "held"),
                _ => return,
            },
        };
        let check = self.unless_later(since, Check::CrlMissing);
        let detail = format!("{what} on {since}, and not on the list of {}", self.list.this_update);
        self.about(issued.serial, Some(index), check, detail);
    }

    /// What changed while or after the list was made need not be on it.
    fn unless_later(&self, changed: Timestamp, check: Check) -> Check {
        let settled = changed.millis().saturating_add(LAG_MS) < self.list.this_update.millis();
        if settled { check } else { Check::CrlLag }
    }

    fn about(&mut self, serial: SerialNumber, index: Option<u64>, check: Check, detail: String) {
        let finding = Finding::new(check, detail).of(serial);
        self.report(Finding { index, ..finding });
    }

    fn report(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// How long before a list's thisUpdate a change may have been proposed and yet not be on it: one minute, sixty
/// times what publishing should take.
const LAG_MS: i64 = 60 * 1000;
