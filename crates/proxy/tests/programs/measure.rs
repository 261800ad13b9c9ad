//! How fast the proxy is beside HAProxy, which does the same without live status. Not run with the others:
//! `cargo nextest run -p chancery-proxy --cargo-profile release --run-ignored only measure`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::running::{free_address, skipped};
use crate::tunnel::{echo, start};
use crate::world::{Client, Program, World};

/// Bytes each way in a second, the mean time of a round trip, and handshakes in a second.
struct Figures {
    throughput: f64,
    round_trip: Duration,
    handshakes: f64,
}

async fn measure(client: &Client, address: SocketAddr) -> Figures {
    let mut stream = client.connect(address).await.unwrap();
    let mut buffer = vec![7; 64 * 1024];
    for _ in 0..500 {
        stream.write_all(&buffer[..64]).await.unwrap();
        stream.read_exact(&mut buffer[..64]).await.unwrap();
    }
    let began = Instant::now();
    for _ in 0..5000 {
        stream.write_all(&buffer[..64]).await.unwrap();
        stream.read_exact(&mut buffer[..64]).await.unwrap();
    }
    let round_trip = began.elapsed() / 5000;

    let total = 512 << 20;
    let (mut read, mut write) = tokio::io::split(stream);
    let began = Instant::now();
    let writing = tokio::spawn(async move {
        let block = vec![7; 64 * 1024];
        for _ in 0..total / block.len() {
            write.write_all(&block).await.unwrap();
        }
    });
    let mut left = total;
    while left > 0 {
        left -= read.read(&mut buffer).await.unwrap();
    }
    writing.await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let throughput = f64::from(u32::try_from(total >> 20).unwrap()) / seconds;

    let began = Instant::now();
    for _ in 0..1000 {
        drop(client.connect(address).await.unwrap());
    }
    Figures { throughput, round_trip, handshakes: 1000.0 / began.elapsed().as_secs_f64() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and the whole machine"]
async fn measure_the_proxy_beside_haproxy() {
    let world = World::new().await;
    let backend = echo().await;
    let text = format!(
        "[[listeners]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nto = \"{backend}\"\nallow_clients = [\"spiffe://example.org/*\"]\n"
    );
    let proxy = start(&world, &text).await;
    let home = world.file("proxy");
    let theirs = free_address();
    let text = format!(
        "global\n  nbthread 2\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen web\n  bind {theirs} ssl crt {0}/tls.pem ca-file {0}/bundle.crt verify required no-tls-tickets\n  server echo {backend}\n",
        home.display()
    );
    std::fs::write(home.join("haproxy.cfg"), text).unwrap();
    let mut haproxy = Command::new("/usr/sbin/haproxy");
    let Ok(_haproxy) = Program::start(haproxy.args(["-db", "-f"]).arg(home.join("haproxy.cfg"))) else {
        return skipped("measure_the_proxy_beside_haproxy", "HAProxy is not installed");
    };
    let held = world.running.enroll("client").await;
    let client = world.client(Some(&held));
    while client.connect(theirs).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (name, address) in [
        ("warm", theirs),
        ("HAProxy", theirs),
        ("proxy", proxy.address("web").unwrap()),
        ("HAProxy", theirs),
        ("proxy", proxy.address("web").unwrap()),
    ] {
        let Figures { throughput, round_trip, handshakes } = measure(&client, address).await;
        println!(
            "{name:8} {throughput:7.0} MiB/s each way, round trip {round_trip:?}, {handshakes:.0} handshakes/s"
        );
    }
}
