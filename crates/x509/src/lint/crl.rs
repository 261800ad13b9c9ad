//! Lints over the exact bytes of a revocation list that is about to be signed.

use std::fmt;

use chancery_types::{SignatureAlgorithm, Timestamp};

use super::{Finding, Severity};
use crate::calendar::TimeForm;
use crate::crl::{RevokedCertificate, TbsCrlView, compare_serials};
use crate::{Certificate, KeyUsage, TbsView, oid};

/// One rule for revocation lists.
pub struct CrlLint {
    /// Its name in reports: `source_rule`, never reused.
    pub id: &'static str,
    /// Where the rule stands.
    pub source: &'static str,
    /// What breaking it means.
    pub severity: Severity,
    check: fn(&Examined<'_>) -> Check,
}

impl fmt::Debug for CrlLint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.id)
    }
}

/// What a list is held against.
#[derive(Debug, Clone, Copy)]
pub struct CrlLintContext<'a> {
    /// The certificate of the key that will sign it.
    pub issuer: &'a Certificate,
    /// The moment of signing.
    pub now: Timestamp,
    /// The number of the list before, if there was one.
    pub previous_number: Option<u64>,
    /// The URLs that the list is for, byte for byte; empty for the complete list.
    pub distribution_points: &'a [String],
}

pub(crate) struct Examined<'a> {
    list: TbsCrlView<'a>,
    issuer: TbsView<'a>,
    context: &'a CrlLintContext<'a>,
    entries: EntryFaults,
}

/// What is wrong with the entries, the first fault of each kind, found in one walk over all of them.
#[derive(Default)]
struct EntryFaults {
    time_form: Check,
    order: Check,
    serial: Check,
    reason: Check,
    future: Check,
}

impl EntryFaults {
    fn find(list: &TbsCrlView<'_>, now: Timestamp) -> Self {
        let mut faults = Self::default();
        let mut previous: &[u8] = &[];
        for entry in list.raw_entries() {
            let RevokedCertificate { serial, revoked_at, .. } = entry.revoked;
            if compare_serials(previous, serial).is_ge() {
                faults.order.get_or_insert_with(|| format!("{serial:02x?} stands after {previous:02x?}"));
            }
            previous = serial;
            if TimeForm::required_for(revoked_at) != entry.time_form {
                faults.time_form.get_or_insert_with(|| misform(revoked_at, entry.time_form));
            }
            let is_positive = serial.first().is_some_and(|byte| byte & 0x80 == 0) && serial != [0];
            if !is_positive || serial.len() > 20 {
                faults.serial.get_or_insert_with(|| format!("serial {serial:02x?}"));
            }
            // 0 is left out, 7 is unused, 8 is for deltas, 10 means nothing here.
            if let Some(code) = entry.reason_code.filter(|code| !matches!(code, 1..=6 | 9)) {
                faults.reason.get_or_insert_with(|| format!("reason code {code}"));
            }
            if revoked_at > now {
                faults.future.get_or_insert_with(|| format!("{serial:02x?} revoked at {revoked_at}"));
            }
        }
        faults
    }
}

fn misform(moment: Timestamp, form: TimeForm) -> String {
    format!("{moment} is written as {form:?}")
}

type Check = Option<String>;

/// Every lint for revocation lists.
pub const CRL_LINTS: &[CrlLint] = &[
    error("crl_structure", "X.690 10, RFC 5280 5.1", |_| None),
    error("crl_version_2", "RFC 5280 5.1.2.1", version_2),
    error("crl_signature_fits_issuer_key", "RFC 5280 5.1.1.2", signature_algorithm),
    error("crl_issuer_is_subject_of_issuer", "RFC 5280 5.1.2.3", issuer_name),
    error("crl_issuer_may_sign", "RFC 5280 4.2.1.3, RFC 10007", issuer_may_sign),
    error("crl_time_form", "RFC 5280 5.1.2.4, 5.1.2.6", time_form),
    error("crl_this_update_not_in_the_future", "RFC 5280 5.1.2.4", this_update),
    error("crl_next_update", "RFC 5280 5.1.2.5", next_update),
    error("crl_no_empty_list", "RFC 5280 5.1.2.6", no_empty_list),
    error("crl_sorted_without_repetition", "own: diffs and binary search rely on it", |found| {
        found.entries.order.clone()
    }),
    error("crl_serials_positive", "RFC 5280 4.1.2.2", |found| found.entries.serial.clone()),
    error("crl_reason_omitted_or_known", "RFC 5280 5.3.1, CA/B BR 7.2.2.1", |found| {
        found.entries.reason.clone()
    }),
    error("crl_not_revoked_in_the_future", "own", |found| found.entries.future.clone()),
    error("crl_aki_is_ski_of_issuer", "RFC 5280 5.2.1", aki),
    error("crl_number", "RFC 5280 5.2.3", number),
    error("crl_number_increases", "RFC 5280 5.2.3", number_increases),
    error("crl_distribution_point", "RFC 5280 5.2.5", distribution_point),
    error("crl_extension_set", "own", extension_set),
];

const fn error(
    id: &'static str,
    source: &'static str,
    check: fn(&Examined<'_>) -> Option<String>,
) -> CrlLint {
    CrlLint { id, source, severity: Severity::Error, check }
}

/// Runs every lint over a TBSCertList; an empty answer means that it may be signed.
#[must_use]
pub fn check_crl(tbs_der: &[u8], context: &CrlLintContext<'_>) -> Vec<Finding> {
    let finding = |lint: &CrlLint, detail: String| Finding {
        id: lint.id,
        source: lint.source,
        severity: lint.severity,
        detail,
    };
    let list = match TbsCrlView::from_der(tbs_der) {
        Ok(list) => list,
        Err(error) => return vec![finding(&CRL_LINTS[0], error.to_string())],
    };
    let entries = EntryFaults::find(&list, context.now);
    let examined = Examined { list, issuer: context.issuer.tbs(), context, entries };
    let broken = |lint: &'static CrlLint| (lint.check)(&examined).map(|detail| finding(lint, detail));
    CRL_LINTS.iter().filter_map(broken).collect()
}

fn version_2(examined: &Examined<'_>) -> Check {
    let version = examined.list.version + 1;
    (version != 2).then(|| format!("version {version}"))
}

fn signature_algorithm(examined: &Examined<'_>) -> Check {
    let key = crate::PublicKey::from_spki_der(examined.issuer.spki_der()).ok();
    let expected = key.map(|key| key.algorithm().signature_algorithm());
    let found = SignatureAlgorithm::from_algorithm_identifier(examined.list.algorithm);
    (found.is_none() || found != expected).then(|| "not what the issuer's key signs with".to_owned())
}

fn issuer_name(examined: &Examined<'_>) -> Check {
    (examined.list.issuer != examined.issuer.subject_der())
        .then(|| format!("not {:?}", examined.issuer.subject_text()))
}

fn issuer_may_sign(examined: &Examined<'_>) -> Check {
    let may_sign = examined.issuer.key_usages().is_some_and(|usages| usages.contains(KeyUsage::CrlSign));
    (!may_sign).then(|| "the issuer has no cRLSign".to_owned())
}

fn time_form(examined: &Examined<'_>) -> Check {
    let list = &examined.list;
    let mut times = [list.this_update].into_iter().chain(list.next_update);
    times
        .find(|(moment, form)| TimeForm::required_for(*moment) != *form)
        .map(|(moment, form)| misform(moment, form))
        .or_else(|| examined.entries.time_form.clone())
}

fn this_update(examined: &Examined<'_>) -> Check {
    let (moment, _) = examined.list.this_update;
    (moment > examined.context.now)
        .then(|| format!("thisUpdate {moment} is later than {}", examined.context.now))
}

fn next_update(examined: &Examined<'_>) -> Check {
    let (this, _) = examined.list.this_update;
    match examined.list.next_update {
        None => Some("no nextUpdate".to_owned()),
        Some((next, _)) => (next <= this.max(examined.context.now))
            .then(|| format!("nextUpdate {next} is not after thisUpdate and now")),
    }
}

fn no_empty_list(examined: &Examined<'_>) -> Check {
    examined
        .list
        .entries
        .is_some_and(<[u8]>::is_empty)
        .then(|| "revokedCertificates without an entry".to_owned())
}

fn aki(examined: &Examined<'_>) -> Check {
    let (found, expected) = (examined.list.authority_key_id(), examined.issuer.subject_key_id());
    (found.is_none() || found != expected)
        .then(|| format!("{found:02x?} is not the subjectKeyIdentifier of the issuer, {expected:02x?}"))
}

fn number(examined: &Examined<'_>) -> Check {
    match examined.list.number() {
        None => Some("no cRLNumber".to_owned()),
        Some(digits) => (digits.len() > 20 || digits[0] & 0x80 != 0).then(|| format!("{digits:02x?}")),
    }
}

fn number_increases(examined: &Examined<'_>) -> Check {
    let previous = examined.context.previous_number?.to_be_bytes();
    let found = examined.list.number()?;
    let digits = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
    let (found, previous) = (digits(found), digits(&previous));
    compare_serials(&found, &previous)
        .is_le()
        .then(|| format!("{found:02x?} does not follow {previous:02x?}"))
}

fn distribution_point(examined: &Examined<'_>) -> Check {
    let found: Vec<&str> = examined.list.distribution_points().collect();
    let expected = examined.context.distribution_points;
    let extension = examined.list.extension(oid::ISSUING_DISTRIBUTION_POINT);
    let is_critical = extension.is_none_or(|extension| extension.critical);
    let is_there = extension.is_some() != expected.is_empty();
    (found != expected || !is_critical || !is_there)
        .then(|| format!("{found:?}, critical: {is_critical}, instead of {expected:?}"))
}

fn extension_set(examined: &Examined<'_>) -> Check {
    let mut seen: Vec<&[u8]> = Vec::new();
    for extension in examined.list.extensions() {
        let name = oid::dotted(extension.oid);
        let expects_critical = match extension.oid {
            oid::AUTHORITY_KEY_ID | oid::CRL_NUMBER => false,
            oid::ISSUING_DISTRIBUTION_POINT => extension.critical,
            _ => return Some(format!("unknown extension {name}")),
        };
        if extension.critical != expects_critical || seen.contains(&extension.oid) {
            return Some(format!("extension {name} is critical or stands there twice"));
        }
        seen.push(extension.oid);
    }
    None
}
