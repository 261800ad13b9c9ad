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
    /// Looks at a process from now on, until nobody holds it any more or it has changed: then its verdict is set.
    pub(super) fn over(self: &Arc<Self>, process: &Arc<Pinned>) {
        if process.is_watched.swap(true, Ordering::AcqRel) {
            return;
        }
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
