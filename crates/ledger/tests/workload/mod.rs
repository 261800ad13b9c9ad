//! What tests, benches and examples propose: entries as the road makes them, from small numbers.

#![allow(dead_code, reason = "each includer uses its part")]

use std::time::Duration;

use chancery_entry::{
    Blob, Body, Document, Entry, IdentityRegistration, Issuance, IssuerActivation, TokenBinding,
    TokenCreation, TokenSpend,
};
use chancery_ledger::{Precondition, Proposal};
use chancery_merkle::{Ed25519NoteSigner, NoteSigner};
use chancery_types::{
    AssuranceLevel, Digest, EvidenceKind, Generation, Identity, IssuerEpoch, LineageId, SerialNumber,
    SpiffeId, Timestamp, TokenId,
};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// The origin of every log made here.
pub const ORIGIN: &str = "example.org/log";
/// The issuer of every certificate made here.
pub const ISSUER: IssuerEpoch = IssuerEpoch(1);

/// The checkpoint key of every log made here.
pub fn signer() -> Box<dyn NoteSigner + Send + Sync> {
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any 32 bytes are a seed");
    let public: [u8; 32] = key.public_key().as_ref().try_into().expect("Ed25519 keys have 32 bytes");
    let sign = move |message: &[u8]| Ok::<_, std::io::Error>(key.sign(message).as_ref().to_vec());
    Box::new(Ed25519NoteSigner::new(ORIGIN, public, sign).expect("the origin is a key name"))
}

pub fn now() -> Timestamp {
    Timestamp::from_seconds(1_795_000_000)
}

/// The n-th identity.
pub fn identity(number: u64) -> SpiffeId {
    format!("spiffe://example.org/ns/shop/sa/web-{number}").parse().expect("a SPIFFE ID")
}

/// Registers the n-th identity, which must be unused.
pub fn registration(number: u64) -> Proposal {
    let id = identity(number);
    let document = Identity::new(id.clone(), "ada@example.org");
    let body = Body::IdentityRegistered(IdentityRegistration {
        identity: id.clone(),
        document: Document(serde_json::to_string(&document).expect("identities become JSON")),
        by: "operator ada".into(),
    });
    Proposal::new(vec![Precondition::IdentityUnused(id)], vec![Entry::new(now(), body)]).expect("short")
}

/// Activates [`ISSUER`].
pub fn issuer() -> Proposal {
    let body = Body::IssuerActivated(IssuerActivation {
        epoch: ISSUER,
        certificate: Blob(vec![0x30; 500]),
        by: "operator ada".into(),
    });
    Proposal::new(vec![Precondition::IssuerUnused(ISSUER)], vec![Entry::new(now(), body)]).expect("short")
}

/// 32 bytes that belong to this number and purpose.
pub fn digest(purpose: &str, number: u64) -> Digest {
    Digest::of(format!("{purpose} {number}").as_bytes())
}

/// The serial of the n-th certificate.
pub fn serial(counter: u64) -> SerialNumber {
    let mut random = [0; 8];
    random.copy_from_slice(&digest("serial", counter).as_bytes()[..8]);
    SerialNumber::compose(ISSUER, counter, random).expect("48 bits are enough")
}

/// The lineage that the n-th certificate begins.
pub fn lineage(counter: u64) -> LineageId {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest("lineage", counter).as_bytes()[..16]);
    LineageId::from_array(bytes)
}

/// The n-th certificate as an enrolment of this identity, about 1.1 KiB as an entry.
pub fn issuance(counter: u64, identity: SpiffeId) -> Issuance {
    let begins = now() + Duration::from_millis(counter);
    let mut tbs = vec![0x5a; 620];
    tbs[..32].copy_from_slice(digest("key", counter).as_bytes());
    Issuance {
        serial: serial(counter),
        identity,
        lineage: lineage(counter),
        generation: Generation(0),
        not_before: begins,
        not_after: begins + Duration::from_secs(3600),
        key: digest("key", counter),
        profile: "workload".into(),
        profile_hash: digest("profile", 0),
        requester: "192.0.2.7".into(),
        evidence: EvidenceKind::JoinToken,
        assurance: AssuranceLevel::SharedSecret,
        evidence_hash: digest("evidence", counter),
        decision: Document(DECISION.into()),
        idempotency: None,
        tbs: Blob(tbs),
    }
}

/// What an enrolment requires and records.
pub fn enrolment(issuance: Issuance) -> Proposal {
    let mut requires = vec![
        Precondition::SerialUnused(issuance.serial),
        Precondition::LineageUnused(issuance.lineage),
        Precondition::IdentityActive(issuance.identity.clone()),
        Precondition::IssuerActive(issuance.serial.epoch()),
    ];
    requires.extend(issuance.idempotency.map(Precondition::IdempotencyUnused));
    let entry = Entry::new(issuance.not_before, issuance);
    Proposal::new(requires, vec![entry]).expect("short")
}

/// The n-th join token, good for an hour.
pub fn token(number: u64) -> (TokenId, Proposal) {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest("token", number).as_bytes()[..16]);
    let token = TokenId::from_array(bytes);
    let body = Body::TokenCreated(TokenCreation {
        token,
        secret_hash: digest("secret", number),
        binding: TokenBinding::Identity(identity(number)),
        key: None,
        expires: now() + Duration::from_secs(3600),
        by: "operator ada".into(),
    });
    (token, Proposal::new(vec![], vec![Entry::new(now(), body)]).expect("short"))
}

/// Spends a token on a certificate, if it can be spent at this time.
pub fn spend(token: TokenId, counter: u64, at: Timestamp) -> Proposal {
    let body = Body::TokenSpent(TokenSpend { token, serial: serial(counter) });
    let requires = vec![Precondition::TokenUsable { token, now: at }];
    Proposal::new(requires, vec![Entry::new(at, body)]).expect("short")
}

const DECISION: &str = r#"{"outcome":"grant","policy":"4f6c1c5e0d7f4d5c8f1e2a3b4c5d6e7f","determining":["workloads-may-enrol","business-hours"],"inputs":{"assurance":"AL0","evidence":"join-token","environment":"production","network":"192.0.2.0/24","sensitivity":"medium","lifetime":"1h"}}"#;
