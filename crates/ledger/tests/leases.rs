//! Leases and scratch among the processes on one ledger.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "tests and what they share"
)]

mod server;
mod workload;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_ledger::{
    EmbeddedLedger, Leases as _, Options, PostgresLedger, PostgresOptions, Scratch as _, Turn, postgres,
};
use chancery_types::SystemRandom;
use server::Server;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

fn options(server: &Server, schema: &str, directory: &Path) -> PostgresOptions {
    let mut options = PostgresOptions::new(server.address(), directory.to_owned());
    schema.clone_into(&mut options.schema);
    options
}

/// Two replicas of a new ledger.
async fn two(server: &Server, directory: &Path) -> (PostgresLedger, PostgresLedger) {
    let schema = server::schema();
    let (first, second) = (directory.join("first"), directory.join("second"));
    let (signer, random) = (workload::signer(), &SystemRandom);
    let first = PostgresLedger::create(options(server, &schema, &first), signer, random).await.unwrap();
    let signer = workload::signer();
    let second = PostgresLedger::open(options(server, &schema, &second), signer, random).await.unwrap();
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_replica_has_a_lease_and_its_number_rises_when_it_changes_hands() {
    let Some(server) = Server::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = two(&server, directory.path()).await;
    let lease = first.acquire("lists", LONG).await.unwrap().unwrap();
    assert!(lease.is_held());
    assert_eq!(second.acquire("lists", LONG).await.unwrap(), None);
    assert!(second.acquire("rotation", LONG).await.unwrap().is_some(), "other work is another lease");
    let renewed = first.acquire("lists", SHORT).await.unwrap().unwrap();
    assert_eq!(renewed.fence, lease.fence, "it never ran out");
    let taken = loop {
        match second.acquire("lists", LONG).await.unwrap() {
            Some(lease) => break lease,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert!(!renewed.is_held(), "the holder knows it before anybody else may take it");
    assert!(taken.fence > renewed.fence);
    // The one before releases too late, and that changes nothing.
    first.release(&renewed).await.unwrap();
    assert_eq!(first.acquire("lists", LONG).await.unwrap(), None);
    second.release(&taken).await.unwrap();
    assert!(first.acquire("lists", LONG).await.unwrap().unwrap().fence > taken.fence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_turn_is_taken_over_within_seconds_when_its_holder_dies_and_at_once_when_it_leaves() {
    let Some(server) = Server::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = two(&server, directory.path()).await;
    let turns = [first, second].map(|ledger| Arc::new(Turn::new(Arc::new(ledger), "lists")));
    let keep = |turn: &Arc<Turn>| {
        let turn = Arc::clone(turn);
        tokio::spawn(async move { turn.keep().await })
    };
    let holding = keep(&turns[0]);
    let fence = turns[0].mine().await;
    let _waiting = keep(&turns[1]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((turns[0].fence(), turns[1].fence()), (Some(fence), None), "longer than one lease lasts");
    holding.abort();
    let died = Instant::now();
    let next = turns[1].mine().await;
    assert!(next > fence && died.elapsed() < Duration::from_secs(5), "{:?}", died.elapsed());
    assert_eq!(turns[0].fence(), None);
    let _waiting = keep(&turns[0]);
    turns[1].give_up().await;
    assert_eq!(turns[1].fence(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_watches_sees_who_asks_for_what_has_it_and_gave_it_back() {
    let Some(server) = Server::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (schema, random) = (server::schema(), &SystemRandom);
    let options = |name: &str| options(&server, &schema, &directory.path().join(name));
    let first = PostgresLedger::create(options("first"), workload::signer(), random).await.unwrap();
    let second = PostgresLedger::open(options("second"), workload::signer(), random).await.unwrap();
    let ledgers = [Arc::new(first), Arc::new(second)];
    let turn = |which: usize, work: &str| Turn::new(ledgers[which].clone(), work);
    let seen = |which: usize| ledgers[which].turns().held();
    let said = |work: &str, is_held| (work.to_owned(), is_held);
    let [lists, other, tidy] = [turn(0, "lists"), turn(1, "lists"), turn(0, "tidy")];
    assert_eq!(seen(0), [], "nobody asked");
    lists.ask().await.unwrap();
    assert_eq!(other.ask().await, None);
    tidy.ask().await.unwrap();
    assert_eq!(seen(0), [said("lists", true), said("tidy", true)]);
    assert_eq!(seen(1), [said("lists", false)]);
    tidy.give_up().await;
    assert_eq!(seen(0), [said("lists", true), said("tidy", false)]);
    let survey = postgres::survey(&options("nobody"), b"").await.unwrap();
    let left: Vec<_> =
        survey.leases.iter().map(|lease| (lease.work.as_str(), lease.left.is_some())).collect();
    assert_eq!(left, [("lists", true), ("tidy", false)]);
    drop((lists, tidy));
    assert_eq!(seen(0), [], "what nobody keeps is nobody's work");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_is_used_once_among_all_replicas_until_it_runs_out() {
    let Some(server) = Server::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = two(&server, directory.path()).await;
    let replicas = [Arc::new(first), Arc::new(second)];
    let mut tasks = Vec::new();
    for number in 0..64_u8 {
        let replica = Arc::clone(&replicas[usize::from(number % 2)]);
        tasks.push(tokio::spawn(async move { replica.put_new(b"nonce", &[number], LONG).await.unwrap() }));
    }
    let mut winners = 0;
    for task in tasks {
        winners += u32::from(task.await.unwrap());
    }
    assert_eq!(winners, 1);
    let kept = replicas[0].get(b"nonce").await.unwrap().unwrap();
    assert_eq!(replicas[1].get(b"nonce").await.unwrap().unwrap(), kept);
    assert!(replicas[0].put_new(b"brief", b"before", SHORT).await.unwrap());
    let until = Instant::now() + SHORT * 20;
    while !replicas[1].put_new(b"brief", b"after", LONG).await.unwrap() {
        assert!(Instant::now() < until, "it never runs out");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(replicas[0].get(b"brief").await.unwrap().as_deref(), Some(b"after".as_slice()));
    assert_eq!(replicas[0].get(b"nothing").await.unwrap(), None);
    // Who was overtaken writes no more over what the next one wrote.
    assert!(replicas[0].replace(1, b"list", b"one", LONG).await.unwrap());
    assert!(replicas[0].replace(1, b"list", b"two", LONG).await.unwrap());
    assert!(replicas[1].replace(2, b"list", b"three", LONG).await.unwrap());
    assert!(!replicas[0].replace(1, b"list", b"late", LONG).await.unwrap());
    assert_eq!(replicas[0].get(b"list").await.unwrap().as_deref(), Some(b"three".as_slice()));
}

#[tokio::test]
async fn who_is_alone_always_has_its_turn() {
    let directory = tempfile::tempdir().unwrap();
    let (signer, random) = (workload::signer(), &SystemRandom);
    let ledger = EmbeddedLedger::create(directory.path(), signer, Options::default(), random).unwrap();
    let turn = Turn::new(Arc::new(ledger), "lists");
    assert_eq!(turn.fence(), None, "nobody asked yet");
    assert!(turn.ask().await.is_some());
}
