//! Bounds how much is done at once, in all and for one party, so that no party keeps the others waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// For whom something is done: who cannot make more of itself. A user can make groups, but no other users; in
/// containers most are root, but none can make another container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// A user of the machine.
    User(u32),
    /// A container, whoever runs in it.
    Container(String),
}

/// So many at once, and so many of them for one party.
#[derive(Debug)]
pub(super) struct Shares {
    all: Arc<Semaphore>,
    of_parties: Mutex<HashMap<Party, Arc<Semaphore>>>,
    per_party: usize,
}

/// The right to do one thing, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    _of_party: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Shares {
    pub(super) fn new(all: usize, per_party: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_parties: Mutex::default(), per_party }
    }

    /// Waits for a share: first among this party's own, so that a crowd of one party waits for itself.
    pub(super) async fn take(&self, party: &Party) -> Share {
        let of_party = self.of_party(party);
        let of_party = of_party.acquire_owned().await.expect("never closed");
        let of_all = Arc::clone(&self.all).acquire_owned().await.expect("never closed");
        Share { _of_party: of_party, _of_all: of_all }
    }

    fn of_party(&self, party: &Party) -> Arc<Semaphore> {
        let mut parties = self.of_parties.lock().unwrap_or_else(PoisonError::into_inner);
        if parties.len() >= MANY_PARTIES {
            // Whoever has a share, or waits for one, holds on to its semaphore.
            parties.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        Arc::clone(parties.entry(party.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.per_party))))
    }
}

const MANY_PARTIES: usize = 256;

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn at_once(future: impl Future<Output = Share>) -> Option<Share> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(share) => Some(share),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_party_that_takes_everything_leaves_something_for_the_others() {
        let shares = Shares::new(3, 2);
        let (hostile, other) = (Party::Container("0".into()), Party::User(0));
        let held: Vec<_> = (0..5).filter_map(|_| at_once(shares.take(&hostile))).collect();
        assert_eq!(held.len(), 2);
        let of_other = at_once(shares.take(&other)).unwrap();
        assert!(at_once(shares.take(&Party::User(1))).is_none());
        drop(of_other);
        assert!(at_once(shares.take(&Party::User(1))).is_some());
        drop(held);
        assert!(at_once(shares.take(&hostile)).is_some());
    }

    #[test]
    fn forgets_parties_that_have_nothing() {
        let shares = Shares::new(2, 1);
        let held = at_once(shares.take(&Party::User(0))).unwrap();
        for user in 1..2000 {
            assert!(at_once(shares.take(&Party::User(user))).is_some());
        }
        assert!(shares.of_parties.lock().unwrap().len() <= MANY_PARTIES);
        assert!(at_once(shares.take(&Party::User(0))).is_none());
        drop(held);
    }
}
