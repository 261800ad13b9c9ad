//! Holds in waves: paused, undone, and gone on with after kill -9.

use std::process::Stdio;
use std::time::{Duration, Instant};

use chancery_api::{
    CertificateStatus, ChangeStatus, ChangeStepRequest, ChangeView, HoldRequest, Selector, Waves,
};
use chancery_client::Client;
use chancery_server::Server;
use chancery_server::authority::OnlineRoot;
use chancery_server::config::Config;
use chancery_types::{SystemClock, SystemRandom};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::running::{Place, Running, id};
use crate::{count, enrol_in};

/// Tells a process of this program which authority to serve.
const SERVES: &str = "CHANCERY_TEST_SCOPE_SERVES";

fn step() -> ChangeStepRequest {
    ChangeStepRequest::default()
}

fn in_waves(shares: &[u8], pause: &str) -> HoldRequest {
    let waves = Waves { shares: shares.to_vec(), pause: pause.parse().unwrap() };
    HoldRequest { waves: Some(waves), ..HoldRequest::new(Selector::Under(id("shop"))) }
}

#[tokio::test]
async fn waves_hold_more_and_more_rest_when_told_and_are_undone() {
    let running = Running::start().await;
    let all = enrol_in(&running, "shop/web", "prod", "ada", 10).await;
    let admin = running.admin();
    // Held by somebody else, and not theirs to release.
    admin.hold(&HoldRequest::new(Selector::Serial(all[0].response.serial))).await.unwrap();

    let asked = admin.hold(&in_waves(&[20, 50, 100], "1h")).await.unwrap().change.unwrap();
    assert_eq!((asked.status, asked.waves_done), (ChangeStatus::Running, 1));
    assert!(asked.next_wave.is_some());
    let first = count(&running, &all, CertificateStatus::Held).await;
    assert!((2..=3).contains(&first), "a fifth of ten, and one that was held before: {first}");

    let paused = admin.pause_change(asked.change, &step()).await.unwrap();
    assert_eq!((paused.status, paused.next_wave), (ChangeStatus::Paused, None));
    let resumed = admin.resume_change(asked.change, &step()).await;
    assert_eq!(resumed.unwrap().status, ChangeStatus::Running);
    let undone = admin.undo_change(asked.change, &step()).await.unwrap();
    assert_eq!(undone.status, ChangeStatus::Undone);
    assert_eq!(
        count(&running, &all, CertificateStatus::Held).await,
        1,
        "what somebody else holds stays held"
    );
    assert!(admin.resume_change(asked.change, &step()).await.is_err());
    running.server.stop().await;
}

#[tokio::test]
async fn an_undo_releases_the_identities_that_were_blocked() {
    let running = Running::start().await;
    let all = enrol_in(&running, "shop/web", "prod", "ada", 3).await;
    let admin = running.admin();
    let request = HoldRequest { block: true, ..in_waves(&[100], "1s") };
    let done = admin.hold(&request).await.unwrap().change.unwrap();
    assert_eq!((done.status, done.changed), (ChangeStatus::Ended, 3));
    assert!(running.renew(&all[0]).await.is_err());
    let state = admin.read_identity(&id("shop/web")).await.unwrap().state;
    assert_eq!(state, chancery_types::IdentityState::Held);
    admin.undo_change(done.change, &step()).await.unwrap();
    let state = admin.read_identity(&id("shop/web")).await.unwrap().state;
    assert_eq!(state, chancery_types::IdentityState::Active);
    running.renew(&all[0]).await.unwrap();
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_goes_on_with_the_next_wave() {
    let running = Running::start().await;
    let all = enrol_in(&running, "shop/web", "prod", "ada", 8).await;
    let asked = running.admin().hold(&in_waves(&[25, 50, 100], "1500ms")).await.unwrap().change.unwrap();
    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    let client = place.client_at(place.config().api, Some(place.operator_identity()));
    // One life may be too short to get anywhere, and the last is long enough.
    for life in [300, 900, 1_700] {
        let mut child = serve(&place).await;
        tokio::time::sleep(Duration::from_millis(life)).await;
        child.start_kill().unwrap();
        child.wait().await.unwrap();
    }
    let mut child = serve(&place).await;
    let ended = until_it_ends(&client, asked.change).await;
    assert_eq!((ended.changed, ended.waves_done), (8, 2), "three waves, of which the last is the end");
    child.start_kill().unwrap();
    child.wait().await.unwrap();
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    assert_eq!(count(&running, &all, CertificateStatus::Held).await, 8);
    running.server.stop().await;
}

async fn until_it_ends(client: &Client, change: u64) -> ChangeView {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let view = client.read_change(change).await.unwrap();
        if view.status == ChangeStatus::Ended {
            return view;
        }
        assert!(Instant::now() < deadline, "{view:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn serve(place: &Place) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["waves::serves_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
        .env(SERVES, place.file("chancery.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = said.next_line().await.unwrap() {
        if line.ends_with("serving") {
            return child;
        }
    }
    panic!("no server: {:?}", child.wait().await);
}

/// Not a test: the process that the test above starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that the test above starts"]
async fn serves_until_it_is_killed() {
    let Ok(path) = std::env::var(SERVES) else { return };
    let config = Config::load(std::path::Path::new(&path)).unwrap();
    let server = Server::start(config, OnlineRoot::Refuse, Arc::new(SystemClock), Arc::new(SystemRandom));
    let _server = server.await.unwrap();
    println!("serving");
    std::future::pending::<()>().await;
}
