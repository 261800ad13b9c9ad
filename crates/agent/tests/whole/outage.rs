//! The authority goes away and comes back; the workloads do not notice.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chancery_agent::identities::X509State;
use chancery_agent::proto::workload::X509svidRequest;
use chancery_agent::workload_api::client;
use chancery_types::{Clock as _, SystemClock};
use chancery_x509::{Certificate, split_certificates};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::place::{PATIENCE, World, wait};

/// Asserts, all the time, that this process has one certificate that is good.
fn is_served(states: &watch::Receiver<Arc<X509State>>) {
    let state = states.borrow();
    assert_eq!(state.svids.len(), 1, "it is there");
    assert!(SystemClock.now() < state.svids[0].not_after, "and has not ended");
}

async fn watch_for(states: &watch::Receiver<Arc<X509State>>, span: Duration) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        is_served(states);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_followed_again_without_anything_lost() {
    let mut world = World::new().await;
    world.register("web").await;
    let _serving = world.serve("").await.unwrap();
    let mut states = world.follow();
    let before = wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await;
    world.stop_server().await;
    watch_for(&states, Duration::from_secs(2)).await;
    world.start_server().await;
    world.register("batch").await;
    let after = wait(&mut states, PATIENCE, |state| state.svids.len() == 2).await;
    assert!(after.svids.iter().any(|svid| svid.serial == before.svids[0].serial));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_revoked_while_the_agent_was_cut_off_is_withdrawn_when_it_is_back() {
    let mut world = World::new().await;
    world.register("web").await;
    let _serving = world.serve("").await.unwrap();
    let mut states = world.follow();
    let before = wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await;
    // Revoked by an authority whose streams nobody can reach, and which forgets what it would have told.
    world.revoke_behind_closed_doors(before.svids[0].serial).await;
    world.start_server().await;
    let serial = before.svids[0].serial;
    wait(&mut states, PATIENCE, |state| state.svids.iter().all(|svid| svid.serial != serial)).await;
}

/// Asks all the time, on an open connection and every tenth time on a new one, and asserts that every answer has one
/// certificate that is good; counts the answers.
async fn ask_all_the_time(socket: PathBuf, answers: Arc<AtomicUsize>) {
    loop {
        let mut client = client::connect(&socket).await.unwrap();
        for _ in 0..10 {
            let mut messages = client.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
            let answer = messages.message().await.unwrap().unwrap();
            let [svid] = answer.svids.as_slice() else { panic!("{} certificates", answer.svids.len()) };
            let chain = split_certificates(&svid.x509_svid, 8).unwrap();
            let leaf = Certificate::from_der(&chain[0]).unwrap();
            assert!(SystemClock.now() < leaf.tbs().not_after(), "it has ended");
            answers.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two and a half minutes of real time; run it with --ignored"]
async fn a_server_that_is_away_for_half_a_life_is_not_noticed() {
    let mut world = World::new().await;
    world.register("web").await;
    let _serving = world.serve("").await.unwrap();
    let mut states = world.follow();
    let mut seen = vec![wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await.svids[0].serial];
    let answers = Arc::new(AtomicUsize::new(0));
    let mut load = JoinSet::new();
    for _ in 0..8 {
        load.spawn(ask_all_the_time(world.file("api.sock"), Arc::clone(&answers)));
    }
    // Away for thirty seconds of sixty, twice, at moments that have nothing to do with rotation.
    for (here, away) in [(17, 30), (29, 30), (30, 0)] {
        watch_for(&states, Duration::from_secs(here)).await;
        if away > 0 {
            world.stop_server().await;
            watch_for(&states, Duration::from_secs(away)).await;
            world.start_server().await;
        }
        seen.push(states.borrow().svids[0].serial);
    }
    seen.dedup();
    assert!(seen.len() >= 3, "it was rotated meanwhile: {seen:?}");
    if let Some(ended) = load.try_join_next() {
        ended.unwrap();
    }
    println!("{} fetches, each with one good certificate", answers.load(Ordering::Relaxed));
    // The node renewed itself meanwhile too, or it could not have.
}
