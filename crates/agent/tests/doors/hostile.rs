//! What a hostile local process can hold, and that it costs nobody else anything.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chancery_agent::doors::DoorsConfig;
use chancery_agent::proto::envoy::service::discovery::v3::DiscoveryRequest;
use chancery_agent::proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use chancery_agent::proto::workload::{ValidateJwtsvidRequest, X509svidRequest};
use chancery_agent::workload_api::client::{Connection, connect};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tonic::Code;

use crate::world::{World, skipped};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

async fn hasty(change: impl FnOnce(&mut DoorsConfig)) -> World {
    let world = World::open_with(|config| {
        config.limits.handshake = Duration::from_millis(50);
        config.limits.idle = Duration::from_millis(50);
        config.limits.answer = Duration::from_millis(200);
        change(config);
    })
    .await;
    world.entitle();
    world
}

/// Waits until the other side has closed the connection.
async fn closed(mut stream: UnixStream) -> Vec<u8> {
    let mut read = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut read)).await;
    // A reset is as good as an end.
    let _ = end.expect("the connection is closed");
    read
}

#[tokio::test]
async fn connections_of_one_user_are_bounded() {
    let world = World::open_with(|config| config.limits.connections_per_user = 4).await;
    world.entitle();
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut client = world.client().await;
        let stream = client.fetch_x509svid(X509svidRequest {}).await.unwrap();
        held.push((client, stream));
    }
    assert_eq!(closed(UnixStream::connect(world.path()).await.unwrap()).await, b"");
    let refused = "chancery_agent_connections_refused_total{reason=\"too-many-of-user\"} 1";
    assert!(world.metrics().contains(refused), "{}", world.metrics());
    // What was open before is none the worse, and room is made again.
    world.entitle();
    for (_, stream) in &mut held {
        stream.get_mut().message().await.unwrap().unwrap();
    }
    held.pop();
    loop {
        if let Ok(mut client) = connect(&world.path()).await
            && client.fetch_x509svid(X509svidRequest {}).await.is_ok()
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let world = hasty(|_| {}).await;
    // Nothing at all; half a preface; a preface and half the headers of a call.
    let headers = [0, 0, 4, 1, 0, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41];
    for sent in [vec![], PREFACE[..10].to_vec(), [PREFACE, SETTINGS, &headers].concat()] {
        let mut stream = UnixStream::connect(world.path()).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        closed(stream).await;
    }
    assert!(world.metrics().contains("chancery_agent_connections_closed_total{reason=\"no-call\"} 3"));
}

#[tokio::test]
async fn what_is_not_http2_is_closed() {
    let world = World::open().await;
    let mut stream = UnixStream::connect(world.path()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nworkload.spiffe.io: true\r\n\r\n").await.unwrap();
    closed(stream).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_stream_is_not() {
    let world = hasty(|_| {}).await;
    let mut watcher = world.client().await;
    let mut stream = watcher.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let mut idler = world.client().await;
    drop(idler.fetch_x509svid(X509svidRequest {}).await.unwrap());
    let idle = "chancery_agent_connections_closed_total{reason=\"idle\"} 1";
    while !world.metrics().contains(idle) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.entitle();
    stream.message().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_never_comes_whole_is_answered_all_the_same() {
    let world = hasty(|_| {}).await;
    let mut client = SecretDiscoveryServiceClient::new(Connection::open(&world.path()).await.unwrap());
    // A stream may be silent: it is the first answer's headers that come at once.
    let silent = client.stream_secrets(futures_util::stream::pending()).await.unwrap();
    drop(silent);
    // A call with one request may not.
    let mut stream = UnixStream::connect(world.path()).await.unwrap();
    let path = b"/SpiffeWorkloadAPI/FetchX509SVID";
    let mut block = vec![0x83, 0x86, 0x41, 1, b'x', 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path);
    block.extend_from_slice(&[0x00, 18]);
    block.extend_from_slice(b"workload.spiffe.io");
    block.extend_from_slice(&[4, b't', b'r', b'u', b'e']);
    let head = [0, 0, u8::try_from(block.len()).unwrap(), 1, 4, 0, 0, 0, 1];
    stream.write_all(&[PREFACE, SETTINGS, &head, &block].concat()).await.unwrap();
    let answer = closed(stream).await;
    assert!(answer.windows(4).any(|window| window == [1, 5, 0, 0]), "headers that end the stream");
    assert_eq!(world.kernel.attestations.load(Ordering::SeqCst), 1, "of the silent stream alone");
}

#[tokio::test]
async fn large_requests_are_refused() {
    let world = World::open().await;
    world.entitle();
    let mut client = world.client().await;
    let request = ValidateJwtsvidRequest { audience: "reports".to_owned(), svid: "x".repeat(65 * 1024) };
    assert_eq!(client.validate_jwtsvid(request).await.unwrap_err().code(), Code::OutOfRange);
    client.fetch_x509svid(X509svidRequest {}).await.unwrap();
}

#[tokio::test]
async fn unanswered_bytes_of_one_user_are_bounded() {
    let world = World::open_with(|config| config.limits.request_bytes_per_user = 10_000).await;
    world.entitle();
    let mut client = SecretDiscoveryServiceClient::new(Connection::open(&world.path()).await.unwrap());
    let fetch = |length: usize| DiscoveryRequest {
        resource_names: vec!["x".repeat(length)],
        ..DiscoveryRequest::default()
    };
    let refused = client.fetch_secrets(fetch(20_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    // What was answered no longer counts.
    for _ in 0..5 {
        assert_eq!(client.fetch_secrets(fetch(6000)).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn open_calls_of_one_user_are_bounded() {
    let world = World::open_with(|config| config.limits.calls_per_user = 3).await;
    world.entitle();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(world.client().await.fetch_x509svid(X509svidRequest {}).await.unwrap());
    }
    let refused = world.client().await.fetch_x509svid(X509svidRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    for stream in &mut held {
        stream.get_mut().message().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_process_that_cannot_be_pinned_is_sent_away() {
    let world = World::open().await;
    world.entitle();
    world.kernel.refuses_pins.store(true, Ordering::SeqCst);
    assert_eq!(closed(UnixStream::connect(world.path()).await.unwrap()).await, b"");
    assert!(world.metrics().contains("chancery_agent_connections_refused_total{reason=\"not-pinned\"} 1"));
}

/// Another user opens as many connections as it gets, and calls as fast as it can; we go on as if it were not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_user_costs_the_others_nothing() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return skipped("the hostile user", "only root can become another user");
    }
    let world = World::open_with(|config| {
        config.limits.connections = 400;
        config.limits.connections_per_user = 300;
    })
    .await;
    world.entitle();
    std::fs::set_permissions(world.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let crowd = Command::new("/usr/bin/python3")
        .args(["-c", CROWD])
        .arg(world.path())
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut crowd) = crowd else {
        return skipped("the hostile user", "there is no Python to be hostile with");
    };
    let mut lines = BufReader::new(crowd.stdout.take().unwrap()).lines();
    let Ok(Some(held)) = lines.next_line().await else {
        return skipped("the hostile user", "another user cannot run the Python here");
    };
    let held: usize = held.parse().unwrap();
    assert!((100..=200).contains(&held), "{held} connections: no more than are left for the others");
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let begun = Instant::now();
        let mut stream = world.client().await.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        slowest = slowest.max(begun.elapsed());
    }
    println!("a crowd of {held}; slowest of 50 connections with a first answer: {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

/// Connects until nothing more is let in, says how many are held, and goes on connecting.
const CROWD: &str = r#"
import socket, sys
held = []
def knock():
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    one.settimeout(5)
    return one if one.recv(9) else None
while True:
    try:
        one = knock()
    except OSError:
        one = None
    if one is None:
        break
    held.append(one)
print(len(held), flush=True)
while True:
    try:
        knock()
    except OSError:
        pass
"#;
