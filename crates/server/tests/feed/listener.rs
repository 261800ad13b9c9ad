//! A program that follows the feed, and what a test does with one.

use std::time::Duration;

use chancery_api::{FeedChange, FeedEvent, FeedQuery, HoldRequest, ReleaseRequest, RevokeRequest, Selector};
use chancery_client::{Client, StatusFeed};
use chancery_types::{RevocationReason, SerialNumber};

use crate::running::Running;

/// How soon a change has to be told; it takes milliseconds where nothing else runs.
const SOON: Duration = Duration::from_secs(5);

pub(crate) struct Listener(pub(crate) StatusFeed);

impl Listener {
    /// Listens from a position, or from now on: then it has heard where that is.
    pub(crate) async fn start(client: &Client, after: Option<u64>) -> Self {
        let mut listener = Self(client.status_feed(FeedQuery { after, ..FeedQuery::default() }));
        if after.is_none() {
            assert_eq!(listener.any().await.change, FeedChange::Heartbeat);
        }
        listener
    }

    /// Whatever comes next.
    pub(crate) async fn any(&mut self) -> FeedEvent {
        tokio::time::timeout(SOON, self.0.next()).await.expect("it is told soon").unwrap()
    }

    /// The next event that is no heartbeat; it leaves no gap.
    pub(crate) async fn next(&mut self) -> FeedEvent {
        loop {
            let before = self.0.position();
            let event = self.any().await;
            if event.change != FeedChange::Heartbeat {
                assert!(before.is_none_or(|position| !event.leaves_gap(position)), "{event:?}");
                return event;
            }
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.0.position().unwrap()
    }
}

pub(crate) async fn revoke(client: &Client, selector: Selector) {
    let reason = RevocationReason::KeyCompromise;
    let request = RevokeRequest { selector, reason, dry_run: false, note: String::new() };
    client.revoke(&request).await.unwrap();
}

pub(crate) async fn hold(running: &Running, serial: SerialNumber) {
    let selector = Selector::Serial(serial);
    running.admin().hold(&HoldRequest { selector, dry_run: false, note: String::new() }).await.unwrap();
}

pub(crate) async fn release(running: &Running, serial: SerialNumber) {
    let selector = Selector::Serial(serial);
    running.admin().release(&ReleaseRequest { selector, dry_run: false, note: String::new() }).await.unwrap();
}

/// What was done, and to which certificates.
pub(crate) fn told(event: &FeedEvent) -> (&'static str, Vec<SerialNumber>) {
    let serials = match &event.change {
        FeedChange::Revoke { serials, .. }
        | FeedChange::Hold { serials, .. }
        | FeedChange::Release { serials } => serials.clone(),
        _ => Vec::new(),
    };
    (event.change.name(), serials)
}
