//! Logs whose keys follow each other, and auditors who know one of them.

use chancery_entry::KeyPhase;
use chancery_merkle::LogKeys;

use super::*;
use crate::test_support::log_keys;

fn audited_by(authority: &Authority, known: LogKeys) -> AuditReport {
    let options = AuditOptions { log: Some(known), ..AuditOptions::default() };
    report_of(authority.export().as_bytes(), &options).unwrap()
}

fn names(report: &AuditReport) -> Vec<&'static str> {
    report.findings.list().iter().map(|finding| finding.check.as_str()).collect()
}

fn rotated_twice() -> Authority {
    let mut authority = busy();
    authority.rotate_log_key(1, 2);
    authority.enroll("later");
    authority.rotate_log_key(2, 3);
    authority.enroll("latest");
    authority
}

#[test]
fn an_auditor_with_any_of_the_keys_follows_the_others() {
    let authority = rotated_twice();
    for known in [&[1][..], &[2], &[3], &[1, 2, 3]] {
        let report = audited_by(&authority, log_keys(known));
        assert_eq!(names(&report), Vec::<&str>::new(), "{known:?}: {:#?}", report.findings.list());
        assert!(report.checkpoint.is_some());
    }
    let stranger = audited_by(&authority, log_keys(&[8]));
    assert!(names(&stranger).contains(&"checkpoint-signature"), "{:?}", names(&stranger));
    assert!(names(&stranger).contains(&"header-mismatch"), "{:?}", names(&stranger));
}

#[test]
fn an_earlier_checkpoint_by_an_earlier_key_is_compared() {
    let authority = rotated_twice();
    authority.sign_log_with(&[1]);
    let earlier = authority.checkpoint(5).to_string();
    authority.sign_log_with(&[3]);
    let mut other = Authority::new();
    other.enroll("other");
    for (earlier, expected) in [(earlier, None), (other.checkpoint(5).to_string(), Some("consistency"))] {
        let options =
            AuditOptions { earlier: Some(earlier), log: Some(log_keys(&[1])), ..AuditOptions::default() };
        let report = report_of(authority.export().as_bytes(), &options).unwrap();
        assert_eq!(names(&report), expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn while_both_sign_an_auditor_needs_nothing_new_and_a_withdrawn_key_is_worth_nothing() {
    let mut authority = busy();
    authority.rotate_log_key(1, 2);
    authority.sign_log_with(&[2, 1]);
    assert_eq!(names(&audited_by(&authority, log_keys(&[1]))), Vec::<&str>::new());
    // A thief of the old key signs on his own.
    authority.sign_log_with(&[1]);
    assert_eq!(names(&audited_by(&authority, log_keys(&[1]))), ["checkpoint-signature"]);
}

#[test]
fn a_key_for_which_the_one_before_it_does_not_vouch_is_found() {
    let succession = |change: &dyn Fn(&mut Authority) -> usize| {
        let mut authority = busy();
        let at = change(&mut authority);
        authority.sign_log_with(&[2]);
        let report = audited_by(&authority, log_keys(&[1]));
        let found = report.findings.list().iter().find(|finding| finding.check == Check::LogKey);
        let found = found.unwrap_or_else(|| panic!("{:?}", names(&report)));
        assert_eq!(found.index, Some(at as u64), "{found:?}");
        assert!(names(&report).contains(&"checkpoint-signature"), "it does not become believed");
        found.detail.clone()
    };
    let unvouched = succession(&|authority| {
        authority.record_log_key(2, KeyPhase::Published, None);
        authority.record_log_key(2, KeyPhase::Active, None)
    });
    assert!(unvouched.contains("no checkpoint of the key before it"), "{unvouched}");
    let unpublished = succession(&|authority| {
        let note = authority.checkpoint(authority.len());
        authority.record_log_key(2, KeyPhase::Active, Some(note))
    });
    assert!(unpublished.contains("it was not published before"), "{unpublished}");
    let by_itself = succession(&|authority| {
        let published = authority.record_log_key(2, KeyPhase::Published, None);
        authority.sign_log_with(&[2]);
        let note = authority.checkpoint(published + 1);
        authority.record_log_key(2, KeyPhase::Active, Some(note))
    });
    assert!(by_itself.contains("no known key has signed"), "{by_itself}");
    let too_early = succession(&|authority| {
        let published = authority.record_log_key(2, KeyPhase::Published, None);
        let note = authority.checkpoint(published);
        authority.record_log_key(2, KeyPhase::Active, Some(note))
    });
    assert!(too_early.contains("entries, it was published as"), "{too_early}");
    let forked = succession(&|authority| {
        let published = authority.record_log_key(2, KeyPhase::Published, None);
        let mut other = busy();
        other.enroll("instead");
        assert!(other.len() > published);
        let note = other.checkpoint(published + 1);
        authority.record_log_key(2, KeyPhase::Active, Some(note))
    });
    assert!(forked.contains("the log was forked"), "{forked}");
}
