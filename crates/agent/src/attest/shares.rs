//! Bounds how much is done at once, in all and for one user, so that no user keeps the others waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many at once, and so many of them for one user.
#[derive(Debug)]
pub(super) struct Shares {
    all: Arc<Semaphore>,
    of_users: Mutex<HashMap<u32, Arc<Semaphore>>>,
    per_user: usize,
}

/// The right to do one thing, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    _of_user: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Shares {
    pub(super) fn new(all: usize, per_user: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_users: Mutex::default(), per_user }
    }

    /// Waits for a share: first among this user's own, so that a crowd of one user waits for itself.
    pub(super) async fn take(&self, user: u32) -> Share {
        let of_user = self.of_user(user);
        let of_user = of_user.acquire_owned().await.expect("never closed");
        let of_all = Arc::clone(&self.all).acquire_owned().await.expect("never closed");
        Share { _of_user: of_user, _of_all: of_all }
    }

    fn of_user(&self, user: u32) -> Arc<Semaphore> {
        let mut users = self.of_users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= MANY_USERS {
            // Whoever has a share, or waits for one, holds on to its semaphore.
            users.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        Arc::clone(users.entry(user).or_insert_with(|| Arc::new(Semaphore::new(self.per_user))))
    }
}

const MANY_USERS: usize = 256;

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
    fn a_user_who_takes_everything_leaves_something_for_the_others() {
        let shares = Shares::new(3, 2);
        let mine: Vec<_> = (0..5).filter_map(|_| at_once(shares.take(1))).collect();
        assert_eq!(mine.len(), 2);
        let other = at_once(shares.take(2)).unwrap();
        assert!(at_once(shares.take(3)).is_none());
        drop(other);
        assert!(at_once(shares.take(3)).is_some());
        drop(mine);
        assert!(at_once(shares.take(1)).is_some());
    }

    #[test]
    fn forgets_users_who_have_nothing() {
        let shares = Shares::new(2, 1);
        let held = at_once(shares.take(0)).unwrap();
        for user in 1..2000 {
            assert!(at_once(shares.take(user)).is_some());
        }
        assert!(shares.of_users.lock().unwrap().len() <= MANY_USERS);
        assert!(at_once(shares.take(0)).is_none());
        drop(held);
    }
}
