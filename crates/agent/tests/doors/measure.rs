//! Measurements, run on purpose: `cargo test --release -p chancery-agent --test doors -- --ignored --nocapture
//! measure::a_thousand_streams`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use chancery_agent::proto::workload::X509svidRequest;
use chancery_agent::workload_api::client::connect;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::world::World;

const SOCKET: &str = "CHANCERY_MEASURED_SOCKET";
const STREAMS: usize = 1000;

/// Resident memory and idle processor time of the doors with a thousand streams, each on a connection of its own,
/// and how long a fetch takes beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_thousand_streams() {
    let world = World::open().await;
    world.entitle();
    let before = resident();
    let mut clients = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "measure::clients"])
        .env(SOCKET, world.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(clients.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line == "ready" {
            break;
        }
        println!("{line}");
    }
    assert!(
        world
            .metrics()
            .contains(&format!("chancery_agent_workload_streams{{method=\"FetchX509SVID\"}} {STREAMS}"))
    );
    let (memory, busy) = (resident(), processor_ticks());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle = processor_ticks() - busy;
    println!("resident: {before} KiB before, {memory} KiB with {STREAMS} streams");
    println!("idle processor time: {idle} ticks of 10 ms in 10 s");
    let begun = Instant::now();
    world.entitle();
    // Two for each were the first answers and the repeated fetches.
    let pushed = format!("chancery_agent_pushes_total{{method=\"FetchX509SVID\"}} {}", 3 * STREAMS);
    while !world.metrics().contains(&pushed) && begun.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("a rotation pushed to all of them in {:?}; resident then {} KiB", begun.elapsed(), resident());
    assert!(memory < 128 * 1024, "{memory} KiB");
}

/// The other end of the measurement, in a process of its own.
#[tokio::test]
#[ignore = "a part of a measurement"]
async fn clients() {
    let Some(path) = std::env::var_os(SOCKET).map(PathBuf::from) else { return };
    let mut held = Vec::new();
    let mut first = Vec::new();
    for _ in 0..STREAMS {
        let begun = Instant::now();
        let mut client = connect(&path).await.unwrap();
        let mut stream = client.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        first.push(begun.elapsed());
        held.push((client, stream));
    }
    let mut again = Vec::new();
    for _ in 0..STREAMS {
        let begun = Instant::now();
        let (client, _) = &mut held[0];
        let mut stream = client.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        again.push(begun.elapsed());
    }
    println!("first answer on a new connection: {}", percentiles(first));
    println!("fetch on an open connection: {}", percentiles(again));
    // The thousand fetches above are cancelled by now or about to be.
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("ready");
    for (_, stream) in &mut held {
        stream.message().await.ok();
    }
    std::future::pending::<()>().await;
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100])
}

/// In KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
