//! Keeps a [`Status`] right: takes in the feed and the signed set, ends connections, and confirms it.

use std::path::PathBuf;
use std::time::Duration;

use chancery_api::{FeedChange, FeedEvent, RelyingPartyKind};
use chancery_client::ClientError;
use chancery_merkle::LogKeys;
use chancery_status::SignedSet;
use chancery_types::{Clock, SystemClock, Timestamp};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::acknowledge::Acknowledger;
use super::authority::Authority;
use super::keep::{self, Keeper};
use super::knowledge::Knowledge;
use super::line::Line;
use super::sets::{FetchError, Fetched, LogKey, Sets};
use super::{Rules, Status};

/// Events that are taken in together.
const TOGETHER: usize = 256;
/// How often what is known is kept though nothing changed but its age.
const KEEP: Duration = Duration::from_secs(30);
/// How far the clock may have been set back since what is kept was fresh.
const SET_BACK: Duration = Duration::from_secs(5);

/// How to follow an authority.
#[derive(Debug, Clone)]
pub struct Following {
    /// Which, and how it is reached.
    pub authority: Authority,
    /// The key that signs its sets.
    pub key: LogKey,
    /// What to do with what is known.
    pub rules: Rules,
    /// The file in which what is known survives a restart.
    pub keep: Option<PathBuf>,
    /// Tells this program from others of the same identity: host and process, say. At most 128 visible ASCII
    /// characters.
    pub instance: String,
    /// What sort of program this is.
    pub kind: RelyingPartyKind,
}

/// Follows an authority until it is dropped.
#[derive(Debug)]
pub struct Follower {
    status: Status,
    is_whole: watch::Receiver<bool>,
    task: AbortHandle,
}

impl Follower {
    /// Begins to follow, with what was kept, if there is something. Does not wait for the authority.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(following: Following) -> Self {
        let status = Status::followed(following.rules);
        let (is_whole_sender, is_whole) = watch::channel(false);
        let work = Work::begin(following, status.clone(), is_whole_sender);
        let task = tokio::spawn(work.run()).abort_handle();
        Self { status, is_whole, task }
    }

    /// What it keeps right. It outlives the follower, and grows old then.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Waits until everything is known that there is to know.
    pub async fn ready(&self) {
        // The other end lives as long as the task, which lives as long as this.
        let _ = self.is_whole.clone().wait_for(|is_whole| *is_whole).await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Work {
    authority: Authority,
    status: Status,
    knowledge: Knowledge,
    signed: Option<SignedSet>,
    keys: Option<LogKeys>,
    line: Line,
    sets: Sets,
    acknowledger: Acknowledger,
    keeper: Option<Keeper>,
    kept: Instant,
    is_whole: watch::Sender<bool>,
    fresh: Timestamp,
}

impl Work {
    fn begin(following: Following, status: Status, is_whole: watch::Sender<bool>) -> Self {
        let Following { authority, key, keep, instance, kind, .. } = following;
        let pinned = match key {
            LogKey::Pinned(keys) => Some(keys),
            LogKey::Fetched => None,
        };
        let mut work = Self {
            line: Line::new(authority.clone(), instance.clone()),
            sets: Sets::new(authority.clone(), pinned.clone()),
            acknowledger: Acknowledger::start(authority.clone(), status.clone(), instance, kind),
            keeper: keep.clone().map(|path| Keeper::start(path, pinned.clone())),
            knowledge: Knowledge::default(),
            signed: None,
            keys: pinned,
            kept: Instant::now(),
            fresh: Timestamp::default(),
            authority,
            status,
            is_whole,
        };
        if let Some(path) = keep {
            work.remember(&path);
        }
        work
    }

    /// Begins with what was kept.
    fn remember(&mut self, path: &std::path::Path) {
        match keep::load(path, self.authority.trust_domain(), self.keys.as_ref()) {
            Ok(None) => {}
            Ok(Some(kept)) => {
                let now = SystemClock.now();
                // Nobody knows how old it is when the clock has been set back since.
                let age = if kept.fresh > now + SET_BACK { Duration::MAX } else { now.since(kept.fresh) };
                tracing::info!(position = kept.knowledge.position(), ?age, "what was known before is known");
                self.sets.believe(kept.keys.clone());
                (self.knowledge, self.signed, self.fresh) = (kept.knowledge, Some(kept.signed), kept.fresh);
                self.keys = Some(kept.keys);
                self.status.replace(self.knowledge.clone());
                self.status.confirm(age);
            }
            Err(error) => tracing::warn!(error, path = %path.display(), "what was kept is not used"),
        }
    }

    async fn run(mut self) {
        loop {
            let position = self.knowledge.position();
            // The feed goes on where the set ends: there is nothing to follow before the first one.
            let has_set = self.signed.is_some();
            tokio::select! {
                heard = self.line.next(position), if has_set => match heard {
                    Ok(event) => self.hear(event),
                    Err(error) => self.lose(&error),
                },
                fetched = self.sets.next(self.signed.as_ref()) => self.settle(fetched),
            }
        }
    }

    /// Takes in an event, and what has come after it by now.
    fn hear(&mut self, first: FeedEvent) {
        let mut taken = Vec::new();
        let mut next = Some(Ok(first));
        let mut is_current = false;
        let mut count = 0;
        while let Some(Ok(event)) = next {
            if let FeedChange::End { reason } = &event.change {
                tracing::info!(?reason, "the authority ends the feed");
            }
            let heard = self.knowledge.hear(&event);
            taken.extend(heard.taken);
            if let Some(wanted) = heard.wanted {
                self.sets.want(wanted);
            }
            // Whoever speaks of less than is known here is behind, and vouches for nothing.
            is_current = event.sequence >= self.knowledge.position();
            count += 1;
            next = match count < TOGETHER {
                true => self.line.next(self.knowledge.position()).now_or_never(),
                false => None,
            };
        }
        let ended = self.status.take_away(self.knowledge.clone(), &taken);
        if !taken.is_empty() {
            tracing::info!(
                certificates = taken.len(),
                connections = ended,
                "certificates are not good any more"
            );
        }
        if is_current && self.knowledge.is_whole() {
            self.confirm(Duration::ZERO, !taken.is_empty());
        }
        if let Some(Err(error)) = next {
            self.lose(&error);
        }
    }

    fn lose(&mut self, error: &ClientError) {
        tracing::warn!(%error, "the status feed is lost; signed sets are fetched until it is back");
        self.sets.feed_is_away();
    }

    fn settle(&mut self, fetched: Result<Fetched, FetchError>) {
        let Fetched { set, keys } = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return tracing::warn!(%error, "no newer signed set"),
        };
        if let Err(error) = self.knowledge.settle(set.set().clone()) {
            return tracing::error!(%error, "the authority goes back; what was known stays");
        }
        let is_new = self.signed.as_ref().is_none_or(|held| held.set() != set.set());
        let made = set.set().made();
        (self.signed, self.keys) = (Some(set), Some(keys));
        let ended = self.status.replace(self.knowledge.clone());
        if ended > 0 {
            tracing::info!(connections = ended, "the signed set ends connections");
        }
        if self.knowledge.is_whole() {
            self.confirm(SystemClock.now().since(made), is_new);
        }
        if !self.line.is_open() {
            self.sets.feed_is_away();
        }
    }

    /// Everything is known that there was to know so long ago.
    fn confirm(&mut self, age: Duration, is_urgent: bool) {
        self.status.confirm(age);
        self.fresh = self.fresh.max(SystemClock.now() - age);
        self.is_whole.send_replace(true);
        if is_urgent {
            self.acknowledger.enforced(self.knowledge.position());
        }
        if is_urgent || self.kept.elapsed() >= KEEP {
            self.keep();
        }
    }

    fn keep(&mut self) {
        if let (Some(keeper), Some(signed), Some(keys)) = (&self.keeper, &self.signed, &self.keys) {
            keeper.keep(&self.knowledge, signed, keys, self.authority.trust_domain(), self.fresh);
            self.kept = Instant::now();
        }
    }
}
