//! Following the ledger, and keeping the streams' positions on disk.

use std::sync::Arc;
use std::time::Duration;

use chancery_entry::{Body, Entry};
use chancery_ledger::{Ledger, ModelError, News};
use chancery_types::IdentityState;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::MissedTickBehavior;

use super::facts::Fact;
use super::{SsfError, Transmitter};

/// Entries of the log that a server that starts reads again for streams that have not heard of them. Streams that are
/// further behind begin anew.
pub(super) const SCAN: u64 = 1 << 20;
/// Entries that are read together.
const CHUNK: u64 = 1024;
/// How often the log's growth is looked at and positions are written down.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait after the ledger could not be read.
const PAUSE: Duration = Duration::from_secs(1);

impl Transmitter {
    /// Follows the ledger until it closes or the server stops; then positions are on disk.
    pub(crate) async fn run(self: Arc<Self>, news: Receiver<News>) {
        for stream in self.all() {
            self.start_pushing(stream);
        }
        tokio::select! {
            () = self.follow(news) => {}
            () = self.shutdown.begun() => {}
        }
        self.save().await;
    }

    async fn follow(self: &Arc<Self>, mut news: Receiver<News>) {
        self.forget_retired().await;
        self.catch_up().await;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let heard = tokio::select! {
                biased;
                heard = news.recv() => heard,
                _ = look.tick() => {
                    self.look(&mut news).await;
                    self.save().await;
                    continue;
                }
            };
            match heard {
                Ok(one) => self.hear(&one).await,
                Err(RecvError::Lagged(_)) => self.catch_up().await,
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Takes in the log's growth by entries that change nothing.
    async fn look(&self, news: &mut Receiver<News>) {
        // In this order: whatever stands below the head has been told.
        let head = self.authority.ledger().head().size;
        loop {
            match news.try_recv() {
                Ok(one) => self.hear(&one).await,
                Err(TryRecvError::Lagged(_)) => return self.catch_up().await,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => return,
            }
        }
        self.take_in(Vec::new(), head);
    }

    async fn hear(&self, news: &News) {
        if let Body::IdentityRetired(one) = &news.entry.body {
            for stream in self.all().into_iter().filter(|stream| stream.owner == one.identity) {
                self.remove_or_say(&stream);
            }
        }
        if news.index < self.facts().head() {
            return;
        }
        match Fact::of(self.authority.ledger().as_ref(), news.index, &news.entry).await {
            Ok(facts) => self.take_in(facts, news.index + 1),
            Err(error) => {
                tracing::error!(%error, "what has changed cannot be read; streams of security events wait");
                self.catch_up().await;
            }
        }
    }

    /// Reads what was not heard from the log itself, however often that takes.
    async fn catch_up(&self) {
        loop {
            let ledger = self.authority.ledger();
            let (from, to) = (self.facts().head(), ledger.head().size);
            if from >= to {
                return;
            }
            match self.scan(ledger.as_ref(), from, to).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(%error, "the log cannot be read; streams of security events wait");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn scan(&self, ledger: &dyn Ledger, from: u64, to: u64) -> Result<(), ModelError> {
        let unreadable = |error: &dyn std::fmt::Display| ModelError::Engine(error.to_string());
        let mut at = from;
        while at < to {
            let count = usize::try_from(CHUNK.min(to - at)).unwrap_or(usize::MAX);
            let entries = ledger.entries(at, count).await.map_err(|error| unreadable(&error))?;
            if entries.is_empty() {
                return Err(unreadable(&format_args!("entry {at} of {to} is not there")));
            }
            let mut facts = Vec::new();
            for bytes in entries {
                let entry = Entry::decode(&bytes).map_err(|error| unreadable(&error))?;
                facts.extend(Fact::of(ledger, at, &entry).await?);
                at += 1;
            }
            self.take_in(facts, at);
        }
        Ok(())
    }

    fn take_in(&self, facts: Vec<Fact>, position: u64) {
        let is_news = !facts.is_empty();
        let now = self.authority.clock().now();
        let streams = self.all();
        let mut known = self.facts();
        known.add(facts, position);
        let mut fell_behind = false;
        for stream in streams {
            if stream.look(&known, now) {
                fell_behind = true;
                tracing::warn!(stream = stream.id, owner = %stream.owner, "a stream of security events has fallen behind; it is paused, and its receiver begins anew");
            }
        }
        drop(known);
        if is_news || fell_behind {
            self.changed.send_replace(());
        }
    }

    /// Removes the streams of identities that were retired while nobody looked.
    async fn forget_retired(&self) {
        for stream in self.all() {
            let owner = self.authority.ledger().identity(&stream.owner).await;
            if matches!(&owner, Ok(Some(owner)) if owner.state == IdentityState::Retired) {
                self.remove_or_say(&stream);
            }
        }
    }

    fn remove_or_say(&self, stream: &super::Stream) {
        if let Err(error) = self.remove(stream) {
            tracing::error!(stream = stream.id, %error, "the file of a stream of security events cannot be removed");
        }
    }

    /// Writes positions down; what is sent again after a crash is decided by what stands there.
    async fn save(self: &Arc<Self>) {
        let transmitter = Arc::clone(self);
        let saving = tokio::task::spawn_blocking(move || {
            for stream in transmitter.all() {
                if let Err(error) = stream.save(&transmitter.store) {
                    let error = SsfError::Store(error);
                    tracing::error!(stream = stream.id, %error, "after a restart its events will be sent again");
                }
            }
        });
        // Fails when saving panics, which is in the log.
        let _ = saving.await;
    }
}
