//! Certificates for processes: for whom, on whose word, and what is written down about it.

use chancery_api::{AgentSvidsRequest, ProblemCode, TemplateDocument};
use chancery_entry::{Body, Entry};
use chancery_policy::DecisionReceipt;
use chancery_types::{AssuranceLevel, ClaimValue, Claims, EvidenceKind};

use crate::node::{
    Node, item, node_identity, outcome, process, register, spiffe, token_for_template, workload,
};
use crate::running::{Running, enrolment, fresh, id, new_key, problem};

#[tokio::test]
async fn a_batch_is_answered_in_order_and_each_item_by_itself() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    for (name, uid) in [("web", "1000"), ("db", "26")] {
        register(&running, workload(name, "node/a", uid)).await;
    }
    register(&running, workload("other", "node/b", "1000")).await;
    let items = vec![
        item("web", &process("1000")),
        item("other", &process("1000")),
        item("db", &process("1000")),
        item("db", &process("26")),
        item("missing", &process("26")),
        item("web", &process("1000")),
    ];
    let answer = node.client.agent_svids(&AgentSvidsRequest { items }).await.unwrap();
    let results: Vec<_> = answer.results.into_iter().map(outcome).collect();
    let names: Vec<_> = results.iter().map(|one| one.as_ref().map(|one| one.spiffe_id.clone())).collect();
    let refused = || Err(&ProblemCode::NoMatchingIdentity);
    let expected = [Ok(id("web")), refused(), refused(), Ok(id("db")), refused(), Ok(id("web"))];
    assert_eq!(names, expected);
    assert_ne!(results[0].as_ref().unwrap().serial, results[5].as_ref().unwrap().serial);
    let [web, db, again] = [0, 3, 5].map(|place| results[place].as_ref().unwrap().log_index);
    assert_eq!((db, again), (web + 1, web + 2), "one commit for the whole batch");
    running.server.stop().await;
}

#[tokio::test]
async fn the_log_says_who_vouched_and_on_what() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    let svid = node.svid("web", &process("1000")).await.unwrap();
    assert_eq!(svid.assurance, AssuranceLevel::SharedSecret);
    let ledger = running.server.site().authority.ledger().clone();
    let entry = Entry::decode(&ledger.entry(svid.log_index).await.unwrap().unwrap()).unwrap();
    let Body::Issuance(issuance) = entry.body else { panic!("an issuance") };
    assert_eq!(issuance.requester, "spiffe://example.org/node/a");
    assert_eq!(issuance.evidence, EvidenceKind::Workload);
    let receipt = DecisionReceipt::from_json(&issuance.decision.0).unwrap();
    let claims = &receipt.inputs.evidence.claims;
    assert!(claims.holds("node.id", "spiffe://example.org/node/a"));
    assert!(claims.holds("node.serial", &node.held.response.serial.to_string()));
    assert!(claims.holds("unix.supplementary_gid", "27"));
    running.server.stop().await;
}

#[tokio::test]
async fn held_identities_and_claims_that_an_agent_cannot_make_are_refused() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    let mut forged = process("1000");
    forged.insert("operator.role", "admin");
    assert_eq!(node.svid("web", &forged).await.unwrap_err(), ProblemCode::EvidenceRefused);
    crate::node::hold(&running, "web").await;
    assert_eq!(node.svid("web", &process("1000")).await.unwrap_err(), ProblemCode::IdentityHeld);
    running.server.stop().await;
}

#[tokio::test]
async fn an_identity_may_ask_for_two_texts_of_one_claim() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    let labels = [("k8s.pod_label", "app:web"), ("k8s.pod_label", "tier:front")];
    let mut front = workload("front", "node/a", "1000");
    front.selectors = labels.into();
    register(&running, front).await;
    let told = running.admin().read_identity(&spiffe("front")).await.unwrap();
    assert_eq!(told.identity.0.selectors, labels.into());
    let mut claims = Claims::new();
    claims.insert("k8s.pod_label", ClaimValue::List(vec!["app:web".into(), "tier:back".into()]));
    assert_eq!(node.svid("front", &claims).await.unwrap_err(), ProblemCode::NoMatchingIdentity);
    claims.insert("k8s.pod_label", ClaimValue::List(vec!["app:web".into(), "tier:front".into()]));
    assert!(node.svid("front", &claims).await.is_ok());
    running.server.stop().await;
}

#[tokio::test]
async fn no_agent_gets_a_certificate_for_a_node_or_an_operator() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    let mut other = node_identity("node/b");
    other.parents = vec![id("node/a")];
    other.selectors = [("unix.uid", "0")].into();
    register(&running, other).await;
    assert_eq!(node.svid("node/b", &process("0")).await.unwrap_err(), ProblemCode::PolicyDenied);
    running.server.stop().await;
}

#[tokio::test]
async fn a_weak_or_broken_key_is_refused_alone() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    let mut broken = item("web", &process("1000"));
    broken.key = chancery_api::PublicKeyDer::from_der(vec![1, 2, 3]);
    let items = vec![broken, item("web", &process("1000"))];
    let answer = node.client.agent_svids(&AgentSvidsRequest { items }).await.unwrap();
    let mut results = answer.results.into_iter().map(outcome);
    assert_eq!(results.next().unwrap().unwrap_err(), ProblemCode::KeyRefused);
    assert!(results.next().unwrap().is_ok());
    running.server.stop().await;
}

#[tokio::test]
async fn strangers_workloads_and_too_large_batches_are_turned_away() {
    let running = Running::start().await;
    let request = AgentSvidsRequest { items: vec![item("web", &process("1000"))] };
    let refused = running.client(None).agent_svids(&request).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::CertificateRequired));
    let web = running.enroll("web").await;
    let refused = running.client(Some(web.identity())).agent_svids(&request).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted));
    let node = Node::enrol(&running, "node/a").await;
    let items = vec![request.items[0].clone(); 1001];
    let refused = node.client.agent_svids(&AgentSvidsRequest { items }).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::TooManyItems));
    running.server.stop().await;
}

/// What a node proved when it enrolled is remembered through its renewals.
#[tokio::test]
async fn node_selectors_are_held_against_what_the_node_proved() {
    let running = Running::start().await;
    let template: TemplateDocument = serde_json::from_value(serde_json::json!({
        "name": "racks", "path": "/node/{rack}", "owner": "ada", "profiles": ["node"],
    }))
    .unwrap();
    running.admin().register_template(&template).await.unwrap();
    let mut enrolled = Vec::new();
    for rack in ["r1", "r2"] {
        let request = token_for_template("racks", &[("rack", rack)]);
        let token = running.admin().create_token(&request).await.unwrap().token;
        let key = new_key();
        let request = enrolment(&key, chancery_api::Evidence::JoinToken { token });
        let response = running.client(None).enroll(&request, &fresh()).await.unwrap();
        enrolled.push(crate::running::Held { key, response });
    }
    let mut web = workload("web", "node/none", "1000");
    web.parents.clear();
    web.node_selectors = [("token.parameter.rack", "r1")].into();
    register(&running, web).await;
    let [first, second] = enrolled.try_into().ok().unwrap();
    let renewed = running.renew(&first).await.unwrap();
    let first = Node::of(&running, renewed);
    let second = Node::of(&running, second);
    assert_eq!(first.stream(None).await.sync().await.0, ["/web"]);
    assert!(second.stream(None).await.sync().await.0.is_empty());
    assert_eq!(first.svid("web", &process("1000")).await.unwrap().spiffe_id, spiffe("web"));
    let refused = second.svid("web", &process("1000")).await.unwrap_err();
    assert_eq!(refused, ProblemCode::NoMatchingIdentity);
    running.server.stop().await;
}
