//! The listener against clients that behave, and against those that do not.

use std::time::Duration;

use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use chancery_api::{EnrollRequest, Operation};
use chancery_client::{ClientError, HttpVersion};
use chancery_types::{FixedRandom, SystemClock};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;
use crate::handover::{Handover, lasting};
use crate::testing::Authority;
use crate::tls::OldestTls;
use crate::{CallerStatus, Chassis, Drained, HttpProblem, Json, RequestLimits, assemble, handle};

/// A listener on the loopback interface that answers with what the connection proves.
struct Door {
    authority: Authority,
    port: u16,
    slot: TlsSlot,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

impl Door {
    async fn open(limits: ListenerLimits) -> Self {
        Self::open_with(limits, OldestTls::Tls13, router()).await
    }

    async fn open_with(limits: ListenerLimits, oldest: OldestTls, router: Router) -> Self {
        let authority = Authority::new();
        let mut material = authority.material();
        material.oldest = oldest;
        let slot = TlsSlot::new(material).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), slot.clone(), limits).await.unwrap();
        let port = listener.local_address().unwrap().port();
        let (metrics, shutdown) = (Arc::new(Metrics::new()), Shutdown::new());
        listener.start(router, Arc::clone(&metrics), &shutdown);
        Self { authority, port, slot, metrics, shutdown }
    }

    /// A TLS connection that speaks HTTP/1.1, for sending what no client library would.
    async fn connect(&self) -> std::io::Result<ClientStream<TcpStream>> {
        self.connect_with(&[&rustls::version::TLS13]).await
    }

    async fn connect_with(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> std::io::Result<ClientStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.root_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    fn counts(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|found| found == line)
    }

    async fn counts_soon(&self, line: &str) {
        for _ in 0..500 {
            if self.counts(line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{line} is not in\n{}", self.metrics.encode());
    }
}

fn router() -> Router {
    let who = get(|Extension(peer): Extension<Peer>| async move {
        let name = peer.certificate().map_or("nobody".to_owned(), |found| found.spiffe_id().to_string());
        format!(r#"{{"state":"ok","version":"{name}"}}"#)
    });
    Router::new().route("/v1/healthz", who).route("/echo", post(|body: Bytes| async { body }))
}

fn quick() -> ListenerLimits {
    ListenerLimits {
        handshake: Duration::from_millis(300),
        timeouts: ConnectionTimeouts {
            head: Duration::from_millis(300),
            idle: Duration::from_millis(1500),
            stalled: Duration::from_millis(600),
        },
        ..ListenerLimits::default()
    }
}

/// Whether the server ends the connection within five seconds.
async fn is_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut sink = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut sink)).await.is_ok()
}

#[tokio::test]
async fn serves_http_1_and_2_with_and_without_a_client_certificate() {
    let door = Door::open(ListenerLimits::default()).await;
    for version in [HttpVersion::Http1, HttpVersion::Best] {
        let client = door.authority.client_of(door.port).http_version(version).build().unwrap();
        assert_eq!(client.healthz().await.unwrap().version, "nobody");
        let identity = door.authority.client_identity("spiffe://example.org/web");
        client.replace_identity(Some(&identity)).unwrap();
        assert_eq!(client.healthz().await.unwrap().version, "spiffe://example.org/web");
    }
    assert!(door.counts("chancery_tls_handshakes_total 4"));
}

#[tokio::test]
async fn refuses_a_certificate_of_another_authority_and_one_without_identity() {
    let door = Door::open(ListenerLimits::default()).await;
    let stranger = Authority::new().client_identity("spiffe://example.org/web");
    let client = door.authority.client_of(door.port).identity(stranger).build().unwrap();
    let refused = client.healthz().await.unwrap_err();
    assert!(matches!(refused, ClientError::Broken { .. } | ClientError::Tls { .. }), "{refused:?}");
    door.counts_soon(r#"chancery_connections_refused_total{reason="handshake-failed"} 1"#).await;

    let nameless = door.authority.client_identity("https://example.org/not-an-identity");
    let client = door.authority.client_of(door.port).identity(nameless).build().unwrap();
    assert!(client.healthz().await.is_err());
    door.counts_soon(r#"chancery_connections_refused_total{reason="client-certificate"} 1"#).await;
}

#[tokio::test]
async fn speaks_tls_1_2_only_when_told_to() {
    let tls12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    let door = Door::open(ListenerLimits::default()).await;
    assert!(door.connect_with(tls12).await.is_err());
    assert!(door.connect().await.is_ok());
    let door = Door::open_with(ListenerLimits::default(), OldestTls::Tls12, router()).await;
    assert!(door.connect_with(tls12).await.is_ok());
}

#[tokio::test]
async fn a_replaced_certificate_serves_new_connections_and_leaves_old_ones_alone() {
    let door = Door::open(ListenerLimits::default()).await;
    let old = door.authority.client_of(door.port).build().unwrap();
    old.healthz().await.unwrap();

    let next = Authority::new();
    door.slot.replace(next.material()).unwrap();
    old.healthz().await.unwrap();
    next.client_of(door.port).build().unwrap().healthz().await.unwrap();
    let late = door.authority.client_of(door.port).build().unwrap();
    assert!(matches!(late.healthz().await, Err(ClientError::Tls { .. })));
}

#[tokio::test]
async fn cuts_a_head_that_comes_too_slowly() {
    let door = Door::open(quick()).await;
    let mut stream = door.connect().await.unwrap();
    let began = std::time::Instant::now();
    let dribble = async {
        for byte in b"GET /v1/healthz HTTP/1.1\r\nhost: localhost\r\nx-padding: aaaaaaaaaaaaaaaaaaaaaaaa" {
            if stream.write_all(&[*byte]).await.and(stream.flush().await).is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), dribble).await;
    assert!(is_closed(&mut stream).await);
    assert!(began.elapsed() < Duration::from_secs(4));
    assert!(door.counts(r#"chancery_connections_closed_total{reason="slow-head"} 1"#));
}

#[tokio::test]
async fn retires_idle_connections_and_times_out_handshakes() {
    let door = Door::open(quick()).await;
    let mut silent = TcpStream::connect(("127.0.0.1", door.port)).await.unwrap();
    assert!(is_closed(&mut silent).await);
    door.counts_soon(r#"chancery_connections_refused_total{reason="handshake-timeout"} 1"#).await;

    let mut idle = door.connect().await.unwrap();
    assert!(is_closed(&mut idle).await);
    door.counts_soon(r#"chancery_connections_closed_total{reason="idle"} 1"#).await;
    door.counts_soon("chancery_connections 0").await;
}

#[tokio::test]
async fn cuts_a_body_that_stalls() {
    let door = Door::open(quick()).await;
    let mut stream = door.connect().await.unwrap();
    let head = b"POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf";
    stream.write_all(head).await.unwrap();
    assert!(is_closed(&mut stream).await);
    door.counts_soon(r#"chancery_connections_closed_total{reason="stalled"} 1"#).await;
}

#[tokio::test]
async fn refuses_heads_that_are_too_large() {
    let door = Door::open(ListenerLimits::default()).await;
    let mut stream = door.connect().await.unwrap();
    let head =
        format!("GET /v1/healthz HTTP/1.1\r\nhost: localhost\r\nx-large: {}\r\n\r\n", "a".repeat(64_000));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

/// Every certificate is good.
#[derive(Debug)]
struct Everybody;

impl CallerStatus for Everybody {
    fn refusal(&self, _: &ClientCertificate, _: Operation) -> Option<HttpProblem> {
        None
    }
}

#[tokio::test]
async fn refuses_a_gigabyte_before_it_has_come() {
    let random = FixedRandom::dangerous_seeded(1);
    let limits = RequestLimits::default();
    let chassis = Chassis::new(limits, Arc::new(Everybody), Arc::new(SystemClock), &random).unwrap();
    let chassis = Arc::new(chassis);
    let router = assemble(&chassis, (), |operation| {
        handle(operation, |Json(_): Json<EnrollRequest>| async { HttpProblem::internal("not reached") })
    });
    let door = Door::open_with(ListenerLimits::default(), OldestTls::Tls13, router).await;
    let (mut reading, mut writing) = tokio::io::split(door.connect().await.unwrap());
    let upload = tokio::spawn(async move {
        let head = "POST /v1/enroll HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    content-length: 1073741824\r\n\r\n";
        let mut sent = 0_usize;
        let mut alive = writing.write_all(head.as_bytes()).await.is_ok();
        while alive && sent < 1 << 30 {
            alive = writing.write_all(&[b' '; 16_384]).await.is_ok();
            sent += 16_384;
        }
        sent
    });
    let mut answer = [0_u8; 12];
    reading.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    let sent = tokio::time::timeout(Duration::from_secs(30), upload).await.unwrap().unwrap();
    assert!(sent < 1 << 28, "{sent} bytes were taken");
}

#[tokio::test]
async fn bounds_connections_from_one_address() {
    let mut limits = ListenerLimits::default();
    limits.connections.per_address = 3;
    let door = Door::open(limits).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(door.connect().await.unwrap());
    }
    assert!(door.connect().await.is_err());
    assert!(door.counts(r#"chancery_connections_refused_total{reason="too-many-from-address"} 1"#));
    held.pop();
    door.counts_soon("chancery_connections 2").await;
    door.connect().await.unwrap();
}

#[tokio::test]
async fn answers_while_a_thousand_connections_idle() {
    let door = Door::open(ListenerLimits::default()).await;
    let mut held = Vec::new();
    for _ in 0..1000 {
        held.push(TcpStream::connect(("127.0.0.1", door.port)).await.unwrap());
    }
    let client = door.authority.client_of(door.port).build().unwrap();
    let began = std::time::Instant::now();
    client.healthz().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(held);
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_lets_nobody_in() {
    let (release, released) = oneshot::channel::<()>();
    let (entered, has_entered) = oneshot::channel::<()>();
    let gate = Arc::new(tokio::sync::Mutex::new(Some((entered, released))));
    let slow = get(move || async move {
        let (entered, released) = gate.lock().await.take().expect("asked once");
        entered.send(()).unwrap();
        released.await.unwrap();
        r#"{"state":"ok","version":"late"}"#
    });
    let router = Router::new().route("/v1/healthz", slow);
    let door = Door::open_with(ListenerLimits::default(), OldestTls::Tls13, router).await;
    let client = door.authority.client_of(door.port).build().unwrap();
    let under_way = tokio::spawn({
        let client = client.clone();
        async move { client.healthz().await }
    });
    let mut idle = door.connect().await.unwrap();
    has_entered.await.unwrap();

    let drain = tokio::spawn({
        let shutdown = door.shutdown.clone();
        async move { shutdown.finish(Duration::from_secs(10)).await }
    });
    assert!(is_closed(&mut idle).await);
    for _ in 0..100 {
        if TcpStream::connect(("127.0.0.1", door.port)).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(TcpStream::connect(("127.0.0.1", door.port)).await.is_err());
    assert!(!drain.is_finished());
    release.send(()).unwrap();
    assert_eq!(under_way.await.unwrap().unwrap().version, "late");
    drop(client);
    assert_eq!(drain.await.unwrap(), Drained::Completely);
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let stuck = Router::new().route("/v1/healthz", get(std::future::pending::<&'static str>));
    let door = Door::open_with(ListenerLimits::default(), OldestTls::Tls13, stuck).await;
    let client = door.authority.client_of(door.port).build().unwrap();
    let cut_off = tokio::spawn(async move { client.healthz().await });
    door.counts_soon("chancery_connections 1").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(door.shutdown.finish(Duration::from_millis(200)).await, Drained::CutOff(1));
    assert!(matches!(cut_off.await.unwrap(), Err(ClientError::Broken { .. })));
}

#[tokio::test]
async fn a_bound_address_is_not_given_twice() {
    let door = Door::open(ListenerLimits::default()).await;
    let address = format!("127.0.0.1:{}", door.port).parse().unwrap();
    let second = Listener::bind(address, door.slot.clone(), ListenerLimits::default()).await;
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn without_tls_everybody_is_a_stranger_and_the_bounds_are_the_same() {
    let mut limits = quick();
    limits.connections.per_address = 1;
    let listener = Listener::bind_plain("127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
    let port = listener.local_address().unwrap().port();
    let (metrics, shutdown) = (Arc::new(Metrics::new()), Shutdown::new());
    listener.start(router(), Arc::clone(&metrics), &shutdown);

    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = b"GET /v1/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = vec![0; 1024];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("nobody"), "{answer}");

    let mut second = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(is_closed(&mut second).await);
    assert!(is_closed(&mut stream).await, "an idle connection is closed");
    let counts = metrics.encode();
    assert!(counts.contains(r#"chancery_connections_refused_total{reason="too-many-from-address"} 1"#));
    assert!(counts.contains(r#"chancery_connections_closed_total{reason="idle"} 1"#));
    assert!(counts.contains("chancery_tls_handshakes_total 0"), "{counts}");
    assert_eq!(shutdown.finish(Duration::from_secs(5)).await, Drained::Completely);
}

/// A route whose answer lasts: `first`, then what is sent, until the sender goes.
fn lasting_router() -> (Router, tokio::sync::broadcast::Sender<&'static str>) {
    let (sender, _) = tokio::sync::broadcast::channel::<&str>(8);
    let route = get({
        let sender = sender.clone();
        move |handover: Option<Extension<Handover>>| {
            let heard = sender.subscribe();
            let first = futures_util::stream::once(async { Bytes::from_static(b"first") });
            let rest = futures_util::stream::unfold(heard, |mut heard| async move {
                Some((Bytes::from_static(heard.recv().await.ok()?.as_bytes()), heard))
            });
            let is_handed_over = handover.is_some();
            let parts = futures_util::StreamExt::chain(first, rest);
            let response = lasting(handover.map(|Extension(handover)| handover), parts);
            async move { ([("is-handed-over", is_handed_over.to_string())], response) }
        }
    });
    (router().route("/lasting", route), sender)
}

#[tokio::test]
async fn an_answer_that_lasts_has_the_connection_for_itself() {
    let (router, sender) = lasting_router();
    let door = Door::open_with(ListenerLimits::default(), OldestTls::Tls13, router).await;
    let mut stream = door.connect().await.unwrap();
    // An answer before it, on the same connection; and a request behind it that nobody will look at.
    stream.write_all(b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut wire = vec![0; 4096];
    let length = stream.read(&mut wire).await.unwrap();
    assert!(wire[..length].starts_with(b"HTTP/1.1 200 "));
    let twice = b"GET /lasting HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(twice).await.unwrap();
    let mut text = String::new();
    while !text.ends_with("first\r\n") {
        let length = stream.read(&mut wire).await.unwrap();
        assert_ne!(length, 0, "{text}");
        text.push_str(std::str::from_utf8(&wire[..length]).unwrap());
    }
    let head = text.to_lowercase();
    for line in ["connection: close\r\n", "transfer-encoding: chunked\r\n", "is-handed-over: true\r\n"] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert!(text.ends_with("\r\n\r\n5\r\nfirst\r\n"), "{text}");
    door.counts_soon("chancery_connections 1").await;
    sender.send("second").unwrap();
    drop(sender);
    // The route has a sender of its own: the answer goes on until the client leaves.
    let mut second = [0; 11];
    stream.read_exact(&mut second).await.unwrap();
    assert_eq!(&second, b"6\r\nsecond\r\n");
    drop(stream);
    door.counts_soon("chancery_connections 0").await;
}

#[tokio::test]
async fn only_a_get_of_http_1_1_is_handed_over() {
    let (router, _sender) = lasting_router();
    let door = Door::open_with(ListenerLimits::default(), OldestTls::Tls13, router).await;
    for (request, expected) in [
        ("GET /lasting HTTP/1.0\r\nHost: x\r\n\r\n", "is-handed-over: false"),
        ("HEAD /lasting HTTP/1.1\r\nHost: x\r\n\r\n", "is-handed-over: false"),
    ] {
        let mut stream = door.connect().await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut wire = vec![0; 4096];
        let length = stream.read(&mut wire).await.unwrap();
        let head = String::from_utf8_lossy(&wire[..length]).to_lowercase();
        assert!(head.contains(expected), "{head}");
    }
}

#[tokio::test]
async fn an_answer_that_lasts_is_cut_when_the_drain_has_taken_too_long() {
    let (router, _sender) = lasting_router();
    let door = Door::open_with(ListenerLimits::default(), OldestTls::Tls13, router).await;
    let mut stream = door.connect().await.unwrap();
    stream.write_all(b"GET /lasting HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut wire = vec![0; 4096];
    assert_ne!(stream.read(&mut wire).await.unwrap(), 0);
    assert_eq!(door.shutdown.finish(Duration::from_millis(200)).await, Drained::CutOff(1));
    assert!(is_closed(&mut stream).await);
}
