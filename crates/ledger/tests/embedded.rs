//! The embedded backend passes the conformance suite.

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
mod workload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chancery_ledger::{EmbeddedLedger, Ledger, OpenError, Options};
use chancery_types::SystemRandom;
use conformance::Harness;
use tempfile::TempDir;

/// Ledgers in temporary directories.
struct Embedded {
    options: Options,
    /// By the address of the ledger that is open in it.
    directories: Mutex<HashMap<usize, TempDir>>,
}

impl Embedded {
    fn new(options: Options) -> Self {
        Self { options, directories: Mutex::default() }
    }

    fn keep(&self, ledger: EmbeddedLedger, directory: TempDir) -> Arc<dyn Ledger> {
        let ledger: Arc<dyn Ledger> = Arc::new(ledger);
        self.directories.lock().unwrap().insert(address(&ledger), directory);
        ledger
    }

    /// Stops the ledger and opens another in its directory.
    fn again(
        &self,
        ledger: Arc<dyn Ledger>,
        open: impl FnOnce(&TempDir, Options) -> Result<EmbeddedLedger, OpenError>,
    ) -> Arc<dyn Ledger> {
        let directory = self.directories.lock().unwrap().remove(&address(&ledger)).expect("made here");
        assert_eq!(Arc::strong_count(&ledger), 1, "nobody else has it open");
        let size = ledger.head().size;
        drop(ledger);
        let report = EmbeddedLedger::check_everything(directory.path(), &mut |_, _| {}).unwrap();
        assert_eq!((report.entries, report.indexed), (size, size), "a clean stop leaves nothing to replay");
        assert_eq!(report.published, Some(size).filter(|size| *size > 0));
        let ledger = open(&directory, self.options.clone()).unwrap();
        self.keep(ledger, directory)
    }
}

fn address(ledger: &Arc<dyn Ledger>) -> usize {
    Arc::as_ptr(ledger).cast::<()>().addr()
}

#[async_trait]
impl Harness for Embedded {
    async fn create(&self) -> Arc<dyn Ledger> {
        let directory = tempfile::tempdir().unwrap();
        let (signer, options) = (workload::signer(), self.options.clone());
        let ledger = EmbeddedLedger::create(directory.path(), signer, options, &SystemRandom).unwrap();
        self.keep(ledger, directory)
    }

    async fn reopen(&self, ledger: Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        self.again(ledger, |directory, options| {
            EmbeddedLedger::open(directory.path(), workload::signer(), options)
        })
    }

    async fn rebuild(&self, ledger: Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        self.again(ledger, |directory, options| {
            EmbeddedLedger::rebuild(directory.path(), workload::signer(), options, &mut |_, _| {})
        })
    }
}

/// As it is shipped: the index follows seldom, most is answered from memory.
mod by_default {
    use super::*;

    conformance_suite!(Embedded::new(Options::default()));
}

/// Small segments, and an index that follows at once: what otherwise takes millions happens all the time.
mod in_haste {
    use super::*;

    conformance_suite!(Embedded::new(Options {
        segment_bytes: 64 << 10,
        index_interval: Duration::ZERO,
        index_changes: 40,
        cache_bytes: 1 << 20,
        may_have_ended: false,
    }));
}

#[tokio::test]
async fn news_is_what_changes_how_things_stand_in_the_logs_order() {
    use chancery_entry::{Body, Entry};
    use chancery_ledger::Proposal;
    use chancery_types::Timestamp;

    let directory = tempfile::tempdir().unwrap();
    let (signer, options) = (workload::signer(), Options::default());
    let ledger = EmbeddedLedger::create(directory.path(), signer, options, &SystemRandom).unwrap();
    let mut news = ledger.news();
    let document = chancery_types::Identity::new("spiffe://example.org/web".parse().unwrap(), "ada");
    let id = document.spiffe_id.clone();
    let facts = [
        Body::IdentityRegistered(workload::identity_document(&document)),
        Body::Null,
        Body::IdentityHeld(workload::identity_change(id.clone())),
    ];
    let entries = facts.into_iter().map(|fact| Entry::new(Timestamp::from_seconds(1), fact)).collect();
    let first = ledger.head().size;
    ledger.commit(vec![Proposal::new(Vec::new(), entries).unwrap()]).await.unwrap();
    // By the time that it is told, it is in the read model.
    let told = news.recv().await.unwrap();
    assert_eq!((told.index, told.entry.body.kind()), (first, "identity-registered"));
    let state = chancery_ledger::ReadModel::identity(&ledger, &id).await.unwrap().unwrap().state;
    assert_eq!(state, chancery_types::IdentityState::Held);
    let told = news.recv().await.unwrap();
    assert_eq!((told.index, told.entry.body.kind()), (first + 2, "identity-held"));
    assert!(news.try_recv().is_err());
}
