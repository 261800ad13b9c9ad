//! Sees when a process becomes another program: the kernel tells of an end, but not of an exec.
//!
//! One task looks at all of them, two system calls each: four times a second in the first seconds of a process,
//! when most of them exec if they do, and every second from then on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::pinned::Pinned;

/// The processes that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Round>);

#[derive(Debug, Default)]
struct Round {
    watched: Vec<Watched>,
    tick: u64,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Watched {
    process: Weak<Pinned>,
    /// The tick in which it came.
    since: u64,
}

impl Watch {
    /// Looks at a process from now on, until nobody holds it any more or there is a verdict on it.
    pub(super) fn over(self: &Arc<Self>, process: &Arc<Pinned>) {
        if process.is_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        // The last verdict may have been that something could not be read just then.
        process.verdict.send_replace(None);
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = round.tick;
        round.watched.push(Watched { process: Arc::downgrade(process), since });
        if round.task.as_ref().is_none_or(JoinHandle::is_finished) {
            round.task = Some(tokio::spawn(Arc::clone(self).go_round()));
        }
    }

    async fn go_round(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.look() {
                return;
            }
        }
    }

    /// Whether there is anything left to look at.
    fn look(&self) -> bool {
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        round.tick += 1;
        let tick = round.tick;
        round.watched.retain(|watched| {
            let Some(process) = watched.process.upgrade() else { return false };
            let age = tick - watched.since;
            // Spread over the ticks by when each of them came.
            if age > YOUNG_TICKS && !age.is_multiple_of(OLD_EVERY) {
                return true;
            }
            match process.glance() {
                Ok(()) => true,
                Err(error) => {
                    process.verdict.send_replace(Some(error));
                    process.is_watched.store(false, Ordering::Release);
                    false
                }
            }
        });
        if round.watched.is_empty() {
            round.task = None;
        }
        !round.watched.is_empty()
    }
}

const TICK: Duration = Duration::from_millis(250);

/// Two seconds.
const YOUNG_TICKS: u64 = 8;

/// A second.
const OLD_EVERY: u64 = 4;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::workload::AttestationError;

    #[tokio::test]
    async fn a_process_that_could_not_be_looked_at_once_is_looked_at_again() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let process = Arc::new(Pinned::at_other_end(ours.as_fd()).unwrap());
        let watch = Arc::new(Watch::default());
        watch.over(&process);
        process.verdict.send_replace(Some(AttestationError::Unknown("too many open files".into())));
        process.is_watched.store(false, Ordering::Release);
        watch.over(&process);
        assert_eq!(*process.verdict.borrow(), None);
        assert!(watch.look());
    }

    #[tokio::test]
    async fn stops_when_nobody_waits_any_more() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let process = Arc::new(Pinned::at_other_end(ours.as_fd()).unwrap());
        let watch = Arc::new(Watch::default());
        watch.over(&process);
        assert!(watch.look());
        drop(process);
        assert!(!watch.look());
        assert!(watch.0.lock().unwrap().task.is_none());
    }
}
