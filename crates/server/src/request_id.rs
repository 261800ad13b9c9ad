//! A name for each request, so that an answer and the log can be brought together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chancery_types::{Random, RandomError};

/// Names one request. Unique within the life of a server; random enough between lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Gives request ids out: a random number of this server's life, and a counter.
#[derive(Debug)]
pub(crate) struct RequestIds {
    life: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new(random: &dyn Random) -> Result<Self, RandomError> {
        let mut life = [0_u8; 8];
        random.fill(&mut life)?;
        Ok(Self { life: u64::from_be_bytes(life), next: AtomicU64::new(1) })
    }

    pub(crate) fn next(&self) -> RequestId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        RequestId(format!("{:016x}-{number:x}", self.life).into())
    }
}

#[cfg(test)]
mod tests {
    use chancery_types::FixedRandom;

    use super::*;

    #[test]
    fn ids_differ_within_and_between_lives() {
        let random = FixedRandom::dangerous_seeded(1);
        let (first, second) = (RequestIds::new(&random).unwrap(), RequestIds::new(&random).unwrap());
        let ids = [first.next(), first.next(), second.next(), second.next()];
        for (position, id) in ids.iter().enumerate() {
            assert!(!ids[..position].contains(id));
        }
    }
}
