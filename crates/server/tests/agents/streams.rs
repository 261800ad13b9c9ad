//! The stream: what comes first, what is pushed, what ends it, and how it goes on.

use chancery_api::{
    AgentEvent, AgentStreamQuery, HoldRequest, IdentityDocument, IdentityStateRequest, ProblemCode,
    RevokeRequest, Selector,
};
use chancery_types::{RevocationReason, SerialNumber};

use crate::node::{Node, hold, node_identity, process, register, workload};
use crate::running::{Running, id, problem};

fn revoke(selector: Selector) -> RevokeRequest {
    let reason = RevocationReason::Superseded;
    RevokeRequest { selector, reason, dry_run: false, note: String::new() }
}

async fn revoke_serial(running: &Running, serial: SerialNumber) {
    running.admin().revoke(&revoke(Selector::Serial(serial))).await.unwrap();
}

#[tokio::test]
async fn a_node_is_told_its_identities_and_every_change_of_them() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    let mut web = workload("web", "node/a", "1000");
    web.hint = "main".into();
    web.federates_with = vec!["elsewhere.org".parse().unwrap()];
    web.dns_names = vec!["web.example.org".parse().unwrap()];
    web.max_lifetime = Some("30m".parse().unwrap());
    register(&running, web.clone()).await;
    register(&running, workload("other", "node/b", "1000")).await;
    running.register("nobodys").await;

    let mut stream = node.stream(None).await;
    let AgentEvent::Sync { identities, bundle, .. } = stream.next().await else { panic!("everything") };
    let [told] = identities.as_slice() else { panic!("one identity: {identities:?}") };
    assert_eq!((told.spiffe_id.path(), told.hint.as_deref()), ("/web", Some("main")));
    assert_eq!((told.profile.as_str(), told.key_algorithm.as_str()), ("workload", "p256"));
    assert_eq!(told.lifetime.unwrap().to_string(), "30m");
    assert_eq!(told.dns_names, ["web.example.org"]);
    assert_eq!(told.federates_with, web.federates_with);
    assert_eq!(bundle.trust_domain.as_str(), "example.org");
    let root = running.server.site().authority.root().der().to_vec();
    assert_eq!(bundle.x509_authorities[0].as_der(), root);
    assert!(bundle.jwt_keys.keys[0].kid.is_some());

    register(&running, workload("db", "node/a", "26")).await;
    let AgentEvent::Changed { identity, revision, .. } = stream.next().await else {
        panic!("a new identity")
    };
    assert_eq!(identity.spiffe_id, id("db"));
    assert_eq!(revision, running.server.site().authority.ledger().head().size);

    let version = running.admin().read_identity(&id("db")).await.unwrap().version;
    let moved = IdentityDocument(workload("db", "node/b", "26"));
    running.admin().change_identity(&moved, version).await.unwrap();
    assert!(matches!(stream.next().await, AgentEvent::Removed { spiffe_id, .. } if spiffe_id == id("db")));

    hold(&running, "web").await;
    assert!(matches!(stream.next().await, AgentEvent::Removed { spiffe_id, .. } if spiffe_id == id("web")));
    running.admin().release_identity(&id("web"), &IdentityStateRequest::default()).await.unwrap();
    let event = stream.next().await;
    assert!(matches!(event, AgentEvent::Changed { identity, .. } if identity.spiffe_id == id("web")));
    running.admin().retire_identity(&id("web"), &IdentityStateRequest::default()).await.unwrap();
    assert!(matches!(stream.next().await, AgentEvent::Removed { spiffe_id, .. } if spiffe_id == id("web")));
    running.server.stop().await;
}

#[tokio::test]
async fn a_revoked_or_held_certificate_reaches_the_node_that_it_was_issued_through_and_no_other() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    let other = Node::enrol(&running, "node/b").await;
    let mut shared = workload("web", "node/a", "1000");
    shared.parents.push(id("node/b"));
    register(&running, shared).await;
    let mut stream = node.stream(None).await;
    stream.sync().await;
    let mut others = other.stream(None).await;
    others.sync().await;

    let first = node.svid("web", &process("1000")).await.unwrap();
    revoke_serial(&running, first.serial).await;
    let event = stream.next().await;
    assert!(matches!(event, AgentEvent::Revoked { serials, .. } if serials == [first.serial]));

    let second = node.svid("web", &process("1000")).await.unwrap();
    let selector = Selector::Serial(second.serial);
    running.admin().hold(&HoldRequest { selector, dry_run: false, note: String::new() }).await.unwrap();
    let event = stream.next().await;
    assert!(matches!(event, AgentEvent::Revoked { serials, .. } if serials == [second.serial]));

    let third = other.svid("web", &process("1000")).await.unwrap();
    running.admin().revoke(&revoke(Selector::Identity(id("web")))).await.unwrap();
    // The other node hears of its own alone.
    let event = others.next().await;
    assert!(matches!(event, AgentEvent::Revoked { serials, .. } if serials == [third.serial]));
    running.server.stop().await;
}

#[tokio::test]
async fn a_banned_node_is_cut_off_with_everything_that_it_asked_for() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    let mut stream = node.stream(None).await;
    stream.sync().await;
    let svid = node.svid("web", &process("1000")).await.unwrap();

    // What `chancery node ban` does, in its order.
    hold(&running, "node/a").await;
    assert_eq!(stream.next_or_end().await, None);
    let issued = running.admin().revoke(&revoke(Selector::Node(id("node/a")))).await.unwrap();
    assert_eq!(issued.serials, [svid.serial]);
    running.admin().revoke(&revoke(Selector::Identity(id("node/a")))).await.unwrap();

    let refused = node.client.agent_stream(&AgentStreamQuery::default()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::CertificateNotAccepted));
    let items = vec![crate::node::item("web", &process("1000"))];
    let refused = node.client.agent_svids(&chancery_api::AgentSvidsRequest { items }).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::CertificateNotAccepted));

    // Released, it may attest itself again.
    running.admin().release_identity(&id("node/a"), &IdentityStateRequest::default()).await.unwrap();
    let again = Node::of(&running, running.enroll_again("node/a").await);
    assert_eq!(again.stream(None).await.sync().await.0, ["/web"]);
    running.server.stop().await;
}

#[tokio::test]
async fn revoking_a_nodes_certificate_tells_it_so_and_ends_its_stream() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    let mut stream = node.stream(None).await;
    stream.sync().await;
    let serial = node.held.response.serial;
    revoke_serial(&running, serial).await;
    let event = stream.next().await;
    assert!(matches!(event, AgentEvent::Revoked { serials, .. } if serials == [serial]));
    assert_eq!(stream.next_or_end().await, None);
    running.server.stop().await;
}

#[tokio::test]
async fn a_stream_goes_on_where_it_broke_off() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    register(&running, workload("db", "node/a", "26")).await;
    let mut stream = node.stream(None).await;
    let (names, revision) = stream.sync().await;
    assert_eq!(names, ["/db", "/web"]);
    drop(stream);

    let svid = node.svid("web", &process("1000")).await.unwrap();
    revoke_serial(&running, svid.serial).await;
    hold(&running, "db").await;
    register(&running, workload("mail", "node/a", "8")).await;
    let mut resumed = node.stream(Some(revision)).await;
    let mut revisions = vec![revision];
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = resumed.next().await;
        revisions.push(event.revision());
        seen.push(match event {
            AgentEvent::Revoked { .. } => "revoked",
            AgentEvent::Removed { .. } => "removed",
            AgentEvent::Changed { .. } => "changed",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["revoked", "removed", "changed"]);
    assert!(revisions.is_sorted(), "{revisions:?}");
    drop(resumed);

    // Nothing was missed: a heartbeat says so at once.
    let latest = *revisions.last().unwrap();
    let mut idle = node.stream(Some(latest)).await;
    assert!(matches!(idle.any().await, AgentEvent::Heartbeat { revision } if revision >= latest));
    // A revision that this log has not reached, and one from before the server started, begin with everything.
    for unknown in [latest + 1000, 1] {
        assert_eq!(node.stream(Some(unknown)).await.sync().await.0, ["/mail", "/web"]);
    }
    running.server.stop().await;
}

#[tokio::test]
async fn a_restarted_server_begins_with_everything() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    let (_, revision) = node.stream(None).await.sync().await;
    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    let running = Running { server: place.serve().await.unwrap(), place };
    let again = Node::of(&running, node.held);
    assert_eq!(again.stream(Some(revision - 1)).await.sync().await.0, ["/web"]);
    running.server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_ends_its_streams() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    let mut stream = node.stream(None).await;
    stream.sync().await;
    let stopping = async {
        let drained = running.server.stop().await;
        assert_eq!(drained, chancery_server::Drained::Completely);
    };
    let ((), last) = tokio::join!(stopping, stream.next_or_end());
    assert_eq!(last, None);
}

#[tokio::test]
async fn nobody_but_a_node_follows_a_stream() {
    let running = Running::start().await;
    let query = AgentStreamQuery::default();
    let stranger = running.client(None).agent_stream(&query).await.unwrap_err();
    assert_eq!(problem(&stranger), Some(ProblemCode::CertificateRequired));
    let workload = running.enroll("web").await;
    let refused = running.client(Some(workload.identity())).agent_stream(&query).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted));
    // An admin may do everything, and is no node.
    let refused = running.admin().agent_stream(&query).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted));
    running.server.stop().await;
}

#[tokio::test]
async fn an_identity_that_stops_being_a_node_loses_its_stream() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    let mut stream = node.stream(None).await;
    stream.sync().await;
    let version = running.admin().read_identity(&id("node/a")).await.unwrap().version;
    let mut plain = node_identity("node/a");
    plain.profiles.clear();
    running.admin().change_identity(&IdentityDocument(plain), version).await.unwrap();
    assert_eq!(stream.next_or_end().await, None);
    running.server.stop().await;
}
