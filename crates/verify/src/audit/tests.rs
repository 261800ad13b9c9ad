//! A whole log, then the same log with one thing wrong.

mod directories;
mod flips;
mod log_keys;
mod parts;
mod scenarios;

use chancery_api::ExportHeader;
use chancery_entry::{Body, HoldTarget, Tidy};
use chancery_types::{RevocationReason, SignatureAlgorithm};
use chancery_x509::crl::{CrlSpec, RevokedCertificate};

use super::*;
use crate::test_support::{Authority, seal};

fn options(authority: &Authority) -> AuditOptions {
    AuditOptions { log: Some(authority.verifier().into()), ..AuditOptions::default() }
}

fn report_of(export: &[u8], options: &AuditOptions) -> Result<AuditReport, AuditError> {
    let mut source = JsonLines::open(export)?;
    audit(&mut source, options, &mut |_| {})
}

fn audited(authority: &Authority) -> AuditReport {
    report_of(authority.export().as_bytes(), &options(authority)).unwrap()
}

/// A log with something of everything.
fn busy() -> Authority {
    let mut authority = Authority::new();
    let web = authority.enroll("web");
    let database = authority.enroll("db");
    authority.renew("web");
    authority.renew("web");
    let revocation = authority.revoke(database, RevocationReason::KeyCompromise);
    authority.hold(HoldTarget::Lineage(authority.lineage("web")));
    authority.release(HoldTarget::Lineage(authority.lineage("web")));
    authority.renew("web");
    let held = authority.hold(HoldTarget::Certificate(authority.serial(web)));
    let line = authority.line(revocation);
    let on_hold = (authority.serial(web), authority.time(held), RevocationReason::CertificateHold);
    authority.publish(&[line, on_hold]);
    authority
}

#[test]
fn a_sound_log_passes_without_a_finding() {
    let authority = busy();
    let report = audited(&authority);
    assert_eq!(report.findings.list(), [], "{:#?}", report.findings.list());
    assert_eq!((report.entries, report.certificates, report.signed), (authority.len() as u64, 5, 5));
    assert_eq!(
        report.checkpoint.as_deref(),
        Some(authority.checkpoint(authority.len()).to_string().as_str())
    );
    assert_eq!(report.kinds["token-spent"], 2);
}

#[test]
fn what_had_ended_may_be_tidied_away() {
    let mut authority = busy();
    let serials = authority.issuances().into_iter().map(|index| authority.serial(index)).collect();
    authority.wait(40 * 86_400);
    let ended_before = authority.now();
    authority.record(Body::Tidied(Tidy { ended_before, serials }));
    let report = audited(&authority);
    assert!(!report.findings.counts().contains_key(&Check::Tidied), "{:#?}", report.findings.list());
    assert_eq!(report.kinds["tidied"], 1);
}

#[test]
fn an_earlier_checkpoint_of_the_same_log_is_extended() {
    let authority = busy();
    for size in [0, 1, 5, authority.len()] {
        let earlier = Some(authority.checkpoint(size).to_string());
        let options = AuditOptions { earlier, ..options(&authority) };
        let report = report_of(authority.export().as_bytes(), &options).unwrap();
        assert!(report.findings.are_clean(), "size {size}: {:?}", report.findings.list());
    }
}

#[test]
fn a_selection_is_checked_entry_by_entry_and_never_called_whole() {
    let authority = busy();
    let header = ExportHeader { selection: Some("identity web".to_owned()), ..authority.header() };
    let lines = authority.lines();
    let export = seal(&header, &[lines[5].clone(), lines[9].clone()]);
    let report = report_of(export.as_bytes(), &options(&authority)).unwrap();
    let checks: Vec<Check> = report.findings.list().iter().map(|finding| finding.check).collect();
    assert_eq!(checks, [Check::ExportIncomplete]);
    let backwards = seal(&header, &[lines[9].clone(), lines[5].clone()]);
    let report = report_of(backwards.as_bytes(), &options(&authority)).unwrap();
    assert!(report.findings.counts().contains_key(&Check::Index));
}

/// The lists in the other tests come from other code; this one is as the authority itself writes them.
#[test]
fn a_list_of_the_authoritys_own_making_passes() {
    let mut authority = busy();
    let lines = scenarios::current_lines(&authority);
    authority.publish_with(&lines, |number, this_update, issuer| {
        let line =
            |(serial, revoked_at, reason): &scenarios::Line| (*serial.as_bytes(), *revoked_at, *reason);
        let lines: Vec<_> = lines.iter().map(line).collect();
        let entries = lines.iter().map(|(serial, revoked_at, reason)| RevokedCertificate {
            serial,
            revoked_at: *revoked_at,
            reason: *reason,
        });
        let spec = CrlSpec {
            issuer,
            signature_algorithm: SignatureAlgorithm::EcdsaSha256,
            number,
            this_update,
            next_update: this_update,
            distribution_points: &[],
        };
        spec.to_tbs_der(entries.collect()).unwrap()
    });
    assert_eq!(audited(&authority).findings.list(), []);
}

#[test]
fn every_batch_reports_its_progress() {
    let authority = busy();
    let export = authority.export();
    let mut source = JsonLines::open(export.as_bytes()).unwrap();
    let mut seen = Vec::new();
    audit(&mut source, &options(&authority), &mut |progress| seen.push(progress)).unwrap();
    let all =
        Progress { entries: authority.len() as u64, of: authority.len() as u64, bytes: export.len() as u64 };
    assert_eq!(seen, [all]);
}

#[test]
fn many_threads_find_the_same_in_the_same_order() {
    let mut authority = busy();
    for _ in 0..150 {
        authority.renew("web");
    }
    let (spoiled, unsigned) = (authority.issuances()[60], authority.issuances()[130]);
    authority.log[spoiled].signature.as_mut().unwrap()[10] ^= 1;
    authority.log[unsigned].signature = None;
    let with = |threads: usize| {
        let threads = threads.try_into().unwrap();
        let options = AuditOptions { threads, ..options(&authority) };
        report_of(authority.export().as_bytes(), &options).unwrap().findings
    };
    let alone = with(1);
    let found: Vec<_> = alone.list().iter().map(|finding| (finding.check, finding.index)).collect();
    let expected =
        [(Check::CertificateSignature, Some(spoiled as u64)), (Check::Unsigned, Some(unsigned as u64))];
    assert_eq!(found, expected);
    assert_eq!(with(3), alone);
}

#[test]
fn what_is_no_export_is_an_error_that_says_so() {
    let options = AuditOptions::default();
    for text in ["", "\n", "{}\n", "hello\n", "{\"chancery_export\":1}\n", "{\"chancery_export\":1"] {
        let error = report_of(text.as_bytes(), &options).unwrap_err();
        assert!(matches!(error, AuditError::Source(SourceError::Header(_))), "{text:?}: {error}");
    }
    let later = report_of(b"{\"chancery_export\":2,\"new\":true}\n", &options).unwrap_err();
    assert!(matches!(later, AuditError::Source(SourceError::Version { found: 2 })));
}

#[test]
fn an_endless_line_is_skipped_without_being_kept() {
    let authority = busy();
    let mut lines = authority.lines();
    lines[4] = "x".repeat(3 * MAX_LINE_BYTES);
    let report = report_of(seal(&authority.header(), &lines).as_bytes(), &options(&authority)).unwrap();
    let damaged: Vec<_> =
        report.findings.list().iter().filter(|finding| finding.check == Check::ExportDamaged).collect();
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0].index, Some(4));
    assert!(!report.findings.counts().contains_key(&Check::ExportDigest));
}
