//! The proxy with a real authority: who gets in, who is cut off, and what becomes of bytes.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use chancery_proxy::tunnel::{ProxyConfig, RawProxy, Running, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Load, PATIENCE, World, recipe, write_files};

/// A proxy whose own name is `spiffe://example.org/proxy`.
pub(crate) async fn start(world: &World, more: &str) -> Running {
    let home = world.file("proxy");
    if !home.exists() {
        std::fs::create_dir(&home).unwrap();
        world.server_files(&home, "proxy").await;
    }
    let running = Running::start(config(world, &home, more)).await.unwrap();
    tokio::time::timeout(PATIENCE, running.ready()).await.expect("status is known in time");
    running
}

pub(crate) fn config(world: &World, home: &Path, more: &str) -> ProxyConfig {
    let text = format!(
        "[authority]\nserver = {:?}\n[identity]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n\
         trust_bundle = \"bundle.crt\"\n{more}",
        world.server_url()
    );
    let raw: RawProxy = toml::from_str(&text).unwrap();
    ProxyConfig::check(raw, home).unwrap()
}

/// Waits until this is counted: a connection is, a moment after its ends have noticed.
async fn counts(proxy: &Running, line: &str) {
    let began = Instant::now();
    while !proxy.metrics().contains(line) {
        assert!(began.elapsed() < PATIENCE, "{line} is not in\n{}", proxy.metrics());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A backend that says everything again.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

/// A backend that answers each request with 200 and closes.
pub(crate) async fn answering() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            });
        }
    });
    address
}

fn server(name: &str, to: SocketAddr, allow: &str, more: &str) -> String {
    format!(
        "[[listeners]]\nname = {name:?}\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\nallow_clients = [{allow:?}]\n{more}\n"
    )
}

const EVERYBODY: &str = "spiffe://example.org/*";

async fn says(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), word: &[u8]) -> bool {
    let mut heard = vec![0; word.len()];
    stream.write_all(word).await.is_ok() && stream.read_exact(&mut heard).await.is_ok() && heard == word
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_open_stream_of_a_revoked_peer_is_cut_within_a_second_and_no_other() {
    let world = World::new().await;
    let proxy = start(&world, &server("web", echo().await, EVERYBODY, "")).await;
    let address = proxy.address("web").unwrap();
    let good = world.running.enroll("good").await;
    let mut good_stream = world.client(Some(&good)).connect(address).await.unwrap();
    assert!(says(&mut good_stream, b"one").await);
    let mut slowest = Duration::ZERO;
    for number in 0..ROUNDS {
        let bad = world.running.enroll(&format!("bad-{number}")).await;
        let mut bad_stream = world.client(Some(&bad)).connect(address).await.unwrap();
        assert!(says(&mut bad_stream, b"one").await);
        let asked = Instant::now();
        world.revoke(&bad).await;
        let ended = tokio::time::timeout(PATIENCE, bad_stream.read(&mut [0; 1])).await.unwrap();
        assert!(!matches!(ended, Ok(1..)), "nothing more comes");
        slowest = slowest.max(asked.elapsed());
        if number == 0 {
            assert!(world.client(Some(&bad)).get(address).await.is_err(), "nor does it get in anew");
        }
    }
    println!("streams of {ROUNDS} revoked peers were cut at most {slowest:?} after the request to revoke");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert!(says(&mut good_stream, b"two").await);
    counts(&proxy, &format!("connections_ended_total{{listener=\"web\",end=\"ended_revoked\"}} {ROUNDS}"))
        .await;
    counts(&proxy, "connections_ended_total{listener=\"web\",end=\"revoked\"} 1").await;
    counts(&proxy, &format!("peers_cut {ROUNDS}")).await;
}

const ROUNDS: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_allowed_or_nobody_is_refused() {
    let world = World::new().await;
    let proxy = start(&world, &server("web", answering().await, "spiffe://example.org/in/*", "")).await;
    let address = proxy.address("web").unwrap();
    let (inside, outside) = (world.running.enroll("in/a").await, world.running.enroll("out").await);
    assert_eq!(world.client(Some(&inside)).get(address).await.unwrap(), 200);
    assert!(world.client(Some(&outside)).get(address).await.is_err());
    assert!(world.client(None).get(address).await.is_err());
    counts(&proxy, "end=\"not_allowed\"} 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_program_reaches_a_plain_program_through_two_proxies_and_halves_close_by_themselves() {
    let world = World::new().await;
    let inner = server("inner", echo().await, "spiffe://example.org/proxy", "");
    let inner = start(&world, &inner).await;
    let far = inner.address("inner").unwrap();
    let outer = format!(
        "[[listeners]]\nname = \"outer\"\nlisten = \"unix:outer.sock\"\nto = \"localhost:{}\"\n\
         allow_servers = [\"spiffe://example.org/proxy\"]\n\
         [[listeners]]\nname = \"wrong\"\nlisten = \"127.0.0.1:0\"\nto = \"localhost:{0}\"\n\
         allow_servers = [\"spiffe://example.org/another\"]\n",
        far.port()
    );
    let outer = start(&world, &outer).await;
    let mut near = tokio::net::UnixStream::connect(world.file("proxy").join("outer.sock")).await.unwrap();
    let question = vec![7; 3_000_000];
    let (mut read, mut write) = near.split();
    let (_, heard) = tokio::join!(
        async {
            write.write_all(&question).await.unwrap();
            write.shutdown().await.unwrap();
        },
        async {
            let mut heard = Vec::new();
            read.read_to_end(&mut heard).await.unwrap();
            heard
        }
    );
    assert_eq!(heard.len(), question.len(), "all of it comes back after our half was closed");

    // A server that is somebody else is not talked to.
    let mut stream = TcpStream::connect(outer.address("wrong").unwrap()).await.unwrap();
    assert!(!matches!(stream.read(&mut [0; 1]).await, Ok(1..)));
    counts(&outer, "listener=\"wrong\",end=\"not_allowed\"} 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_finishes_a_handshake_is_dropped_and_makes_room() {
    let world = World::new().await;
    let limits = "[limits]\nconnections = 2\nhandshake = \"500ms\"\n";
    let proxy = start(&world, &format!("{limits}{}", server("web", answering().await, EVERYBODY, ""))).await;
    let address = proxy.address("web").unwrap();
    let mut slow = Vec::new();
    for begin in [&b""[..], &[22, 3, 1]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begin).await.unwrap();
        slow.push(stream);
    }
    // There is no room for a third until the two have had their time.
    let held = world.running.enroll("good").await;
    assert_eq!(world.client(Some(&held)).get(address).await.unwrap(), 200);
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is dropped");
    }
    counts(&proxy, "end=\"slow\"} 2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_away_costs_one_connection_and_not_the_next() {
    let world = World::new().await;
    let away = crate::running::free_address();
    let proxy = start(&world, &server("web", away, EVERYBODY, "")).await;
    let address = proxy.address("web").unwrap();
    let held = world.running.enroll("good").await;
    let client = world.client(Some(&held));
    assert!(client.get(address).await.is_err());
    counts(&proxy, "end=\"backend_away\"} 1").await;
    let listener = TcpListener::bind(away).await.unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    });
    assert_eq!(client.get(address).await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxys_own_certificate_is_replaced_under_load_without_a_failed_handshake() {
    let world = World::new().await;
    let proxy = start(&world, &server("web", answering().await, EVERYBODY, "")).await;
    let address = proxy.address("web").unwrap();
    let held = world.running.enroll("good").await;
    let client = world.client(Some(&held));
    let shown = async || {
        let stream = client.connect(address).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let before = shown().await;
    let mut long = client.connect(address).await.unwrap();
    let load = Load::begin(&client, address);
    load.more(20).await;
    write_files(&world.file("proxy"), &world.running.enroll_again("proxy").await);
    let began = Instant::now();
    while shown().await == before {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    load.more(20).await;
    println!("rotation: {} requests, none failed", load.end().await);
    long.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_ne!(long.read(&mut [0; 64]).await.unwrap(), 0, "a connection from before goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_opens_changes_and_closes_listeners_and_ends_only_who_is_not_allowed_any_more() {
    let world = World::new().await;
    let backend = echo().await;
    let place = crate::running::free_address();
    let at =
        |name: &str, allow: &str| server(name, backend, allow, "").replace("127.0.0.1:0", &place.to_string());
    let mut proxy = start(&world, &at("web", EVERYBODY)).await;
    let (stays, goes) = (world.running.enroll("in/a").await, world.running.enroll("out").await);
    let mut staying = world.client(Some(&stays)).connect(place).await.unwrap();
    let mut going = world.client(Some(&goes)).connect(place).await.unwrap();
    assert!(says(&mut staying, b"one").await && says(&mut going, b"one").await);

    let home = world.file("proxy");
    let more = server("second", backend, EVERYBODY, "");
    proxy.change(config(&world, &home, &format!("{}{more}", at("web", "spiffe://example.org/in/*")))).await;
    let ended = tokio::time::timeout(PATIENCE, going.read(&mut [0; 1])).await.unwrap();
    assert!(!matches!(ended, Ok(1..)));
    assert!(says(&mut staying, b"two").await);
    assert!(proxy.address("second").is_some());

    proxy.change(config(&world, &home, &more)).await;
    assert!(says(&mut staying, b"three").await, "a closed listener lets its connections finish");
    let closed = Instant::now();
    while TcpStream::connect(place).await.is_ok() {
        assert!(closed.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_may_finish_and_what_does_not_is_cut() {
    let world = World::new().await;
    let limits = "[limits]\ndrain = \"2s\"\n";
    let proxy = start(&world, &format!("{limits}{}", server("web", echo().await, EVERYBODY, ""))).await;
    let address = proxy.address("web").unwrap();
    let held = world.running.enroll("good").await;
    let mut finishing = world.client(Some(&held)).connect(address).await.unwrap();
    let mut endless = world.client(Some(&held)).connect(address).await.unwrap();
    assert!(says(&mut finishing, b"one").await && says(&mut endless, b"one").await);
    let began = Instant::now();
    let stopping = tokio::spawn(proxy.stop());
    assert!(says(&mut finishing, b"two").await);
    finishing.shutdown().await.unwrap();
    stopping.await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert!(!matches!(endless.read(&mut [0; 1]).await, Ok(1..)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_learns_who_its_peer_is_and_a_balancer_says_for_whom_it_comes() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    let more = "alpn = [\"http/1.1\"]\nsend_proxy_header = \"v2\"\nproxy_header_from = [\"127.0.0.0/8\"]";
    let proxy = start(&world, &server("web", backend, EVERYBODY, more)).await;
    let address = proxy.address("web").unwrap();
    let held = world.running.enroll("web").await;
    let said = header::Addresses {
        source: "192.0.2.7:4711".parse().unwrap(),
        destination: "192.0.2.1:443".parse().unwrap(),
    };
    let balancer = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let header = header::write(header::ProxyVersion::V1, Some(said), header::PeerFacts::default());
        stream.write_all(&header).await.unwrap();
        let mut stream = world.client(Some(&held)).over(stream, &["http/1.1"]).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream
    };
    let heard = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 1024];
        let mut length = 0;
        while !heard[..length].ends_with(b"hello") {
            length += stream.read(&mut heard[length..]).await.unwrap();
        }
        heard.truncate(length);
        heard
    };
    let (_stream, heard) = tokio::join!(balancer, heard);
    let facts = header::PeerFacts { spiffe_id: Some("spiffe://example.org/web"), alpn: Some(b"http/1.1") };
    let expected = [header::write(header::ProxyVersion::V2, Some(said), facts), b"hello".to_vec()].concat();
    assert_eq!(heard, expected);
    // Whoever comes without a header is nobody's client.
    assert!(world.client(Some(&held)).get(address).await.is_err());
    counts(&proxy, "end=\"header\"} 1").await;
}

#[test]
fn every_mistake_in_the_file_is_said_at_once() {
    let text = r#"
        metrics = "nowhere"
        [authority]
        server = "unix:/run/admin.sock"
        log_key = "x"
        [identity]
        certificate = "tls.crt"
        [status]
        maximum_age = "1s"
        [limits]
        connections = 0
        handshake = "1h"
        [[listeners]]
        name = "a"
        listen = "0.0.0.0:80"
        to = "db.example.org:5432"
        allow_servers = []
        [[listeners]]
        name = "a"
        listen = "name:80"
        to = "127.0.0.1:80"
        proxy_header_from = ["x"]
    "#;
    let mistakes = ProxyConfig::check(toml::from_str(text).unwrap(), Path::new("/etc/chancery")).unwrap_err();
    for field in [
        "metrics",
        "authority.server",
        "authority.log_key",
        "identity",
        "status.maximum_age",
        "limits.connections",
        "limits.handshake",
        "listeners.a.listen",
        "listeners.a.allow_servers",
        "listeners.a.proxy_header_from",
        "listeners.a: without allow_clients",
        "listeners: two are called",
    ] {
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(field)), "{field}: {mistakes:#?}");
    }
}

#[test]
fn the_recipe_is_in_order() {
    let config =
        ProxyConfig::check(toml::from_str(&recipe("proxy.toml")).unwrap(), Path::new("/etc/chancery"));
    assert_eq!(config.unwrap().listeners.len(), 3);
}
