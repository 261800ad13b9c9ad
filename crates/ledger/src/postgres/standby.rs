//! Streaming standbys: what answers questions that may be a moment old.
//!
//! Searches and exports go there, so that they do not hold up what the primary alone can do. Nothing that decides is
//! ever asked of a standby. One is used while it is a beginning of the log that this process knows, and not too short;
//! whatever else is wrong with it, the primary answers instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::Shared;
use super::error::{Fence, Unfit};
use super::hashes::head_at;
use super::head::{HeadRow, READ, verify};
use super::session::{Session, SqlError, Statement, Target, column};
use crate::Head;

/// How long a look at a standby's head is good for.
const LOOK: Duration = Duration::from_secs(1);
/// How long one that is not fit is left alone.
const AWAY: Duration = Duration::from_secs(5);

/// Milliseconds since the last transaction that a standby has replayed.
const AGE: Statement = Statement {
    name: "standby_age",
    text: "SELECT coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000, 0)::int8",
};

/// The standbys, in turn.
pub(super) struct Standbys {
    places: Vec<Standby>,
    next: AtomicUsize,
    most: Lag,
    /// Questions that were answered by one.
    answered: AtomicU64,
}

/// How far behind a standby may be.
#[derive(Clone, Copy)]
pub(super) struct Lag {
    /// Entries that it lacks.
    pub(super) entries: u64,
    /// How long ago it replayed something, while it lacks any.
    pub(super) age: Duration,
}

struct Standby {
    target: Target,
    state: Mutex<State>,
}

enum State {
    /// Nothing is known of it.
    Unknown,
    /// It was fit when it was last looked at.
    Fit { session: Arc<Session>, head: Head, looked: Instant },
    /// It was not; left alone until then.
    Away(Instant),
}

/// A connection to a standby that is fit, and how far its log reaches.
pub(super) struct Chosen {
    pub(super) session: Arc<Session>,
    pub(super) size: u64,
}

impl Standbys {
    pub(super) fn new(targets: Vec<Target>, most: Lag) -> Self {
        let places = targets.into_iter().map(|target| Standby { target, state: Mutex::new(State::Unknown) });
        Self { places: places.collect(), next: AtomicUsize::new(0), most, answered: AtomicU64::new(0) }
    }

    /// The next one that is fit; nothing where there is none.
    pub(super) async fn next(&self, shared: &Shared) -> Option<Chosen> {
        if shared.may_read().is_err() {
            return None;
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for turn in first..first.wrapping_add(self.places.len()) {
            if let Some(chosen) = self.places[turn % self.places.len()].choose(shared, self.most).await {
                return Some(chosen);
            }
        }
        None
    }

    /// Counts a question that a standby has answered.
    pub(super) fn note(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Standby {
    /// Nothing also while somebody else looks at it: that takes long where it is silent.
    async fn choose(&self, shared: &Shared, most: Lag) -> Option<Chosen> {
        let mut state = self.state.try_lock().ok()?;
        if matches!(*state, State::Away(until) if Instant::now() < until) {
            return None;
        }
        let (session, before) = match std::mem::replace(&mut *state, State::Unknown) {
            State::Fit { session, head, looked } if !session.is_closed() => {
                if looked.elapsed() < LOOK && head.size + most.entries >= shared.head().size {
                    let size = head.size;
                    *state = State::Fit { session: Arc::clone(&session), head, looked };
                    return Some(Chosen { session, size });
                }
                (Some(session), Some(head))
            }
            _ => (None, None),
        };
        let looked = Instant::now();
        match self.look(session, before, shared, most).await {
            Ok((session, head)) => {
                *state = State::Fit { session: Arc::clone(&session), head, looked };
                Some(Chosen { session, size: head.size })
            }
            Err(reason) => {
                tracing::debug!(%reason, "a standby is not read from");
                *state = State::Away(looked + AWAY);
                None
            }
        }
    }

    /// Its head, once that is known to be one of this log.
    async fn look(
        &self,
        session: Option<Arc<Session>>,
        before: Option<Head>,
        shared: &Shared,
        most: Lag,
    ) -> Result<(Arc<Session>, Head), Unfit> {
        let session = match session {
            Some(session) => session,
            None => Arc::new(self.target.connect().await?),
        };
        let row = HeadRow::read(&READ, &session.row(&READ, &[]).await?)?;
        let known = shared.known();
        if row.head.size >= known.head.size {
            return Ok((Arc::clone(&session), verify(&session, &known).await?.head));
        }
        let (found, published) = (row.head.size, known.head.size);
        if found + most.entries < published {
            return Err(Fence::Behind { found, published }.into());
        }
        let age: i64 = column(&AGE, &session.row(&AGE, &[]).await?, 0)?;
        let age = Duration::from_millis(u64::try_from(age).unwrap_or_default());
        if age > most.age {
            let problem = format!("it is behind, and has replayed nothing for {age:?}");
            return Err(SqlError::refused(AGE.name, problem).into());
        }
        if row.log != known.log {
            let (found, expected) = (row.log.origin, known.log.origin);
            return Err(Fence::OtherLog { found, expected }.into());
        }
        if before != Some(row.head) {
            // What it has, the primary must have had.
            let primary = shared.readers.next(shared).await?;
            let expected = head_at(&primary, row.head.size).await?;
            if expected.root != row.head.root {
                let (size, found, published) = (row.head.size, row.head.root, expected.root);
                return Err(Fence::NotPublished { size, found, published }.into());
            }
        }
        Ok((session, row.head))
    }
}
