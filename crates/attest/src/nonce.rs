//! Challenges: given out once, accepted once, for a short time.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chancery_types::{Random, RandomError, Timestamp};
use data_encoding::BASE64URL_NOPAD;

use crate::Nonces;

/// 32 unpredictable bytes. Text form: base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce([u8; 32]);

impl Nonce {
    /// A fresh one.
    ///
    /// # Errors
    /// [`RandomError`] when the randomness source fails.
    pub fn generate(random: &dyn Random) -> Result<Self, RandomError> {
        let mut bytes = [0_u8; 32];
        random.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// From received bytes.
    #[must_use]
    pub fn from_array(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Nonce({self})")
    }
}

/// Why there is no nonce, or no answer about one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NonceError {
    /// A text is not a nonce.
    #[error("a nonce is 43 characters of base64url without padding")]
    Text,
    /// Too many are outstanding.
    #[error("{limit} nonces are outstanding, which is the limit; try again in {lifetime:?}")]
    TooMany {
        /// The limit.
        limit: usize,
        /// After this time the oldest will have expired.
        lifetime: Duration,
    },
    /// The randomness source failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The store behind the nonces could not answer.
    #[error("the store of nonces failed, try again: {0}")]
    Store(String),
}

impl FromStr for Nonce {
    type Err = NonceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 43 {
            return Err(NonceError::Text);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| NonceError::Text)?;
        bytes.try_into().map(Self).map_err(|_| NonceError::Text)
    }
}

/// Nonces of one process, in its memory: enough where the same process gives them out and takes them back.
/// A restart forgets all of them, which makes requesters fetch a new one and lets nobody in.
pub struct MemoryNonces {
    random: Arc<dyn Random>,
    lifetime: Duration,
    limit: usize,
    outstanding: Mutex<Outstanding>,
}

#[derive(Default)]
struct Outstanding {
    expiry: HashMap<Nonce, Timestamp>,
    order: VecDeque<(Timestamp, Nonce)>,
}

impl MemoryNonces {
    /// At most `limit` nonces at a time (about 150 bytes each), each good for `lifetime`.
    #[must_use]
    pub fn new(random: Arc<dyn Random>, lifetime: Duration, limit: usize) -> Self {
        Self { random, lifetime, limit, outstanding: Mutex::default() }
    }

    fn outstanding(&self) -> std::sync::MutexGuard<'_, Outstanding> {
        // Every change below leaves the two collections usable at each step, so a panic elsewhere harms nothing.
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryNonces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemoryNonces")
            .field("lifetime", &self.lifetime)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Nonces for MemoryNonces {
    async fn issue(&self, now: Timestamp) -> Result<Nonce, NonceError> {
        let nonce = Nonce::generate(&*self.random)?;
        let mut outstanding = self.outstanding();
        outstanding.forget_expired(now);
        if outstanding.order.len() >= self.limit {
            return Err(NonceError::TooMany { limit: self.limit, lifetime: self.lifetime });
        }
        let expires = now + self.lifetime;
        outstanding.expiry.insert(nonce, expires);
        outstanding.order.push_back((expires, nonce));
        Ok(nonce)
    }

    async fn consume(&self, nonce: &Nonce, now: Timestamp) -> Result<bool, NonceError> {
        let mut outstanding = self.outstanding();
        outstanding.forget_expired(now);
        Ok(outstanding.expiry.remove(nonce).is_some_and(|expires| now < expires))
    }
}

impl Outstanding {
    fn forget_expired(&mut self, now: Timestamp) {
        while let Some((expires, nonce)) = self.order.front().copied() {
            if now < expires {
                break;
            }
            self.order.pop_front();
            self.expiry.remove(&nonce);
        }
    }
}

#[cfg(test)]
mod tests {
    use chancery_types::FixedRandom;

    use super::*;
    use crate::test_support::{block_on, now};

    fn nonces(limit: usize) -> MemoryNonces {
        MemoryNonces::new(Arc::new(FixedRandom::dangerous_seeded(1)), Duration::from_secs(60), limit)
    }

    #[test]
    fn a_nonce_is_accepted_exactly_once() {
        let nonces = nonces(10);
        let nonce = block_on(nonces.issue(now())).unwrap();
        assert!(block_on(nonces.consume(&nonce, now())).unwrap());
        assert!(!block_on(nonces.consume(&nonce, now())).unwrap());
    }

    #[test]
    fn refuses_expired_and_unknown_nonces() {
        let nonces = nonces(10);
        let nonce = block_on(nonces.issue(now())).unwrap();
        assert!(!block_on(nonces.consume(&Nonce([9; 32]), now())).unwrap());
        assert!(!block_on(nonces.consume(&nonce, now() + Duration::from_secs(60))).unwrap());
    }

    #[test]
    fn refuses_more_than_the_limit_until_the_oldest_expire() {
        let nonces = nonces(2);
        for _ in 0..2 {
            block_on(nonces.issue(now())).unwrap();
        }
        assert!(matches!(block_on(nonces.issue(now())), Err(NonceError::TooMany { limit: 2, .. })));
        block_on(nonces.issue(now() + Duration::from_secs(61))).unwrap();
    }

    #[test]
    fn texts_round_trip_and_others_are_refused() {
        let nonce = Nonce([7; 32]);
        assert_eq!(nonce.to_string().parse::<Nonce>().unwrap(), nonce);
        assert_eq!("short".parse::<Nonce>(), Err(NonceError::Text));
        assert_eq!("*".repeat(43).parse::<Nonce>(), Err(NonceError::Text));
    }
}
