//! Who does what only one process at a time may do: lists, the exact set, rotation.
//!
//! A lease is for a moment, by the clock of whoever grants it. Its number rises with every change of hands, so that a
//! process that was suspended and wakes can be told from the one that took over. What is recorded never rests on a
//! lease alone: the preconditions of its entry decide.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Ledger, ReadError};

/// How long a turn lasts without being renewed: what others wait for when its holder dies.
const LIFETIME: Duration = Duration::from_secs(3);
/// How often it is renewed, or asked for.
const RENEWAL: Duration = Duration::from_millis(750);

/// The right to do a piece of work, until it runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which work.
    pub work: String,
    /// The fencing number: larger than that of any holder before.
    pub fence: u64,
    /// When it has run out at the latest, whatever the clocks.
    pub until: Instant,
}

impl Lease {
    /// Whether it has not run out.
    #[must_use]
    pub fn is_held(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Gives out leases among the processes on one ledger.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease of a piece of work where nobody else has it, or renews one's own; `None` while another process
    /// has it. A lease that never ran out keeps its number.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be found out who has it.
    async fn acquire(&self, work: &str, lifetime: Duration) -> Result<Option<Lease>, ReadError>;

    /// Gives a lease back before it runs out; one that is another's by now stays there.
    ///
    /// # Errors
    /// [`ReadError`]; it runs out by itself then.
    async fn release(&self, lease: &Lease) -> Result<(), ReadError>;

    /// The turns that this process has asked for.
    fn turns(&self) -> &Turns;
}

/// The turns that a process has asked for, for those who watch it: every [`Turn`] notes itself here.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<String, watch::Receiver<Option<Lease>>>>);

impl Turns {
    /// Every piece of work that is asked for, and whether it is this process's turn at it.
    #[must_use]
    pub fn held(&self) -> Vec<(String, bool)> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody keeps any more is nobody's work.
        turns.retain(|_, lease| lease.has_changed().is_ok());
        let is_held =
            |lease: &watch::Receiver<Option<Lease>>| lease.borrow().as_ref().is_some_and(Lease::is_held);
        turns.iter().map(|(work, lease)| (work.clone(), is_held(lease))).collect()
    }

    fn note(&self, work: &str, lease: watch::Receiver<Option<Lease>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(work.to_owned(), lease);
    }
}

/// This process's turn at a piece of work: kept while it lives, taken over within seconds when another one dies.
pub struct Turn {
    ledger: Arc<dyn Ledger>,
    work: String,
    lease: watch::Sender<Option<Lease>>,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Turn").field("work", &self.work).field("fence", &self.fence()).finish()
    }
}

impl Turn {
    /// A turn that nobody asked for yet: see [`Self::ask`] and [`Self::keep`].
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, work: &str) -> Self {
        Self { ledger, work: work.to_owned(), lease: watch::Sender::new(None) }
    }

    /// Asks for the turn, or renews it, for as long as it is polled.
    pub async fn keep(&self) {
        loop {
            self.ask().await;
            tokio::time::sleep(RENEWAL).await;
        }
    }

    /// Asks once; the fencing number if it is this process's turn.
    pub async fn ask(&self) -> Option<u64> {
        self.ledger.turns().note(&self.work, self.lease.subscribe());
        match self.ledger.acquire(&self.work, LIFETIME).await {
            Ok(lease) => {
                let fence = |lease: &Option<Lease>| lease.as_ref().map(|lease| lease.fence);
                let (new, before) = (fence(&lease), fence(&self.lease.borrow()));
                if new != before {
                    tracing::debug!(work = self.work, fence = ?new, "whose turn it is has changed");
                }
                self.lease.send_replace(lease);
            }
            // What is held runs out by itself.
            Err(error) => {
                tracing::debug!(work = self.work, %error, "it cannot be found out whose turn it is")
            }
        }
        self.fence()
    }

    /// The fencing number, while it is this process's turn.
    #[must_use]
    pub fn fence(&self) -> Option<u64> {
        self.lease.borrow().as_ref().filter(|lease| lease.is_held()).map(|lease| lease.fence)
    }

    /// Waits until it is this process's turn; its fencing number. Somebody has to [`Self::keep`] it meanwhile.
    pub async fn mine(&self) -> u64 {
        let mut lease = self.lease.subscribe();
        loop {
            lease.mark_unchanged();
            if let Some(fence) = self.fence() {
                return fence;
            }
            // The sender lives as long as this.
            let _ = lease.changed().await;
        }
    }

    /// Waits until it is not this process's turn.
    pub async fn lost(&self) {
        let mut lease = self.lease.subscribe();
        loop {
            lease.mark_unchanged();
            let until = match self.lease.borrow().as_ref() {
                Some(lease) if lease.is_held() => lease.until,
                _ => return,
            };
            let _ = tokio::time::timeout_at(until.into(), lease.changed()).await;
        }
    }

    /// Gives the turn to whoever wants it, at once.
    pub async fn give_up(&self) {
        let Some(lease) = self.lease.send_replace(None) else { return };
        if let Err(error) = self.ledger.release(&lease).await {
            tracing::debug!(work = self.work, %error, "a turn was not given back; it runs out");
        }
    }
}
