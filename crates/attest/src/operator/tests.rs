use std::collections::HashMap;
use std::time::Duration;

use chancery_types::{Digest, RevocationReason, Role};

use super::*;
use crate::test_support::{
    Certificates, block_on, certificate_with, context, good_standing, now, request_key, serial,
};
use crate::{CertificateStanding, TokenEvidence};

fn ask(standing: Option<CertificateStanding>, channel: OperatorChannel) -> Result<Attested, AttestError> {
    let records = Certificates(Some(standing.into_iter().map(|standing| (serial(9), standing)).collect()));
    let verifier = OperatorVerifier::new(Arc::new(records), BTreeSet::from([0, 998]));
    let identity = "spiffe://example.org/web".parse().unwrap();
    let approval = Some("CHG-1".to_owned());
    block_on(
        verifier.verify(Evidence::Operator(OperatorEvidence { channel, identity, approval }), &context()),
    )
}

fn refusal(result: Result<Attested, AttestError>) -> OperatorError {
    match result {
        Err(AttestError::Operator(error)) => error,
        other => panic!("expected a refusal of the operator, got {other:?}"),
    }
}

fn admin() -> (OperatorChannel, CertificateStanding) {
    let (certificate, key) = certificate_with(serial(9).as_bytes());
    let mut standing = good_standing(serial(9), key);
    standing.identity = "spiffe://example.org/operators/ada".parse().unwrap();
    standing.role = Some(Role::Admin);
    (OperatorChannel::Mtls { certificate, peer: Some("10.0.0.7".parse().unwrap()) }, standing)
}

#[test]
fn accepts_an_operator_in_good_standing_and_claims_who_it_was() {
    let (channel, standing) = admin();
    let attested = ask(Some(standing), channel).unwrap();
    assert_eq!(attested.assurance(), AssuranceLevel::FirstUse);
    assert_eq!(attested.identity_hint().unwrap().as_str(), "spiffe://example.org/web");
    assert_eq!(attested.bound_key(), Some(request_key()));
    let claims = attested.claims();
    assert!(claims.holds("operator.id", "spiffe://example.org/operators/ada"));
    assert!(claims.holds("operator.role", "admin"));
    assert!(claims.holds("operator.peer", "10.0.0.7"));
    assert!(claims.holds("operator.approval", "CHG-1"));
}

#[test]
fn accepts_configured_local_users_and_no_others() {
    let attested = ask(None, OperatorChannel::LocalSocket { uid: 998 }).unwrap();
    assert!(attested.claims().holds("operator.uid", "998"));
    assert!(attested.claims().holds("operator.channel", "local-socket"));
    assert_eq!(
        refusal(ask(None, OperatorChannel::LocalSocket { uid: 1000 })),
        OperatorError::Uid { uid: 1000 }
    );
}

#[test]
fn accepts_the_authority_for_the_key_it_made_and_no_other() {
    let attested = ask(None, OperatorChannel::Authority { key: request_key() }).unwrap();
    assert_eq!(attested.assurance(), AssuranceLevel::Repeatable);
    assert!(attested.is_repeatable());
    let other = OperatorChannel::Authority { key: Digest::of(b"another key") };
    assert_eq!(refusal(ask(None, other)), OperatorError::OtherKey);
}

#[test]
fn refuses_operators_whose_certificate_or_identity_is_not_good() {
    type Spoil = fn(&mut CertificateStanding);
    let spoils: [(&str, Spoil); 5] = [
        ("held", |standing| standing.state = CertificateState::Held),
        ("revoked", |standing| {
            standing.state = CertificateState::Revoked { reason: RevocationReason::KeyCompromise };
        }),
        ("expired", |standing| standing.not_after = now() - Duration::from_secs(1)),
        ("its identity is held or retired", |standing| standing.identity_state = IdentityState::Held),
        ("its identity is held or retired", |standing| standing.identity_state = IdentityState::Retired),
    ];
    for (expected, spoil) in spoils {
        let (channel, mut standing) = admin();
        spoil(&mut standing);
        let error = refusal(ask(Some(standing), channel));
        assert_eq!(error, OperatorError::NotGood { serial: serial(9), why: expected.to_owned() });
    }
}

#[test]
fn refuses_a_workload_that_poses_as_an_operator() {
    let (channel, mut standing) = admin();
    standing.role = None;
    assert!(matches!(refusal(ask(Some(standing), channel)), OperatorError::NotAnOperator { .. }));
}

#[test]
fn refuses_certificates_that_were_never_issued_here() {
    let (channel, mut standing) = admin();
    standing.key = Digest::of(b"another key");
    assert!(matches!(refusal(ask(Some(standing), channel)), OperatorError::Foreign { .. }));
    let (channel, _) = admin();
    assert!(matches!(refusal(ask(None, channel)), OperatorError::Foreign { .. }));
    let garbage = OperatorChannel::Mtls { certificate: b"garbage".to_vec(), peer: None };
    assert!(matches!(refusal(ask(None, garbage)), OperatorError::Foreign { .. }));
}

#[test]
fn refuses_approvals_that_are_too_long_or_have_control_characters() {
    for text in ["x".repeat(257), "line\nbreak".to_owned()] {
        assert_eq!(check_approval(Some(&text)), Err(OperatorError::Approval { limit: 256 }));
    }
    assert_eq!(check_approval(Some(&"é".repeat(256))), Ok(()));
}

#[test]
fn refuses_evidence_of_another_kind() {
    let verifier = OperatorVerifier::new(Arc::new(Certificates(Some(HashMap::new()))), BTreeSet::new());
    let token = chancery_types::SecretString::new(String::new());
    let evidence = Evidence::JoinToken(TokenEvidence { token });
    let error = block_on(verifier.verify(evidence, &context())).map(|_| ()).unwrap_err();
    assert!(matches!(error, AttestError::WrongKind { .. }));
}

#[test]
fn evidence_over_different_channels_has_different_hashes() {
    let local = ask(None, OperatorChannel::LocalSocket { uid: 0 }).unwrap().evidence_hash();
    let other = ask(None, OperatorChannel::LocalSocket { uid: 998 }).unwrap().evidence_hash();
    let own = ask(None, OperatorChannel::Authority { key: request_key() }).unwrap().evidence_hash();
    assert_ne!(local, other);
    assert_ne!(local, own);
}
