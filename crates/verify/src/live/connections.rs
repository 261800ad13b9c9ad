//! The open connections of peers, found by what their certificates are called, so that they can be ended.
//!
//! A connection pays for this when it begins and when it ends. In between it looks at one atomic word.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use chancery_types::{SerialNumber, SpiffeId, Timestamp};
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::{NotGood, Rules, Standing, Unknown, steady};

/// Parts of the register, so that connections that begin and end at once do not wait for each other.
const SHARDS: usize = 16;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The only SPIFFE ID of its certificate.
    pub id: SpiffeId,
    /// The certificate's serial number; nothing when it is of a form that this kind of authority never issues.
    pub serial: Option<SerialNumber>,
    /// When the certificate ends.
    pub not_after: Timestamp,
}

/// Why a connection was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The peer's certificate is not good any more.
    NotGood(NotGood),
    /// It is not known any more whether it is, and the rules are strict.
    Unknown(Unknown),
    /// The peer's certificate has expired.
    Expired,
    /// The connection has lived as long as any may.
    TooLong(Duration),
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGood(why) => write!(formatter, "its certificate is {why}"),
            Self::Unknown(why) => write!(formatter, "how its certificate stands is not known: {why}"),
            Self::Expired => formatter.write_str("its certificate has expired"),
            Self::TooLong(allowed) => {
                write!(formatter, "it has lived for the {} s that a connection may", allowed.as_secs())
            }
        }
    }
}

/// The error of a stream that was ended; its `io::Error` has the kind `ConnectionAborted`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection of {id} was ended: {why}")]
pub struct ConnectionEnded {
    /// Whose it was.
    pub id: SpiffeId,
    /// Why.
    pub why: Ended,
}

impl From<ConnectionEnded> for io::Error {
    fn from(ended: ConnectionEnded) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, ended)
    }
}

/// One connection.
pub(crate) struct Connection {
    peer: Peer,
    since: Duration,
    ended: OnceLock<Ended>,
    reader: AtomicWaker,
    writer: AtomicWaker,
    waiting: Notify,
}

impl Connection {
    fn new(peer: Peer) -> Self {
        Self {
            peer,
            since: steady::now(),
            ended: OnceLock::new(),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            waiting: Notify::new(),
        }
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn ended(&self) -> Option<ConnectionEnded> {
        let why = *self.ended.get()?;
        Some(ConnectionEnded { id: self.peer.id.clone(), why })
    }

    pub(crate) fn wake_reader(&self, waker: &Waker) {
        self.reader.register(waker);
    }

    pub(crate) fn wake_writer(&self, waker: &Waker) {
        self.writer.register(waker);
    }

    pub(crate) async fn ending(&self) -> ConnectionEnded {
        loop {
            let mut notified = std::pin::pin!(self.waiting.notified());
            // Whoever ends it after this is noticed, whoever did before is seen.
            notified.as_mut().enable();
            if let Some(ended) = self.ended() {
                return ended;
            }
            notified.await;
        }
    }

    /// Whether it was this call that ended it.
    fn end(&self, why: Ended) -> bool {
        if self.ended.set(why).is_err() {
            return false;
        }
        self.reader.wake();
        self.writer.wake();
        self.waiting.notify_waiters();
        true
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

type Shard = HashMap<Option<SerialNumber>, BTreeMap<u64, Arc<Connection>>>;

/// All open connections of the peers of one authority.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    shards: [Mutex<Shard>; SHARDS],
    next: AtomicU64,
    open: AtomicU64,
    ended: AtomicU64,
}

impl Connections {
    /// Registers a connection; the number is for [`Self::leave`].
    pub(crate) fn enter(&self, peer: Peer) -> (u64, Arc<Connection>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(peer));
        let serial = connection.peer.serial;
        self.shard(serial).entry(serial).or_default().insert(number, Arc::clone(&connection));
        self.open.fetch_add(1, Ordering::Relaxed);
        (number, connection)
    }

    pub(crate) fn leave(&self, number: u64, serial: Option<SerialNumber>) {
        let mut shard = self.shard(serial);
        let Some(those) = shard.get_mut(&serial) else { return };
        if those.remove(&number).is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        if those.is_empty() {
            shard.remove(&serial);
        }
    }

    /// Ends every connection of this certificate; how many that were.
    pub(crate) fn end(&self, serial: SerialNumber, why: Ended) -> u64 {
        let found: Vec<_> = match self.shard(Some(serial)).get(&Some(serial)) {
            Some(those) => those.values().cloned().collect(),
            None => return 0,
        };
        self.end_all(found.into_iter().map(|connection| (connection, why)))
    }

    /// Ends every connection that one of these is a reason for, by how its peer stands and by its age.
    pub(crate) fn sweep(
        &self,
        rules: &Rules,
        now: Timestamp,
        standing: impl Fn(Option<SerialNumber>) -> Standing,
    ) -> u64 {
        let steady = steady::now();
        let mut ended = 0;
        for shard in &self.shards {
            let mut found = Vec::new();
            for (serial, those) in lock(shard).iter() {
                let standing = standing(*serial);
                let reasons = those.values().filter_map(|connection| {
                    let why = connection.reason_to_end(rules, now, steady, standing)?;
                    Some((Arc::clone(connection), why))
                });
                found.extend(reasons);
            }
            // Whoever is woken may want to leave: not under the lock.
            ended += self.end_all(found);
        }
        ended
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that were ended since the beginning because of how their peers' certificates stood.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Their peers.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let of = |shard: &Mutex<Shard>| -> Vec<Peer> {
            lock(shard)
                .values()
                .flat_map(BTreeMap::values)
                .map(|connection| connection.peer.clone())
                .collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    fn end_all(&self, found: impl IntoIterator<Item = (Arc<Connection>, Ended)>) -> u64 {
        let mut count = 0;
        for (connection, why) in found {
            if !connection.end(why) {
                continue;
            }
            count += 1;
            if matches!(why, Ended::NotGood(_) | Ended::Unknown(_)) {
                self.ended.fetch_add(1, Ordering::Relaxed);
            }
            tracing::info!(peer = %connection.peer.id, %why, "connection ended");
        }
        count
    }

    fn shard(&self, serial: Option<SerialNumber>) -> MutexGuard<'_, Shard> {
        // The last byte of a serial is random.
        let at = serial.map_or(0, |serial| usize::from(serial.as_bytes()[SerialNumber::LENGTH - 1]));
        lock(&self.shards[at % SHARDS])
    }
}

impl Connection {
    fn reason_to_end(
        &self,
        rules: &Rules,
        now: Timestamp,
        steady: Duration,
        standing: Standing,
    ) -> Option<Ended> {
        match standing {
            Standing::NotGood(why) => return Some(Ended::NotGood(why)),
            Standing::Unknown(why) if rules.end_when_unknown && !rules.admit(standing) => {
                return Some(Ended::Unknown(why));
            }
            _ => {}
        }
        if self.peer.not_after < now {
            return Some(Ended::Expired);
        }
        let allowed = rules.maximum_connection_age?;
        (steady.saturating_sub(self.since) >= allowed).then_some(Ended::TooLong(allowed))
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
