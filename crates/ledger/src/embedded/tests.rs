use std::path::Path;

use chancery_entry::{Body, Entry, IdentityRegistration, TokenBinding, TokenCreation, TokenSpend};
use chancery_merkle::Ed25519NoteSigner;
use chancery_types::{IssuerEpoch, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::proposal::{Precondition, Standing};

fn signer() -> Box<dyn NoteSigner + Send + Sync> {
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
    let sign = move |message: &[u8]| Ok::<_, std::io::Error>(key.sign(message).as_ref().to_vec());
    Box::new(Ed25519NoteSigner::new("example.org/log", public, sign).unwrap())
}

fn create(directory: &Path) -> EmbeddedLedger {
    EmbeddedLedger::create(directory, signer(), Options::default(), &SystemRandom).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_seconds(1_795_000_000)
}

fn token(number: u8) -> (TokenId, Proposal) {
    let token = TokenId::from_array([number; 16]);
    let created = TokenCreation {
        token,
        secret_hash: Digest::of(&[number]),
        binding: TokenBinding::Identity("spiffe://example.org/web".parse().unwrap()),
        key: None,
        expires: now() + Duration::from_secs(60),
        by: "test".into(),
    };
    (token, Proposal::new(vec![], vec![Entry::new(now(), Body::TokenCreated(created))]).unwrap())
}

fn spend(token: TokenId, counter: u64) -> Proposal {
    let serial = SerialNumber::compose(IssuerEpoch(1), counter, [1; 8]).unwrap();
    let requires = vec![Precondition::TokenUsable { token, now: now() }];
    Proposal::new(requires, vec![Entry::new(now(), Body::TokenSpent(TokenSpend { token, serial }))]).unwrap()
}

#[tokio::test]
async fn a_token_is_spent_once_in_one_batch_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = create(directory.path());
    let (token, creation) = token(1);
    let outcomes = ledger.commit(vec![creation, spend(token, 1), spend(token, 2)]).await.unwrap();
    assert!(matches!(outcomes[1], Outcome::Accepted { first_index: 1 }));
    assert!(matches!(&outcomes[2], Outcome::Refused(conflict) if conflict.standing == Standing::Spent));
    let (head, digest) = (ledger.head(), ledger.model_digest().unwrap());
    drop(ledger);
    let ledger = EmbeddedLedger::open(directory.path(), signer(), Options::default()).unwrap();
    assert_eq!(ledger.head(), head);
    assert_eq!(ledger.model_digest().unwrap(), digest);
    let outcomes = ledger.commit(vec![spend(token, 3)]).await.unwrap();
    assert!(matches!(&outcomes[0], Outcome::Refused(conflict) if conflict.standing == Standing::Spent));
    drop(ledger);
    let ledger =
        EmbeddedLedger::rebuild(directory.path(), signer(), Options::default(), &mut |_, _| {}).unwrap();
    assert_eq!(ledger.head(), head);
    assert_eq!(ledger.model_digest().unwrap(), digest);
}

#[tokio::test]
async fn identities_are_found_before_and_after_the_index_has_them() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = create(directory.path());
    for number in 0..40 {
        let id: SpiffeId = format!("spiffe://example.org/w{number:02}").parse().unwrap();
        let document = serde_json::to_string(&chancery_types::Identity::new(id.clone(), "ada")).unwrap();
        let registration = IdentityRegistration {
            identity: id.clone(),
            document: chancery_entry::Document(document),
            by: "test".into(),
        };
        let entry = Entry::new(now(), Body::IdentityRegistered(registration));
        let proposal = Proposal::new(vec![Precondition::IdentityUnused(id)], vec![entry]).unwrap();
        ledger.commit(vec![proposal]).await.unwrap();
        if number == 20 {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    }
    let first = ledger.identities(&IdentityQuery::default(), &PageRequest::first(25)).await.unwrap();
    assert_eq!(first.items.len(), 25);
    let rest = PageRequest { limit: 25, after: first.next };
    let second = ledger.identities(&IdentityQuery::default(), &rest).await.unwrap();
    assert_eq!(second.items.len(), 15);
    assert!(second.next.is_none());
    assert_eq!(second.items[14].identity.spiffe_id.as_str(), "spiffe://example.org/w39");
}
