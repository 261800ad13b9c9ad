//! From the first proof to the last certificate.

use std::time::{Duration, Instant};

use chancery_agent::proto::workload::JwtsvidRequest;
use chancery_agent::status::AgentHealth;
use chancery_agent::workload_api::client;
use chancery_agent::{AgentError, ask_status};
use chancery_api::{HoldRequest, IdentityDocument, IdentityStateRequest, Selector};
use chancery_types::KeyAlgorithm;
use chancery_x509::{Certificate, PublicKey};

use crate::place::{PATIENCE, SOON, World, names, wait};
use crate::running::id;

/// How soon a changed identity has another certificate: a fifth of what rotation would take.
const PROMPTLY: Duration = Duration::from_secs(5);

const KEPT: &str = "state = { directory = \"state\", keep_credential = true }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_gets_its_identity_and_loses_it_within_a_second() {
    let world = World::new().await;
    world.register("web").await;
    let serving = world.serve("").await.unwrap();
    let mut states = world.follow();
    let state = wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await;
    assert_eq!(names(&state), ["web"]);
    assert_eq!(state.bundles.len(), 1);

    // A new identity is usable on a running agent within a second.
    world.register("batch").await;
    let state = wait(&mut states, SOON, |state| state.svids.len() == 2).await;
    assert_eq!(names(&state), ["batch", "web"]);

    // One that is held is gone within a second, and back when it is released.
    let admin = world.admin();
    admin.hold_identity(&id("web"), &IdentityStateRequest::default()).await.unwrap();
    wait(&mut states, SOON, |state| names(state) == ["batch"]).await;
    admin.release_identity(&id("web"), &IdentityStateRequest::default()).await.unwrap();
    let state = wait(&mut states, SOON, |state| state.svids.len() == 2).await;

    // A certificate that is revoked is served no more within a second; the identity gets another.
    let serial = state.svids[0].serial;
    world.revoke(serial).await;
    wait(&mut states, SOON, |state| state.svids.iter().all(|svid| svid.serial != serial)).await;
    wait(&mut states, PATIENCE, |state| state.svids.len() == 2).await;

    // Held certificates of an identity count as revoked ones.
    let serial = states.borrow().svids[0].serial;
    let hold = HoldRequest::new(Selector::Serial(serial));
    admin.hold(&hold).await.unwrap();
    wait(&mut states, SOON, |state| state.svids.iter().all(|svid| svid.serial != serial)).await;
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_nobody_is_told_so_and_tokens_are_made_for_those_who_are_somebody() {
    let world = World::new().await;
    let _serving = world.serve("").await.unwrap();
    let request = || JwtsvidRequest { audience: vec!["db".into()], spiffe_id: String::new() };
    let mut workload = client::connect(&world.file("api.sock")).await.unwrap();
    let refused = workload.fetch_jwtsvid(request()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);

    world.register("web").await;
    let deadline = Instant::now() + SOON;
    let token = loop {
        match workload.fetch_jwtsvid(request()).await {
            Ok(answer) => break answer.into_inner().svids.remove(0).svid,
            Err(_) if Instant::now() < deadline => tokio::task::yield_now().await,
            Err(status) => panic!("{status}"),
        }
    };
    assert_eq!(token.split('.').count(), 3);
    let again = workload.fetch_jwtsvid(request()).await.unwrap().into_inner().svids.remove(0).svid;
    assert_eq!(token, again, "from the cache");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_needs_no_new_token_if_the_credential_is_kept_and_one_if_it_is_not() {
    let world = World::new().await;
    world.register("web").await;
    world.serve(KEPT).await.unwrap().stop().await;
    let began = Instant::now();
    let serving = world.serve(KEPT).await.unwrap();
    let mut states = world.follow();
    wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    serving.stop().await;

    let refused = world.serve("").await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, AgentError::Node(_)), "{refused}");
    assert!(refused.to_string().contains("spent") || refused.to_string().contains("used"), "{refused}");
    world.renew_token().await;
    world.serve("").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_identity_is_rotated_to_with_a_new_key() {
    let world = World::new().await;
    world.register("web").await;
    let _serving = world.serve("").await.unwrap();
    let mut states = world.follow();
    let before = wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await;
    let admin = world.admin();
    let view = admin.read_identity(&id("web")).await.unwrap();
    let mut identity = view.identity.0.clone();
    identity.hint = "main".into();
    identity.key_algorithms = vec![KeyAlgorithm::P384];
    admin.change_identity(&IdentityDocument(identity), view.version).await.unwrap();
    // The hint goes with whatever certificate there is; another key takes another certificate, long before half of life.
    let serial = before.svids[0].serial;
    let after =
        wait(&mut states, PROMPTLY, |state| state.svids.first().is_some_and(|svid| svid.serial != serial))
            .await;
    assert_eq!(after.svids[0].hint, "main");
    let leaf = Certificate::from_der(&after.svids[0].chain[0]).unwrap();
    let key = PublicKey::from_spki_der(leaf.tbs().spki_der()).unwrap();
    assert_eq!(key.algorithm(), KeyAlgorithm::P384);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_metrics_and_health_say_how_it_stands() {
    let world = World::new().await;
    world.register("web").await;
    let serving = world.serve("").await.unwrap();
    let mut states = world.follow();
    let state = wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await;
    let status = ask_status(&world.file("status.sock")).await.unwrap();
    assert_eq!(status.health, AgentHealth::Ok, "{status:?}");
    assert_eq!(status.node.spiffe_id, Some(id("node/a")));
    assert!(status.server.connected_since.is_some());
    let [identity] = status.identities.as_slice() else { panic!("{status:?}") };
    assert_eq!(identity.serial, Some(state.svids[0].serial));
    assert_eq!(identity.workloads, 1);
    assert!(identity.next_rotation.unwrap() < state.svids[0].not_after);
    assert_eq!(serving.agent.status().node, status.node);
    assert!(serving.doors.path().ends_with("api.sock"));
}
