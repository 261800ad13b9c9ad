//! A hundred listeners, and a server that is killed again and again: everything that was acknowledged reaches each.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chancery_api::{FeedChange, FeedQuery, RevokeRequest, Selector};
use chancery_client::Client;
use chancery_server::Server;
use chancery_server::authority::OnlineRoot;
use chancery_server::config::Config;
use chancery_types::{RevocationReason, SerialNumber, SystemClock, SystemRandom};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::running::{Place, Running};

/// Tells a process of this program which authority to serve.
const SERVES: &str = "CHANCERY_TEST_SERVES";
const LISTENERS: usize = 100;
const KILLS: usize = 3;
/// Revocations before each kill; the last of them is under way when it comes.
const BETWEEN: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);

/// What one listener was told.
#[derive(Debug, Default)]
struct Heard {
    revoked: HashSet<SerialNumber>,
    /// Events that left a gap, and `bulk`: each would cost it the exact set.
    gaps: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_listeners_miss_nothing_of_a_server_that_is_killed() {
    let running = Running::start().await;
    let mut holders = Vec::new();
    let mut victims = Vec::new();
    for number in 0..4 {
        holders.push(running.enroll(&format!("listener/{number}")).await);
    }
    for number in 0..KILLS * BETWEEN {
        victims.push(running.enroll(&format!("victim/{number}")).await.response.serial);
    }
    let address = running.server.api_address();
    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    place.edit(|raw| raw.listen.api = address.to_string());

    let mut child = serve(&place).await;
    let admin = place.client_at(address, Some(place.operator_identity()));
    let heard: Vec<_> = (0..LISTENERS).map(|_| Arc::<Mutex<Heard>>::default()).collect();
    let mut listeners = JoinSet::new();
    for (number, heard) in heard.iter().enumerate() {
        let client = place.client_at(address, Some(holders[number % holders.len()].identity()));
        let (started, has_started) = tokio::sync::oneshot::channel();
        listeners.spawn(listen(client, Arc::clone(heard), started));
        has_started.await.unwrap();
    }
    for (round, group) in victims.chunks(BETWEEN).enumerate() {
        let (last, before) = group.split_last().unwrap();
        for serial in before {
            revoke(&admin, *serial).await;
        }
        let admin = admin.clone();
        let serial = *last;
        let pending = tokio::spawn(async move { revoke(&admin, serial).await });
        // Sometimes the answer comes first, sometimes the end.
        tokio::time::sleep(Duration::from_millis(round as u64 * 2)).await;
        child.start_kill().unwrap();
        child.wait().await.unwrap();
        child = serve(&place).await;
        pending.await.unwrap();
    }
    let begun = Instant::now();
    let is_whole = |heard: &Arc<Mutex<Heard>>| heard.lock().unwrap().revoked.len() == victims.len();
    while !heard.iter().all(is_whole) {
        assert!(
            begun.elapsed() < PATIENCE,
            "{} know everything",
            heard.iter().filter(|one| is_whole(one)).count()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for heard in &heard {
        let heard = heard.lock().unwrap();
        assert!(victims.iter().all(|serial| heard.revoked.contains(serial)));
        assert_eq!(heard.gaps, 0, "nobody has to fetch everything");
    }
    listeners.abort_all();
    child.start_kill().unwrap();
    child.wait().await.unwrap();
}

async fn listen(client: Client, heard: Arc<Mutex<Heard>>, started: tokio::sync::oneshot::Sender<()>) {
    let mut feed = client.status_feed(FeedQuery::default());
    let mut started = Some(started);
    loop {
        let before = feed.position();
        let Ok(event) = feed.next().await else { continue };
        if let Some(started) = started.take() {
            let _ = started.send(());
        }
        let mut heard = heard.lock().unwrap();
        let is_gap = before.is_some_and(|position| event.leaves_gap(position));
        heard.gaps += usize::from(is_gap || matches!(event.change, FeedChange::Bulk { .. }));
        if let FeedChange::Revoke { serials, .. } = event.change {
            heard.revoked.extend(serials);
        }
    }
}

/// Revokes, however often the server has to be asked.
async fn revoke(admin: &Client, serial: SerialNumber) {
    let begun = Instant::now();
    loop {
        let selector = Selector::Serial(serial);
        let reason = RevocationReason::Superseded;
        let request = RevokeRequest { selector, reason, dry_run: false, note: String::new() };
        match admin.revoke(&request).await {
            Ok(_) => return,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn serve(place: &Place) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["survival::serves_until_it_is_killed", "--exact", "--nocapture", "--ignored"])
        .env(SERVES, place.file("chancery.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = said.next_line().await.unwrap() {
        if line.ends_with("serving") {
            return child;
        }
    }
    panic!("there is no server: {:?}", child.wait().await);
}

/// Not a test: the process that the test above starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that the test above starts"]
async fn serves_until_it_is_killed() {
    let Ok(path) = std::env::var(SERVES) else { return };
    let config = Config::load(&PathBuf::from(path)).unwrap();
    let server = Server::start(config, OnlineRoot::Refuse, Arc::new(SystemClock), Arc::new(SystemRandom));
    let _server = server.await.unwrap();
    println!("serving");
    std::future::pending::<()>().await;
}
