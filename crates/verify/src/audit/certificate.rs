//! One promised certificate: does its TBSCertificate say what the entry says, may it, and who signed it.
//!
//! Pure and independent of every other entry, so that it runs on all processors at once.

use std::sync::Arc;

use chancery_entry::Issuance;
use chancery_types::{Digest, Timestamp, TrustDomain};
use chancery_x509::lint::{self, LintContext};
use chancery_x509::{DistinguishedName, Profile, StatusUrls, TbsView};

use super::finding::{Check, Finding};
use super::issuers::Issuer;
use super::status::Division;

/// Everything that is needed to judge one issuance.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) index: u64,
    /// When it was promised.
    pub(crate) time: Timestamp,
    pub(crate) trust_domain: Option<TrustDomain>,
    pub(crate) issuance: Box<Issuance>,
    /// The issuer of its epoch, if one was activated before.
    pub(crate) issuer: Option<Arc<Issuer>>,
    /// The profile that its hash names, if it was in force before.
    pub(crate) profile: Option<Arc<RecordedProfile>>,
    pub(crate) signature: Option<Vec<u8>>,
    /// How the issuer's certificates were divided among lists up to here, if that was on record.
    pub(crate) divisions: Option<Arc<Vec<Division>>>,
}

/// A profile as the log records it.
#[derive(Debug)]
pub(crate) struct RecordedProfile {
    pub(crate) name: String,
    /// Nothing when its text cannot be read; certificates under it are then not linted.
    pub(crate) profile: Option<Profile>,
}

impl RecordedProfile {
    /// Reads a profile's text.
    pub(crate) fn read(
        name: &str,
        text: &str,
        trust_domain: Option<&TrustDomain>,
    ) -> (Self, Option<Finding>) {
        let (profile, finding) = match trust_domain.map(|domain| Profile::from_toml(text, domain)) {
            Some(Ok(profile)) => (Some(profile), None),
            Some(Err(error)) => {
                let detail = format!("profile {name}: {error}");
                (None, Some(Finding::new(Check::ProfileText, detail)))
            }
            // Without a genesis entry, which is found already.
            None => (None, None),
        };
        (Self { name: name.to_owned(), profile }, finding)
    }
}

/// All that is wrong with it.
pub(crate) fn check(job: &Job) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |check: Check, detail: String| {
        findings.push(Finding::new(check, detail).at(job.index).of(job.issuance.serial));
    };
    let tbs = match TbsView::from_der(&job.issuance.tbs.0) {
        Ok(tbs) => tbs,
        Err(error) => {
            report(Check::Tbs, format!("field tbs: {error}"));
            return findings;
        }
    };
    compare_with_entry(&tbs, &job.issuance, &mut report);
    if let Some(issuer) = &job.issuer {
        compare_with_issuer(&tbs, issuer, &mut report);
    }
    check_list(&tbs, job, &mut report);
    lint(&tbs, job, &mut report);
    check_signature(&tbs, job, &mut report);
    findings
}

fn compare_with_entry(tbs: &TbsView<'_>, issuance: &Issuance, report: &mut impl FnMut(Check, String)) {
    let mut unequal = |field: &str, entry: String, certificate: String| {
        let detail = format!("field {field}: the entry says {entry}, its TBS {certificate}");
        report(Check::TbsMismatch, detail);
    };
    if tbs.serial() != issuance.serial.as_bytes() {
        unequal("serial", issuance.serial.to_string(), data_encoding::HEXLOWER.encode(tbs.serial()));
    }
    // A certificate has whole seconds.
    for (field, entry, certificate) in [
        ("not_before", issuance.not_before, tbs.not_before()),
        ("not_after", issuance.not_after, tbs.not_after()),
    ] {
        if entry.seconds() != certificate.seconds() {
            unequal(field, entry.to_string(), certificate.to_string());
        }
    }
    let key = Digest::of(tbs.spki_der());
    if key != issuance.key {
        unequal("key", issuance.key.to_string(), key.to_string());
    }
    if let Some(identity) = tbs.spiffe_id().filter(|identity| *identity != issuance.identity) {
        unequal("identity", issuance.identity.to_string(), identity.to_string());
    }
}

fn compare_with_issuer(tbs: &TbsView<'_>, issuer: &Issuer, report: &mut impl FnMut(Check, String)) {
    let issuer_tbs = issuer.certificate.tbs();
    let mut mismatch = |detail: String| report(Check::TbsMismatch, detail);
    if tbs.issuer_der() != issuer_tbs.subject_der() {
        let (found, expected) = (tbs.issuer_text(), issuer_tbs.subject_text());
        mismatch(format!("field tbs: its issuer is {found:?}, issuer {} is {expected:?}", issuer.epoch));
    }
    if let (Some(found), Some(expected)) = (tbs.authority_key_id(), issuer_tbs.subject_key_id())
        && found != expected
    {
        mismatch(format!("field tbs: its authorityKeyIdentifier is not issuer {}'s key", issuer.epoch));
    }
    if tbs.not_before() < issuer_tbs.not_before() || tbs.not_after() > issuer_tbs.not_after() {
        mismatch(format!(
            "field tbs: valid {} to {}, outside of issuer {}'s {} to {}",
            tbs.not_before(),
            tbs.not_after(),
            issuer.epoch,
            issuer_tbs.not_before(),
            issuer_tbs.not_after(),
        ));
    }
}

/// A certificate that names a list names the one that it would be on: otherwise its revocation would not be found.
fn check_list(tbs: &TbsView<'_>, job: &Job, report: &mut impl FnMut(Check, String)) {
    let Some(divisions) = &job.divisions else { return };
    let is_on = |url: &str| divisions.iter().any(|division| division.url(job.issuance.serial) == url);
    for url in tbs.crl_urls().filter(|url| !is_on(url)) {
        let detail =
            format!("field tbs: it names the list {url}, which it would not be on when it is revoked");
        report(Check::TbsMismatch, detail);
    }
}

/// The lints that the issuer itself ran before it signed.
fn lint(tbs: &TbsView<'_>, job: &Job, report: &mut impl FnMut(Check, String)) {
    let profile = job.profile.as_ref().and_then(|recorded| recorded.profile.as_ref());
    // What is missing here was found already.
    let (Some(profile), Some(issuer), Some(trust_domain)) = (profile, &job.issuer, &job.trust_domain) else {
        return;
    };
    // The log records neither the URLs that were configured nor the subject that was asked for. Whether the
    // profile wants them to be there is checked; what they are is what the certificate says.
    let urls = StatusUrls {
        crl: tbs.crl_urls().next(),
        ocsp: tbs.ocsp_urls().next(),
        ca_issuers: tbs.ca_issuers_urls().next(),
    };
    let subject = DistinguishedName::from_der(tbs.subject_der()).ok();
    let context = LintContext {
        profile,
        issuer: &issuer.certificate,
        trust_domain,
        now: job.time,
        urls,
        subject: subject.as_ref(),
    };
    for finding in lint::check(tbs.der(), &context) {
        let check = if finding.is_error() { Check::Lint } else { Check::LintAdvice };
        report(check, format!("field tbs: {finding}"));
    }
}

fn check_signature(tbs: &TbsView<'_>, job: &Job, report: &mut impl FnMut(Check, String)) {
    let Some(signature) = &job.signature else {
        let detail =
            format!("promised to {} and never signed as far as the export knows", job.issuance.identity);
        report(Check::Unsigned, detail);
        return;
    };
    // Without an issuer that is found elsewhere already.
    let Some(issuer) = &job.issuer else { return };
    if let Some(why) = issuer.refuses(tbs.signature_algorithm_der(), tbs.der(), signature) {
        let detail = format!("the signature is not issuer {}'s over this TBS: {why}", issuer.epoch);
        report(Check::CertificateSignature, detail);
    }
}
