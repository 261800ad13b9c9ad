//! Where two sides of the wire compute the same bytes by themselves, this holds them equal.

use chancery_attest::{JoinToken, Nonce, proof_message};
use chancery_types::{Digest, FixedRandom, Timestamp, TrustDomain};

#[test]
fn both_sides_sign_the_same_proof_of_possession() {
    let nonce = Nonce::from_array([7; 32]);
    let domain = TrustDomain::parse("example.org").unwrap();
    let key = Digest::of(b"key");
    assert_eq!(
        chancery_api::enrollment_message(nonce.as_bytes(), &domain, &key),
        proof_message(&nonce, domain.as_str(), &key)
    );
}

#[test]
fn the_holder_of_a_token_reads_the_fingerprint_that_its_maker_wrote() {
    let random = FixedRandom::dangerous_seeded(1);
    let root = Digest::of(b"root");
    let with = JoinToken::generate(Timestamp::default(), &random, Some(root)).unwrap();
    assert_eq!(chancery_api::root_fingerprint(&with.to_text()), Some(root));
    let without = JoinToken::generate(Timestamp::default(), &random, None).unwrap();
    assert_eq!(chancery_api::root_fingerprint(&without.to_text()), None);
}
