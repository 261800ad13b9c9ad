//! A changed byte anywhere in an export is found, and one in an entry is named by its index.

use super::*;

/// One certificate, one revocation, one list: everything once, and small.
fn small() -> Authority {
    let mut authority = Authority::new();
    let web = authority.enroll("web");
    let revocation = authority.revoke(web, RevocationReason::Superseded);
    let line = authority.line(revocation);
    authority.publish(&[line]);
    authority
}

/// Several bits, so that neighbouring bytes are changed in different ways.
const FLIPS: [u8; 7] = [0x01, 0x20, 0x02, 0x10, 0x80, 0x04, 0x08];
/// Every so many bytes; the starting point differs between the ways of changing.
const STEP: usize = 9;

#[test]
fn a_changed_byte_anywhere_is_found_and_in_an_entry_named() {
    let authority = small();
    let options = options(&authority);
    let export = authority.export().into_bytes();
    assert!(report_of(&export, &options).unwrap().findings.list().is_empty());
    let mut line_of = Vec::with_capacity(export.len());
    let mut line = 0_usize;
    for byte in &export {
        line_of.push(line);
        line += usize::from(*byte == b'\n');
    }
    for at in (0..export.len()).step_by(STEP) {
        let mut changed = export.clone();
        changed[at] ^= FLIPS[(at / STEP) % FLIPS.len()];
        assert_found(&changed, &options, at, line_of[at], authority.len());
    }
}

/// The bytes where structure meets content, each changed in every way.
#[test]
fn a_changed_byte_in_the_structure_is_found_and_in_an_entry_named() {
    let authority = small();
    let options = options(&authority);
    let export = authority.export().into_bytes();
    let mut lines = export.split_inclusive(|byte| *byte == b'\n').enumerate();
    let starts: Vec<(usize, usize)> = lines
        .by_ref()
        .scan(0, |start, (number, line)| {
            let here = *start;
            *start += line.len();
            Some((number, here))
        })
        .collect();
    for (number, start) in starts.into_iter().step_by(4).chain([(authority.len() + 1, export.len() - 110)]) {
        let length = export[start..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for at in start..start + length.min(12) {
            for flip in FLIPS {
                let mut changed = export.clone();
                changed[at] ^= flip;
                assert_found(&changed, &options, at, number, authority.len());
            }
        }
        let at = start + length - 1;
        for flip in FLIPS {
            let mut changed = export.clone();
            changed[at] ^= flip;
            assert_found(&changed, &options, at, number, authority.len());
        }
    }
}

#[test]
fn a_changed_byte_is_named_even_when_hash_view_and_digest_are_changed_with_it() {
    let authority = small();
    let issuance = authority.issuances()[0];
    let earlier = Some(authority.checkpoint(issuance).to_string());
    let options = AuditOptions { earlier, ..options(&authority) };
    // Somebody who writes the whole export anew cannot sign the checkpoint anew.
    let mut forged = authority.clone_log();
    forged[issuance + 1].entry.time = authority.now();
    let text = authority.export_of(&forged);
    let report = report_of(text.as_bytes(), &options).unwrap();
    assert!(report.findings.counts().contains_key(&Check::TreeRoot));
    // Nor the certificates, so that a changed TBS is named by its signature.
    let mut forged = authority.clone_log();
    let chancery_entry::Body::Issuance(body) = &mut forged[issuance].entry.body else {
        panic!("an issuance")
    };
    let last = body.tbs.0.len() - 1;
    body.tbs.0[last] ^= 1;
    let report = report_of(authority.export_of(&forged).as_bytes(), &options).unwrap();
    let named = |check| {
        report
            .findings
            .list()
            .iter()
            .any(|finding| finding.check == check && finding.index == Some(issuance as u64))
    };
    assert!(named(Check::CertificateSignature), "{:?}", report.findings.list());
    // Nor what was seen before.
    let mut forged = authority.clone_log();
    forged[1].entry.time = authority.now();
    let report = report_of(authority.export_of(&forged).as_bytes(), &options).unwrap();
    assert!(report.findings.counts().contains_key(&Check::Consistency));
}

fn assert_found(changed: &[u8], options: &AuditOptions, at: usize, line: usize, entries: usize) {
    let report = match report_of(changed, options) {
        Ok(report) => report,
        // Only a header can be so damaged that there is nothing to audit.
        Err(error) => return assert_eq!(line, 0, "byte {at}: {error}"),
    };
    let found = report.findings.list();
    assert!(!report.findings.are_clean(), "byte {at} of line {line} was changed unnoticed");
    if (1..=entries).contains(&line) {
        let index = line as u64 - 1;
        let named =
            found.iter().any(|finding| finding.severity == Severity::Error && finding.index == Some(index));
        assert!(named, "byte {at}, entry {index}: {found:#?}");
    }
}
