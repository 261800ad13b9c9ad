//! The node loses its credential, or has none yet, and comes back by itself where its evidence allows.

use std::time::{Duration, Instant};

use chancery_agent::{Agent, ask_status};
use chancery_api::{IdentityDocument, IdentityStateRequest, RevokeRequest, Selector};
use chancery_server::config::RawForeignAuthority;
use chancery_types::{Identity, RevocationReason, SerialNumber};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::place::{PATIENCE, World, environment, wait};
use crate::running::id;

/// Waits until the node has a certificate that is not this one.
async fn next_credential(world: &World, before: Option<SerialNumber>) -> SerialNumber {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let node = ask_status(&world.file("status.sock")).await.unwrap().node;
        if let Some(serial) = node.serial.filter(|serial| Some(*serial) != before) {
            return serial;
        }
        assert!(Instant::now() < deadline, "{node:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A root and a machine's certificate under it, with its key: PEM.
fn corporation() -> (String, String, String) {
    let mut root = CertificateParams::new(Vec::<String>::new()).unwrap();
    root.distinguished_name.push(DnType::CommonName, "corp root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root_key = KeyPair::generate().unwrap();
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(root, root_key);
    let mut machine = CertificateParams::new(vec!["machine.corp.example".to_owned()]).unwrap();
    machine.distinguished_name.push(DnType::CommonName, "machine");
    machine.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = machine.signed_by(&key, &issuer).unwrap().pem();
    (root_pem, certificate, key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_with_a_certificate_of_its_own_proves_itself_again_whatever_happens() {
    let (root, certificate, key) = corporation();
    let world = World::with(|place| {
        std::fs::write(place.file("corp.pem"), &root).unwrap();
        place.edit(|raw| {
            let corp = RawForeignAuthority { roots: "corp.pem".into(), crls: None, purposes: Vec::new() };
            raw.attestation.x509_pop.insert("corp".into(), corp);
        });
    })
    .await;
    std::fs::write(world.file("machine.crt"), certificate).unwrap();
    std::fs::write(world.file("machine.key"), key).unwrap();
    let mut node = Identity::new(id("node/b"), "ada");
    node.profiles = vec!["node".into()];
    node.selectors = [("x509.ca", "corp"), ("x509.subject.cn", "machine")].into();
    world.admin().register_identity(&IdentityDocument(node)).await.unwrap();
    world.register_with("web", |identity| identity.parents = vec![id("node/b")]).await;

    let evidence = "x509_pop_certificate = \"machine.crt\"\nx509_pop_key = \"machine.key\"";
    let _serving = world.serve_as(world.config_with(evidence, "")).await.unwrap();
    let mut states = world.follow();
    let served = wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await;
    let first = next_credential(&world, None).await;

    // Evicted: it proves itself again, and its workloads notice nothing.
    world.revoke(first).await;
    let second = next_credential(&world, Some(first)).await;
    assert_eq!(states.borrow().svids[0].serial, served.svids[0].serial);

    // The stream and everything else go on with the new one.
    world.register_with("batch", |identity| identity.parents = vec![id("node/b")]).await;
    wait(&mut states, PATIENCE, |state| state.svids.len() == 2).await;
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_with_a_spent_token_comes_back_when_it_is_given_another() {
    let world = World::new().await;
    world.register("web").await;
    let _serving = world.serve("").await.unwrap();
    let mut states = world.follow();
    wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await;
    let first = next_credential(&world, None).await;
    world.revoke(first).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = ask_status(&world.file("status.sock")).await.unwrap();
        if status.node.trouble.is_some_and(|trouble| trouble.contains("put a new one into its file")) {
            break;
        }
        assert!(Instant::now() < deadline, "the operator is not told what to do");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(states.borrow().svids.len(), 1, "what was issued is served on");
    world.renew_token().await;
    next_credential(&world, Some(first)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_begins_before_the_authority_serves_once_it_is_there() {
    let mut world = World::new().await;
    world.register("web").await;
    world.stop_server().await;
    let mut agent = Agent::begin(world.config(""), environment()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while agent.status().node.trouble.is_none() {
        assert!(Instant::now() < deadline, "it has not even tried");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = ask_status(&world.file("status.sock")).await.unwrap();
    assert_eq!(status.health, chancery_agent::status::AgentHealth::Starting);
    world.start_server().await;
    tokio::time::timeout(PATIENCE, agent.ready()).await.unwrap().unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_node_serves_nothing_any_more() {
    let world = World::new().await;
    world.register("web").await;
    let _serving = world.serve("").await.unwrap();
    let mut states = world.follow();
    wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await;
    let admin = world.admin();
    let revoke = |selector| RevokeRequest::new(selector, RevocationReason::KeyCompromise);
    // In the order of `chancery node ban`.
    admin.hold_identity(&id("node/a"), &IdentityStateRequest::default()).await.unwrap();
    admin.revoke(&revoke(Selector::Identity(id("node/a")))).await.unwrap();
    admin.revoke(&revoke(Selector::Node(id("node/a")))).await.unwrap();
    wait(&mut states, PATIENCE, |state| state.svids.is_empty()).await;
}
