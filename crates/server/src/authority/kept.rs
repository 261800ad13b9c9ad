//! What was read of how somebody stands, kept for as long as nobody's standing has changed.
//!
//! Every request asks who its caller is and how the identity stands that it speaks for, and between two
//! revocations, holds and changes of identities the answers are the same. The ledger's
//! [`standing_epoch`](chancery_ledger::Ledger::standing_epoch) tells when they may not be any more: a change is seen
//! by the first request after it was acknowledged, as without this.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{PoisonError, RwLock};

/// Answers in one cache at the most: a few megabytes.
const MOST: usize = 16_384;

/// Answers by question, of one epoch.
#[derive(Debug)]
pub(super) struct Kept<K, V>(RwLock<(u64, HashMap<K, V>)>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(RwLock::new((0, HashMap::new())))
    }
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    /// The answer, if it was kept in this epoch, which is the ledger's now.
    pub(super) fn answer(&self, epoch: u64, question: &K) -> Option<V> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if kept.0 == epoch { kept.1.get(question).cloned() } else { None }
    }

    /// Keeps an answer that was read after this was the ledger's epoch.
    pub(super) fn keep(&self, epoch: u64, question: K, answer: V) {
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if kept.0 > epoch {
            return;
        }
        if kept.0 < epoch || kept.1.len() >= MOST {
            *kept = (epoch, HashMap::new());
        }
        kept.1.insert(question, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lasts_as_long_as_its_epoch() {
        let kept = Kept::default();
        kept.keep(1, "web", "active");
        assert_eq!(kept.answer(1, &"web"), Some("active"));
        assert_eq!(kept.answer(2, &"web"), None);
        kept.keep(2, "db", "active");
        assert_eq!(kept.answer(2, &"web"), None, "of the epoch before");
        kept.keep(1, "web", "read too early");
        assert_eq!(kept.answer(2, &"web"), None);
        assert_eq!(kept.answer(2, &"db"), Some("active"));
    }

    #[test]
    fn so_many_answers_are_kept_and_no_more() {
        let kept = Kept::default();
        for question in 0..2 * MOST {
            kept.keep(0, question, ());
        }
        assert!(kept.0.read().unwrap().1.len() <= MOST);
        assert_eq!(kept.answer(0, &(2 * MOST - 1)), Some(()));
    }
}
