//! Against a real TLS server on the loopback interface that does as it is told.

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chancery_api::{FeedQuery, Operation, Problem, ProblemCode, RevokeRequest};
use chancery_types::Digest;

use self::server::{Authority, TestServer, answer, problem, response};
use crate::{
    Client, ClientError, Endpoint, HttpVersion, IdempotencyKey, RetryPolicy, TrustAnchors, TrustError,
};

const HEALTH: &str = r#"{"state":"ok","version":"0.0.0"}"#;

fn quick() -> RetryPolicy {
    RetryPolicy {
        first_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(20),
        ..RetryPolicy::default()
    }
}

fn client(server: &TestServer) -> Client {
    Client::builder(server.endpoint())
        .trust(TrustAnchors::from_pem(server.authority.root_pem().as_bytes()).unwrap())
        .retry(quick())
        .build()
        .unwrap()
}

fn revocation() -> RevokeRequest {
    serde_json::from_str(r#"{"selector":{"identity":"spiffe://example.org/web"}}"#).unwrap()
}

#[tokio::test]
async fn reuses_one_connection_for_many_requests() {
    for version in [HttpVersion::Best, HttpVersion::Http1] {
        let server = TestServer::start(|_| answer(HEALTH)).await;
        let client = Client::builder(server.endpoint())
            .trust(TrustAnchors::from_pem(server.authority.root_pem().as_bytes()).unwrap())
            .http_version(version)
            .build()
            .unwrap();
        for _ in 0..5 {
            client.healthz().await.unwrap();
        }
        assert_eq!(server.connections(), 1, "{version:?}");
    }
}

#[tokio::test]
async fn the_status_feed_has_a_connection_of_its_own_over_http_1() {
    const EVENT: &str = "data: {\"after\":7,\"sequence\":7,\"event\":\"heartbeat\"}\n\n";
    let server = TestServer::start(|request| match request.uri().path() {
        "/v1/status/feed" if request.version() == http::Version::HTTP_11 => {
            response(200, "text/event-stream", EVENT)
        }
        "/v1/status/feed" => response(505, "text/plain", ""),
        _ => answer(HEALTH),
    })
    .await;
    let client = client(&server);
    let mut feed = client.status_feed(FeedQuery::default());
    for _ in 0..2 {
        client.healthz().await.unwrap();
    }
    assert_eq!(feed.next().await.unwrap().sequence, 7);
    client.healthz().await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn many_requests_at_once_share_an_http2_connection() {
    let server = TestServer::start(|_| answer(HEALTH)).await;
    let client = client(&server);
    client.healthz().await.unwrap();
    let requests = (0..20).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.healthz().await.map(|_| ()) })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap().unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn opens_a_new_connection_when_the_idle_one_was_closed() {
    let server = TestServer::start(|_| answer(HEALTH)).await;
    let client = client(&server);
    client.healthz().await.unwrap();
    server.close_connections();
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.healthz().await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn refuses_a_server_of_another_authority_or_name() {
    let server = TestServer::start(|_| answer(HEALTH)).await;
    let stranger = Authority::new();
    let client = Client::builder(server.endpoint())
        .trust(TrustAnchors::from_pem(stranger.root_pem().as_bytes()).unwrap())
        .retry(RetryPolicy::never())
        .build()
        .unwrap();
    assert!(matches!(client.healthz().await, Err(ClientError::Tls { .. })));

    let Endpoint::Https { port, .. } = server.endpoint() else { panic!("not https") };
    let by_address = Client::builder(Endpoint::Https { host: "127.0.0.1".into(), port })
        .trust(TrustAnchors::from_pem(server.authority.root_pem().as_bytes()).unwrap())
        .retry(RetryPolicy::never())
        .build()
        .unwrap();
    assert!(matches!(by_address.healthz().await, Err(ClientError::Tls { .. })));
    assert_eq!(server.requests(), 0);
}

#[test]
fn refuses_to_be_built_without_trust() {
    let endpoint = "https://localhost:1".parse().unwrap();
    assert!(matches!(
        Client::builder(endpoint).build(),
        Err(ClientError::Trust(TrustError::Empty("trust bundle")))
    ));
}

#[tokio::test]
async fn bootstraps_from_the_fingerprint_of_the_root_and_from_no_other() {
    let server = TestServer::start_with(|authority| {
        let pem = authority.root_pem();
        move |request| match request.uri().path() {
            "/v1/bundle" => answer(&pem),
            _ => answer(HEALTH),
        }
    })
    .await;
    let fingerprint = Digest::of(&server.authority.root_der());
    let client =
        Client::builder(server.endpoint()).trust_fingerprint(fingerprint).await.unwrap().build().unwrap();
    client.healthz().await.unwrap();

    let wrong = Digest::of(b"another root");
    let refused = Client::builder(server.endpoint()).trust_fingerprint(wrong).await;
    assert!(matches!(
        refused,
        Err(ClientError::Trust(TrustError::Fingerprint { expected, count: 1 })) if expected == wrong
    ));
}

#[tokio::test]
async fn a_bootstrap_through_an_impostor_leads_nowhere() {
    // The impostor shows the true root, which is public, but cannot make a certificate under it.
    let genuine = Authority::new();
    let fingerprint = Digest::of(&genuine.root_der());
    let pem = genuine.root_pem();
    let impostor = TestServer::start(move |_| answer(&pem)).await;
    let client = Client::builder(impostor.endpoint())
        .trust_fingerprint(fingerprint)
        .await
        .unwrap()
        .retry(RetryPolicy::never())
        .build()
        .unwrap();
    assert!(matches!(client.healthz().await, Err(ClientError::Tls { .. })));
}

#[tokio::test]
async fn shows_its_certificate_and_the_new_one_after_a_swap() {
    let server = TestServer::start(|request| {
        let name = request.extensions().get::<server::PeerName>().map_or("nobody", |name| name.0.as_str());
        answer(&format!(r#"{{"state":"ok","version":"{name}"}}"#))
    })
    .await;
    let client = client(&server);
    assert_eq!(client.healthz().await.unwrap().version, "nobody");
    client.replace_identity(Some(&server.authority.client("first"))).unwrap();
    assert_eq!(client.healthz().await.unwrap().version, "first");
    client.replace_identity(Some(&server.authority.client("second"))).unwrap();
    assert_eq!(client.healthz().await.unwrap().version, "second");
    client.replace_identity(None).unwrap();
    assert_eq!(client.healthz().await.unwrap().version, "nobody");
}

#[tokio::test]
async fn believes_other_roots_after_a_swap_and_shows_the_same_certificate() {
    let server = TestServer::start(|request| {
        let name = request.extensions().get::<server::PeerName>().map_or("nobody", |name| name.0.as_str());
        answer(&format!(r#"{{"state":"ok","version":"{name}"}}"#))
    })
    .await;
    let client = client(&server);
    client.replace_identity(Some(&server.authority.client("first"))).unwrap();
    let anchors = |authority: &Authority| TrustAnchors::from_pem(authority.root_pem().as_bytes()).unwrap();
    client.replace_trust(anchors(&Authority::new())).unwrap();
    assert!(matches!(client.healthz().await, Err(ClientError::Tls { .. })));
    client.replace_trust(anchors(&server.authority)).unwrap();
    assert_eq!(client.healthz().await.unwrap().version, "first");
}

#[tokio::test]
async fn repeats_what_is_transient_and_keeps_the_idempotency_key() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let server = TestServer::start(move |request| {
        assert_eq!(request.headers()["idempotency-key"], "the-key");
        match seen.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => problem(503, &Problem::new(ProblemCode::Overloaded, "busy")),
            _ => problem(403, &Problem::new(ProblemCode::TokenSpent, "spent")),
        }
    })
    .await;
    let request = serde_json::from_str(r#"{"csr":"AQID","evidence":{"kind":"join-token","token":"t"}}"#);
    let key = IdempotencyKey::parse("the-key").unwrap();
    let error = client(&server).enroll(&request.unwrap(), &key).await.unwrap_err();
    assert_eq!(error.code(), Some(ProblemCode::TokenSpent));
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn does_not_repeat_what_may_have_been_done() {
    let server = TestServer::start(|_| problem(503, &Problem::new(ProblemCode::Overloaded, "busy"))).await;
    let client = client(&server);
    let hold = serde_json::from_str(r#"{"selector":{"identity":"spiffe://example.org/web"}}"#).unwrap();
    assert_eq!(client.hold(&hold).await.unwrap_err().code(), Some(ProblemCode::Overloaded));
    assert_eq!(server.requests(), 1);
    assert_eq!(client.revoke(&revocation()).await.unwrap_err().code(), Some(ProblemCode::Overloaded));
    assert_eq!(server.requests(), 5);
}

#[tokio::test]
async fn waits_as_long_as_the_server_asks() {
    let server = TestServer::start({
        let calls = AtomicUsize::new(0);
        move |_| {
            let mut busy = Problem::new(ProblemCode::RateLimited, "too fast");
            busy.retry_after = Some(1);
            match calls.fetch_add(1, Ordering::SeqCst) {
                0 => problem(429, &busy),
                _ => answer(HEALTH),
            }
        }
    })
    .await;
    let began = std::time::Instant::now();
    client(&server).healthz().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn says_what_answered_when_it_was_not_the_server() {
    let server = TestServer::start(|_| server::response(502, "text/html", "<h1>Bad Gateway</h1>")).await;
    let error = client(&server).healthz().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Unexpected { status: 502, excerpt, .. } if excerpt.contains("Bad")),
        "{error}"
    );
    let server = TestServer::start(|_| answer("[]")).await;
    assert!(matches!(client(&server).healthz().await, Err(ClientError::Decode { operation: "healthz", .. })));
}

#[tokio::test]
async fn holds_only_so_much_of_an_answer_and_streams_the_rest() {
    let server = TestServer::start(|_| answer(&"x".repeat(200_000))).await;
    let client = Client::builder(server.endpoint())
        .trust(TrustAnchors::from_pem(server.authority.root_pem().as_bytes()).unwrap())
        .response_bytes(100_000)
        .build()
        .unwrap();
    assert!(matches!(client.crl().await, Err(ClientError::TooLarge { limit: 100_000 })));
    let mut stream = client.stream(Operation::CrlDer, &[]).await.unwrap();
    let mut total = 0;
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        total += chunk.len();
    }
    assert_eq!(total, 200_000);
    assert!(stream.next_chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn gives_up_on_a_server_that_never_answers() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let client = Client::builder(Endpoint::Https { host: "localhost".into(), port })
        .trust(TrustAnchors::from_pem(Authority::new().root_pem().as_bytes()).unwrap())
        .connect_timeout(Duration::from_millis(100))
        .retry(RetryPolicy::never())
        .build()
        .unwrap();
    assert!(matches!(client.healthz().await, Err(ClientError::Timeout { what: "connection", .. })));
    drop(silent);
    assert!(matches!(client.healthz().await, Err(ClientError::Connect { .. })));
}

#[tokio::test]
async fn speaks_to_the_admin_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let _server = server::unix(&path, |request| {
        assert_eq!(request.uri().path(), "/v1/healthz");
        answer(HEALTH)
    });
    let client = Client::builder(format!("unix:{}", path.display()).parse().unwrap()).build().unwrap();
    client.healthz().await.unwrap();
    assert!(matches!(
        Client::builder(Endpoint::Unix(path)).trust_fingerprint(Digest::of(b"x")).await,
        Err(ClientError::Trust(TrustError::FingerprintOnSocket))
    ));
}

#[tokio::test]
async fn queries_carry_every_condition() {
    let server = TestServer::start(|request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        assert!(query.contains("identity=spiffe%3A%2F%2Fexample.org%2Fweb"), "{query}");
        assert!(query.contains("limit=5") && query.contains("status=held"), "{query}");
        answer(r#"{"items":[]}"#)
    })
    .await;
    let query = serde_json::from_str(r#"{"identity":"spiffe://example.org/web","limit":5,"status":"held"}"#);
    client(&server).list_certificates(&query.unwrap()).await.unwrap();
}
