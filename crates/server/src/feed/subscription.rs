//! One reader of the feed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chancery_api::{FeedChange, FeedEnd, FeedEvent};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::history::Step;
use super::subscribers::Door;
use super::{Encoded, Feed, Holder};

/// An open subscription. Dropping it closes it.
pub(crate) struct Subscription {
    feed: Arc<Feed>,
    holder: Holder,
    number: u64,
    door: Arc<Door>,
    steps: broadcast::Receiver<Step>,
    /// What is to be handed over before anything else.
    waiting: VecDeque<Encoded>,
    /// The position of what was handed over.
    position: u64,
    heartbeat: Interval,
    ended: Option<FeedEnd>,
}

impl Subscription {
    pub(super) fn new(
        feed: Arc<Feed>,
        holder: Holder,
        number: u64,
        door: Arc<Door>,
        steps: broadcast::Receiver<Step>,
        first: Vec<Encoded>,
        position: u64,
    ) -> Self {
        let period = feed.limits.heartbeat;
        let mut heartbeat = interval_at(Instant::now() + share(period, number), period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let waiting = first.into();
        Self { feed, holder, number, door, steps, waiting, position, heartbeat, ended: None }
    }

    /// The next event; nothing once the subscription is over, of which the event before has said why.
    pub(crate) async fn next(&mut self) -> Option<Encoded> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.position = self.position.max(event.sequence);
                return Some(event);
            }
            if self.ended.is_some() {
                return None;
            }
            // In this order: what ends a subscription is told to it as well.
            tokio::select! {
                biased;
                step = self.steps.recv() => match step {
                    Ok(step) => self.waiting.extend(step.events.iter().cloned()),
                    Err(RecvError::Lagged(_)) => self.drop_slow(),
                    Err(RecvError::Closed) => self.end(FeedEnd::Stopping),
                },
                reason = self.door.closed() => self.end(reason),
                _ = self.heartbeat.tick() => self.beat(),
            }
        }
    }

    /// All that waits; if that is only that nothing has happened, what happens within this time.
    pub(crate) async fn gather(&mut self, wait: Duration) -> Vec<Encoded> {
        let events: Vec<Encoded> = std::mem::take(&mut self.waiting).into();
        if !matches!(&events[..], [only] if only.is_heartbeat) {
            return events;
        }
        match tokio::time::timeout(wait, self.steps.recv()).await {
            Ok(Ok(step)) => step.events.to_vec(),
            _ => vec![self.feed.state().heartbeat.clone()],
        }
    }

    /// Why it is over, once it is.
    pub(crate) fn ended(&self) -> Option<FeedEnd> {
        self.ended
    }

    fn beat(&mut self) {
        if self.feed.clock.now() > self.holder.not_after {
            return self.end(FeedEnd::Certificate);
        }
        let heartbeat = self.feed.state().heartbeat.clone();
        // Events up to the position that it names are in the channel already, and go first.
        match self.steps.try_recv() {
            Ok(step) => self.waiting.extend(step.events.iter().cloned()),
            Err(TryRecvError::Empty) => self.waiting.push_back(heartbeat),
            Err(TryRecvError::Lagged(_)) => self.drop_slow(),
            Err(TryRecvError::Closed) => self.end(FeedEnd::Stopping),
        }
    }

    fn drop_slow(&mut self) {
        tracing::warn!(id = %self.holder.id, "a program does not read the feed; it is dropped, and can resume");
        self.feed.state().dropped += 1;
        self.end(FeedEnd::TooSlow);
    }

    fn end(&mut self, reason: FeedEnd) {
        if self.ended.is_none() {
            self.ended = Some(reason);
            let change = FeedChange::End { reason };
            let event = FeedEvent { after: self.position, sequence: self.position, change };
            self.waiting.push_back(Encoded::new(&event));
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.state().subscribers.remove(&self.holder.id, self.number);
    }
}

/// A part of a period that is another for each number, spread evenly: ten thousand that begin together do not all
/// show at the same moment that they live. Multiples of the golden ratio are never close to each other.
fn share(period: Duration, number: u64) -> Duration {
    period.mul_f64((number as f64 * 0.618_033_988_749_895).fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_are_spread_over_the_period() {
        let period = Duration::from_secs(5);
        let mut tenths = [0; 10];
        for number in 0..10_000 {
            tenths[usize::try_from(share(period, number).as_millis() / 500).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (900..1100).contains(count)), "{tenths:?}");
    }
}
