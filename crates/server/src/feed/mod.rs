//! The status feed: what stops being good and what is good again, told to relying parties as it happens, in the
//! order of the log.
//!
//! One task follows the status board, makes events of what it hears and hands them to a channel that all
//! subscriptions read: each event is encoded once for each transport, and a subscription owns no queue. Who is
//! further behind than the channel is long is told so and dropped; who comes back with the position that it has
//! reached is told what it has missed, or to fetch the exact set.
//!
//! What is told is advice: the signed lists and the exact set are the truth. It trusts the board and the ledger, and
//! nothing that a relying party says of itself.

mod encoded;
mod events;
mod follow;
pub(crate) mod grpc;
mod history;
mod parties;
mod subscribers;
mod subscription;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chancery_api::{FeedAcknowledgement, FeedChange, FeedEvent, RelyingPartiesResponse, RelyingPartyView};
use chancery_ledger::{Ledger, ModelError, News};
use chancery_revoke::{StatusBoard, StatusNews};
use chancery_types::{Clock, SerialNumber, SpiffeId, Timestamp};
use tokio::sync::broadcast;

use history::{History, Step};
use parties::Parties;
use subscribers::Subscribers;

pub(crate) use encoded::Encoded;
pub(crate) use parties::{AcknowledgeError, is_instance};
pub(crate) use subscribers::Full;
pub(crate) use subscription::Subscription;

/// Bounds of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeedLimits {
    /// Subscriptions in all.
    pub(crate) total: usize,
    /// Subscriptions of one identity.
    pub(crate) per_identity: usize,
    /// Steps that a subscription may be behind.
    pub(crate) behind: usize,
    /// How often a subscription shows that it lives.
    pub(crate) heartbeat: Duration,
    /// Certificates that are told singly in one step; more are one `bulk`.
    pub(crate) at_once: usize,
    /// The same for all subscriptions together: 35 bytes each over as many connections as there are.
    pub(crate) at_once_to_all: usize,
    /// Bytes of events that are remembered for those who come back.
    pub(crate) remembered: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            total: 16_384,
            per_identity: 2048,
            behind: 64,
            heartbeat: Duration::from_secs(5),
            at_once: 4096,
            at_once_to_all: 10_000_000,
            remembered: 4 << 20,
        }
    }
}

/// The feed and who listens to it.
pub(crate) struct Feed {
    board: Arc<StatusBoard>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    limits: FeedLimits,
    state: Mutex<State>,
    parties: Parties,
}

struct State {
    /// The position of the latest event.
    told: u64,
    /// What was heard of the board.
    heard: u64,
    /// The size of the log up to which nothing else has changed.
    position: u64,
    /// Says both; made anew when they move.
    heartbeat: Encoded,
    history: History,
    subscribers: Subscribers,
    /// Absent once the board is followed no more.
    sender: Option<broadcast::Sender<Step>>,
    /// Those who were dropped because they did not read.
    dropped: u64,
}

/// What the feed is made from; [`Feed::follow`] wants it.
pub(crate) struct Sources {
    news: broadcast::Receiver<StatusNews>,
    entries: broadcast::Receiver<News>,
}

/// Who holds the certificate that a subscription is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The identity in it.
    pub(crate) id: SpiffeId,
    /// The certificate.
    pub(crate) serial: SerialNumber,
    /// When it ends, and the subscription with it.
    pub(crate) not_after: Timestamp,
}

/// Why there is no subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubscribeError {
    /// There are too many.
    #[error(transparent)]
    Full(#[from] Full),
    /// Nothing is told any more.
    #[error("the server does not follow its ledger any more; it is stopping, or has to be started again")]
    Ended,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Feed").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Feed {
    /// Begins where the board stands, with what the end of the log says as history, so that those who were connected
    /// before a restart go on. To be called before the board is followed.
    ///
    /// # Errors
    /// [`ModelError`] when the ledger cannot be read.
    pub(crate) async fn load(
        board: Arc<StatusBoard>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        limits: FeedLimits,
    ) -> Result<(Arc<Self>, Sources), ModelError> {
        let sources = Sources { news: board.news(), entries: ledger.news() };
        let position = board.read().position();
        let history = follow::tail(ledger.as_ref(), position, limits).await?;
        let (sender, _) = broadcast::channel(limits.behind);
        let told = history.told();
        let state = State {
            told,
            heard: position,
            position,
            heartbeat: heartbeat(told, position),
            history,
            subscribers: Subscribers::default(),
            sender: Some(sender),
            dropped: 0,
        };
        let parties = Parties::default();
        let feed = Self { board, ledger, clock, limits, state: Mutex::new(state), parties };
        Ok((Arc::new(feed), sources))
    }

    /// Opens a subscription: what was missed since `after`, and then what happens.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        holder: Holder,
        instance: Option<String>,
        after: Option<u64>,
    ) -> Result<Subscription, SubscribeError> {
        let mut state = self.state();
        let receiver = state.sender.as_ref().ok_or(SubscribeError::Ended)?.subscribe();
        let FeedLimits { total, per_identity, .. } = self.limits;
        let (number, door) =
            state.subscribers.add(&holder.id, holder.serial, instance, total, per_identity)?;
        let position = after.unwrap_or(state.position).min(state.position);
        let missed = after.map(|after| state.missed(after)).unwrap_or_default();
        let first = if missed.is_empty() { vec![state.heartbeat.clone()] } else { missed };
        drop(state);
        Ok(Subscription::new(Arc::clone(self), holder, number, door, receiver, first, position))
    }

    /// Takes the word of a relying party.
    ///
    /// # Errors
    /// [`AcknowledgeError`].
    pub(crate) fn acknowledge(
        &self,
        id: &SpiffeId,
        word: FeedAcknowledgement,
    ) -> Result<RelyingPartyView, AcknowledgeError> {
        let mut view = self.parties.acknowledge(id, word, self.ledger.head().size, self.clock.now())?;
        view.connected = self.state().subscribers.has(id, &view.acknowledgement.instance);
        Ok(view)
    }

    /// Every relying party that is known.
    pub(crate) fn relying_parties(&self) -> RelyingPartiesResponse {
        let mut relying_parties = self.parties.list(self.clock.now());
        let state = self.state();
        for party in &mut relying_parties {
            party.connected = state.subscribers.has(&party.spiffe_id, &party.acknowledgement.instance);
        }
        drop(state);
        RelyingPartiesResponse { sequence: self.ledger.head().size, relying_parties }
    }

    /// How many subscriptions are open, and how many were dropped because nobody read them.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let state = self.state();
        (state.subscribers.len(), state.dropped)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What a reader has missed since this position; what nobody knows is a `bulk`.
    fn missed(&self, after: u64) -> Vec<Encoded> {
        if after <= self.position && self.history.covers(after) {
            return self.history.after(after).cloned().collect();
        }
        let change = FeedChange::Bulk { count: None };
        let after = after.min(self.position);
        vec![Encoded::new(&FeedEvent { after, sequence: self.position, change })]
    }

    /// Tells a step to everybody, and remembers it.
    fn tell(&mut self, step: Step) {
        (self.told, self.heard) = (step.sequence, step.sequence);
        self.position = self.position.max(step.sequence);
        self.heartbeat = heartbeat(self.told, self.position);
        self.history.add(step.clone());
        if let Some(sender) = &self.sender {
            // Fails when nobody listens.
            let _ = sender.send(step);
        }
    }

    /// Nothing else has changed up to this size of the log.
    fn vouch(&mut self, position: u64) {
        if position > self.position {
            self.position = position;
            self.heartbeat = heartbeat(self.told, self.position);
        }
    }
}

fn heartbeat(told: u64, position: u64) -> Encoded {
    Encoded::new(&FeedEvent { after: told, sequence: position, change: FeedChange::Heartbeat })
}

#[cfg(test)]
mod tests;
