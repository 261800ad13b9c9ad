//! The gate, in front of handlers that show what came through.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::MethodRouter;
use chancery_api::{EnrollRequest, Problem, limits};
use chancery_types::{FixedRandom, ManualClock};
use http::StatusCode;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use tower::ServiceExt;

use super::*;
use crate::peer::ClientCertificate;
use crate::testing::Authority;
use crate::{CallerStatus, Concurrency, Json, Rate, RequestLimits, assemble, chassis_route, handle};

/// Knows one identity that is held.
#[derive(Debug)]
struct HeldMallory;

impl CallerStatus for HeldMallory {
    fn refusal(&self, certificate: &ClientCertificate, _: Operation) -> Option<HttpProblem> {
        let held = certificate.spiffe_id().to_string() == "spiffe://example.org/mallory";
        held.then(|| HttpProblem::new(ProblemCode::IdentityHeld, "held"))
    }
}

struct Fixture {
    router: Router,
    chassis: Arc<Chassis>,
    clock: ManualClock,
    authority: Authority,
    calls: Arc<AtomicUsize>,
}

fn fixture(limits: RequestLimits) -> Fixture {
    let authority = Authority::new();
    let (chain, _) = authority.client("spiffe://example.org/web");
    let not_after = ClientCertificate::parse(&chain).unwrap().not_after();
    let clock = ManualClock::at(not_after - Duration::from_secs(10));
    let random = FixedRandom::dangerous_seeded(1);
    let chassis =
        Arc::new(Chassis::new(limits, Arc::new(HeldMallory), Arc::new(clock.clone()), &random).unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let router = assemble(&chassis, (), |operation| route(operation, &chassis, &calls));
    Fixture { router, chassis, clock, authority, calls }
}

fn route(operation: Operation, chassis: &Arc<Chassis>, calls: &Arc<AtomicUsize>) -> MethodRouter<()> {
    let calls = Arc::clone(calls);
    match operation {
        Operation::Enroll => handle(operation, move |Json(_): Json<EnrollRequest>| async move {
            calls.fetch_add(1, Ordering::SeqCst);
            HttpProblem::new(ProblemCode::TokenSpent, "spent")
        }),
        Operation::Hold => handle(operation, move || async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            calls.fetch_add(1, Ordering::SeqCst);
            "held"
        }),
        Operation::Issuers | Operation::Release => handle(operation, || async {
            if true {
                panic!("a bug");
            }
        }),
        _ => chassis_route(operation, chassis)
            .unwrap_or_else(|| handle(operation, move || async move { operation.id() })),
    }
}

impl Fixture {
    async fn send(&self, peer: Peer, mut request: Request) -> Response {
        request.extensions_mut().insert(peer);
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn refusal(&self, peer: Peer, request: Request) -> (StatusCode, Problem) {
        let response = self.send(peer, request).await;
        let status = response.status();
        let id = response.headers()[REQUEST_ID_HEADER].to_str().unwrap().to_owned();
        let bytes = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
        let problem: Problem = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(problem.request_id.as_deref(), Some(id.as_str()));
        assert_eq!(problem.status, Some(status.as_u16()));
        (status, problem)
    }

    fn holder(&self, id: &str) -> Peer {
        let (chain, _) = self.authority.client(id);
        let certificate = Some(Arc::new(ClientCertificate::parse(&chain).unwrap()));
        Peer::Network { address: "192.0.2.1:1".parse().unwrap(), certificate }
    }
}

fn stranger() -> Peer {
    Peer::Network { address: "192.0.2.1:1".parse().unwrap(), certificate: None }
}

fn admin() -> Peer {
    Peer::Admin { uid: 0 }
}

fn get(path: &str) -> Request {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(path: &str, body: impl Into<Body>) -> Request {
    Request::post(path).header(CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

fn enrolment() -> Request {
    post("/v1/enroll", r#"{"csr":"AQID","evidence":{"kind":"join-token","token":"t"}}"#)
}

#[tokio::test]
async fn every_operation_is_routed_and_names_its_request() {
    let fixture = fixture(RequestLimits::default());
    for &operation in Operation::ALL {
        let path = operation.path().replace(['{', '*', '}'], "");
        let request =
            Request::builder().method(operation.method().as_str()).uri(path).body(Body::empty()).unwrap();
        let response = fixture.send(admin(), request).await;
        let status = response.status();
        assert!(status != StatusCode::NOT_FOUND && status != StatusCode::METHOD_NOT_ALLOWED, "{operation:?}");
        assert!(response.headers().contains_key(REQUEST_ID_HEADER));
        assert!(response.headers().contains_key(CACHE_CONTROL));
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let fixture = fixture(RequestLimits::default());
    let (status, problem) = fixture.refusal(stranger(), get("/v2/enroll")).await;
    assert_eq!((status, problem.code.as_str()), (StatusCode::NOT_FOUND, "not-found"));
    let response = fixture.send(stranger(), get("/v1/enroll")).await;
    assert_eq!(response.headers()[ALLOW], "POST");
    let (status, problem) = fixture.refusal(stranger(), get("/v1/enroll")).await;
    assert_eq!((status, problem.code.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"));
    assert!(fixture.chassis.metrics.encode().contains("operation=\"none\",status=\"404\"} 1"));
}

#[tokio::test]
async fn operators_and_holders_must_show_a_certificate_that_is_good_now() {
    let fixture = fixture(RequestLimits::default());
    for path in ["/v1/identities", "/metrics"] {
        let (status, problem) = fixture.refusal(stranger(), get(path)).await;
        assert_eq!((status, problem.code.as_str()), (StatusCode::UNAUTHORIZED, "certificate-required"));
        let web = fixture.holder("spiffe://example.org/web");
        assert_eq!(fixture.send(web, get(path)).await.status(), StatusCode::OK);
        assert_eq!(fixture.send(admin(), get(path)).await.status(), StatusCode::OK);
    }
    let (_, problem) = fixture.refusal(admin(), post("/v1/renew", "{}")).await;
    assert_eq!(problem.code, "certificate-required", "the admin socket has no certificate to renew");

    let mallory = fixture.holder("spiffe://example.org/mallory");
    let (_, problem) = fixture.refusal(mallory, get("/v1/identities")).await;
    assert_eq!(problem.code, "identity-held");

    let web = fixture.holder("spiffe://example.org/web");
    fixture.clock.advance(Duration::from_secs(30));
    let (_, problem) = fixture.refusal(web, get("/v1/identities")).await;
    assert_eq!(problem.code, "certificate-not-accepted");
}

#[tokio::test]
async fn refuses_a_gigabyte_by_its_announcement_and_by_its_bytes() {
    let fixture = fixture(RequestLimits::default());
    let mut announced = post("/v1/enroll", "{}");
    announced.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(1_u64 << 30));
    let (status, problem) = fixture.refusal(stranger(), announced).await;
    assert_eq!((status, problem.code.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"));

    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let endless = futures_util::stream::repeat_with(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b' '; 1024]))
    });
    let (_, problem) = fixture.refusal(stranger(), post("/v1/enroll", Body::from_stream(endless))).await;
    assert_eq!(problem.code, "body-too-large");
    assert!(sent.load(Ordering::SeqCst) <= limits::BODY_BYTES / 1024 + 1);
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn all_bodies_together_are_bounded_and_give_their_memory_back() {
    let small = RequestLimits { body_memory: limits::BODY_BYTES, ..RequestLimits::default() };
    let fixture = fixture(small);
    let stuck = futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>();
    let router = fixture.router.clone();
    let waiting = tokio::spawn(async move {
        let mut request = post("/v1/enroll", Body::from_stream(stuck));
        request.extensions_mut().insert(stranger());
        router.oneshot(request).await
    });
    tokio::task::yield_now().await;
    let (status, problem) = fixture.refusal(stranger(), enrolment()).await;
    assert_eq!((status, problem.code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "overloaded"));
    waiting.abort();
    let _ = waiting.await;
    let (_, problem) = fixture.refusal(stranger(), enrolment()).await;
    assert_eq!(problem.code, "token-spent");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_times_out() {
    let fixture = fixture(RequestLimits::default());
    let stuck = futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>();
    let (status, problem) = fixture.refusal(stranger(), post("/v1/enroll", Body::from_stream(stuck))).await;
    assert_eq!((status, problem.code.as_str()), (StatusCode::REQUEST_TIMEOUT, "request-timeout"));
}

#[tokio::test]
async fn callers_have_their_own_rates_and_the_admin_socket_none() {
    let slow = Some(Rate { per_second: 0.1, burst: 2.0 });
    let fixture =
        fixture(RequestLimits { address_rate: slow, identity_rate: slow, ..RequestLimits::default() });
    for _ in 0..2 {
        assert_eq!(fixture.send(stranger(), get("/v1/healthz")).await.status(), StatusCode::OK);
    }
    let response = fixture.send(stranger(), get("/v1/healthz")).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers()[RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() >= 9);
    let (_, problem) = fixture.refusal(stranger(), get("/nowhere")).await;
    assert_eq!(problem.code, "rate-limited", "guessing paths costs too");

    let web = || fixture.holder("spiffe://example.org/web");
    assert_eq!(fixture.send(web(), get("/v1/healthz")).await.status(), StatusCode::OK);
    for _ in 0..10 {
        assert_eq!(fixture.send(admin(), get("/v1/healthz")).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn writes_beyond_the_limit_wait_and_then_are_refused_while_status_is_answered() {
    let one = Concurrency { running: 1, waiting: 1, patience: Duration::from_secs(5) };
    let fixture = fixture(RequestLimits { writes: one, ..RequestLimits::default() });
    let hold = || fixture.send(admin(), post("/v1/hold", "{}"));
    let (first, second, third, light) =
        tokio::join!(hold(), hold(), hold(), fixture.send(admin(), get("/v1/status/01")));
    let mut statuses = [first, second, third].map(|response| response.status().as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503]);
    assert_eq!(light.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_cut_a_change_in_half() {
    let fixture = fixture(RequestLimits::default());
    let request = fixture.send(admin(), post("/v1/hold", "{}"));
    assert!(tokio::time::timeout(Duration::from_millis(20), request).await.is_err());
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
    fixture.chassis.shutdown.finish(Duration::from_secs(5)).await;
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_bug_in_a_handler_is_an_answer_without_details() {
    let fixture = fixture(RequestLimits::default());
    for request in [get("/v1/ca/issuers"), post("/v1/release", "{}")] {
        let (status, problem) = fixture.refusal(admin(), request).await;
        assert_eq!((status, problem.code.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "internal"));
        assert!(!problem.detail.contains("a bug"));
    }
}

#[tokio::test]
async fn a_stopping_server_asks_http_1_clients_to_leave() {
    let fixture = fixture(RequestLimits::default());
    let response = fixture.send(stranger(), get("/v1/healthz")).await;
    assert!(!response.headers().contains_key(CONNECTION));
    fixture.chassis.shutdown.begin();
    let response = fixture.send(stranger(), get("/v1/healthz")).await;
    assert_eq!(response.headers()[CONNECTION], "close");
}
