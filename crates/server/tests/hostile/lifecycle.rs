//! What happens to identities, lineages and rules while they are in use.

use chancery_api::{
    BatchEnrollRequest, BatchResult, CertificateStatus, CsrDer, EnrollRequest, Evidence, HoldRequest,
    IdentityStateRequest, ProblemCode, ReleaseRequest, RevokeRequest, Selector,
};
use chancery_types::{RevocationReason, Role};
use data_encoding::BASE64;

use crate::running::{Held, Running, csr, enrolment, fresh, id, new_key, problem};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_renewals_of_one_certificate_hold_both_and_stay_held() {
    let running = Running::start().await;
    let first = running.enroll("web").await;
    let second = running.renew(&first).await.unwrap();
    let refused = running.renew(&first).await.map(|_| ()).unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::LineageForked), "{refused}");
    for held in [&first, &second] {
        assert_eq!(status(&running, held).await, CertificateStatus::Held);
        let refused = running.renew(held).await.map(|_| ()).unwrap_err();
        assert!(
            matches!(problem(&refused), Some(ProblemCode::LineageForked | ProblemCode::CertificateRevoked)),
            "{refused}"
        );
    }
    // An operator who knows which copy is genuine releases the lineage, and revokes the other.
    let admin = running.admin();
    let lineage = Selector::Lineage(first.response.lineage);
    let release = ReleaseRequest { note: "found out".into(), ..ReleaseRequest::new(lineage) };
    admin.release(&release).await.unwrap();
    assert_eq!(status(&running, &second).await, CertificateStatus::Good);
    running.renew(&second).await.unwrap();
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_identity_does_nothing_until_it_is_released_and_a_retired_one_never_again() {
    let running = Running::start().await;
    let held = running.enroll("web").await;
    let (admin, client) = (running.admin(), running.client(None));
    let web = id("web");
    let why = IdentityStateRequest { note: "drill".into() };
    let open = running.token("web").await.token;
    let with_open = enrolment(&new_key(), Evidence::JoinToken { token: open });

    admin.hold_identity(&web, &why).await.unwrap();
    assert_eq!(status(&running, &held).await, CertificateStatus::Held);
    let refused = client.enroll(&with_open, &fresh()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::IdentityHeld), "{refused}");
    let refused = running.renew(&held).await.map(|_| ()).unwrap_err();
    assert!(
        matches!(problem(&refused), Some(ProblemCode::IdentityHeld | ProblemCode::CertificateRevoked)),
        "{refused}"
    );
    let refused = admin.hold_identity(&web, &why).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::IdentityHeld), "{refused}");

    admin.release_identity(&web, &why).await.unwrap();
    assert_eq!(status(&running, &held).await, CertificateStatus::Good);
    let renewed = running.renew(&held).await.unwrap();
    // The refusal did not spend the token.
    client.enroll(&with_open, &fresh()).await.unwrap();

    let late = running.token("web").await.token;
    admin.retire_identity(&web, &why).await.unwrap();
    assert_eq!(status(&running, &renewed).await, CertificateStatus::Revoked);
    let request = enrolment(&new_key(), Evidence::JoinToken { token: late });
    let refused = client.enroll(&request, &fresh()).await.unwrap_err();
    // Its tokens were withdrawn with it.
    assert_eq!(problem(&refused), Some(ProblemCode::EvidenceRefused), "{refused}");
    let refused = admin.release_identity(&web, &why).await.unwrap_err();
    assert!(
        matches!(problem(&refused), Some(ProblemCode::IdentityRetired | ProblemCode::NotInThisState)),
        "{refused}"
    );
    let again = chancery_api::IdentityDocument(chancery_types::Identity::new(web, "mallory"));
    let refused = admin.register_identity(&again).await.unwrap_err();
    assert!(
        matches!(problem(&refused), Some(ProblemCode::AlreadyExists | ProblemCode::IdentityRetired)),
        "{refused}"
    );
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_for_good_and_a_hold_is_not() {
    let running = Running::start().await;
    let held = running.enroll("web").await;
    let admin = running.admin();
    let selector = || Selector::Serial(held.response.serial);
    let hold = HoldRequest::new(selector());
    assert_eq!(admin.hold(&hold).await.unwrap().count, 1);
    assert_eq!(status(&running, &held).await, CertificateStatus::Held);
    let release = ReleaseRequest::new(selector());
    assert_eq!(admin.release(&release).await.unwrap().count, 1);
    assert_eq!(status(&running, &held).await, CertificateStatus::Good);
    let mut revoke =
        RevokeRequest { dry_run: true, ..RevokeRequest::new(selector(), RevocationReason::KeyCompromise) };
    assert_eq!(admin.revoke(&revoke).await.unwrap().count, 1);
    assert_eq!(status(&running, &held).await, CertificateStatus::Good);
    revoke.dry_run = false;
    assert_eq!(admin.revoke(&revoke).await.unwrap().count, 1);
    // Twice is once; nothing brings it back.
    assert_eq!(admin.revoke(&revoke).await.map(|changed| changed.count).unwrap_or_default(), 0);
    let _ = admin.hold(&hold).await;
    let _ = admin.release(&release).await;
    assert_eq!(status(&running, &held).await, CertificateStatus::Revoked);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_fails_item_by_item() {
    let running = Running::start().await;
    for name in ["a", "b", "held"] {
        running.register(name).await;
    }
    let admin = running.admin();
    admin.hold_identity(&id("held"), &IdentityStateRequest::default()).await.unwrap();
    let item = |name: &str, csr: &[u8]| serde_json::json!({ "identity": id(name), "key": { "csr": BASE64.encode(csr) } });
    let request = serde_json::json!({ "items": [
        item("a", &csr(&new_key())),
        item("nobody", &csr(&new_key())),
        item("held", &csr(&new_key())),
        item("a", b"garbage"),
        { "identity": id("b"), "key": { "public_key": BASE64.encode(new_key().public_key().spki_der()) } },
        { "identity": id("b"), "profile": "operator", "key": { "csr": BASE64.encode(&csr(&new_key())) } },
        item("operator/admin", &csr(&new_key())),
    ] });
    let request: BatchEnrollRequest = serde_json::from_value(request).unwrap();
    let results = admin.enroll_batch(&request, &fresh()).await.unwrap().results;
    let outcomes: Vec<String> = results
        .iter()
        .map(|result| match result {
            BatchResult::Issued(issued) => issued.spiffe_id.path().to_owned(),
            BatchResult::Refused(problem) => problem.code.clone(),
        })
        .collect();
    let expected =
        ["/a", "not-found", "identity-held", "invalid-csr", "/b", "outside-profile", "/operator/admin"];
    assert_eq!(outcomes, expected);

    let many = serde_json::json!({ "items": vec![item("a", b"x"); 1001] });
    let many: BatchEnrollRequest = serde_json::from_value(many).unwrap();
    let refused = admin.enroll_batch(&many, &fresh()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::TooManyItems), "{refused}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_are_wrong_leave_those_in_force() {
    let running = Running::start().await;
    running.register("web").await;
    let authority = &running.server.site().authority;
    let before = running.admin().read_policy().await.unwrap().version;
    let policy = running.place.file("policy/default.cedar");
    let profile = running.place.file("profiles/workload.toml");
    let (good_policy, good_profile) =
        (std::fs::read_to_string(&policy).unwrap(), std::fs::read_to_string(&profile).unwrap());
    for (path, broken) in [
        (&policy, "permit (principal, action, resource".to_owned()),
        (&policy, format!("{good_policy}\npermit (principal is Nobody, action, resource);")),
        (&profile, "name = \"workload\"".to_owned()),
        (&profile, format!("{good_profile}\nsurprise = true")),
        (&profile, "\u{0}".repeat(100_000)),
    ] {
        std::fs::write(path, &broken).unwrap();
        let refused = authority.reload_rules("test").await;
        assert!(refused.is_err(), "{}", &broken[..broken.len().min(80)]);
        assert_eq!(running.admin().read_policy().await.unwrap().version, before);
        running.enroll_again("web").await;
        std::fs::write(&policy, &good_policy).unwrap();
        std::fs::write(&profile, &good_profile).unwrap();
    }
    // One that is right comes into force: from now on nobody gets a certificate.
    std::fs::write(&policy, format!("{good_policy}\n@id(\"closed\")\n@message(\"closed today\")\nforbid (principal is Identity, action in Action::\"issue\", resource is Profile);")).unwrap();
    authority.reload_rules("test").await.unwrap();
    assert_ne!(running.admin().read_policy().await.unwrap().version, before);
    let request = enrolment(&new_key(), Evidence::JoinToken { token: running.token("web").await.token });
    let refused = running.client(None).enroll(&request, &fresh()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::PolicyDenied), "{refused}");
    assert!(refused.to_string().contains("closed today"), "{refused}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_belongs_to_its_caller_and_its_request() {
    let running = Running::start().await;
    running.register("web").await;
    let key = fresh();
    let client = running.client(None);
    let request = |token| -> EnrollRequest { enrolment(&new_key(), Evidence::JoinToken { token }) };
    let first = request(running.token("web").await.token);
    let enrolled = client.enroll(&first, &key).await.unwrap();
    assert_eq!(client.enroll(&first, &key).await.unwrap().certificate, enrolled.certificate);
    // Another's request under the same key does not get the first one's certificate.
    let second = request(running.token("web").await.token);
    if let Ok(other) = client.enroll(&second, &key).await {
        assert_ne!(other.serial, enrolled.serial);
    }
    // Whoever repeats it with another request for another key and the spent token gets nothing.
    let mut stolen = first.clone();
    stolen.csr = CsrDer::from_der(csr(&new_key()));
    let refused = client.enroll(&stolen, &key).await.unwrap_err();
    assert!(
        matches!(problem(&refused), Some(ProblemCode::TokenSpent | ProblemCode::IdempotencyKeyReused)),
        "{refused}"
    );
    // Not even once it is revoked does a repetition make a new one.
    let revoke = RevokeRequest::new(Selector::Serial(enrolled.serial), RevocationReason::KeyCompromise);
    running.admin().revoke(&revoke).await.unwrap();
    if let Ok(again) = client.enroll(&first, &key).await {
        assert_eq!(again.serial, enrolled.serial);
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_renews_its_own_certificate_and_keeps_its_role() {
    let running = Running::start().await;
    let operator = running.operator("olga", Role::Operator).await;
    let renewed = running.renew(&operator).await.unwrap();
    assert_eq!(renewed.response.profile, "operator");
    running.client(Some(renewed.identity())).list_tokens(&Default::default()).await.unwrap();
    running.server.stop().await;
}

async fn status(running: &Running, held: &Held) -> CertificateStatus {
    running.client(None).status(held.response.serial).await.unwrap().status
}
