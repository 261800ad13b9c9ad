//! What is shown as evidence: foreign certificates, leaked keys, join tokens.

use chancery_api::{
    Base64Bytes, CertificateDer, CreateTokenRequest, EnrollRequest, Evidence, IdentityDocument, KeyProof,
    ProblemCode, PublicKeyDer, RevokeRequest, Selector, enrollment_message, key_compromise_message,
};
use chancery_server::config::RawForeignAuthority;
use chancery_types::{Identity, RevocationReason};
use chancery_x509::SubjectKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SigningKey, date_time_ymd,
};

use crate::running::{Running, enrolment, fresh, id, new_key, problem};

/// An authority of somebody else's, whose certificates count as evidence here.
struct Foreign {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Foreign {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "corp root");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), root }
    }

    fn leaf(&self, name: &str, serial: u8) -> (CertificateDer, KeyPair) {
        let mut parameters = CertificateParams::new(vec![format!("{name}.corp.example")]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.serial_number = Some(SerialNumber::from_slice(&[serial]));
        let key = KeyPair::generate().unwrap();
        let der = parameters.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        (CertificateDer::from_der(der), key)
    }

    fn crl(&self, revoked: u8) -> Vec<u8> {
        let parameters = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from_slice(&[revoked]),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        parameters.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

/// An enrolment whose evidence is a signature over a nonce with a foreign certificate's key.
fn proof(chain: &CertificateDer, signer: &KeyPair, nonce: &Base64Bytes, key: &SubjectKey) -> EnrollRequest {
    let domain = "example.org".parse().unwrap();
    let message = enrollment_message(&nonce.0, &domain, &key.public_key().fingerprint());
    let signature = Base64Bytes(signer.sign(&message).unwrap());
    let chain = vec![chain.clone()];
    enrolment(key, Evidence::X509Pop { chain, nonce: nonce.clone(), signature })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_certificate_enrols_its_identity_and_no_other() {
    let foreign = Foreign::new();
    let running = {
        let place = crate::running::Place::new().await;
        std::fs::write(place.file("corp.pem"), &foreign.root).unwrap();
        std::fs::write(place.file("corp.crl"), foreign.crl(66)).unwrap();
        place.edit(|raw| {
            let corp = RawForeignAuthority {
                roots: "corp.pem".into(),
                crls: Some(vec!["corp.crl".into()]),
                purposes: Vec::new(),
            };
            raw.attestation.x509_pop.insert("corp".into(), corp);
        });
        let server = place.serve().await.unwrap();
        Running { place, server }
    };
    let mut identity = Identity::new(id("node7"), "ada");
    identity.selectors = [("x509.ca", "corp"), ("x509.subject.cn", "node7")].into();
    let admin = running.admin();
    admin.register_identity(&IdentityDocument(identity)).await.unwrap();

    let client = running.client(None);
    let nonce = || async { client.nonce().await.unwrap().nonce };
    let enroll = |request: EnrollRequest| {
        let client = client.clone();
        async move {
            client.enroll(&request, &fresh()).await.map_err(|error| (problem(&error), error.to_string()))
        }
    };
    let (leaf, leaf_key) = foreign.leaf("node7", 7);
    let key = new_key();
    let first = nonce().await;
    let enrolled = enroll(proof(&leaf, &leaf_key, &first, &key)).await.unwrap();
    assert_eq!(enrolled.spiffe_id, id("node7"));

    // The nonce is used up, whatever it is used for.
    let code = |result: Result<_, (Option<ProblemCode>, String)>| {
        result.map(|_: chancery_api::EnrollResponse| ()).unwrap_err()
    };
    let (refused, text) = code(enroll(proof(&leaf, &leaf_key, &first, &new_key())).await);
    assert_eq!(refused, Some(ProblemCode::NonceUnknown), "{text}");
    // A nonce that nobody gave out.
    let (refused, text) = code(enroll(proof(&leaf, &leaf_key, &Base64Bytes(vec![7; 32]), &new_key())).await);
    assert_eq!(refused, Some(ProblemCode::NonceUnknown), "{text}");
    let (refused, text) = code(enroll(proof(&leaf, &leaf_key, &Base64Bytes(vec![7; 31]), &new_key())).await);
    assert_eq!(refused, Some(ProblemCode::NonceUnknown), "{text}");
    // The signature is for another key, or another's.
    let mut swapped = proof(&leaf, &leaf_key, &nonce().await, &key);
    swapped.csr = chancery_api::CsrDer::from_der(crate::running::csr(&new_key()));
    let (refused, text) = code(enroll(swapped).await);
    assert_eq!(refused, Some(ProblemCode::EvidenceRefused), "{text}");
    let thief = KeyPair::generate().unwrap();
    let (refused, text) = code(enroll(proof(&leaf, &thief, &nonce().await, &new_key())).await);
    assert_eq!(refused, Some(ProblemCode::EvidenceRefused), "{text}");
    // A certificate that its authority has revoked, and one of another authority of the same name.
    let (revoked, revoked_key) = foreign.leaf("node7", 66);
    let (refused, text) = code(enroll(proof(&revoked, &revoked_key, &nonce().await, &new_key())).await);
    assert_eq!(refused, Some(ProblemCode::EvidenceRefused), "{text}");
    let (forged, forged_key) = Foreign::new().leaf("node7", 7);
    let (refused, text) = code(enroll(proof(&forged, &forged_key, &nonce().await, &new_key())).await);
    assert_eq!(refused, Some(ProblemCode::EvidenceRefused), "{text}");
    // Another name of the same authority, with and without saying whom it means.
    let (other, other_key) = foreign.leaf("node8", 8);
    let (refused, text) = code(enroll(proof(&other, &other_key, &nonce().await, &new_key())).await);
    assert_eq!(refused, Some(ProblemCode::NoMatchingIdentity), "{text}");
    let mut claimed = proof(&other, &other_key, &nonce().await, &new_key());
    claimed.identity = Some(id("node7"));
    let (refused, text) = code(enroll(claimed).await);
    assert_eq!(refused, Some(ProblemCode::NoMatchingIdentity), "{text}");
    // An identity without selectors is not everybody's.
    running.register("plain").await;
    let mut claimed = proof(&leaf, &leaf_key, &nonce().await, &new_key());
    claimed.identity = Some(id("plain"));
    let (refused, text) = code(enroll(claimed).await);
    assert_eq!(refused, Some(ProblemCode::NoMatchingIdentity), "{text}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_holds_a_key_revokes_its_certificates_and_no_others() {
    let running = Running::start().await;
    let (held, other) = (running.enroll("web").await, running.enroll("db").await);
    let client = running.client(None);
    let domain = "example.org".parse().unwrap();
    let request = |key: &SubjectKey, signer: &SubjectKey, nonce: &Base64Bytes| {
        let message = key_compromise_message(&nonce.0, &domain, &key.public_key().fingerprint());
        RevokeRequest::new(
            Selector::KeyProof(KeyProof {
                public_key: PublicKeyDer::from_der(key.public_key().spki_der().to_vec()),
                nonce: nonce.clone(),
                signature: Base64Bytes(signer.sign(&message).unwrap()),
            }),
            RevocationReason::Superseded,
        )
    };
    let nonce = client.nonce().await.unwrap().nonce;
    let refused = client.revoke(&request(&other.key, &held.key, &nonce)).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::KeyProofRefused), "{refused}");
    // A nonce is good for one try.
    let refused = client.revoke(&request(&held.key, &held.key, &nonce)).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NonceUnknown), "{refused}");

    let nonce = client.nonce().await.unwrap().nonce;
    let changed = client.revoke(&request(&held.key, &held.key, &nonce)).await.unwrap();
    assert_eq!(changed.serials, [held.response.serial]);
    let status = client.status(held.response.serial).await.unwrap();
    // Whatever reason was given: a key that others hold is compromised.
    assert_eq!(status.revocation.unwrap().reason, RevocationReason::KeyCompromise);
    let replayed = client.revoke(&request(&held.key, &held.key, &nonce)).await.unwrap_err();
    assert_eq!(problem(&replayed), Some(ProblemCode::NonceUnknown), "{replayed}");
    let status = client.status(other.response.serial).await.unwrap();
    assert_eq!(status.status, chancery_api::CertificateStatus::Good);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_for_one_identity_one_key_one_time() {
    let running = Running::start().await;
    running.register("web").await;
    running.register("db").await;
    let (admin, client) = (running.admin(), running.client(None));
    let key = new_key();
    let bound: CreateTokenRequest = serde_json::from_value(serde_json::json!({
        "identity": id("web"), "key_fingerprint": key.public_key().fingerprint(),
    }))
    .unwrap();
    let token = admin.create_token(&bound).await.unwrap().token;
    let with = |key: &SubjectKey| enrolment(key, Evidence::JoinToken { token: token.clone() });
    let refused = client.enroll(&with(&new_key()), &fresh()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::EvidenceRefused), "{refused}");
    // Who means somebody else with it is told, and does not become whom the token is for.
    let mut other = with(&key);
    other.identity = Some(id("db"));
    let refused = client.enroll(&other, &fresh()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NoMatchingIdentity), "{refused}");
    assert_eq!(client.enroll(&with(&key), &fresh()).await.unwrap().spiffe_id, id("web"));
    let refused = client.enroll(&with(&key), &fresh()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::TokenSpent), "{refused}");

    // Withdrawn, expired, invented, or with one character changed.
    let withdrawn = running.token("web").await;
    admin.revoke_token(withdrawn.id).await.unwrap();
    let brief: CreateTokenRequest =
        serde_json::from_value(serde_json::json!({ "identity": id("web"), "ttl": "1s" })).unwrap();
    let expired = admin.create_token(&brief).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let good = running.token("web").await;
    let mut forged = good.token.expose_secret().to_owned();
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'B' } else { 'A' });
    let cases = [
        (withdrawn.token.clone(), ProblemCode::EvidenceRefused),
        (expired.token.clone(), ProblemCode::EvidenceExpired),
        (chancery_types::SecretString::new(forged), ProblemCode::EvidenceRefused),
        (chancery_types::SecretString::new("ct1.AAAA.BBBB".into()), ProblemCode::EvidenceRefused),
        (chancery_types::SecretString::new("x".repeat(40_000)), ProblemCode::EvidenceRefused),
    ];
    for (token, expected) in cases {
        let refused =
            client.enroll(&enrolment(&new_key(), Evidence::JoinToken { token }), &fresh()).await.unwrap_err();
        assert_eq!(problem(&refused), Some(expected), "{refused}");
    }
    // What was tried on it did not spend the good one.
    let request = enrolment(&new_key(), Evidence::JoinToken { token: good.token });
    client.enroll(&request, &fresh()).await.unwrap();
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_makes_identities_of_its_shape_and_no_other() {
    let running = Running::start().await;
    let (admin, client) = (running.admin(), running.client(None));
    let template = serde_json::json!({
        "name": "ci-job", "path": "/ci/{repository}/{job}", "parameters": { "repository": ["web", "lib-*"] },
        "owner": "ada", "max_lifetime": "20m",
    });
    admin.register_template(&serde_json::from_value(template).unwrap()).await.unwrap();
    let request = |parameters: serde_json::Value| -> CreateTokenRequest {
        serde_json::from_value(serde_json::json!({ "template": "ci-job", "parameters": parameters })).unwrap()
    };
    for parameters in [
        serde_json::json!({ "repository": "web" }),
        serde_json::json!({ "repository": "secret", "job": "1" }),
        serde_json::json!({ "repository": "web", "job": "../../operator/admin" }),
        serde_json::json!({ "repository": "web", "job": "1", "extra": "x" }),
        serde_json::json!({ "repository": "web", "job": "" }),
        serde_json::json!({ "repository": "web", "job": "a/b" }),
    ] {
        let refused = admin.create_token(&request(parameters.clone())).await.unwrap_err();
        assert_eq!(problem(&refused), Some(ProblemCode::InvalidTemplate), "{parameters}: {refused}");
    }
    let token = |job: &str| request(serde_json::json!({ "repository": "lib-a", "job": job }));
    let made = admin.create_token(&token("7")).await.unwrap();
    let enrolled = client
        .enroll(&enrolment(&new_key(), Evidence::JoinToken { token: made.token }), &fresh())
        .await
        .unwrap();
    assert_eq!(enrolled.spiffe_id, id("ci/lib-a/7"));
    assert!(enrolled.not_after.since(enrolled.not_before).as_secs() <= 22 * 60, "{enrolled:?}");
    // The identity is registered now and belongs to the template's owner; a second token is for the same one.
    let again = admin.create_token(&token("7")).await.unwrap();
    let request = enrolment(&new_key(), Evidence::JoinToken { token: again.token });
    assert_eq!(client.enroll(&request, &fresh()).await.unwrap().spiffe_id, id("ci/lib-a/7"));
    let view = admin.read_identity(&id("ci/lib-a/7")).await.unwrap();
    assert_eq!((view.identity.0.owner.as_str(), view.live_certificates), ("ada", 2));
    // The template is gone: so is what its tokens were good for.
    let late = admin.create_token(&token("8")).await.unwrap();
    admin.remove_template("ci-job").await.unwrap();
    let request = enrolment(&new_key(), Evidence::JoinToken { token: late.token });
    let refused = client.enroll(&request, &fresh()).await.unwrap_err();
    assert!(problem(&refused).is_some_and(|code| code != ProblemCode::Internal), "{refused}");
    running.server.stop().await;
}
