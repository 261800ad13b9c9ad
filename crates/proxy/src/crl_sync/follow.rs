//! When to look: at every change that the status feed tells of, and from time to time anyhow.

use std::time::Duration;

use chancery_api::{FeedAcknowledgement, FeedEvent, FeedQuery, RelyingPartyKind, WhenUnknown};
use chancery_client::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::CrlSync;
use super::pending::Pending;
use crate::source::instance;

/// Looks for ever.
pub(super) async fn run(sync: &mut CrlSync, looked: impl FnOnce()) {
    let mut looked = Some(looked);
    let mut feed = sync.config.upstream.identity.is_some().then(|| Feed::start(sync.client.clone()));
    let mut rounds = Rounds::default();
    loop {
        let began = Instant::now();
        let pause = rounds.look(sync, feed.as_mut()).await;
        if let Some(looked) = looked.take() {
            looked();
        }
        let next = began + pause;
        match &mut feed {
            None => sleep_until(next).await,
            Some(feed) => loop {
                match feed.wait(next, sync).await {
                    Woken::Time => break,
                    // What happened up to here concerns no list, and what did before is in force.
                    Woken::Quiet => rounds.confirm(sync, feed.pending.position()).await,
                    // Programs are not reloaded more often than this, however much happens.
                    Woken::Change if rounds.has_told => break sleep_until(began + SETTLE).await,
                    Woken::Change => break,
                }
            },
        }
    }
}

/// Why it is time to do something.
enum Woken {
    Time,
    Change,
    Quiet,
}

/// How the rounds went so far.
#[derive(Default)]
struct Rounds {
    failed: u32,
    /// Rounds that did not show yet what they should.
    early: u32,
    has_told: bool,
    confirmed: Option<(u64, Instant)>,
}

impl Rounds {
    /// Looks once; says after what time to look again.
    async fn look(&mut self, sync: &mut CrlSync, feed: Option<&mut Feed>) -> Duration {
        let poll = sync.config.poll;
        let report = match sync.once().await {
            Ok(report) => report,
            Err(error) => {
                self.failed += 1;
                let end = sync.first_end();
                let attempts = self.failed;
                tracing::error!(%error, attempts, in_place_until = ?end, "the lists are not up to date");
                return doubling(Duration::from_secs(1), self.failed).min(poll);
            }
        };
        self.failed = 0;
        self.has_told = report.outputs.iter().any(|output| output.told);
        for output in report.outputs.iter().filter(|output| output.changed) {
            tracing::info!(output = output.name, told = output.told, "new lists are in place");
        }
        let Some(feed) = feed else { return poll };
        feed.pending.settle(sync.held.of_issuers(), sync.clock.now());
        if feed.pending.is_settled() {
            self.early = 0;
            self.confirm(sync, feed.pending.position()).await;
            return poll;
        }
        if self.confirmed.is_none() {
            // It is registered before there is anything to confirm.
            self.confirm(sync, 0).await;
        }
        // The authority needs a moment to publish.
        self.early += 1;
        doubling(FIRST_LOOK, self.early).min(poll).min(LAST_LOOK)
    }

    /// Tells the authority, when there is something new to tell or from time to time.
    async fn confirm(&mut self, sync: &CrlSync, position: u64) {
        let known =
            self.confirmed.is_some_and(|(known, at)| known == position && at.elapsed() < CONFIRM_ANYWAY);
        if known {
            return;
        }
        let validity =
            sync.held.of_issuers().map(|(_, list)| list.next_update().since(list.this_update())).min();
        let word = FeedAcknowledgement {
            instance: instance("crl-sync"),
            kind: RelyingPartyKind::CrlSync,
            // A program whose list has ended refuses everybody.
            when_unknown: WhenUnknown::Closed,
            maximum_age_seconds: validity.unwrap_or_default().as_secs(),
            sequence: position,
            connections_closed: 0,
            connections_open: 0,
        };
        match sync.client.acknowledge(&word).await {
            Ok(_) => self.confirmed = Some((position, Instant::now())),
            Err(error) => tracing::warn!(%error, "the authority was not told how far the lists are in force"),
        }
    }
}

/// The feed, read by a task of its own: nothing is missed while lists are written.
struct Feed {
    events: mpsc::Receiver<FeedEvent>,
    pending: Pending,
    _reading: AbortOnDropHandle<()>,
}

impl Feed {
    fn start(client: Client) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        let reading = tokio::spawn(async move {
            let query = FeedQuery { instance: Some(instance("crl-sync")), ..FeedQuery::default() };
            let mut feed = client.status_feed(query);
            loop {
                match feed.next().await {
                    Ok(event) => {
                        if sender.send(event).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the status feed is cut off; lists are asked for meanwhile")
                    }
                }
            }
        });
        Self { events, pending: Pending::default(), _reading: AbortOnDropHandle::new(reading) }
    }

    /// Waits until it is time, or until the feed says something.
    async fn wait(&mut self, until: Instant, sync: &CrlSync) -> Woken {
        loop {
            let Ok(event) = timeout_at(until, self.events.recv()).await else { return Woken::Time };
            let Some(event) = event else {
                sleep_until(until).await;
                return Woken::Time;
            };
            let mut look = self.pending.hear(&event, sync.clock.now());
            while let Ok(event) = self.events.try_recv() {
                look |= self.pending.hear(&event, sync.clock.now());
            }
            if look {
                return Woken::Change;
            }
            if self.pending.is_settled() {
                return Woken::Quiet;
            }
        }
    }
}

/// The first time, twice, four times that, ... half a minute.
fn doubling(first: Duration, times: u32) -> Duration {
    (first * (1 << times.saturating_sub(1).min(10))).min(Duration::from_secs(30))
}

/// When lists that should show something are looked at first,
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// and how often at the least.
const LAST_LOOK: Duration = Duration::from_secs(2);
/// Between reloads of a program.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the authority is told though nothing is new.
const CONFIRM_ANYWAY: Duration = Duration::from_secs(30);
/// Events that wait while lists are written.
const QUEUE: usize = 1024;
