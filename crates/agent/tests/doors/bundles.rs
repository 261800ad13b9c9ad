//! Bundles and reflection: what somebody needs to judge others and to look around.

use std::sync::Arc;

use chancery_agent::doors::{Profile, Verifiers};
use chancery_agent::identities::Bundles;
use chancery_agent::proto::workload::{JwtBundlesRequest, X509BundlesRequest};
use chancery_agent::workload_api::client::Connection;
use tonic::Code;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::world::{Authority, World, concatenated};

#[tokio::test]
async fn x509_bundles_include_the_federated_ones_and_follow_changes() {
    let world = World::open().await;
    let partner = Authority::new("partner.example");
    world.give(vec![world.authority.svid("/web", "")], &[&partner]);
    let mut client = world.client().await;
    let mut stream = client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.bundles.len(), 2);
    for authority in [&world.authority, &partner] {
        let id = authority.domain.id().to_string();
        assert_eq!(first.bundles[&id], concatenated(&authority.bundle().x509_authorities));
    }
    // A rotation of the certificate changes no bundle, and nothing is sent for it.
    world.give(vec![world.authority.svid("/web", "")], &[&partner]);
    world.give(vec![world.authority.svid("/web", "")], &[]);
    let second = stream.message().await.unwrap().unwrap();
    assert_eq!(second.bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
    world.withdraw();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn jwt_bundles_are_jwk_sets_of_jwt_keys_alone() {
    let world = World::open().await;
    let partner = Authority::new("partner.example");
    world.give(vec![world.authority.svid("/web", "")], &[&partner]);
    let mut client = world.client().await;
    let mut stream = client.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.bundles.len(), 2);
    for authority in [&world.authority, &partner] {
        let set = &first.bundles[authority.domain.id().as_str()];
        let set: serde_json::Value = serde_json::from_slice(set).unwrap();
        let keys = set["keys"].as_array().unwrap();
        assert!(keys.iter().all(|key| key["use"] == "jwt-svid" && key["kid"].is_string()));
    }
}

#[tokio::test]
async fn anybody_may_have_the_own_bundle_where_that_is_allowed() {
    let world = World::open_with(|config| config.verifiers = Verifiers::Anybody).await;
    let partner = Authority::new("partner.example");
    let mut known = Bundles::clone(&world.core.known.borrow());
    known.insert(partner.domain.clone(), partner.bundle());
    world.core.known.send_replace(Arc::new(known));
    let mut client = world.client().await;
    let mut stream = client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
    // The authority's key changes.
    let next = Authority::new("example.org");
    let known = Bundles::from([(next.domain.clone(), next.bundle())]);
    world.core.known.send_replace(Arc::new(known));
    let second = stream.message().await.unwrap().unwrap();
    assert_eq!(second.bundles["spiffe://example.org"], concatenated(&next.bundle().x509_authorities));
    // It becomes somebody.
    world.give(vec![world.authority.svid("/web", "")], &[&partner]);
    assert_eq!(stream.message().await.unwrap().unwrap().bundles.len(), 2);
}

#[tokio::test]
async fn an_unknown_bundle_is_unavailable() {
    let world = World::open_with(|config| config.verifiers = Verifiers::Anybody).await;
    world.core.known.send_replace(Arc::default());
    let mut client = world.client().await;
    let status = client.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    let world = World::open_with(|config| assert!(config.profiles.remove(&Profile::Reflection))).await;
    let mut client = ServerReflectionClient::new(Connection::open(&world.path()).await.unwrap());
    let nothing = futures_util::stream::empty();
    assert_eq!(client.server_reflection_info(nothing).await.unwrap_err().code(), Code::Unimplemented);
}

async fn reflect(world: &World, request: MessageRequest) -> ServerReflectionResponse {
    let mut client = ServerReflectionClient::new(Connection::open(&world.path()).await.unwrap());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let answer = client.server_reflection_info(futures_util::stream::iter([request])).await.unwrap();
    answer.into_inner().message().await.unwrap().unwrap()
}

#[tokio::test]
async fn reflection_names_the_services_and_describes_them() {
    let world = World::open().await;
    let answer = reflect(&world, MessageRequest::ListServices(String::new())).await;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["SpiffeWorkloadAPI", "envoy.service.secret.v3.SecretDiscoveryService"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let symbol = MessageRequest::FileContainingSymbol("SpiffeWorkloadAPI".to_owned());
    let answer = reflect(&world, symbol).await;
    assert!(matches!(answer.message_response, Some(MessageResponse::FileDescriptorResponse(_))));
}
