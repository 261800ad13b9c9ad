//! How many they are: races for one thing, and ten thousand who only sit there.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use chancery_api::{CertificateQuery, Evidence, ProblemCode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncBufReadExt;
use tokio::sync::Barrier;

use crate::running::wire::Wire;
use crate::running::{Running, enrolment, fresh, id, new_key, problem, skipped};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixty_four_who_race_for_one_token_exactly_one_wins() {
    let running = Running::start().await;
    running.register("web").await;
    let token = running.token("web").await.token;
    let start = Arc::new(Barrier::new(64));
    let racers: Vec<_> = (0..64)
        .map(|_| {
            let client = running.client(None);
            let request = enrolment(&new_key(), Evidence::JoinToken { token: token.clone() });
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                client.nonce().await.unwrap(); // the connection stands before the race begins
                start.wait().await;
                client.enroll(&request, &fresh()).await
            })
        })
        .collect();
    let mut winners = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Ok(enrolled) => winners.push(enrolled.serial),
            Err(error) => assert_eq!(problem(&error), Some(ProblemCode::TokenSpent), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    let query = CertificateQuery { identity: Some(id("web")), ..CertificateQuery::default() };
    let found = running.admin().list_certificates(&query).await.unwrap().items;
    assert_eq!(found.iter().map(|found| found.serial).collect::<Vec<_>>(), winners);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_sent_thirty_two_times_at_once_gives_one_certificate() {
    let running = Running::start().await;
    running.register("web").await;
    let token = running.token("web").await.token;
    let request = enrolment(&new_key(), Evidence::JoinToken { token });
    let (start, key) = (Arc::new(Barrier::new(32)), fresh());
    let senders: Vec<_> = (0..32)
        .map(|_| {
            let (client, request) = (running.client(None), request.clone());
            let (start, key) = (Arc::clone(&start), key.clone());
            tokio::spawn(async move {
                client.nonce().await.unwrap();
                start.wait().await;
                client.enroll(&request, &key).await
            })
        })
        .collect();
    let mut serials = std::collections::BTreeSet::new();
    for sender in senders {
        serials.insert(sender.await.unwrap().unwrap().serial);
    }
    assert_eq!(serials.len(), 1);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_renewals_of_one_certificate_give_one_and_hold_it() {
    let running = Running::start().await;
    let first = Arc::new(running.enroll("web").await);
    let running = Arc::new(running);
    let renewals: Vec<_> = (0..32)
        .map(|_| {
            let (running, first) = (Arc::clone(&running), Arc::clone(&first));
            tokio::spawn(async move { running.renew(&first).await.map(|held| held.response.serial) })
        })
        .collect();
    let mut won = Vec::new();
    for renewal in renewals {
        match renewal.await.unwrap() {
            Ok(serial) => won.push(serial),
            Err(error) => assert!(
                matches!(problem(&error), Some(ProblemCode::LineageForked | ProblemCode::CertificateRevoked)),
                "{error}"
            ),
        }
    }
    assert_eq!(won.len(), 1, "one generation has one certificate");
    let status = running.client(None).status(won[0]).await.unwrap().status;
    assert_eq!(status, chancery_api::CertificateStatus::Held);
    running.server.stop().await;
}

/// Connections that do nothing, and how much memory each may cost, in KiB.
const IDLE: usize = 10_000;
const EACH: u64 = 32;
/// Tells a process of this program that it is the crowd: addresses to connect to and how often.
const CROWD: &str = "CHANCERY_TEST_CROWD";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_cost_little_and_stop_nobody() {
    let needed = IDLE as u64 + 1_000;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let maximum = limit.maximum.map(|maximum| maximum.max(needed));
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }) {
            let why = format!("{needed} file descriptors are more than allowed: {error}");
            return skipped("ten_thousand_idle_connections_cost_little_and_stop_nobody", &why);
        }
    }
    let running = Running::with(|raw| raw.limits.connections_per_address = 2 * IDLE).await;
    let before = resident();
    // Most where relying parties ask, some where a handshake is awaited; none of them says a word. They are in
    // a process of their own, so that their memory and descriptors are.
    let doors =
        format!("{} {} {} 500", running.server.status_address(), IDLE - 500, running.server.api_address());
    let mut crowd = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["crowds::the_crowd", "--exact", "--nocapture", "--ignored"])
        .env(CROWD, doors)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = tokio::io::BufReader::new(crowd.stdout.take().unwrap()).lines();
    while let Some(line) = said.next_line().await.unwrap() {
        if line.ends_with("all here") {
            break;
        }
        assert!(!line.contains("FAILED"), "{line}");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open > IDLE, "the server holds only {open} descriptors");
    let grown = resident().saturating_sub(before);
    assert!(grown < IDLE as u64 * EACH, "{IDLE} idle connections cost {grown} KiB");

    // Everybody else is served as ever, on both doors.
    running.enroll("web").await;
    let mut wire = Wire::plain(running.server.status_address()).await;
    assert_eq!(wire.ask("GET /v1/healthz", &[], b"").await.unwrap().status, 200);
    drop(crowd.stdin.take());
    crowd.wait().await.unwrap();
    running.server.stop().await;
}

/// Not a test: the other end of the one above.
#[test]
#[ignore = "the process that the test above starts"]
fn the_crowd() {
    let Ok(doors) = std::env::var(CROWD) else { return };
    let words: Vec<&str> = doors.split(' ').collect();
    let mut crowd = Vec::new();
    for door in words.chunks(2) {
        let address: SocketAddr = door[0].parse().unwrap();
        for _ in 0..door[1].parse().unwrap() {
            crowd.push(std::net::TcpStream::connect(address).unwrap());
        }
    }
    println!("all here");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
