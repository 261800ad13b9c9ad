//! How many sign at once, and how many may wait for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// A bounded queue.
#[derive(Debug)]
pub(super) struct Queue {
    turns: Semaphore,
    waiting: AtomicUsize,
    most: usize,
}

impl Queue {
    /// So many at once, and so many more that wait.
    pub(super) fn new(at_once: usize, most: usize) -> Self {
        Self { turns: Semaphore::new(at_once), waiting: AtomicUsize::new(0), most }
    }

    /// A turn; nothing when too many wait for one already.
    pub(super) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Some(turn);
        }
        let _waiting = Waiting::begin(&self.waiting, self.most)?;
        self.turns.acquire().await.ok()
    }
}

/// One who waits; whoever hangs up meanwhile waits no more.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::AcqRel) < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
