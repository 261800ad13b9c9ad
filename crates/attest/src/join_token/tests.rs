use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chancery_types::{FixedRandom, SecretString, Timestamp, TokenId};

use super::*;
use crate::test_support::{Tokens, block_on, context, now, request_key};
use crate::{RenewalEvidence, TokenEvidence};

struct Fixture {
    token: JoinToken,
    record: TokenRecord,
}

fn fixture() -> Fixture {
    let token = JoinToken::generate(Timestamp::default(), &FixedRandom::dangerous_seeded(1), None).unwrap();
    let record = TokenRecord {
        id: token.id(),
        hash: token.hash(),
        binding: TokenBinding::Identity("spiffe://example.org/web".parse().unwrap()),
        key: None,
        expires: now() + Duration::from_secs(600),
        state: TokenState::Unspent,
    };
    Fixture { token, record }
}

fn verify_text(record: TokenRecord, text: SecretString) -> Result<Attested, AttestError> {
    let records = Tokens(Some(HashMap::from([(record.id, record)])));
    let evidence = Evidence::JoinToken(TokenEvidence { token: text });
    block_on(JoinTokenVerifier::new(Arc::new(records)).verify(evidence, &context()))
}

fn verify(fixture: Fixture) -> Result<Attested, AttestError> {
    verify_text(fixture.record, fixture.token.to_text())
}

fn error(result: Result<Attested, AttestError>) -> AttestError {
    result.map(|_| ()).unwrap_err()
}

#[test]
fn accepts_a_good_token_as_a_shared_secret_to_be_spent() {
    let fixture = fixture();
    let id = fixture.token.id();
    let attested = verify(fixture).unwrap();
    assert_eq!(attested.kind(), EvidenceKind::JoinToken);
    assert_eq!(attested.assurance(), AssuranceLevel::SharedSecret);
    assert_eq!(attested.spends(), Some(id));
    assert_eq!(attested.identity_hint().unwrap().as_str(), "spiffe://example.org/web");
    assert!(attested.claims().holds("token.id", &id.to_string()));
    assert!(!attested.is_repeatable());
    assert_eq!(attested.bound_key(), None);
    assert_eq!(attested.lineage(), None);
}

#[test]
fn accepts_a_token_for_a_template_and_claims_its_parameters() {
    let mut fixture = fixture();
    let parameters = BTreeMap::from([("job".to_owned(), "build".to_owned())]);
    fixture.record.binding = TokenBinding::Template { name: "ci".to_owned(), parameters: parameters.clone() };
    let attested = verify(fixture).unwrap();
    assert_eq!(*attested.subject(), Subject::Template { name: "ci".to_owned(), parameters });
    assert_eq!(attested.identity_hint(), None);
    assert!(attested.claims().holds("token.template", "ci"));
    assert!(attested.claims().holds("token.parameter.job", "build"));
}

#[test]
fn accepts_a_bound_token_for_its_key_only() {
    let mut bound = fixture();
    bound.record.key = Some(request_key());
    assert_eq!(verify(bound).unwrap().bound_key(), Some(request_key()));
    let mut other = fixture();
    other.record.key = Some(Digest::of(b"another key"));
    assert_eq!(error(verify(other)), TokenError::OtherKey.into());
}

#[test]
fn refuses_unknown_tokens_wrong_secrets_and_nonsense_alike() {
    let known = fixture();
    let stranger =
        JoinToken::generate(Timestamp::default(), &FixedRandom::dangerous_seeded(2), None).unwrap();
    let unknown = error(verify_text(known.record.clone(), stranger.to_text()));
    let mut wrong = known.record.clone();
    wrong.hash = stranger.hash();
    let wrong_secret = error(verify_text(wrong, known.token.to_text()));
    let nonsense = error(verify_text(known.record, SecretString::new("chancery1.x.y".to_owned())));
    assert_eq!(unknown, TokenError::Refused.into());
    assert_eq!(wrong_secret, unknown);
    assert_eq!(nonsense, unknown);
}

#[test]
fn says_nothing_about_state_to_someone_without_the_secret() {
    let mut fixture = fixture();
    fixture.record.state = TokenState::Spent;
    fixture.record.hash = Digest::of(b"another secret");
    assert_eq!(error(verify(fixture)), TokenError::Refused.into());
}

#[test]
fn refuses_a_record_whose_hash_is_all_zero_when_there_is_no_record() {
    let records = Tokens(Some(HashMap::new()));
    let evidence = Evidence::JoinToken(TokenEvidence { token: fixture().token.to_text() });
    let result = block_on(JoinTokenVerifier::new(Arc::new(records)).verify(evidence, &context()));
    assert_eq!(error(result), TokenError::Refused.into());
}

#[test]
fn refuses_expired_tokens_from_the_very_moment() {
    let mut at_the_end = fixture();
    at_the_end.record.expires = now();
    assert_eq!(error(verify(at_the_end)), TokenError::Expired { expired: now() }.into());
    let mut just_before = fixture();
    just_before.record.expires = now() + Duration::from_millis(1);
    verify(just_before).unwrap();
}

#[test]
fn refuses_spent_tokens() {
    let mut fixture = fixture();
    fixture.record.state = TokenState::Spent;
    assert_eq!(error(verify(fixture)), TokenError::Spent.into());
}

#[test]
fn refuses_revoked_tokens() {
    let mut fixture = fixture();
    fixture.record.state = TokenState::Revoked;
    assert_eq!(error(verify(fixture)), TokenError::Revoked.into());
}

#[test]
fn refuses_evidence_of_another_kind() {
    let verifier = JoinTokenVerifier::new(Arc::new(Tokens(None)));
    let evidence = Evidence::Renewal(RenewalEvidence { certificate: Vec::new() });
    let result = block_on(verifier.verify(evidence, &context()));
    assert!(matches!(error(result), AttestError::WrongKind { got: EvidenceKind::Renewal, .. }));
}

#[test]
fn a_store_that_fails_is_an_internal_fault_and_no_refusal() {
    let verifier = JoinTokenVerifier::new(Arc::new(Tokens(None)));
    let evidence = Evidence::JoinToken(TokenEvidence { token: fixture().token.to_text() });
    let error = error(block_on(verifier.verify(evidence, &context())));
    assert!(matches!(error, AttestError::Records(_)));
    assert_eq!(error.fault(), crate::Fault::Internal);
}

#[test]
fn the_evidence_hash_covers_token_and_key_and_reveals_neither() {
    let first = verify(fixture()).unwrap().evidence_hash();
    assert_eq!(verify(fixture()).unwrap().evidence_hash(), first);
    let records = Tokens(Some(HashMap::from([(fixture().record.id, fixture().record)])));
    let evidence = Evidence::JoinToken(TokenEvidence { token: fixture().token.to_text() });
    let other_key = AttestContext { request_key: Digest::of(b"other"), ..context() };
    let other = block_on(JoinTokenVerifier::new(Arc::new(records)).verify(evidence, &other_key)).unwrap();
    assert_ne!(other.evidence_hash(), first);
}

#[test]
fn an_id_alone_is_worth_nothing() {
    let fixture = fixture();
    let forged =
        format!("chancery1.{}.{}", TokenId::from_array(*fixture.token.id().as_bytes()), "A".repeat(43));
    assert_eq!(error(verify_text(fixture.record, SecretString::new(forged))), TokenError::Refused.into());
}
