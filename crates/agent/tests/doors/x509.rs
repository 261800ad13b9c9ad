//! The X.509-SVID profile and what holds for every call: the checklist of the standards, line by line.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chancery_agent::doors::{Doors, DoorsConfig, DoorsError, Profile, SocketError, Verifiers};
use chancery_agent::identities::X509State;
use chancery_agent::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use chancery_agent::proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest,
    X509svidResponse,
};
use chancery_agent::workload::{AttestationError, Depth};
use chancery_agent::workload_api::client::Connection;
use chancery_types::{Clock, TrustDomain};
use prometheus_client::registry::Registry;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use crate::world::{Authority, World, concatenated, workload};

async fn stream(world: &World) -> Streaming<X509svidResponse> {
    world.client().await.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner()
}

async fn refusal(world: &World) -> Status {
    world.client().await.fetch_x509svid(X509svidRequest {}).await.unwrap_err()
}

#[tokio::test]
async fn refuses_calls_without_the_security_header() {
    let world = World::open().await;
    world.entitle();
    let mut client = SpiffeWorkloadApiClient::new(Connection::open(&world.path()).await.unwrap());
    for values in [vec![], vec!["false"], vec!["True"], vec!["true", "true"], vec![""]] {
        let mut request = Request::new(X509svidRequest {});
        for value in values {
            request.metadata_mut().append("workload.spiffe.io", MetadataValue::from_static(value));
        }
        let status = client.fetch_x509svid(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let bare = client.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap_err();
    assert_eq!(bare.code(), Code::InvalidArgument);
    assert_eq!(world.kernel.attestations.load(Ordering::SeqCst), 0, "nothing is done for such a call");
}

#[tokio::test]
async fn denies_and_counts_callers_without_an_identity() {
    let world = World::open().await;
    let mut client = world.client().await;
    let audience = "reports".to_owned();
    let jwt = JwtsvidRequest { audience: vec![audience.clone()], spiffe_id: String::new() };
    let token = ValidateJwtsvidRequest { audience, svid: "a.b.c".to_owned() };
    let statuses = [
        client.fetch_x509svid(X509svidRequest {}).await.unwrap_err(),
        client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap_err(),
        client.fetch_jwtsvid(jwt).await.unwrap_err(),
        client.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap_err(),
        client.validate_jwtsvid(token).await.unwrap_err(),
    ];
    assert!(statuses.iter().all(|status| status.code() == Code::PermissionDenied), "{statuses:?}");
    for method in ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"]
    {
        let counted = format!("chancery_agent_denied_total{{method=\"{method}\",reason=\"no-identity\"}} 1");
        assert!(world.metrics().contains(&counted), "{}", world.metrics());
    }
}

#[tokio::test]
async fn gives_everything_at_once_in_the_standards_encodings() {
    let world = World::open().await;
    let partner = Authority::new("partner.example");
    let (web, admin) = (world.authority.svid("/web", "internal"), world.authority.svid("/admin", "admin"));
    world.give(vec![Arc::clone(&web), Arc::clone(&admin)], &[&partner]);
    let message = stream(&world).await.message().await.unwrap().unwrap();
    assert_eq!(message.svids.len(), 2);
    for (given, had) in message.svids.iter().zip([&web, &admin]) {
        assert_eq!(given.spiffe_id, had.spiffe_id.as_str());
        assert_eq!(given.x509_svid, concatenated(&had.chain), "DER, concatenated, leaf first");
        assert_eq!(given.x509_svid_key, had.key.expose_secret());
        assert_eq!(given.bundle, concatenated(&world.authority.bundle().x509_authorities));
        assert_eq!(given.hint, had.hint);
        // PKCS#8, unencrypted: ring reads nothing else.
        let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        let random = ring::rand::SystemRandom::new();
        ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, &given.x509_svid_key, &random).unwrap();
    }
    assert_eq!(message.federated_bundles.len(), 1, "its own trust domain is not among them");
    let foreign = &message.federated_bundles["spiffe://partner.example"];
    assert_eq!(*foreign, concatenated(&partner.bundle().x509_authorities));
    assert!(message.crl.is_empty());
    assert!(format!("{message:?}").contains("redacted"));
}

#[tokio::test]
async fn hints_are_unique_in_a_message() {
    let world = World::open().await;
    let svids = ["/a", "/b", "/c"].map(|path| world.authority.svid(path, "same"));
    world.give(svids.to_vec(), &[]);
    let message = stream(&world).await.message().await.unwrap().unwrap();
    let hints: Vec<&str> = message.svids.iter().map(|svid| svid.hint.as_str()).collect();
    assert_eq!(hints, ["same", "", ""]);
}

#[tokio::test]
async fn passes_revocation_lists_on() {
    let world = World::open().await;
    world.entitle();
    let mut state = X509State::clone(&world.core.states.borrow());
    state.crls = vec![vec![1, 2], vec![3]];
    world.core.states.send_replace(Arc::new(state));
    assert_eq!(stream(&world).await.message().await.unwrap().unwrap().crl, [vec![1, 2], vec![3]]);
    let mut client = world.client().await;
    let mut bundles = client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
    assert_eq!(bundles.message().await.unwrap().unwrap().crl, [vec![1, 2], vec![3]]);
}

#[tokio::test]
async fn every_change_is_the_whole_state_and_what_is_missing_is_gone() {
    let world = World::open().await;
    let partner = Authority::new("partner.example");
    let (web, admin) = (world.authority.svid("/web", ""), world.authority.svid("/admin", ""));
    world.give(vec![Arc::clone(&web), Arc::clone(&admin)], &[&partner]);
    let mut stream = stream(&world).await;
    assert_eq!(stream.message().await.unwrap().unwrap().svids.len(), 2);
    world.give(vec![Arc::clone(&admin)], &[]);
    let second = stream.message().await.unwrap().unwrap();
    assert_eq!(second.svids.len(), 1);
    assert_eq!(second.svids[0].x509_svid, concatenated(&admin.chain));
    assert!(second.federated_bundles.is_empty());
    // A rotation of one is a message with both.
    let rotated = world.authority.svid("/web", "");
    world.give(vec![rotated, admin], &[&partner]);
    let third = stream.message().await.unwrap().unwrap();
    assert_eq!((third.svids.len(), third.federated_bundles.len()), (2, 1));
    assert!(world.metrics().contains("chancery_agent_pushes_total{method=\"FetchX509SVID\"} 3"));
}

#[tokio::test]
async fn says_nothing_when_nothing_changed() {
    let world = World::open().await;
    let svid = world.entitle();
    let mut stream = stream(&world).await;
    stream.message().await.unwrap().unwrap();
    world.give(vec![Arc::clone(&svid)], &[]);
    while world.kernel.attestations.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let renewed = world.entitle();
    let next = stream.message().await.unwrap().unwrap();
    assert_eq!(next.svids[0].x509_svid, concatenated(&renewed.chain));
}

#[tokio::test]
async fn loss_of_every_identity_ends_the_stream() {
    let world = World::open().await;
    world.entitle();
    let mut stream = stream(&world).await;
    stream.message().await.unwrap().unwrap();
    assert!(world.metrics().contains("chancery_agent_workload_streams{method=\"FetchX509SVID\"} 1"));
    world.withdraw();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::PermissionDenied);
    assert!(world.metrics().contains("chancery_agent_denied_total{method=\"FetchX509SVID\""));
}

#[tokio::test]
async fn a_process_that_becomes_something_else_loses_its_streams_at_once() {
    for (fate, code) in [
        (AttestationError::Changed, Code::PermissionDenied),
        (AttestationError::Exited, Code::PermissionDenied),
        (AttestationError::Unknown("gone".to_owned()), Code::Unavailable),
    ] {
        let world = World::open().await;
        world.entitle();
        let mut svids = stream(&world).await;
        svids.message().await.unwrap().unwrap();
        let mut client = world.client().await;
        let mut keys = client.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap().into_inner();
        keys.message().await.unwrap().unwrap();
        world.kernel.fate.send_replace(Some(fate));
        assert_eq!(svids.message().await.unwrap_err().code(), code);
        assert_eq!(keys.message().await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn is_attested_again_before_anything_new_is_given_out() {
    let world = World::open().await;
    world.entitle();
    let mut stream = stream(&world).await;
    stream.message().await.unwrap().unwrap();
    assert_eq!(world.kernel.attestations.load(Ordering::SeqCst), 1);
    world.entitle();
    stream.message().await.unwrap().unwrap();
    assert_eq!(world.kernel.attestations.load(Ordering::SeqCst), 2);
    world.kernel.finds(Err(AttestationError::Changed));
    world.entitle();
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "the new key was not given out");
}

#[tokio::test]
async fn other_circumstances_are_looked_up_anew() {
    let world = World::open().await;
    world.entitle();
    let mut stream = stream(&world).await;
    stream.message().await.unwrap().unwrap();
    world.kernel.finds(Ok(workload("1001")));
    world.entitle();
    stream.message().await.unwrap().unwrap();
    assert_eq!(world.core.lookups.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_open_stream_is_attested_more_closely_once_somebody_asks_for_it() {
    let world = World::open().await;
    world.entitle();
    let mut stream = stream(&world).await;
    stream.message().await.unwrap().unwrap();
    world.core.depth.send_replace(Depth::Content);
    world.entitle();
    stream.message().await.unwrap().unwrap();
    assert_eq!(world.core.lookups.load(Ordering::SeqCst), 2, "the hash was found and looked up");
}

#[tokio::test]
async fn a_call_of_a_process_that_cannot_be_attested_is_not_answered() {
    let world = World::open().await;
    world.entitle();
    for (error, code) in [
        (AttestationError::Exited, Code::PermissionDenied),
        (AttestationError::Changed, Code::PermissionDenied),
        (AttestationError::Unknown("/secret/path".to_owned()), Code::Unavailable),
    ] {
        world.kernel.finds(Err(error));
        let status = refusal(&world).await;
        assert_eq!(status.code(), code);
        assert!(!status.message().contains("secret"));
    }
}

#[tokio::test]
async fn an_identity_that_is_not_issued_yet_is_unavailable_and_not_denied() {
    let world = World::open().await;
    *world.core.entitled.lock().unwrap() = Some(true);
    assert_eq!(refusal(&world).await.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_starting_agent_is_unavailable() {
    let world = World::open().await;
    world.core.starting.store(true, Ordering::SeqCst);
    assert_eq!(refusal(&world).await.code(), Code::Unavailable);
    world.core.starting.store(false, Ordering::SeqCst);
    assert_eq!(refusal(&world).await.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn never_gives_out_what_has_ended() {
    let world = World::open().await;
    let (old, mut young) = (world.entitle(), (*world.authority.svid("/young", "")).clone());
    young.not_after = old.not_after + Duration::from_secs(60);
    world.give(vec![old.clone(), Arc::new(young)], &[]);
    world.clock.set(old.not_after);
    let message = stream(&world).await.message().await.unwrap().unwrap();
    assert_eq!(message.svids.len(), 1);
    assert_eq!(message.svids[0].spiffe_id, "spiffe://example.org/young");
    world.clock.set(old.not_after + Duration::from_secs(60));
    assert_eq!(refusal(&world).await.code(), Code::Unavailable);
    assert!(world.clock.now() > old.not_after);
}

#[tokio::test]
async fn profiles_that_are_switched_off_are_unimplemented() {
    let world = World::open_with(|config| assert!(config.profiles.remove(&Profile::X509))).await;
    world.entitle();
    assert_eq!(refusal(&world).await.code(), Code::Unimplemented);
    let mut client = world.client().await;
    let bundles = client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap_err();
    assert_eq!(bundles.code(), Code::Unimplemented);
    client.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap();
}

#[tokio::test]
async fn stopping_ends_streams_as_unavailable_and_removes_the_socket() {
    let mut world = World::open().await;
    world.entitle();
    let mut stream = stream(&world).await;
    stream.message().await.unwrap().unwrap();
    let path = world.path();
    let _silent = tokio::net::UnixStream::connect(&path).await.unwrap();
    let doors = world.doors.take().unwrap();
    let closing = tokio::spawn(doors.close(Duration::from_secs(600)));
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
    drop(stream);
    // Long before the deadline: nobody is waited for who has nothing left.
    tokio::time::timeout(Duration::from_secs(30), closing).await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_second_agent_does_not_take_the_socket() {
    let world = World::open().await;
    let config = DoorsConfig::new(world.path(), world.authority.domain.clone());
    let refused = Doors::bind(
        config,
        world.core.clone(),
        world.kernel.clone(),
        Arc::new(world.clock.clone()),
        &mut Registry::default(),
    )
    .await
    .unwrap_err();
    assert!(matches!(refused, DoorsError::Socket(SocketError::InUse(_))));
    world.entitle();
    stream(&world).await.message().await.unwrap().unwrap();
}

#[tokio::test]
async fn tcp_gives_bundles_only_and_only_where_everybody_may_have_them() {
    let local = "127.0.0.1:0".parse().unwrap();
    let world = World::open_with(|config| {
        config.dangerous_unattested_tcp = Some(local);
        config.verifiers = Verifiers::Anybody;
    })
    .await;
    world.entitle();
    let address = world.doors.as_ref().unwrap().tcp_address().unwrap();
    let endpoint = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap();
    let mut client = SpiffeWorkloadApiClient::with_interceptor(
        endpoint.connect().await.unwrap(),
        chancery_agent::workload_api::client::SecurityHeader,
    );
    let denied = client.fetch_x509svid(X509svidRequest {}).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let jwt = JwtsvidRequest { audience: vec!["reports".to_owned()], spiffe_id: String::new() };
    assert_eq!(client.fetch_jwtsvid(jwt).await.unwrap_err().code(), Code::PermissionDenied);
    let mut bundles = client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
    let first = bundles.message().await.unwrap().unwrap();
    assert_eq!(first.bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
    assert_eq!(world.kernel.pins.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn refuses_tcp_that_could_serve_nobody_or_other_machines() {
    let world = World::open().await;
    let domain = TrustDomain::parse("example.org").unwrap();
    for (address, verifiers) in [
        ("127.0.0.1:0", Verifiers::Entitled),
        ("0.0.0.0:0", Verifiers::Anybody),
        ("[::]:0", Verifiers::Anybody),
    ] {
        let mut config = DoorsConfig::new(world.directory.path().join("other.sock"), domain.clone());
        config.dangerous_unattested_tcp = Some(address.parse().unwrap());
        config.verifiers = verifiers;
        let clock = Arc::new(world.clock.clone());
        let mut registry = Registry::default();
        let refused =
            Doors::bind(config, world.core.clone(), world.kernel.clone(), clock, &mut registry).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, DoorsError::NotLoopback(_) | DoorsError::TcpServesNobody), "{refused}");
    }
}
