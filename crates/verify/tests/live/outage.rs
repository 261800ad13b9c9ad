//! The authority goes away, comes back, is killed.

use std::process::Stdio;
use std::sync::Arc;

use chancery_server::Server;
use chancery_server::authority::OnlineRoot;
use chancery_server::config::Config;
use chancery_types::{SystemClock, SystemRandom};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::*;
use crate::running::{Running, plan};

/// Tells a process of this program which authority to serve.
const SERVES: &str = "CHANCERY_TEST_SERVES";

/// What a process of this program does that was started by [`serve`].
#[tokio::test]
async fn serves_when_it_is_told_to() {
    let Ok(configuration) = std::env::var(SERVES) else { return };
    let config = Config::load(std::path::Path::new(&configuration)).unwrap();
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let server = Server::start(config, OnlineRoot::Refuse, clock, random).await.unwrap();
    println!("serving");
    server.run().await.unwrap();
}

/// Serves in a process of its own.
async fn serve(place: &Place) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "outage::serves_when_it_is_told_to", "--nocapture"])
        .env(SERVES, place.file("chancery.toml"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let serving = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("serving") {
                return;
            }
        }
        panic!("it does not serve");
    };
    tokio::time::timeout(PATIENCE, serving).await.unwrap();
    child
}

async fn kill(mut child: Child) {
    child.start_kill().unwrap();
    child.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_started_again_the_authority_ends_streams_as_before() {
    // A running server to enrol with, and then its directory served by processes that are killed.
    let around = tempfile::tempdir().unwrap();
    let place = Place::inside(around.path(), plan()).await;
    let running = Running { server: place.serve().await.unwrap(), place };
    let (db, web, other) =
        (running.enroll("db").await, running.enroll("web").await, running.enroll("other").await);
    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    let address = place.config().api;
    let (_scratch, path) = scratch();
    let rules = Rules { maximum_age: Duration::from_secs(3600), ..Rules::default() };
    let kept = || Following { keep: Some(path.clone()), ..following(&place, address, &db, rules) };

    let child = serve(&place).await;
    let admin = place.client_at(address, Some(place.operator_identity()));
    let follower = Follower::start(kept());
    tokio::time::timeout(PATIENCE, follower.ready()).await.unwrap();
    let status = follower.status();
    let acceptor = Acceptor::new(judge(&place, &db, status.clone()), &credentials(&place, &db), &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (server, _client) = meet(&listener, &acceptor, &caller(&place, &web, &[])).await;
    let mut server = server.unwrap();
    kill(child).await;
    assert_eq!(status.check(Some(serial(&web))), Ok(()));

    let child = serve(&place).await;
    revoke(&admin, serial(&web)).await;
    let error = tokio::time::timeout(PATIENCE, server.read_u8()).await.unwrap().unwrap_err();
    assert!(matches!(why(&error), Ended::NotGood(_)));
    eventually("it is kept", || kept_has(&path, &serial(&web))).await;
    kill(child).await;
    drop((follower, acceptor));

    // Nobody is there: what was known is known.
    let follower = Follower::start(kept());
    let status = follower.status();
    assert!(matches!(status.standing(serial(&web)), Standing::NotGood(_)));
    assert_eq!(status.standing(serial(&other)), Standing::Good);

    let child = serve(&place).await;
    revoke(&admin, serial(&other)).await;
    eventually("the news arrive", || matches!(status.standing(serial(&other)), Standing::NotGood(_))).await;
    kill(child).await;
}

/// Whether a program that starts now would know that this is not good.
fn kept_has(path: &std::path::Path, serial: &SerialNumber) -> bool {
    let told = std::fs::read_to_string(format!("{}.told", path.display())).unwrap_or_default();
    let set = std::fs::read(path).ok().map(bytes::Bytes::from);
    let listed = set.and_then(|bytes| {
        let end = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
        chancery_status::ExactSet::parse(bytes.slice(..usize::try_from(end).unwrap())).ok()
    });
    told.contains(&serial.to_string()) || listed.is_some_and(|set| set.contains(*serial))
}
