//! The backend in PostgreSQL passes the conformance suite.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "tests and what they share"
)]

mod conformance;
mod server;
mod workload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chancery_ledger::{Ledger, PostgresLedger, PostgresOptions};
use chancery_types::SystemRandom;
use conformance::Harness;
use server::Server;
use tempfile::TempDir;

/// Ledgers in schemas of one server.
struct Postgres {
    server: Server,
    partition: u64,
    /// By the address of the ledger that is open in it.
    places: Mutex<HashMap<usize, (PostgresOptions, TempDir)>>,
}

impl Postgres {
    fn find(partition: u64) -> Option<Self> {
        Some(Self { server: Server::find()?, partition, places: Mutex::default() })
    }

    fn keep(&self, ledger: PostgresLedger, place: (PostgresOptions, TempDir)) -> Arc<dyn Ledger> {
        let ledger: Arc<dyn Ledger> = Arc::new(ledger);
        self.places.lock().unwrap().insert(address(&ledger), place);
        ledger
    }

    /// Stops the ledger, checks everything that it left, and opens another over it.
    async fn again(&self, ledger: Arc<dyn Ledger>, rebuild: bool) -> Arc<dyn Ledger> {
        let place = self.places.lock().unwrap().remove(&address(&ledger)).expect("made here");
        assert_eq!(Arc::strong_count(&ledger), 1, "nobody else has it open");
        let head = ledger.head();
        drop(ledger);
        let signer = workload::signer();
        let report = PostgresLedger::check_everything(&place.0, signer.as_ref(), |_, _| {}).await.unwrap();
        assert_eq!((report.entries, report.root), (head.size, head.root));
        if rebuild {
            PostgresLedger::rebuild(&place.0, signer.as_ref(), |_, _| {}).await.unwrap();
        }
        let ledger = PostgresLedger::open(place.0.clone(), signer, &SystemRandom).await.unwrap();
        self.keep(ledger, place)
    }
}

fn address(ledger: &Arc<dyn Ledger>) -> usize {
    Arc::as_ptr(ledger).cast::<()>().addr()
}

#[async_trait]
impl Harness for Postgres {
    async fn create(&self) -> Arc<dyn Ledger> {
        let directory = tempfile::tempdir().unwrap();
        let mut options = PostgresOptions::new(self.server.address(), directory.path().to_owned());
        options.schema = server::schema();
        options.partition = self.partition;
        options.readers = 2;
        let ledger =
            PostgresLedger::create(options.clone(), workload::signer(), &SystemRandom).await.unwrap();
        self.keep(ledger, (options, directory))
    }

    fn histories(&self) -> u64 {
        1
    }

    async fn reopen(&self, ledger: Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        self.again(ledger, false).await
    }

    async fn rebuild(&self, ledger: Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        self.again(ledger, true).await
    }
}

/// As it is shipped, but with partitions so small that they are made all the time.
mod in_postgresql {
    use super::*;

    conformance_suite!(match Postgres::find(200) {
        Some(postgres) => postgres,
        None => return,
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_moves_into_a_database_and_back_to_the_byte() {
    use chancery_ledger::{CopyError, EmbeddedLedger, IssuedSignature, Options, copy_log};
    let Some(postgres) = Postgres::find(500) else { return };
    let directory = tempfile::tempdir().unwrap();
    let embedded = |name: &str| {
        let (path, signer) = (directory.path().join(name), workload::signer());
        EmbeddedLedger::create(&path, signer, Options::default(), &SystemRandom).unwrap()
    };
    let first = embedded("first");
    conformance::accept(&first, workload::genesis()).await;
    let mut mix = workload::Mix::new(11);
    let work = async |mix: &mut workload::Mix| {
        for _ in 0..120 {
            let proposals = (0..mix.below(30)).map(|_| mix.proposal()).collect();
            first.commit(proposals).await.unwrap();
        }
        for index in (0..first.head().size).step_by(5) {
            let signature = IssuedSignature { index, signature: vec![7; 70] };
            first.keep_signatures(vec![signature]).await.unwrap();
        }
    };
    work(&mut mix).await;
    let second = postgres.create().await;
    copy_log(&first, &*second, &mut |_, _| {}).await.unwrap();
    // The source was at work meanwhile: once more, and both are the same.
    work(&mut mix).await;
    let head = copy_log(&first, &*second, &mut |_, _| {}).await.unwrap();
    assert_eq!(head, first.head());
    let all = conformance::snapshot(&first).await;
    assert_eq!(conformance::snapshot(&*second).await, all);
    let second = postgres.reopen(second).await;
    let third = embedded("third");
    assert_eq!(copy_log(&*second, &third, &mut |_, _| {}).await.unwrap(), head);
    assert_eq!(conformance::snapshot(&third).await, all);
    // Where it went from it has ended, for whoever has it open and whoever opens it.
    let (ended, why) = (second.end("it moved").await.unwrap(), "it moved");
    assert_eq!(ended, head);
    let refused = second.commit(vec![workload::registration(78)]).await.unwrap_err();
    assert!(refused.to_string().contains(why), "{refused}");
    assert_eq!(conformance::snapshot(&*second).await, all, "it is read on");
    assert_eq!(first.end(why).await.unwrap(), head);
    assert!(first.commit(vec![workload::registration(78)]).await.is_err());
    assert_eq!(conformance::snapshot(&first).await, all);
    drop(first);
    let (path, options) = (directory.path().join("first"), Options::default());
    let refused = EmbeddedLedger::open(&path, workload::signer(), options.clone()).unwrap_err();
    assert!(refused.to_string().contains(why), "{refused}");
    let options = Options { may_have_ended: true, ..options };
    let first = EmbeddedLedger::open(&path, workload::signer(), options).unwrap();
    assert!(first.commit(vec![workload::registration(78)]).await.is_err());
    // Not over another log, nor over one that has gone on by itself.
    let fourth = embedded("fourth");
    conformance::accept(&fourth, workload::registration(77)).await;
    let refused = copy_log(&first, &fourth, &mut |_, _| {}).await.unwrap_err();
    assert!(matches!(refused, CopyError::OtherLog { entries: 1, .. }), "{refused}");
    conformance::accept(&third, workload::registration(77)).await;
    let refused = copy_log(&first, &third, &mut |_, _| {}).await.unwrap_err();
    assert!(matches!(refused, CopyError::OtherLog { .. }), "{refused}");
}
