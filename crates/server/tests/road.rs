//! The road without HTTP: from init to a revoked certificate, on the real ledger and real keys.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod running;

use std::sync::Arc;
use std::time::Duration;

use chancery_attest::{Evidence, RenewalEvidence, TokenEvidence};
use chancery_ledger::CertificateState;
use chancery_revoke::{Hand, Selector};
use chancery_server::authority::{
    Authority, AuthorityError, Enrolment, OnlineRoot, Requester, TokenFor, Wish,
};
use chancery_server::bootstrap::{InitError, InitPlan, init};
use chancery_server::config::Config;
use chancery_types::{Identity, KeyAlgorithm, RevocationReason, SecretString, SystemClock, SystemRandom};
use chancery_x509::{DistinguishedName, RequestPurpose, RequestSpec, SubjectKey};

fn plan(directory: &std::path::Path) -> InitPlan {
    InitPlan {
        directory: directory.to_owned(),
        api: "127.0.0.1:0".parse().unwrap(),
        status: "127.0.0.1:0".parse().unwrap(),
        ..running::plan()
    }
}

fn csr(key: &SubjectKey) -> Vec<u8> {
    let spec = RequestSpec {
        public_key: key.public_key(),
        signature_algorithm: key.signature_algorithm(),
        subject: &DistinguishedName::empty(),
        names: &[],
        purpose: RequestPurpose::Subject,
    };
    spec.build(|message| key.sign(message)).unwrap()
}

fn enrolment(authority: &Authority, evidence: Evidence) -> Enrolment {
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    Enrolment {
        request: authority.prove(&csr(&key)).unwrap(),
        evidence,
        wish: Wish::default(),
        requester: Requester { name: "test".into(), address: None },
        idempotency: None,
    }
}

async fn open(directory: &std::path::Path) -> Authority {
    let config = Config::load(&directory.join("chancery.toml")).unwrap();
    Authority::open(config, OnlineRoot::Refuse, Arc::new(SystemClock), Arc::new(SystemRandom)).await.unwrap()
}

#[tokio::test]
async fn from_init_to_a_revoked_certificate() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("ca");
    let passphrase = SecretString::new("a long passphrase".into());
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let root = place.path().join("root");
    let report = init(&plan(&directory), &root, &passphrase, clock.clone(), random.clone()).await.unwrap();
    let again = init(&plan(&directory), &root, &passphrase, clock.clone(), random.clone()).await;
    assert!(matches!(again, Err(InitError::Exists(_))));

    let authority = open(&directory).await;
    assert_eq!(authority.root().fingerprint(), report.root_fingerprint);
    authority.server_credential().await.unwrap();
    authority.responder_credential().await.unwrap();

    let id: chancery_types::SpiffeId = "spiffe://example.org/web".parse().unwrap();
    authority.register_identity(&Identity::new(id.clone(), "ada"), "test").await.unwrap();
    let purpose = TokenFor::Identity(id.clone());
    let token = authority.create_token(purpose, Duration::from_secs(60), None, true, "test").await.unwrap();
    let evidence = || Evidence::JoinToken(TokenEvidence { token: token.text.clone() });
    let enrolled = authority.enroll(enrolment(&authority, evidence())).await.unwrap();
    assert_eq!(enrolled.issued.identity(), &id);
    let spent = authority.enroll(enrolment(&authority, evidence())).await;
    assert!(matches!(spent, Err(AuthorityError::Attest(_))), "{spent:?}");

    let renewal = |der: &[u8]| Evidence::Renewal(RenewalEvidence { certificate: der.to_vec() });
    let renewed = authority.enroll(enrolment(&authority, renewal(enrolled.issued.der()))).await.unwrap();
    assert_eq!(renewed.issued.generation().0, 1);
    assert_eq!(renewed.issued.lineage(), enrolled.issued.lineage());

    let (scope, reason) = (Selector::Identity(id.clone()).into(), RevocationReason::KeyCompromise);
    let operation = authority.revoker().revoke(&scope, reason, Hand::of("test", "")).await.unwrap();
    assert_eq!(operation.serials.len(), 2);
    let record = authority.ledger().certificate(renewed.issued.serial()).await.unwrap().unwrap();
    assert!(matches!(record.state, CertificateState::Revoked { .. }));
    let refused = authority.enroll(enrolment(&authority, renewal(renewed.issued.der()))).await;
    assert!(matches!(refused, Err(AuthorityError::Attest(_))), "{refused:?}");

    let head = authority.ledger().head();
    drop(authority);
    let authority = open(&directory).await;
    assert!(authority.ledger().head().size >= head.size);
}

#[tokio::test]
async fn a_second_renewal_from_one_certificate_holds_the_lineage() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("ca");
    let passphrase = SecretString::new("a long passphrase".into());
    let root = place.path().join("root");
    init(&plan(&directory), &root, &passphrase, Arc::new(SystemClock), Arc::new(SystemRandom)).await.unwrap();
    let authority = open(&directory).await;
    let id: chancery_types::SpiffeId = "spiffe://example.org/web".parse().unwrap();
    authority.register_identity(&Identity::new(id.clone(), "ada"), "test").await.unwrap();
    let purpose = TokenFor::Identity(id.clone());
    let token = authority.create_token(purpose, Duration::from_secs(60), None, false, "test").await.unwrap();
    let first = authority
        .enroll(enrolment(&authority, Evidence::JoinToken(TokenEvidence { token: token.text })))
        .await
        .unwrap();
    let renewal = || Evidence::Renewal(RenewalEvidence { certificate: first.issued.der().to_vec() });
    let second = authority.enroll(enrolment(&authority, renewal())).await.unwrap();
    let forked = authority.enroll(enrolment(&authority, renewal())).await;
    assert!(matches!(forked, Err(AuthorityError::Fork(_))), "{forked:?}");
    for serial in [first.issued.serial(), second.issued.serial()] {
        let record = authority.ledger().certificate(serial).await.unwrap().unwrap();
        assert!(matches!(record.state, CertificateState::Held { .. }));
    }
    let held = Evidence::Renewal(RenewalEvidence { certificate: second.issued.der().to_vec() });
    assert!(authority.enroll(enrolment(&authority, held)).await.is_err());
}
