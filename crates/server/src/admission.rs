//! How much is worked on at once: so many requests run, so many wait, the rest is told to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds of one class of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// Requests that run at once.
    pub running: usize,
    /// Requests that wait for their turn.
    pub waiting: usize,
    /// How long one waits at most.
    pub patience: Duration,
}

/// The door to one class of work.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Concurrency,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// There is too much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{running} requests run and {waiting} wait, which is all that is allowed")]
pub(crate) struct Overloaded {
    running: usize,
    waiting: usize,
}

impl Admission {
    pub(crate) fn new(limits: Concurrency) -> Self {
        Self { limits, permits: Arc::new(Semaphore::new(limits.running)), waiting: AtomicUsize::new(0) }
    }

    /// Waits for a turn, which lasts until the permit is dropped.
    pub(crate) async fn admit(&self) -> Result<OwnedSemaphorePermit, Overloaded> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = self.queue()?;
        match tokio::time::timeout(self.limits.patience, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(self.overloaded()),
        }
    }

    fn queue(&self) -> Result<Place<'_>, Overloaded> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limits.waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(self.overloaded());
        }
        Ok(Place(&self.waiting))
    }

    fn overloaded(&self) -> Overloaded {
        Overloaded { running: self.limits.running, waiting: self.limits.waiting }
    }
}

/// A place in the queue; given up when the caller hangs up, too.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Concurrency = Concurrency { running: 2, waiting: 1, patience: Duration::from_secs(5) };

    #[tokio::test(start_paused = true)]
    async fn runs_some_queues_some_and_refuses_the_rest() {
        let admission = Arc::new(Admission::new(LIMITS));
        let first = admission.admit().await.unwrap();
        let _second = admission.admit().await.unwrap();
        let queued = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.admit().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(admission.admit().await.unwrap_err(), Overloaded { running: 2, waiting: 1 });
        drop(first);
        let third = queued.await.unwrap().unwrap();
        drop(third);
        drop(admission.admit().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_and_a_place_is_given_up() {
        let admission = Admission::new(LIMITS);
        let _permits = (admission.admit().await.unwrap(), admission.admit().await.unwrap());
        assert!(admission.admit().await.is_err());
        let hung_up = tokio::time::timeout(Duration::from_millis(1), admission.admit()).await;
        assert!(hung_up.is_err());
        assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
    }
}
