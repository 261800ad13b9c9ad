//! The status of one authority's certificates, as everybody in the program asks for it.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use chancery_types::{Clock, SerialNumber, SystemClock};

use super::connections::{Connection, Connections};
use super::knowledge::Knowledge;
use super::{ConnectionEnded, Ended, Peer, Refusal, Rules, Standing, Unknown, steady};

/// How often connections are looked at for their age.
const TICK: Duration = Duration::from_secs(1);
/// The authority was never heard of.
const NEVER: i64 = i64::MIN;

/// Answers how certificates stand, and ends the connections of those that stand badly. Clones are one and the same.
///
/// Asking takes no lock: what is known is one immutable value, swapped whole.
#[derive(Clone)]
pub struct Status(Arc<Shared>);

pub(crate) struct Shared {
    knowledge: ArcSwap<Knowledge>,
    /// When everything that is known was last said to be all, in milliseconds by the steady clock.
    fresh: AtomicI64,
    rules: Rules,
    is_followed: bool,
    connections: Connections,
}

/// What is known and enforced, for health checks and for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusView {
    /// The position in the authority's log up to which everything is known and enforced.
    pub sequence: u64,
    /// The position of the signed set.
    pub set_sequence: u64,
    /// How old the last word of the authority is; nothing when there was none.
    pub age: Option<Duration>,
    /// Connections that are open.
    pub connections_open: u64,
    /// Connections that were ended because of how their peers' certificates stood.
    pub connections_ended: u64,
}

impl Status {
    /// The status of an authority that a [`super::Follower`] will follow.
    pub(crate) fn followed(rules: Rules) -> Self {
        Self::new(rules, true)
    }

    /// The status of a trust domain that nobody follows: every standing is unknown, and the rules say what that
    /// means. Connections end with the peer's certificate and at their maximum age all the same.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn not_followed(rules: Rules) -> Self {
        Self::new(rules, false)
    }

    fn new(rules: Rules, is_followed: bool) -> Self {
        let shared = Arc::new(Shared {
            knowledge: ArcSwap::default(),
            fresh: AtomicI64::new(NEVER),
            rules,
            is_followed,
            connections: Connections::default(),
        });
        tokio::spawn(watch_ages(Arc::downgrade(&shared)));
        Self(shared)
    }

    /// How a certificate of this authority stands now.
    #[must_use]
    pub fn standing(&self, serial: SerialNumber) -> Standing {
        self.0.standing(Some(serial))
    }

    /// What the rules are.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }

    /// Whether a peer gets in now: its standing, and what the rules make of it.
    ///
    /// # Errors
    /// [`Refusal::NotGood`], [`Refusal::Unknown`].
    pub fn check(&self, serial: Option<SerialNumber>) -> Result<(), Refusal> {
        let standing = self.0.standing(serial);
        match standing {
            _ if self.0.rules.admit(standing) => Ok(()),
            Standing::NotGood(why) => Err(Refusal::NotGood(why)),
            Standing::Unknown(why) => Err(Refusal::Unknown(why)),
            Standing::Good => Ok(()),
        }
    }

    /// Registers a connection of a peer, whose chain and name have been verified, and says whether it may stay. From
    /// here on it is ended when it may no more.
    ///
    /// # Errors
    /// [`Refusal::NotGood`], [`Refusal::Unknown`].
    pub fn admit(&self, peer: Peer) -> Result<Admission, Refusal> {
        let serial = peer.serial;
        let (number, connection) = self.0.connections.enter(peer);
        let admission = Admission { status: self.clone(), number, connection };
        // Registered first: what happens after this check finds the connection.
        self.check(serial)?;
        Ok(admission)
    }

    /// What is known and enforced.
    #[must_use]
    pub fn view(&self) -> StatusView {
        let knowledge = self.0.knowledge.load();
        StatusView {
            sequence: knowledge.position(),
            set_sequence: knowledge.set_sequence(),
            age: self.0.age(),
            connections_open: self.0.connections.open(),
            connections_ended: self.0.connections.ended(),
        }
    }

    /// The peers of all open connections.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.0.connections.peers()
    }

    /// Puts other knowledge in place and ends the connections of `taken`; how many.
    pub(crate) fn take_away(&self, knowledge: Knowledge, taken: &[SerialNumber]) -> u64 {
        self.0.knowledge.store(Arc::new(knowledge));
        let ended = taken.iter().map(|serial| match self.standing(*serial) {
            Standing::NotGood(why) => self.0.connections.end(*serial, Ended::NotGood(why)),
            _ => 0,
        });
        ended.sum()
    }

    /// Puts other knowledge in place and looks at every connection; how many ended.
    pub(crate) fn replace(&self, knowledge: Knowledge) -> u64 {
        self.0.knowledge.store(Arc::new(knowledge));
        self.0.sweep()
    }

    /// What is known is everything that there was to know so long ago.
    pub(crate) fn confirm(&self, age: Duration) {
        let at = millis(steady::now()).saturating_sub(millis(age));
        self.0.fresh.fetch_max(at, Ordering::Release);
    }
}

impl Shared {
    fn standing(&self, serial: Option<SerialNumber>) -> Standing {
        if !self.is_followed {
            return Standing::Unknown(Unknown::NotFollowed);
        }
        let Some(serial) = serial else { return Standing::Unknown(Unknown::Foreign) };
        let standing = self.knowledge.load().standing(serial);
        let maximum = self.rules.maximum_age;
        match (standing, self.age()) {
            (Standing::Good, Some(age)) if age > maximum => {
                Standing::Unknown(Unknown::TooOld { age, maximum })
            }
            (Standing::Good, None) => Standing::Unknown(Unknown::Nothing),
            _ => standing,
        }
    }

    fn age(&self) -> Option<Duration> {
        let fresh = Some(self.fresh.load(Ordering::Acquire)).filter(|fresh| *fresh != NEVER)?;
        let age = millis(steady::now()).saturating_sub(fresh);
        Some(Duration::from_millis(u64::try_from(age).unwrap_or(0)))
    }

    fn sweep(&self) -> u64 {
        self.connections.sweep(&self.rules, SystemClock.now(), |serial| self.standing(serial))
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Status").field(&self.view()).finish()
    }
}

/// Ends what has become too old, until nobody has the status any more.
async fn watch_ages(shared: Weak<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        match shared.upgrade() {
            Some(shared) => shared.sweep(),
            None => return,
        };
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A connection that was let in. It counts as open until this is dropped.
pub struct Admission {
    status: Status,
    number: u64,
    connection: Arc<Connection>,
}

impl Admission {
    /// Whose connection it is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.connection.peer()
    }

    /// Why it was ended, if it was.
    #[must_use]
    pub fn ended(&self) -> Option<ConnectionEnded> {
        self.connection.ended()
    }

    /// Waits until it is ended.
    pub async fn ending(&self) -> ConnectionEnded {
        self.connection.ending().await
    }

    pub(crate) fn wake_reader(&self, waker: &std::task::Waker) {
        self.connection.wake_reader(waker);
    }

    pub(crate) fn wake_writer(&self, waker: &std::task::Waker) {
        self.connection.wake_writer(waker);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.status.0.connections.leave(self.number, self.connection.peer().serial);
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Admission").field("peer", self.peer()).finish_non_exhaustive()
    }
}
