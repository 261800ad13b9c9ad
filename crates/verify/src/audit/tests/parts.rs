//! Lists of parts of an issuer's certificates.

use chancery_types::{CrlShard, IssuerEpoch, RevocationReason};

use super::audited;
use crate::audit::Check;
use crate::test_support::Authority;

/// Four certificates, of which two on the same list are revoked, and the lists of both parts.
fn divided() -> (Authority, [usize; 2]) {
    let mut authority = Authority::new();
    authority.divide(2);
    let first = authority.enroll("web");
    let others = [authority.enroll("db"), authority.enroll("mail"), authority.enroll("ftp")];
    let part = CrlShard::containing(authority.serial(first), 2);
    let second = others.into_iter().find(|index| part.contains(authority.serial(*index))).unwrap();
    let revoked = [first, second].map(|index| authority.revoke(index, RevocationReason::Superseded));
    authority.wait(600);
    (authority, revoked)
}

fn publish(authority: &mut Authority, revoked: &[usize]) {
    let mut lines: Vec<_> = revoked.iter().map(|index| authority.line(*index)).collect();
    lines.sort_unstable_by_key(|line| line.0);
    for part in CrlShard::all(2) {
        let lines: Vec<_> = lines.iter().filter(|line| part.contains(line.0)).copied().collect();
        authority.publish_part(part, &lines);
    }
}

fn checks(authority: &Authority) -> Vec<Check> {
    audited(authority).findings.list().iter().map(|finding| finding.check).collect()
}

#[test]
fn complete_lists_of_parts_pass() {
    let (mut authority, revoked) = divided();
    publish(&mut authority, &revoked);
    assert_eq!(audited(&authority).findings.list(), []);
}

#[test]
fn no_list_may_miss_a_revoked_certificate_of_its_part() {
    let (mut authority, revoked) = divided();
    publish(&mut authority, &revoked[1..]);
    let report = audited(&authority);
    let found: Vec<_> = report.findings.list().iter().map(|one| (one.check, one.serial)).collect();
    assert_eq!(found, [(Check::CrlMissing, Some(authority.line(revoked[0]).0))]);
}

#[test]
fn a_certificate_on_the_list_of_another_part_is_found() {
    let (mut authority, revoked) = divided();
    let lines = [authority.line(revoked[0]), authority.line(revoked[1])];
    for part in CrlShard::all(2) {
        authority.publish_part(part, &lines);
    }
    assert_eq!(checks(&authority), [Check::CrlExtra, Check::CrlExtra]);
}

#[test]
fn the_list_of_every_part_has_to_be_there() {
    let (mut authority, revoked) = divided();
    publish(&mut authority, &revoked);
    authority.crls.pop();
    assert_eq!(checks(&authority), [Check::CrlAbsent]);
}

#[test]
fn lists_for_urls_that_no_certificate_has_are_refused() {
    let (mut authority, revoked) = divided();
    publish(&mut authority, &revoked);
    authority.publish_part(CrlShard::new(2, 3).unwrap(), &[]);
    assert_eq!(checks(&authority), [Check::CrlSignature, Check::CrlRecord]);
}

#[test]
fn certificates_of_several_divisions_stay_on_a_list_each() {
    let (mut authority, revoked) = divided();
    authority.divide(3);
    let later = authority.enroll("late");
    let later = authority.revoke(later, RevocationReason::KeyCompromise);
    authority.wait(600);
    let lines = [revoked[0], revoked[1], later].map(|index| authority.line(index));
    for part in CrlShard::all(2).chain(CrlShard::all(3)) {
        let lines: Vec<_> = lines.iter().filter(|line| part.contains(line.0)).copied().collect();
        authority.publish_part(part, &lines);
    }
    assert_eq!(audited(&authority).findings.list(), []);
    assert_eq!(authority.line(later).0.epoch(), IssuerEpoch(1));
}

#[test]
fn a_certificate_that_names_another_list_than_its_own_is_found() {
    let mut authority = Authority::new();
    authority.divide(4);
    authority.shards = Some(3);
    authority.enroll("web");
    authority.enroll("db");
    assert!(checks(&authority).contains(&Check::TbsMismatch));
}
