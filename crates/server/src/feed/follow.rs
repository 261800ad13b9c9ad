//! Following the board: from its news to steps of the feed.

use std::sync::Arc;
use std::time::Duration;

use chancery_api::FeedChange;
use chancery_entry::{Body, Entry};
use chancery_ledger::{CertificateState, Ledger, ModelError, News};
use chancery_revoke::{StatusChange, StatusNews, changes};
use chancery_types::SerialNumber;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::MissedTickBehavior;

use super::encoded::Encoded;
use super::events::Heard;
use super::history::{History, Step};
use super::{Feed, FeedLimits, Sources};

/// Entries at the end of the log that a restarted server tells again to those who come back.
const TAIL: u64 = 32_768;
/// Entries that are read together.
const CHUNK: u64 = 1024;
/// How often it is looked how far the log has grown without a change of status.
const LOOK: Duration = Duration::from_secs(1);
/// Time that handing an event to one subscription takes, and each of its bytes, at the most: so long the next step
/// gathers what happens meanwhile.
const EACH: Duration = Duration::from_micros(20);
const EACH_BYTE: Duration = Duration::from_nanos(2);
/// The longest that a step gathers, and how long it does after a `bulk`, for which everybody fetches something.
const LONGEST: Duration = Duration::from_millis(500);

impl Feed {
    /// Follows the board until it closes; then all subscriptions end.
    pub(crate) async fn follow(self: &Arc<Self>, mut sources: Sources) {
        let _end = End(self);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_change = 0;
        loop {
            let first = tokio::select! {
                biased;
                news = sources.news.recv() => news,
                _ = look.tick() => {
                    self.look(&mut sources.entries, &mut last_change);
                    continue;
                }
            };
            let mut step = Gathering::new(self);
            match first {
                Ok(news) => step.hear(news),
                Err(RecvError::Lagged(_)) => step.miss(),
                Err(RecvError::Closed) => return,
            }
            loop {
                match sources.news.try_recv() {
                    Ok(news) => step.hear(news),
                    Err(TryRecvError::Lagged(_)) => step.miss(),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            tokio::time::sleep(step.tell()).await;
        }
    }

    /// Finds out how far the log has grown without a change that was not told, and ends what belongs to identities
    /// that are not active any more.
    fn look(&self, entries: &mut Receiver<News>, last_change: &mut u64) {
        // In this order: whatever stands below the head has been told to `entries`.
        let head = self.ledger.head().size;
        loop {
            match entries.try_recv() {
                Ok(news) => {
                    *last_change = (*last_change).max(news.index + 1);
                    if let Body::IdentityHeld(one) | Body::IdentityRetired(one) = &news.entry.body {
                        self.state().subscribers.end_identity(&one.identity);
                    }
                }
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let mut state = self.state();
        if state.position >= *last_change {
            state.vouch(head);
        }
    }
}

/// However following ends, nobody waits for what is not told.
struct End<'a>(&'a Feed);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.state().sender = None;
    }
}

/// A step in the making.
struct Gathering<'a> {
    feed: &'a Feed,
    heard: Heard,
    /// Certificates that are not good any more.
    bad: Vec<SerialNumber>,
    has_missed: bool,
    after: u64,
    sequence: u64,
    most: usize,
}

impl<'a> Gathering<'a> {
    fn new(feed: &'a Feed) -> Self {
        let state = feed.state();
        let (after, sequence, listeners) = (state.told, state.heard, state.subscribers.len());
        drop(state);
        let limits = feed.limits;
        let most = (limits.at_once_to_all / listeners.max(1)).clamp(1, limits.at_once);
        Self { feed, heard: Heard::default(), bad: Vec::new(), has_missed: false, after, sequence, most }
    }

    fn hear(&mut self, news: StatusNews) {
        match news {
            StatusNews::Changes { after, sequence, certificates, issuers } if sequence > self.sequence => {
                if after > self.sequence {
                    self.miss();
                }
                let is_bad = |change: &&StatusChange| change.state != CertificateState::Good;
                self.bad.extend(certificates.iter().filter(is_bad).map(|change| change.serial));
                self.heard.add(&certificates, &issuers, self.most);
                self.sequence = sequence;
            }
            StatusNews::Changes { .. } => {}
            StatusNews::Anew { sequence } => {
                self.miss();
                self.sequence = self.sequence.max(sequence);
            }
        }
    }

    fn miss(&mut self) {
        self.heard.miss();
        self.has_missed = true;
        self.sequence = self.sequence.max(self.feed.board.read().position());
    }

    /// Tells what was heard; returns how long the next step may gather.
    fn tell(self) -> Duration {
        let mut state = self.feed.state();
        if self.heard.is_empty() {
            state.heard = self.sequence;
            state.vouch(self.sequence);
            return Duration::ZERO;
        }
        let events = self.heard.tell(self.after, self.sequence);
        let is_bulk = events.iter().any(|event| matches!(event.change, FeedChange::Bulk { .. }));
        let events: Arc<[Encoded]> = events.iter().map(Encoded::new).collect();
        let bytes: usize = events.iter().map(|event| event.sse.len()).sum();
        state.tell(Step { sequence: self.sequence, events });
        for serial in self.bad {
            state.subscribers.end(serial);
        }
        if self.has_missed {
            let lines = self.feed.board.read();
            state.subscribers.end_where(|serial| lines.get(serial).is_some());
        }
        let listeners = u32::try_from(state.subscribers.len()).unwrap_or(u32::MAX);
        let each = EACH + EACH_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX);
        if is_bulk { LONGEST } else { (each * listeners).min(LONGEST) }
    }
}

/// The history that the last entries of the log before a position make, of how things stand now.
pub(super) async fn tail(
    ledger: &dyn Ledger,
    position: u64,
    limits: FeedLimits,
) -> Result<History, ModelError> {
    let start = position.saturating_sub(TAIL);
    let mut history = History::from(start, limits.remembered);
    let (mut after, mut at) = (start, start);
    while at < position {
        let count = usize::try_from(CHUNK.min(position - at)).unwrap_or(usize::MAX);
        let entries = match ledger.entries(at, count).await {
            Ok(entries) if entries.len() == count => entries,
            _ => return Ok(unreadable(position, limits)),
        };
        for bytes in entries {
            at += 1;
            let Ok(entry) = Entry::decode(&bytes) else { return Ok(unreadable(position, limits)) };
            let (certificates, issuer) = changes(ledger, &entry).await?;
            let mut heard = Heard::default();
            heard.add(&certificates, issuer.as_slice(), limits.at_once);
            if !heard.is_empty() {
                let events = heard.tell(after, at).iter().map(Encoded::new).collect();
                history.add(Step { sequence: at, events });
                after = at;
            }
        }
    }
    Ok(history)
}

fn unreadable(position: u64, limits: FeedLimits) -> History {
    tracing::warn!("the end of the log cannot be read; who comes back to the feed fetches the exact set");
    History::from(position, limits.remembered)
}
