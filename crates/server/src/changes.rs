//! Drives changes to many certificates: each in a task of its own, from where the ledger says that it stands.
//!
//! It decides nothing. Who may ask, approve or pause is for the routes; what a step does, and what must still hold
//! when it is recorded, is in `chancery_revoke`. When the process dies, the next one reads the ledger and goes on; where
//! several share a ledger, another one notices.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chancery_ledger::{ChangeRecord, ModelError, PageRequest, Turn};
use chancery_revoke::Advanced;
use tokio::sync::{Notify, watch};

use crate::Shutdown;
use crate::authority::Authority;

/// How long to wait after a change could not go on.
const PAUSE: Duration = Duration::from_secs(1);
/// A change that has not moved for so long was left by whoever drove it, or rests between two waves.
const LEFT: Duration = Duration::from_secs(3);
/// Changes read from the ledger at once.
const PAGE: usize = 256;

/// The changes that are under way.
pub struct Changes {
    authority: Arc<Authority>,
    shutdown: Shutdown,
    working: Mutex<HashMap<u64, Arc<Task>>>,
    moved: watch::Sender<()>,
}

/// Told when there is something new for a change's task.
#[derive(Default)]
struct Task {
    poked: Notify,
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Changes").finish_non_exhaustive()
    }
}

impl Changes {
    /// Goes on with everything that the ledger shows as under way.
    ///
    /// # Errors
    /// [`ModelError`] when the ledger cannot be read.
    pub async fn start(authority: Arc<Authority>, shutdown: Shutdown) -> Result<Arc<Self>, ModelError> {
        let (moved, _) = watch::channel(());
        let changes = Arc::new(Self { authority, shutdown, working: Mutex::default(), moved });
        for record in changes.all().await? {
            if record.state.is_under_way() {
                tracing::info!(change = record.change, "a change goes on where it was");
                changes.go_on(record.change);
            }
        }
        let (this, stop) = (Arc::clone(&changes), changes.shutdown.clone());
        changes.shutdown.spawn(async move {
            tokio::select! {
                () = this.take_over() => {}
                () = stop.begun() => {}
            }
        });
        Ok(changes)
    }

    /// Goes on with what another process on the same ledger has begun and left, while it is this one's turn to look.
    async fn take_over(self: Arc<Self>) {
        let ledger = self.authority.ledger();
        if ledger.scratch().is_none() {
            return;
        }
        let turn = Turn::new(Arc::clone(ledger), "changes");
        let look = async {
            let mut before = HashMap::new();
            loop {
                turn.mine().await;
                tokio::time::sleep(LEFT).await;
                let all = match self.all().await {
                    Ok(all) => all,
                    Err(error) => {
                        tracing::warn!(%error, "it is not known whether another process has left a change");
                        continue;
                    }
                };
                let under_way = all.into_iter().filter(|record| record.state.is_under_way());
                let now: HashMap<u64, ChangeRecord> =
                    under_way.map(|record| (record.change, record)).collect();
                now.iter()
                    .filter(|(change, record)| before.get(*change) == Some(*record))
                    .for_each(|(change, _)| self.go_on(*change));
                before = now;
            }
        };
        tokio::select! {
            () = look => {}
            () = turn.keep() => {}
        }
    }

    /// Every change there ever was, in the order in which they were asked for.
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn all(&self) -> Result<Vec<ChangeRecord>, ModelError> {
        let mut all = Vec::new();
        let mut request = PageRequest::first(PAGE);
        loop {
            let page = self.authority.ledger().changes(&request).await?;
            all.extend(page.items);
            match page.next {
                Some(after) => request.after = Some(after),
                None => return Ok(all),
            }
        }
    }

    /// Has a change looked at: it has taken a step.
    pub fn go_on(self: &Arc<Self>, change: u64) {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = working.get(&change) {
            task.poked.notify_one();
            return;
        }
        let task = Arc::new(Task::default());
        working.insert(change, Arc::clone(&task));
        let (this, stop) = (Arc::clone(self), self.shutdown.clone());
        self.shutdown.spawn(async move {
            tokio::select! {
                () = this.work(change, &task) => {}
                () = stop.begun() => {}
            }
        });
    }

    /// Waits until a change is not under way, at most so long, or has done a wave more than this; returns where it
    /// stands.
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn wait(
        &self,
        change: u64,
        waves: u32,
        limit: Duration,
    ) -> Result<Option<ChangeRecord>, ModelError> {
        let mut moved = self.moved.subscribe();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            moved.mark_unchanged();
            let record = self.authority.ledger().change(change).await?;
            if record.as_ref().is_none_or(|record| !record.state.is_under_way() || record.waves > waves) {
                return Ok(record);
            }
            // A step by somebody else is not told here.
            let next = deadline.min(tokio::time::Instant::now() + PAUSE);
            if tokio::time::timeout_at(next, moved.changed()).await.is_err()
                && tokio::time::Instant::now() >= deadline
            {
                return Ok(record);
            }
        }
    }

    async fn work(&self, change: u64, task: &Task) {
        loop {
            let advanced = self.authority.revoker().advance(change).await;
            self.moved.send_replace(());
            match advanced {
                Ok(Advanced::At(next)) => {
                    let now = self.authority.clock().now();
                    let millis = u64::try_from(next.millis() - now.millis()).unwrap_or(0);
                    let _ = tokio::time::timeout(Duration::from_millis(millis), task.poked.notified()).await;
                }
                Ok(Advanced::Rests) => {
                    let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
                    // Whoever pokes holds the lock: a step that came just now is seen, or begins a new task.
                    if !was_poked(task) {
                        working.remove(&change);
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(change, %error, "a change cannot go on; it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether a poke waits; it is taken.
fn was_poked(task: &Task) -> bool {
    let notified = task.poked.notified();
    let mut notified = std::pin::pin!(notified);
    notified.as_mut().enable()
}
