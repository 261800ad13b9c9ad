//! Renewals that are asked for: who is told, when, and that whoever was away is told too.

use chancery_api::{AgentEvent, ProblemCode, RenewalRequest, RenewalScope, Selector, StatusQuestion};
use chancery_types::{HumanDuration, IssuerEpoch};

use crate::node::{Node, Stream, process, register, workload};
use crate::running::{Running, id, problem};

fn wish(scope: RenewalScope) -> RenewalRequest {
    RenewalRequest { scope, over: Some("10m".parse::<HumanDuration>().unwrap()), note: "new chain".into() }
}

/// The next event, which is a wish: whose, and before which position.
async fn asked(stream: &mut Stream) -> (RenewalScope, u64) {
    match stream.next().await {
        AgentEvent::Renew { scope, recorded_before, revision, .. } => {
            assert!(recorded_before <= revision);
            (scope, recorded_before)
        }
        other => panic!("expected a wish, got {other:?}"),
    }
}

#[tokio::test]
async fn those_are_told_who_can_hold_such_certificates_and_nobody_twice_for_one_wish() {
    let running = Running::start().await;
    let (node, other) = (Node::enrol(&running, "node/a").await, Node::enrol(&running, "node/b").await);
    register(&running, workload("web", "node/a", "1000")).await;
    let mut stream = node.stream(None).await;
    let mut others = other.stream(None).await;
    stream.sync().await;
    others.sync().await;
    let svid = node.svid("web", &process("1000")).await.unwrap();

    let web = RenewalScope::Identity(id("web"));
    let answer = running.admin().ask_renewal(&wish(web.clone())).await.unwrap();
    assert_eq!(answer.connected_agents, 2);
    assert!(svid.log_index < answer.recorded_before);
    assert_eq!(asked(&mut stream).await, (web, answer.recorded_before));
    let of_b = RenewalScope::Node(id("node/b"));
    running.admin().ask_renewal(&wish(of_b.clone())).await.unwrap();
    assert_eq!(asked(&mut others).await.0, of_b, "and nothing of the other node's identity");
    running.admin().ask_renewal(&wish(RenewalScope::All)).await.unwrap();
    assert_eq!(asked(&mut stream).await.0, RenewalScope::All);
    assert_eq!(asked(&mut others).await.0, RenewalScope::All);

    let next = node.svid("web", &process("1000")).await.unwrap();
    assert!(next.log_index >= answer.recorded_before, "what is issued afterwards is not meant");
    running.server.stop().await;
}

#[tokio::test]
async fn who_was_away_is_told_also_after_a_restart_of_the_server() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    let mut stream = node.stream(None).await;
    let (_, revision) = stream.sync().await;
    drop(stream);
    let all = RenewalScope::All;
    let answer = running.admin().ask_renewal(&wish(all.clone())).await.unwrap();

    let mut resumed = node.stream(Some(revision)).await;
    assert_eq!(asked(&mut resumed).await, (all.clone(), answer.recorded_before));
    let mut anew = node.stream(None).await;
    anew.sync().await;
    assert_eq!(asked(&mut anew).await, (all.clone(), answer.recorded_before));
    drop((resumed, anew));

    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    let running = Running { server: place.serve().await.unwrap(), place };
    let node = Node::of(&running, node.held);
    let mut stream = node.stream(Some(revision)).await;
    stream.sync().await;
    assert_eq!(asked(&mut stream).await, (all, answer.recorded_before));
    running.server.stop().await;
}

#[tokio::test]
async fn another_profile_has_its_certificates_replaced_and_everybody_told_what_is_issued_now() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    let mut stream = node.stream(None).await;
    stream.sync().await;
    let path = running.place.file("profiles/workload.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = text.replacen("default = \"1h\"", "default = \"30m\"", 1);
    assert_ne!(text, changed, "the profile lives for an hour");
    std::fs::write(&path, changed).unwrap();
    running.server.site().authority.reload_rules("test").await.unwrap();
    assert_eq!(asked(&mut stream).await.0, RenewalScope::Profile("workload".into()));
    let AgentEvent::Sync { identities, .. } = stream.next().await else { panic!("everything anew") };
    assert_eq!(identities[0].lifetime.unwrap().to_string(), "30m");
    assert_eq!(asked(&mut stream).await.0, RenewalScope::Profile("workload".into()));
    running.server.stop().await;
}

#[tokio::test]
async fn what_is_not_there_and_what_would_take_too_long_is_not_asked_for() {
    let running = Running::start().await;
    for scope in [
        RenewalScope::Identity(id("nobody")),
        RenewalScope::Issuer(IssuerEpoch(9)),
        RenewalScope::Profile("none".into()),
    ] {
        let refused = running.admin().ask_renewal(&wish(scope.clone())).await.unwrap_err();
        let code = problem(&refused).unwrap();
        assert!(matches!(code, ProblemCode::NotFound | ProblemCode::UnknownProfile), "{scope:?}: {code:?}");
    }
    let slow = RenewalRequest { over: Some("25h".parse().unwrap()), ..wish(RenewalScope::All) };
    let refused = running.admin().ask_renewal(&slow).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::MalformedRequest));
    running.server.stop().await;
}

#[tokio::test]
async fn many_certificates_are_asked_about_at_once() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    let mut serials = Vec::new();
    for _ in 0..3 {
        serials.push(node.svid("web", &process("1000")).await.unwrap().serial);
    }
    let revoked = chancery_api::RevokeRequest {
        selector: Selector::Serial(serials[1]),
        reason: chancery_types::RevocationReason::Superseded,
        dry_run: false,
        note: String::new(),
    };
    running.admin().revoke(&revoked).await.unwrap();
    let after = running.server.site().authority.ledger().head().size;
    let anybody = running.client(None);
    let question = StatusQuestion { serials: serials.clone(), after: Some(after) };
    let answer = anybody.status_of_many(&question).await.unwrap();
    assert!(answer.sequence >= after);
    let not_good: Vec<_> = answer.not_good.iter().map(|one| one.serial).collect();
    assert_eq!(not_good, [serials[1]]);

    let ahead = StatusQuestion { serials: serials.clone(), after: Some(after + 1000) };
    let refused = anybody.status_of_many(&ahead).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotReady));
    let many = StatusQuestion { serials: vec![serials[0]; 1001], after: None };
    let refused = anybody.status_of_many(&many).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::MalformedRequest));
    running.server.stop().await;
}
