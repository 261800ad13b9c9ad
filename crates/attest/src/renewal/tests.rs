use std::collections::HashMap;
use std::time::Duration;

use chancery_types::{AssuranceLevel, Generation, RevocationReason};

use super::*;
use crate::test_support::{
    Certificates, block_on, certificate_with, context, good_standing, now, request_key, serial,
};
use crate::{RenewalEvidence, TokenEvidence};

struct Fixture {
    certificate: Vec<u8>,
    standing: CertificateStanding,
    same_key: SameKey,
    context: AttestContext<'static>,
}

fn fixture() -> Fixture {
    let (certificate, key) = certificate_with(serial(9).as_bytes());
    let standing = good_standing(serial(9), key);
    Fixture { certificate, standing, same_key: SameKey::Refused, context: context() }
}

fn verify(fixture: Fixture) -> Result<Attested, AttestError> {
    let records = Certificates(Some(HashMap::from([(serial(9), fixture.standing)])));
    let verifier = RenewalVerifier::new(Arc::new(records), fixture.same_key);
    let evidence = Evidence::Renewal(RenewalEvidence { certificate: fixture.certificate });
    block_on(verifier.verify(evidence, &fixture.context))
}

fn refusal(fixture: Fixture) -> RenewalError {
    match verify(fixture) {
        Err(AttestError::Renewal(error)) => error,
        other => panic!("expected a refusal of the renewal, got {other:?}"),
    }
}

#[test]
fn accepts_the_latest_certificate_and_continues_its_lineage() {
    let attested = verify(fixture()).unwrap();
    assert_eq!(attested.assurance(), AssuranceLevel::Repeatable);
    assert!(attested.is_repeatable());
    assert_eq!(attested.bound_key(), Some(request_key()));
    assert_eq!(attested.identity_hint().unwrap().as_str(), "spiffe://example.org/web");
    let from = attested.lineage().unwrap();
    assert_eq!((from.generation, from.serial), (Generation(4), serial(9)));
    assert!(attested.claims().holds("renewal.generation", "4"));
    assert!(attested.claims().holds("renewal.enrolled_by", "x509-pop"));
    assert_eq!(attested.spends(), None);
}

#[test]
fn the_assurance_is_that_of_the_enrolment_and_never_more() {
    let mut fixture = fixture();
    fixture.standing.lineage.assurance = AssuranceLevel::SharedSecret;
    fixture.standing.lineage.repeatable = false;
    let attested = verify(fixture).unwrap();
    assert_eq!(attested.assurance(), AssuranceLevel::SharedSecret);
    assert!(!attested.is_repeatable());
}

#[test]
fn refuses_revoked_and_held_certificates() {
    for state in
        [CertificateState::Held, CertificateState::Revoked { reason: RevocationReason::KeyCompromise }]
    {
        let mut fixture = fixture();
        fixture.standing.state = state;
        assert_eq!(refusal(fixture), RenewalError::NotGood { serial: serial(9), state });
    }
}

#[test]
fn refuses_expired_certificates_after_their_last_second() {
    let mut last_second = fixture();
    last_second.standing.not_after = now();
    last_second.context.now = now() + Duration::from_millis(999);
    verify(last_second).unwrap();
    let mut expired = fixture();
    expired.standing.not_after = now();
    expired.context.now = now() + Duration::from_secs(1);
    assert_eq!(refusal(expired), RenewalError::Expired { serial: serial(9), not_after: now() });
}

#[test]
fn refuses_held_and_retired_identities() {
    for state in [IdentityState::Held, IdentityState::Retired] {
        let mut fixture = fixture();
        fixture.standing.identity_state = state;
        assert!(
            matches!(refusal(fixture), RenewalError::IdentityNotActive { state: got, .. } if got == state)
        );
    }
}

#[test]
fn refuses_an_older_generation_as_a_fork_of_the_lineage() {
    let mut fixture = fixture();
    fixture.standing.lineage.current = Generation(5);
    fixture.standing.lineage.current_serial = serial(10);
    fixture.standing.lineage.current_key = Digest::of(b"the other holder's key");
    let expected = RenewalError::LineageFork {
        lineage: fixture.standing.lineage.lineage,
        serial: serial(9),
        presented: Generation(4),
        current: Generation(5),
        current_serial: serial(10),
    };
    assert_eq!(refusal(fixture), expected);
}

#[test]
fn a_repeated_request_for_the_same_new_key_is_no_fork() {
    let mut repeated = fixture();
    repeated.standing.lineage.current = Generation(5);
    repeated.standing.lineage.current_serial = serial(10);
    repeated.standing.lineage.current_key = request_key();
    assert_eq!(refusal(repeated), RenewalError::AlreadyRenewed { serial: serial(10) });
    let mut two_behind = fixture();
    two_behind.standing.lineage.current = Generation(6);
    two_behind.standing.lineage.current_key = request_key();
    assert!(matches!(refusal(two_behind), RenewalError::LineageFork { .. }));
}

#[test]
fn refuses_the_same_key_unless_told() {
    let mut same = fixture();
    same.context.request_key = same.standing.key;
    assert_eq!(refusal(same), RenewalError::SameKey);
    let mut allowed = fixture();
    allowed.context.request_key = allowed.standing.key;
    allowed.same_key = SameKey::Allowed;
    verify(allowed).unwrap();
}

#[test]
fn refuses_a_serial_that_was_never_issued() {
    let (certificate, _) = certificate_with(serial(77).as_bytes());
    let fixture = Fixture { certificate, ..fixture() };
    assert_eq!(refusal(fixture), RenewalError::Unknown { serial: serial(77) });
}

#[test]
fn refuses_our_serial_with_another_key() {
    let (certificate, _) = certificate_with(serial(9).as_bytes());
    let fixture = Fixture { certificate, ..fixture() };
    assert_eq!(refusal(fixture), RenewalError::Unknown { serial: serial(9) });
}

#[test]
fn refuses_foreign_serials_garbage_and_oversized_certificates() {
    let (foreign, _) = certificate_with(&[0x42; 8]);
    for certificate in [foreign, b"garbage".to_vec(), Vec::new(), vec![0x30; 16 * 1024 + 1]] {
        let fixture = Fixture { certificate, ..fixture() };
        assert!(matches!(refusal(fixture), RenewalError::Foreign { .. }));
    }
}

#[test]
fn a_store_that_fails_is_an_internal_fault_and_no_refusal() {
    let verifier = RenewalVerifier::new(Arc::new(Certificates(None)), SameKey::Refused);
    let evidence = Evidence::Renewal(RenewalEvidence { certificate: fixture().certificate });
    let error = block_on(verifier.verify(evidence, &context())).map(|_| ()).unwrap_err();
    assert_eq!(error.fault(), crate::Fault::Internal);
}

#[test]
fn refuses_evidence_of_another_kind() {
    let verifier = RenewalVerifier::new(Arc::new(Certificates(None)), SameKey::Refused);
    let token = chancery_types::SecretString::new(String::new());
    let evidence = Evidence::JoinToken(TokenEvidence { token });
    let error = block_on(verifier.verify(evidence, &context())).map(|_| ()).unwrap_err();
    assert!(matches!(error, AttestError::WrongKind { got: EvidenceKind::JoinToken, .. }));
}
