//! Stopping: no new work, a deadline for the work under way, then an end.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells every part of the server when to stop. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything under way was finished.
    Completely,
    /// The deadline came first; this many tasks were cut off.
    CutOff(usize),
}

impl Shutdown {
    /// Nothing stops yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to stop: listeners close, connections finish the requests they have. May be called again.
    pub fn begin(&self) {
        self.drain.cancel();
    }

    /// Whether stopping has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Resolves when stopping begins.
    pub async fn begun(&self) {
        self.drain.cancelled().await;
    }

    /// Begins to stop, waits for all tracked tasks, and after `deadline` cuts the rest off.
    pub async fn finish(&self, deadline: Duration) -> Drained {
        self.begin();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok() {
            return Drained::Completely;
        }
        let left = self.tasks.len();
        self.stop.cancel();
        Drained::CutOff(left)
    }

    /// Runs a task that a drain waits for and a cut-off ends.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        // Boxed: a block would hold it twice, as it was given and where it is polled.
        let mut task = Box::pin(task);
        self.tasks.spawn(async move {
            tokio::select! {
                () = &mut task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Runs work that must not be cut in half: a drain waits for it and a cut-off does not end it.
    pub(crate) fn spawn_whole<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_tasks_and_cuts_off_what_does_not_end() {
        let shutdown = Shutdown::new();
        shutdown.spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.begun().await }
        });
        assert!(!shutdown.has_begun());
        assert_eq!(shutdown.finish(Duration::from_secs(1)).await, Drained::Completely);

        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending());
        assert_eq!(shutdown.finish(Duration::from_secs(1)).await, Drained::CutOff(1));
        assert_eq!(shutdown.finish(Duration::from_secs(1)).await, Drained::Completely);
    }
}
