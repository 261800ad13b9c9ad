//! Certificates that ended long ago leave what searches find, and never the log.
//!
//! One process at a time does it, a few hundred at a time with pauses between, so that nobody waits for it. Where it has
//! got to needs no note: what was tidied away is not found again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chancery_entry::{Body, Entry, Tidy};
use chancery_ledger::{CommitError, Ledger, ModelError, PageRequest, Proposal, Turn};
use chancery_rotate::authority::Steady;
use chancery_types::Clock;

/// How often it is looked whether something has ended.
const LOOK: Duration = Duration::from_mins(10);
/// Certificates that are looked for at once.
const PAGE: usize = 4096;
/// Certificates in one entry: what others wait behind at the most, ten or twenty milliseconds in a database.
const TOGETHER: usize = 256;
/// How many times as long as an entry took others are left alone after it.
const REST: u32 = 2;

/// Why not everything was tidied away. It goes on with the next look.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TidyError {
    /// It cannot be found out what has ended.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The ledger did not take it.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Tidies the read model.
pub(crate) struct Tidier {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    after: Duration,
    settle: Duration,
    turn: Turn,
    tidied: AtomicU64,
}

impl std::fmt::Debug for Tidier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tidier").field("after", &self.after).finish_non_exhaustive()
    }
}

impl Tidier {
    /// Of what ended so long ago, once the clock has gone evenly for so long: a clock that runs ahead must not make
    /// living certificates hard to find.
    #[must_use]
    pub(crate) fn new(
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        after: Duration,
        settle: Duration,
    ) -> Self {
        let turn = Turn::new(Arc::clone(&ledger), "tidy");
        Self { ledger, clock, after, settle, turn, tidied: AtomicU64::default() }
    }

    /// Certificates that this process has tidied away.
    pub(crate) fn tidied(&self) -> u64 {
        self.tidied.load(Ordering::Relaxed)
    }

    /// Tidies whenever something is due, until it is dropped.
    pub(crate) async fn run(&self) {
        let (mut steady, started) = (Steady::default(), Instant::now());
        loop {
            if steady.look(self.clock.now(), started.elapsed()) >= self.settle
                && self.turn.ask().await.is_some()
            {
                tokio::select! {
                    tidied = self.round() => match tidied {
                        Ok(0) => {}
                        Ok(certificates) => tracing::info!(certificates, "what ended long ago was tidied away"),
                        Err(error) => tracing::warn!(%error, "what ended long ago is not all tidied away"),
                    },
                    () = self.turn.keep() => {}
                }
                self.turn.give_up().await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tidies away everything that is due, while it is this process's turn; how many certificates that were.
    ///
    /// # Errors
    /// [`TidyError`]; what was done until then is done.
    pub(crate) async fn round(&self) -> Result<u64, TidyError> {
        let ended_before = self.clock.now() - self.after;
        let mut page = PageRequest::first(PAGE);
        let mut done = 0;
        loop {
            let found = self.ledger.ended(ended_before, &page).await?;
            for serials in found.items.chunks(TOGETHER) {
                // Where it has gone to another process, that one goes on.
                if self.turn.fence().is_none() && self.turn.ask().await.is_none() {
                    return Ok(done);
                }
                let tidy = Tidy { ended_before, serials: serials.to_vec() };
                let entry = Entry::new(self.clock.now(), Body::Tidied(tidy));
                let proposal = Proposal::new(Vec::new(), vec![entry]).expect("so many serials fit an entry");
                let began = Instant::now();
                self.ledger.commit(vec![proposal]).await?;
                done += serials.len() as u64;
                self.tidied.fetch_add(serials.len() as u64, Ordering::Relaxed);
                tokio::time::sleep(began.elapsed() * REST).await;
            }
            match found.next {
                Some(after) => page.after = Some(after),
                None => return Ok(done),
            }
        }
    }

    /// Lets another process go on at once.
    pub(crate) async fn give_up(&self) {
        self.turn.give_up().await;
    }
}

#[cfg(test)]
mod tests {
    use chancery_ledger::ReadModel as _;
    use chancery_types::ManualClock;

    use super::*;
    use crate::testing::{TestLog, log_start, serial};

    const DAY: Duration = Duration::from_hours(24);

    async fn tidied(ledger: &dyn Ledger, count: u64) -> u64 {
        let mut tidied = 0;
        for counter in 0..count {
            tidied += u64::from(ledger.certificate(serial(counter)).await.unwrap().unwrap().is_tidied);
        }
        tidied
    }

    #[tokio::test]
    async fn what_ended_so_long_ago_goes_in_bounded_entries_and_the_rest_when_it_is_due() {
        const COUNT: u64 = 1200;
        let log = TestLog::new();
        log.add_certificates(COUNT).await;
        let clock = Arc::new(ManualClock::at(log_start() + DAY));
        let ledger: Arc<dyn Ledger> = log.ledger.clone();
        let tidier = Tidier::new(ledger, clock.clone(), 30 * DAY, Duration::ZERO);
        assert_eq!(tidier.round().await.unwrap(), 0);
        clock.set(log_start() + 30 * DAY + Duration::from_hours(1) + Duration::from_secs(600 * 60));
        assert_eq!(tidier.round().await.unwrap(), 600);
        assert_eq!(tidied(&*log.ledger, COUNT).await, 600);
        assert!(!log.ledger.certificate(serial(600)).await.unwrap().unwrap().is_tidied, "not yet");
        assert_eq!(tidier.round().await.unwrap(), 0, "once is enough");
        assert_eq!(log.ledger.head().size, COUNT + 3);
        clock.set(log_start() + 40 * DAY);
        assert_eq!(tidier.round().await.unwrap(), 600);
        assert_eq!(tidied(&*log.ledger, COUNT).await, COUNT);
        assert_eq!(tidier.tidied(), COUNT);
    }
}
