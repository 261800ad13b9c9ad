//! The authorization service: asked by a gRPC client as Envoy asks, and by nginx itself.

use std::path::Path;

use chancery_agent::workload_api::client::Connection;
use chancery_proxy::authz::proto::envoy::service::auth::v3::attribute_context::Peer;
use chancery_proxy::authz::proto::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use chancery_proxy::authz::proto::envoy::service::auth::v3::check_response::HttpResponse;
use chancery_proxy::authz::proto::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use chancery_proxy::authz::{AuthzConfig, RawAuthz, Running};
use tonic::Code;

use crate::nginx;
use crate::running::{Held, free_address, skipped};
use crate::tunnel::answering;
use crate::world::{PATIENCE, World, recipe};

async fn start(world: &World, home: &Path) -> Running {
    world.server_files(home, "authz").await;
    let mut raw: RawAuthz = toml::from_str(&recipe("authz.toml")).unwrap();
    raw.authority.server = world.server_url();
    raw.identity =
        toml::from_str("certificate = \"tls.crt\"\nkey = \"tls.key\"\ntrust_bundle = \"bundle.crt\"")
            .unwrap();
    raw.metrics = None;
    raw.envoy.as_mut().unwrap().listen = "unix:envoy.sock".into();
    raw.nginx.as_mut().unwrap().listen = "unix:nginx.sock".into();
    let running = Running::start(AuthzConfig::check(raw, home).unwrap()).await.unwrap();
    tokio::time::timeout(PATIENCE, running.ready()).await.expect("status is known in time");
    running
}

/// As Envoy writes certificates: URL-encoded PEM of the leaf alone.
fn escaped(held: &Held) -> String {
    held.response
        .certificate
        .bytes()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

async fn ask(client: &mut AuthorizationClient<Connection>, certificate: &str) -> CheckResponse {
    let source = Peer { principal: "spiffe://example.org/forged".into(), certificate: certificate.into() };
    let attributes = AttributeContext { source: Some(source), destination: None };
    client.check(CheckRequest { attributes: Some(attributes) }).await.unwrap().into_inner()
}

fn code(answer: &CheckResponse) -> Code {
    Code::from_i32(answer.status.as_ref().unwrap().code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_is_told_who_it_is_and_no_more_once_it_is_revoked() {
    let world = World::new().await;
    let home = world.home("authz");
    let running = start(&world, &home).await;
    let mut client = AuthorizationClient::new(Connection::open(&home.join("envoy.sock")).await.unwrap());
    let inside = world.running.enroll("ns/prod/web").await;
    let outside = world.running.enroll("ns/test/web").await;

    let began = std::time::Instant::now();
    let answer = loop {
        // The issuers are learned in the first moments.
        let answer = ask(&mut client, &escaped(&inside)).await;
        if code(&answer) == Code::Ok {
            break answer;
        }
        assert!(began.elapsed() < PATIENCE, "{answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!() };
    let header = ok.headers[0].header.clone().unwrap();
    assert_eq!(
        (header.key.as_str(), header.value.as_str()),
        ("x-spiffe-id", "spiffe://example.org/ns/prod/web")
    );
    for wrong in ["", "nonsense", "%", &escaped(&outside)] {
        let answer = ask(&mut client, wrong).await;
        assert_eq!(code(&answer), Code::PermissionDenied, "{wrong}");
        let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else { panic!() };
        assert_eq!(denied.status.unwrap().code, 403);
    }

    world.revoke(&inside).await;
    let revoked = std::time::Instant::now();
    while code(&ask(&mut client, &escaped(&inside)).await) == Code::Ok {
        assert!(revoked.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    println!("ext_authz: refused {:?} after the acknowledgement", revoked.elapsed());
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_refuses_the_next_request_of_a_revoked_client() {
    let world = World::new().await;
    let home = world.home("authz");
    let _running = start(&world, &home).await;
    let (address, backend) = (free_address(), answering().await);
    let configuration = nginx::configuration("nginx-auth-request.conf", &home, address);
    let text = std::fs::read_to_string(&configuration).unwrap();
    let text = text
        .replace("/run/chancery-authz", home.to_str().unwrap())
        .replace("127.0.0.1:8080", &backend.to_string());
    std::fs::write(&configuration, text.replace("events {", "user root;\nevents {")).unwrap();
    let Some(_nginx) = nginx::start(&configuration) else {
        return skipped("nginx_refuses_the_next_request_of_a_revoked_client", "nginx is not installed");
    };
    let good = world.running.enroll("ns/prod/good").await;
    let bad = world.running.enroll("ns/prod/bad").await;
    let outside = world.running.enroll("ns/test/web").await;
    let (good, bad_client) = (world.client(Some(&good)), world.client(Some(&bad)));
    good.until(address, |answer| matches!(answer, Ok(200))).await;
    bad_client.until(address, |answer| matches!(answer, Ok(200))).await;
    assert_eq!(world.client(Some(&outside)).get(address).await.unwrap(), 403);
    world.revoke(&bad).await;
    let took = bad_client.until(address, |answer| matches!(answer, Ok(403))).await;
    println!("auth_request: refused after {took:?}");
    assert_eq!(good.get(address).await.unwrap(), 200);
}
