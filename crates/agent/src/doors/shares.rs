//! How much of the agent one user may occupy: connections, calls, attestations under way, bytes of requests.
//!
//! Users, not processes: a process can fork as often as it likes, and its children are the same user.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

use super::config::DoorLimits;

/// Who shares a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum User {
    /// A user of this machine, by the kernel's word.
    Uid(u32),
    /// Everybody who comes over TCP.
    Tcp,
}

/// Every user's share.
#[derive(Debug)]
pub(crate) struct Shares {
    limits: DoorLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    /// Only users who have connections are in it, so it is bounded by the total.
    users: HashMap<User, (usize, Arc<Share>)>,
}

/// What one user's connections have in common.
#[derive(Debug)]
pub(crate) struct Share {
    attestations: Semaphore,
    calls: AtomicUsize,
    most_calls: usize,
    request_bytes: AtomicUsize,
    most_bytes: usize,
}

/// One connection's place; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Place {
    shares: Arc<Shares>,
    user: User,
    pub(crate) share: Arc<Share>,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Total,
    User,
}

impl Full {
    /// For the metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Total => "too-many",
            Self::User => "too-many-of-user",
        }
    }
}

impl Shares {
    pub(crate) fn new(limits: DoorLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    pub(crate) fn enter(self: &Arc<Self>, user: User) -> Result<Place, Full> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.limits.connections.saturating_sub(state.total);
        let held = state.users.get(&user).map_or(0, |(held, _)| *held);
        if left == 0 {
            return Err(Full::Total);
        }
        // Whoever holds as much as is left for all others has enough: each greedy user gets half of what the ones before
        // left, and one or a few of them never lock the rest out.
        if held >= self.limits.connections_per_user || held >= left {
            return Err(Full::User);
        }
        state.total += 1;
        let entry = state.users.entry(user).or_insert_with(|| (0, Arc::new(Share::new(&self.limits))));
        entry.0 += 1;
        Ok(Place { shares: Arc::clone(self), user, share: Arc::clone(&entry.1) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shares.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.total -= 1;
        if let Some(entry) = state.users.get_mut(&self.user) {
            entry.0 -= 1;
            if entry.0 == 0 {
                state.users.remove(&self.user);
            }
        }
    }
}

impl Share {
    fn new(limits: &DoorLimits) -> Self {
        Self {
            attestations: Semaphore::new(limits.attestations_per_user),
            calls: AtomicUsize::new(0),
            most_calls: limits.calls_per_user,
            request_bytes: AtomicUsize::new(0),
            most_bytes: limits.request_bytes_per_user,
        }
    }

    /// Waits until something may be attested for this user.
    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        self.attestations.acquire().await.expect("the semaphore is never closed")
    }

    /// Counts a call; nothing if the user has too many.
    pub(crate) fn call(self: &Arc<Self>) -> Option<CallPlace> {
        let place = CallPlace(Arc::clone(self));
        (self.calls.fetch_add(1, Ordering::AcqRel) < self.most_calls).then_some(place)
    }
}

/// One call's place; dropping it makes room.
#[derive(Debug)]
pub(crate) struct CallPlace(Arc<Share>);

impl Drop for CallPlace {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The bytes of one request that its user has to answer for. Clones are one charge.
#[derive(Debug, Clone)]
pub(crate) struct Charge(Arc<Charged>);

#[derive(Debug)]
struct Charged {
    share: Arc<Share>,
    bytes: AtomicUsize,
}

impl Charge {
    pub(crate) fn new(share: Arc<Share>) -> Self {
        Self(Arc::new(Charged { share, bytes: AtomicUsize::new(0) }))
    }

    /// What came so far has been dealt with.
    pub(crate) fn settle(&self) {
        self.0.settle();
    }

    fn add(&self, bytes: usize) -> Result<(), Status> {
        self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
        let before = self.0.share.request_bytes.fetch_add(bytes, Ordering::AcqRel);
        if before + bytes > self.0.share.most_bytes {
            return Err(Status::resource_exhausted("too many bytes of requests of this user are unanswered"));
        }
        Ok(())
    }
}

impl Charged {
    fn settle(&self) {
        let bytes = self.bytes.swap(0, Ordering::AcqRel);
        self.share.request_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.settle();
    }
}

/// The body of a request, charged to its user as it comes in.
#[derive(Debug)]
pub(crate) struct Metered {
    body: Incoming,
    charge: Charge,
}

impl Metered {
    pub(crate) fn new(body: Incoming, charge: Charge) -> Self {
        Self { body, charge }
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            None => return Poll::Ready(None),
        };
        let charged = self.charge.add(frame.data_ref().map_or(0, Bytes::len));
        Poll::Ready(Some(charged.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(connections: usize, connections_per_user: usize) -> Arc<Shares> {
        Shares::new(DoorLimits {
            connections,
            connections_per_user,
            calls_per_user: 2,
            request_bytes_per_user: 100,
            ..DoorLimits::default()
        })
    }

    #[test]
    fn bounds_each_user_and_makes_room_again() {
        let shares = shares(100, 2);
        let first = shares.enter(User::Uid(1)).unwrap();
        let second = shares.enter(User::Uid(1)).unwrap();
        assert_eq!(shares.enter(User::Uid(1)).unwrap_err(), Full::User);
        let _other = shares.enter(User::Uid(2)).unwrap();
        drop((first, second));
        shares.enter(User::Uid(1)).unwrap();
        assert_eq!(shares.state.lock().unwrap().users.len(), 1);
    }

    #[test]
    fn leaves_room_for_newcomers_when_a_few_users_are_greedy() {
        let shares = shares(64, 64);
        let mut held = Vec::new();
        for greedy in 0..4 {
            while let Ok(place) = shares.enter(User::Uid(greedy)) {
                held.push(place);
            }
        }
        for newcomer in 100..103 {
            held.push(shares.enter(User::Uid(newcomer)).unwrap());
        }
    }

    #[test]
    fn bounds_the_calls_of_a_user() {
        let shares = shares(9, 9);
        let place = shares.enter(User::Uid(1)).unwrap();
        let first = place.share.call().unwrap();
        let _second = place.share.call().unwrap();
        assert!(place.share.call().is_none());
        drop(first);
        assert!(place.share.call().is_some());
    }

    #[test]
    fn bounds_the_unanswered_bytes_of_a_user() {
        let shares = shares(9, 9);
        let (one, two) = (shares.enter(User::Uid(1)).unwrap(), shares.enter(User::Uid(1)).unwrap());
        let (first, second) = (Charge::new(Arc::clone(&one.share)), Charge::new(Arc::clone(&two.share)));
        first.add(80).unwrap();
        assert_eq!(second.add(30).unwrap_err().code(), tonic::Code::ResourceExhausted);
        drop(second);
        let third = Charge::new(Arc::clone(&two.share));
        third.add(20).unwrap();
        first.settle();
        third.add(80).unwrap();
        drop((first, third));
        assert_eq!(one.share.request_bytes.load(Ordering::Acquire), 0);
    }
}
