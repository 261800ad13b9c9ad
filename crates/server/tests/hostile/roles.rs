//! Who asks: every operation, for every kind of caller, is permitted or denied as this table says.

use chancery_api::{IdentityDocument, Operation, OperatorRequest, ProblemCode, RevokeRequest, Selector};
use chancery_types::{Identity, RevocationReason, Role};

use crate::running::wire::Wire;
use crate::running::{Held, Running, csr, fresh, id, new_key, problem, token_for};

/// Callers, from nobody to everybody.
const CALLERS: [&str; 6] = ["anonymous", "workload", "viewer", "auditor", "operator", "admin"];

/// Who may: `x` for yes, in the order of [`CALLERS`]. A match without wildcard: a new operation does not
/// compile before somebody has decided here who may.
fn permitted(operation: Operation) -> &'static str {
    match operation {
        Operation::Enroll
        | Operation::Nonce
        | Operation::StatusOfMany
        | Operation::Status
        | Operation::StatusSet
        | Operation::StatusDelta
        | Operation::Bundle
        | Operation::BundleJson
        | Operation::OpenIdConfiguration
        | Operation::JwtKeys
        | Operation::SsfConfiguration
        | Operation::Issuers
        | Operation::IssuerCertificate
        | Operation::CrlDer
        | Operation::CrlPem
        | Operation::IssuerCrl
        | Operation::ShardCrl
        | Operation::OcspGet
        | Operation::OcspPost
        | Operation::LogCheckpoint
        | Operation::LogKey
        | Operation::LogKeys
        | Operation::Healthz
        | Operation::Readyz
        | Operation::OpenApi => "xxxxxx",
        // The holder of any certificate of ours: for itself.
        Operation::Renew
        | Operation::LogProof
        | Operation::StatusFeed
        | Operation::PollStatusFeed
        | Operation::FollowStatus
        | Operation::Acknowledge
        | Operation::CreateStream
        | Operation::ReadStream
        | Operation::UpdateStream
        | Operation::ReplaceStream
        | Operation::DeleteStream
        | Operation::ReadStreamStatus
        | Operation::SetStreamStatus
        | Operation::VerifyStream
        | Operation::PollStream => "-xxxxx",
        Operation::ReadIdentity
        | Operation::CaStatus
        | Operation::ListIdentities
        | Operation::ListTemplates
        | Operation::ReadTemplate
        | Operation::ListCertificates
        | Operation::ReadCertificate
        | Operation::Why
        | Operation::ListRelyingParties
        | Operation::ListEventStreams
        | Operation::Metrics => "--xxxx",
        Operation::ListTokens
        | Operation::ListChanges
        | Operation::ReadChange
        | Operation::LogTile
        | Operation::LogEntries
        | Operation::ExportAudit
        | Operation::ReadPolicy
        | Operation::CheckPolicy => "---xxx",
        Operation::CreateToken
        | Operation::RevokeToken
        | Operation::RegisterIdentity
        | Operation::ChangeIdentity
        | Operation::RetireIdentity
        | Operation::HoldIdentity
        | Operation::ReleaseIdentity
        | Operation::RegisterTemplate
        | Operation::ChangeTemplate
        | Operation::RemoveTemplate
        | Operation::AskRenewal
        | Operation::Revoke
        | Operation::Hold
        | Operation::Release
        | Operation::ApproveChange
        | Operation::WithdrawChange
        | Operation::PauseChange
        | Operation::ResumeChange
        | Operation::UndoChange => "----xx",
        Operation::EnrollBatch
        | Operation::CreateOperator
        | Operation::CaRotate
        | Operation::CaRollback
        | Operation::CaAddRoot
        | Operation::CaTaint => "-----x",
        // For nodes alone: tests/agents.
        Operation::AgentStream | Operation::AgentSvids | Operation::AgentJwt => "------",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_for_those_in_the_table_and_for_nobody_else() {
    let running = Running::start().await;
    let workload = running.enroll("web").await;
    let mut wires = vec![Wire::tls(&running, None).await, wire_of(&running, &workload).await];
    for role in [Role::Viewer, Role::Auditor, Role::Operator, Role::Admin] {
        let held = running.operator(&format!("a-{role}"), role).await;
        wires.push(wire_of(&running, &held).await);
    }
    let revoke = format!(r#"{{"selector":{{"serial":"{}"}},"dry_run":true}}"#, workload.response.serial);
    for &operation in Operation::ALL {
        let value =
            if operation == Operation::Status { workload.response.serial.to_string() } else { "x".into() };
        let mut path = operation.fill(&vec![value.as_str(); operation.parameters().len()]);
        if operation == Operation::StatusFeed {
            // Whoever may follow it is told that this is no position, and not everything from now on.
            path.push_str("?after=x");
        }
        let line = format!("{} {path}", operation.method());
        let body = if operation == Operation::Revoke { revoke.as_bytes() } else { b"{}" };
        let mut found = String::new();
        for wire in &mut wires {
            let answer = wire.json(&line, body).await.unwrap();
            assert!(answer.status < 500, "{line}: {}", answer.text());
            let denied = ["certificate-required", "certificate-not-accepted", "not-permitted"];
            let is_denied = answer.problem().is_some_and(|code| denied.contains(&code.as_str()));
            found.push(if is_denied { '-' } else { 'x' });
        }
        assert_eq!(found, permitted(operation), "{}: who may, of {CALLERS:?}", operation.id());
    }
    running.server.stop().await;
}

async fn wire_of(running: &Running, held: &Held) -> Wire {
    Wire::tls(running, Some((&held.chain(), &held.key.to_pkcs8_pem()))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_does_not_make_itself_an_admin() {
    let running = Running::start().await;
    let operator = running.operator("olga", Role::Operator).await;
    let client = running.client(Some(operator.identity()));

    let request = OperatorRequest {
        name: "mallory".into(),
        role: Role::Admin,
        csr: chancery_api::CsrDer::from_der(csr(&new_key())),
        lifetime: None,
    };
    let refused = client.create_operator(&request, &fresh()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");

    let mut promoted = Identity::new(id("operator/olga"), "olga");
    promoted.profiles = vec!["operator".into()];
    promoted.role = Some(Role::Admin);
    let version = client.read_identity(&promoted.spiffe_id).await.unwrap().version;
    let refused = client.change_identity(&IdentityDocument(promoted.clone()), version).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");
    promoted.spiffe_id = id("operator/second");
    let refused = client.register_identity(&IdentityDocument(promoted)).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");

    let refused = client.create_token(&token_for("operator/admin")).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");
    let refused = client.retire_identity(&id("operator/admin"), &Default::default()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");
    let revoke = RevokeRequest::new(Selector::Identity(id("operator/admin")), RevocationReason::Superseded);
    let refused = client.revoke(&revoke).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_named_like_an_operator_gets_no_role() {
    let running = Running::start().await;
    // Registered without a role, under the operators' path: the name alone means nothing.
    let held = running.enroll("operator/shadow").await;
    let refused = running.client(Some(held.identity())).list_tokens(&Default::default()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_operator_is_refused_on_the_connection_that_is_open() {
    let running = Running::start().await;
    let operator = running.operator("olga", Role::Operator).await;
    let mut wire = wire_of(&running, &operator).await;
    assert_eq!(wire.ask("GET /v1/identities", &[], b"").await.unwrap().status, 200);
    let revoke =
        RevokeRequest::new(Selector::Serial(operator.response.serial), RevocationReason::KeyCompromise);
    assert_eq!(running.admin().revoke(&revoke).await.unwrap().count, 1);
    let answer = wire.ask("GET /v1/identities", &[], b"").await.unwrap();
    assert_eq!(answer.problem().as_deref(), Some("certificate-not-accepted"));
    // A new connection fares no better, and neither does a renewal.
    let mut wire = wire_of(&running, &operator).await;
    let answer = wire.ask("GET /v1/identities", &[], b"").await.unwrap();
    assert_eq!(answer.problem().as_deref(), Some("certificate-not-accepted"));
    let refused = running.renew(&operator).await.map(|_| ()).unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::CertificateRevoked), "{refused}");

    // An operator whose role is taken away keeps its certificate and loses what the role permitted, at once.
    let demoted = running.operator("dave", Role::Operator).await;
    let mut wire = wire_of(&running, &demoted).await;
    assert_eq!(wire.ask("GET /v1/tokens", &[], b"").await.unwrap().status, 200);
    let admin = running.admin();
    let view = admin.read_identity(&id("operator/dave")).await.unwrap();
    let mut document = view.identity.clone();
    document.0.role = Some(Role::Viewer);
    admin.change_identity(&document, view.version).await.unwrap();
    let answer = wire.ask("GET /v1/tokens", &[], b"").await.unwrap();
    assert_eq!(answer.problem().as_deref(), Some("not-permitted"));
    running.server.stop().await;
}
