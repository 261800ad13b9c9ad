//! Searches and exports are answered by a streaming standby while it is one of this log and not too far behind.

#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, reason = "tests and what they share")]

mod server;
mod workload;

use std::time::{Duration, Instant};

use chancery_ledger::{
    CertificateQuery, Ledger, Outcome, PageRequest, PostgresLedger, PostgresOptions, Proposal, ReadModel,
};
use chancery_types::SystemRandom;
use server::Server;
use workload::{identity, issuance};

const LAG: u64 = 50;

/// A ledger that may read from these standbys.
struct Place {
    ledger: PostgresLedger,
    _directory: tempfile::TempDir,
}

async fn open(options: PostgresOptions, is_new: bool) -> PostgresLedger {
    match is_new {
        true => PostgresLedger::create(options, workload::signer(), &SystemRandom).await.unwrap(),
        false => PostgresLedger::open(options, workload::signer(), &SystemRandom).await.unwrap(),
    }
}

impl Place {
    async fn on(primary: &Server, standbys: &[&Server], is_new: bool) -> Self {
        Self::within(Duration::from_secs(600), primary, standbys, is_new).await
    }

    /// While they have replayed something so lately.
    async fn within(age: Duration, primary: &Server, standbys: &[&Server], is_new: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = PostgresOptions::new(primary.address(), directory.path().to_owned());
        options.standby_urls = standbys.iter().map(|server| server.address().to_owned()).collect();
        options.standby_lag = LAG;
        options.standby_age = age;
        Self { ledger: open(options, is_new).await, _directory: directory }
    }

    async fn begin(&self) {
        let begin = vec![workload::genesis(), workload::issuer(), workload::registration(0)];
        accepted(self.ledger.commit(begin).await.unwrap());
    }

    async fn issue(&self, counters: std::ops::Range<u64>) {
        let proposals = counters.map(|counter| workload::enrolment(issuance(counter, identity(0))));
        accepted(self.ledger.commit(proposals.collect::<Vec<Proposal>>()).await.unwrap());
    }

    /// A search that may be a moment old; how many it found, and whether a standby answered.
    async fn search(&self) -> (usize, bool) {
        let before = self.ledger.answered_by_standbys();
        let query = CertificateQuery { identity: Some(identity(0)), may_lag: true, ..Default::default() };
        let found = self.ledger.certificates(&query, &PageRequest::first(10_000)).await.unwrap();
        (found.items.len(), self.ledger.answered_by_standbys() > before)
    }

    /// Searches until it is answered so.
    async fn until(&self, what: &str, wanted: impl Fn((usize, bool)) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let found = self.search().await;
            if wanted(found) {
                return;
            }
            assert!(Instant::now() < until, "{what}: {found:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn accepted(outcomes: Vec<Outcome>) {
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_standby_answers_while_it_keeps_up_and_the_primary_when_it_does_not() {
    let Some(primary) = Server::start() else { return };
    let mut standby = tokio::task::block_in_place(|| primary.standby());
    let place = Place::on(&primary, &[&standby], true).await;
    place.begin().await;
    place.issue(0..10).await;
    place.until("the standby has it all and answers", |found| found == (10, true)).await;
    let size = place.ledger.head().size;
    let all = usize::try_from(size).unwrap();
    let exported = place.ledger.entries_at_leisure(0, all).await.unwrap();
    assert_eq!(exported, place.ledger.entries(0, all).await.unwrap());

    // Behind by less than is allowed it answers as of then; whatever decides is asked of the primary.
    standby.tell("SELECT pg_wal_replay_pause()");
    place.issue(10..30).await;
    assert_eq!(place.search().await, (10, true));
    let certain = CertificateQuery { identity: Some(identity(0)), ..Default::default() };
    let found = place.ledger.certificates(&certain, &PageRequest::first(100)).await.unwrap();
    assert_eq!(found.items.len(), 30);
    assert!(place.ledger.certificate(workload::serial(29)).await.unwrap().is_some());
    // What it does not have yet comes from the primary.
    let counted = place.ledger.answered_by_standbys();
    assert_eq!(place.ledger.entries_at_leisure(size, 20).await.unwrap().len(), 20);
    assert_eq!(place.ledger.answered_by_standbys(), counted);

    // Not when it has replayed nothing for long: a little behind may be an hour old.
    let strict = Place::within(Duration::from_millis(1), &primary, &[&standby], false).await;
    assert_eq!(strict.search().await, (30, false));

    // Behind by more it is left alone, until it has caught up.
    place.issue(30..30 + LAG).await;
    assert_eq!(place.search().await, (80, false));
    standby.tell("SELECT pg_wal_replay_resume()");
    place.until("it is asked again", |found| found == (80, true)).await;

    // It dies; nobody notices. It comes back.
    standby.kill();
    for _ in 0..5 {
        assert_eq!(place.search().await, (80, false));
    }
    tokio::task::block_in_place(|| standby.restart());
    place.until("it is asked again after its start", |found| found == (80, true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_standby_of_another_log_or_one_that_went_its_own_way_is_never_read() {
    let Some(primary) = Server::start() else { return };
    let place = Place::on(&primary, &[], true).await;
    place.begin().await;
    place.issue(0..5).await;
    let forked = tokio::task::block_in_place(|| primary.standby());
    tokio::task::block_in_place(|| forked.promote());
    // The same number of entries, and one of them is another.
    let own = Place::on(&forked, &[], false).await;
    own.issue(100..103).await;
    place.issue(5..8).await;
    assert_eq!(own.ledger.head().size, place.ledger.head().size);
    let reader = Place::on(&primary, &[&forked], false).await;
    assert_eq!(reader.search().await, (8, false));
    // Behind, and still another.
    place.issue(8..12).await;
    let reader = Place::on(&primary, &[&forked], false).await;
    assert_eq!(reader.search().await, (12, false));
    // Ahead.
    own.issue(103..120).await;
    let reader = Place::on(&primary, &[&forked], false).await;
    assert_eq!(reader.search().await, (12, false));

    // Another log in the schema of the same name.
    let Some(stranger) = Server::start() else { return };
    let other = Place::on(&stranger, &[], true).await;
    other.begin().await;
    other.issue(0..9).await;
    let reader = Place::on(&primary, &[&stranger, &forked], false).await;
    assert_eq!(reader.search().await, (12, false));
    assert!(reader.ledger.halted().is_none(), "the primary is what counts");
    reader.issue(20..21).await;
}
