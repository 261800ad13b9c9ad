//! The publisher of the exact set: over a real ledger, through restarts, damage, clocks that step back, and kill -9.
//!
//! `CHANCERY_SET_KILLS` sets the number of times that a publishing process is killed.

#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, reason = "tests and what they share")]

#[path = "../../ledger/tests/workload/mod.rs"]
mod workload;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chancery_entry::{Body, Entry, StatusSetPublished};
use chancery_ledger::{EmbeddedLedger, Ledger, Options, Outcome, ReadModel as _};
use chancery_revoke::{SetPublishError, SetPublisher, SetPublisherSpec, StatusBoard};
use chancery_status::{SignedSet, Standing};
use chancery_types::{IssuerEpoch, ManualClock, RevocationReason, SystemRandom, Timestamp, TrustDomain};

const CHILD: &str = "CHANCERY_SET_KILL_CHILD";
const REFRESH: Duration = Duration::from_secs(60);

struct World {
    ledger: Arc<EmbeddedLedger>,
    board: Arc<StatusBoard>,
    publisher: Arc<SetPublisher>,
    clock: ManualClock,
    following: tokio::task::JoinHandle<()>,
}

impl World {
    /// A new authority with some certificates.
    async fn new(directory: &Path, certificates: u64) -> Self {
        let path = directory.join("ledger");
        let ledger =
            EmbeddedLedger::create(&path, workload::signer(), Options::default(), &SystemRandom).unwrap();
        let mut setup = vec![workload::genesis(), workload::issuer(), workload::registration(0)];
        setup.extend(
            (1..=certificates)
                .map(|counter| workload::enrolment(workload::issuance(counter, workload::identity(0)))),
        );
        accept(&ledger, setup).await;
        Self::over(directory, ledger).await
    }

    /// An authority that was there before.
    async fn again(directory: &Path) -> Self {
        let path = directory.join("ledger");
        let ledger = EmbeddedLedger::open(&path, workload::signer(), Options::default()).unwrap();
        Self::over(directory, ledger).await
    }

    async fn over(directory: &Path, ledger: EmbeddedLedger) -> Self {
        let ledger = Arc::new(ledger);
        let clock = ManualClock::at(workload::now());
        let shared: Arc<dyn Ledger> = ledger.clone();
        let (board, news) =
            StatusBoard::open(Arc::clone(&shared), Arc::new(clock.clone()), Duration::ZERO).await.unwrap();
        let follower = Arc::clone(&board);
        let following = tokio::spawn(async move { follower.follow(news).await });
        let publisher = Arc::new(SetPublisher::new(SetPublisherSpec {
            board: Arc::clone(&board),
            ledger: shared,
            clock: Arc::new(clock.clone()),
            trust_domain: domain(),
            signers: workload::signer(),
            file: set_file(directory),
            refresh: REFRESH,
        }));
        Self { ledger, board, publisher, clock, following }
    }

    /// Lets go of the ledger.
    async fn stop(self) {
        self.following.abort();
        let _ = self.following.await;
        self.ledger.close();
    }

    async fn revoke(&self, counter: u64) {
        let reason = RevocationReason::Superseded;
        let revocation = workload::revoke(workload::serial(counter), reason, workload::now());
        let index = accept(&self.ledger, vec![revocation]).await;
        self.caught_up(index).await;
    }

    /// Waits until the board has heard of an entry.
    async fn caught_up(&self, index: u64) {
        let mut news = self.board.news();
        while self.board.read().position() <= index {
            let _ = tokio::time::timeout(Duration::from_millis(20), news.recv()).await;
        }
    }

    async fn publish(&self) -> SignedSet {
        let last = self.ledger.last_status_set().await.unwrap();
        self.caught_up(last.map_or(0, |last| last.sequence)).await;
        let set = self.publisher.publish().await.unwrap();
        open(set.bytes().clone())
    }
}

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn set_file(directory: &Path) -> PathBuf {
    directory.join("exact.set")
}

fn open(bytes: Bytes) -> SignedSet {
    SignedSet::open(bytes, &domain(), &[workload::verifier()]).unwrap()
}

fn on_disk(directory: &Path) -> SignedSet {
    open(std::fs::read(set_file(directory)).unwrap().into())
}

fn counters(set: &SignedSet) -> Vec<u64> {
    set.set().counters(IssuerEpoch(1)).unwrap().iter().collect()
}

/// The index of the first entry of the last proposal.
async fn accept(ledger: &EmbeddedLedger, proposals: Vec<chancery_ledger::Proposal>) -> u64 {
    let mut last = 0;
    for outcome in ledger.commit(proposals).await.unwrap() {
        let Outcome::Accepted { first_index } = outcome else { panic!("{outcome:?}") };
        last = first_index;
    }
    last
}

/// What the log says of sets, with the index of each entry; checked as an auditor does.
async fn recorded(ledger: &EmbeddedLedger) -> Vec<StatusSetPublished> {
    let mut sets: Vec<StatusSetPublished> = Vec::new();
    let (mut index, size) = (0, ledger.head().size);
    while index < size {
        for bytes in ledger.entries(index, 256).await.unwrap() {
            if let Body::StatusSetPublished(set) = Entry::decode(&bytes).unwrap().body {
                assert!(set.sequence <= index);
                assert_eq!(set.previous, sets.last().map(|last| last.hash));
                assert!(sets.last().is_none_or(|last| last.sequence < set.sequence));
                sets.push(set);
            }
            index += 1;
        }
    }
    sets
}

#[tokio::test]
async fn versions_say_what_the_log_says_and_deltas_lead_from_one_to_the_next() {
    let place = tempfile::tempdir().unwrap();
    let world = World::new(place.path(), 5).await;
    assert!(world.publisher.current().is_none() && world.publisher.is_stale(workload::now()));
    let first = world.publish().await;
    assert!(first.set().is_empty());
    world.revoke(2).await;
    let second = world.publish().await;
    world.revoke(4).await;
    let third = world.publish().await;
    assert_eq!((counters(&second), counters(&third)), (vec![2], vec![2, 4]));
    assert_eq!(third.set().standing(workload::serial(4)), Standing::NotGood);
    assert_eq!(on_disk(place.path()).to_bytes(), third.to_bytes());

    let current = world.publisher.current().unwrap();
    for old in [&first, &second] {
        let delta = world.publisher.delta(&current, old.set().sequence()).unwrap().unwrap();
        let advanced = old.advance(delta, &domain(), &[workload::verifier()]).unwrap();
        assert_eq!(advanced.to_bytes(), third.to_bytes());
    }
    for unknown in [0, third.set().sequence(), u64::MAX] {
        assert_eq!(world.publisher.delta(&current, unknown).unwrap(), None, "{unknown}");
    }
    let sets = recorded(&world.ledger).await;
    let hashes: Vec<_> = [&first, &second, &third].map(|set| set.set().hash()).to_vec();
    assert_eq!(sets.iter().map(|set| set.hash).collect::<Vec<_>>(), hashes);
}

#[tokio::test]
async fn what_has_expired_is_left_out() {
    let place = tempfile::tempdir().unwrap();
    let world = World::new(place.path(), 3).await;
    world.revoke(1).await;
    world.revoke(3).await;
    assert_eq!(counters(&world.publish().await), [1, 3]);
    // The certificates end a millisecond apart: the first has, the third has not.
    world.clock.set(workload::issuance(2, workload::identity(0)).not_after);
    assert_eq!(counters(&world.publish().await), [3]);
}

#[tokio::test]
async fn a_clock_that_steps_back_does_not_take_the_sequence_back() {
    let place = tempfile::tempdir().unwrap();
    let world = World::new(place.path(), 2).await;
    let first = world.publish().await;
    world.revoke(1).await;
    world.clock.set(workload::now() - Duration::from_secs(86_400));
    let second = world.publish().await;
    assert!(second.set().made() < first.set().made());
    assert!(second.set().sequence() > first.set().sequence());
    let current = world.publisher.current().unwrap();
    let delta = world.publisher.delta(&current, first.set().sequence()).unwrap().unwrap();
    let advanced = first.advance(delta, &domain(), &[workload::verifier()]).unwrap();
    assert_eq!(advanced.set(), second.set());
    assert!(!world.publisher.is_stale(world.clock_now()));
    world.clock.set(workload::now() + 4 * REFRESH);
    assert!(world.publisher.is_stale(world.clock_now()));
}

impl World {
    fn clock_now(&self) -> Timestamp {
        chancery_types::Clock::now(&self.clock)
    }
}

#[tokio::test]
async fn a_restart_goes_on_from_what_is_on_disk() {
    let place = tempfile::tempdir().unwrap();
    let world = World::new(place.path(), 3).await;
    world.revoke(1).await;
    let before = world.publish().await;
    world.stop().await;
    let world = World::again(place.path()).await;
    let current = world.publisher.current().unwrap();
    assert_eq!(*current.bytes(), before.to_bytes());
    world.revoke(2).await;
    let after = world.publish().await;
    let current = world.publisher.current().unwrap();
    let delta = world.publisher.delta(&current, before.set().sequence()).unwrap().unwrap();
    let advanced = before.advance(delta, &domain(), &[workload::verifier()]).unwrap();
    assert_eq!(advanced.to_bytes(), after.to_bytes());
    assert_eq!(recorded(&world.ledger).await.len(), 2);
}

#[tokio::test]
async fn a_lost_garbled_or_foreign_file_is_replaced() {
    let place = tempfile::tempdir().unwrap();
    let world = World::new(place.path(), 3).await;
    world.revoke(1).await;
    let sound = world.publish().await.to_bytes();
    world.stop().await;
    let file = set_file(place.path());
    let garbled = [&sound[..40], b"xxxx", &sound[44..]].concat();
    for damage in [None, Some(Vec::new()), Some(sound[..sound.len() / 2].to_vec()), Some(garbled)] {
        match &damage {
            None => std::fs::remove_file(&file).unwrap(),
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
        }
        let world = World::again(place.path()).await;
        assert!(world.publisher.current().is_none());
        let set = world.publish().await;
        assert_eq!(counters(&set), [1]);
        assert_eq!(on_disk(place.path()).to_bytes(), set.to_bytes());
        world.stop().await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_an_error_and_the_new_version_is_served_regardless() {
    let place = tempfile::tempdir().unwrap();
    let world = World::new(place.path(), 3).await;
    world.publish().await;
    world.revoke(2).await;
    let file = set_file(place.path());
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let error = world.publisher.publish().await.unwrap_err();
    assert!(matches!(error, SetPublishError::File { .. }), "{error}");
    let current = world.publisher.current().unwrap();
    assert_eq!(counters(&open(current.bytes().clone())), [2]);
    std::fs::remove_dir(&file).unwrap();
    assert_eq!(counters(&world.publish().await), [2]);
    assert_eq!(counters(&on_disk(place.path())), [2]);
}

#[tokio::test]
async fn changes_are_published_by_themselves_and_gathered() {
    let place = tempfile::tempdir().unwrap();
    let world = World::new(place.path(), 200).await;
    let running = Arc::clone(&world.publisher);
    let task = tokio::spawn(async move { running.run().await });
    for counter in 1..=200 {
        world.revoke(counter).await;
    }
    let wanted: Vec<u64> = (1..=200).collect();
    let seen = async {
        while world.publisher.current().is_none_or(|set| counters(&open(set.bytes().clone())) != wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("every change is published");
    task.abort();
    // Two hundred changes, and versions at least a second apart: its own records set nothing off.
    let versions = recorded(&world.ledger).await.len();
    assert!(versions < 100, "{versions} versions");
}

#[tokio::test]
async fn a_publisher_that_is_killed_leaves_the_old_set_or_the_new_one() {
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    let rounds = std::env::var("CHANCERY_SET_KILLS").map_or(6, |number| number.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let world = World::new(place.path(), 3000).await;
    let mut last = world.publish().await.set().sequence();
    world.stop().await;
    for round in 0..rounds {
        kill_after(place.path(), Duration::from_millis(40 + 37 * round));
        let set = on_disk(place.path());
        let world = World::again(place.path()).await;
        let sets = recorded(&world.ledger).await;
        let named = sets.iter().find(|one| one.hash == set.set().hash()).expect("it was recorded before");
        assert!(named.sequence == set.set().sequence() && set.set().sequence() >= last);
        last = world.publish().await.set().sequence();
        println!("round {round}: {} versions, {} certificates", sets.len(), set.set().len());
        world.stop().await;
    }
}

fn kill_after(directory: &Path, alive: Duration) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_of_the_kill_test", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.ends_with("ready"));
    assert!(ready, "the child did not start: {:?}", child.wait());
    std::thread::sleep(alive);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Not a test: what the children run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_of_the_kill_test() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let world = World::again(Path::new(&directory)).await;
    let good = (1..=3000).filter(|counter| world.board.read().get(workload::serial(*counter)).is_none());
    let good: Vec<u64> = good.collect();
    println!("ready");
    for counter in good {
        world.revoke(counter).await;
        world.publish().await;
    }
    std::future::pending().await
}
