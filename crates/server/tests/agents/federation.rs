//! Other trust domains: their bundles reach the nodes, from a file and from another authority's own endpoint.

use std::net::SocketAddr;
use std::path::Path;

use chancery_api::{AgentEvent, BundleView};
use chancery_server::bootstrap::InitPlan;
use chancery_server::config::{RawConfig, RawFederation};
use chancery_types::TrustDomain;

use crate::node::{Node, Stream};
use crate::running::{Place, Running, plan};

/// An authority of another trust domain.
async fn other() -> Running {
    let plan = InitPlan { trust_domain: TrustDomain::parse("other.example").unwrap(), ..plan() };
    let place = Place::with(plan, |_| {}).await;
    let server = place.serve().await.unwrap();
    Running { place, server }
}

fn endpoint(address: SocketAddr) -> Option<String> {
    Some(format!("https://localhost:{}/v1/bundle.json", address.port()))
}

fn path(path: &Path) -> Option<String> {
    Some(path.display().to_string())
}

fn federate(source: RawFederation) -> impl FnOnce(&mut RawConfig) {
    move |raw| {
        raw.federation.insert("other.example".into(), source);
    }
}

/// The other domain's bundle, which is there at once or comes soon.
async fn federated(stream: &mut Stream) -> BundleView {
    match stream.next().await {
        AgentEvent::Sync { federated, .. } => match federated.into_iter().next() {
            Some(bundle) => bundle,
            None => Box::pin(federated_later(stream)).await,
        },
        AgentEvent::Bundle { bundle, .. } => bundle,
        other => panic!("expected a bundle, got {other:?}"),
    }
}

async fn federated_later(stream: &mut Stream) -> BundleView {
    match stream.next().await {
        AgentEvent::Bundle { bundle, .. } => bundle,
        other => panic!("expected a bundle, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bundle_of_another_authority_reaches_the_nodes_by_each_profile() {
    let other = other().await;
    let root = other.server.site().authority.root().der().to_vec();
    let url = endpoint(other.server.api_address());
    let first = other.place.beside("first.json");
    let bundle = other.client(None).bundle_json().await.unwrap();
    std::fs::write(&first, serde_json::to_vec(&bundle).unwrap()).unwrap();
    let spiffe = Some("spiffe://other.example/chancery/server".to_owned());
    for source in [
        RawFederation { bundle: path(&first), ..RawFederation::default() },
        RawFederation {
            url: url.clone(),
            roots: path(&other.place.file("certs/root.crt")),
            ..Default::default()
        },
        RawFederation { url, endpoint_spiffe_id: spiffe, bundle: path(&first), ..Default::default() },
    ] {
        let running = Running::with(federate(source.clone())).await;
        let node = Node::enrol(&running, "node/a").await;
        let bundle = federated(&mut node.stream(None).await).await;
        assert_eq!(bundle.trust_domain.as_str(), "other.example", "{source:?}");
        assert_eq!(bundle.x509_authorities[0].as_der(), root);
        assert_eq!(bundle.jwt_keys.keys.len(), 1);
        let (_, revision) = node.stream(None).await.sync().await;
        let mut resumed = node.stream(Some(revision)).await;
        assert_eq!(federated(&mut resumed).await, bundle, "whoever resumes is told, too");
        if source.url.is_some() {
            let kept = running.place.file("federation/other.example.json");
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !kept.exists() {
                assert!(std::time::Instant::now() < deadline, "{source:?} was not fetched");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        running.server.stop().await;
    }
    other.server.stop().await;
}
