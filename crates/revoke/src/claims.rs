//! What operators are about to take out of force: between the look at a limit and the commit, others see it here.
//!
//! Within this process alone. Of acts in one name at several replicas at once, each may take what is left of a limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chancery_api::EnvironmentPart;

/// Everybody's claims.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<HashMap<String, BTreeMap<String, u64>>>>);

/// Counts for its hand until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    of: Claims,
    by: String,
    parts: Vec<(String, u64)>,
    others: BTreeMap<String, u64>,
}

impl Claims {
    /// What a hand is about to take of each environment.
    pub(crate) fn of(&self, by: &str) -> BTreeMap<String, u64> {
        self.lock().get(by).cloned().unwrap_or_default()
    }

    /// Adds what a hand is about to do.
    pub(crate) fn claim(&self, by: &str, parts: &[EnvironmentPart]) -> Claim {
        let parts: Vec<_> = parts.iter().map(|part| (part.name.clone(), part.taken())).collect();
        let mut all = self.lock();
        let counts = all.entry(by.to_owned()).or_default();
        let others = counts.clone();
        for (name, count) in &parts {
            let sum = counts.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
        drop(all);
        Claim { of: self.clone(), by: by.to_owned(), parts, others }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// What others had claimed in the same name before.
    pub(crate) fn others(&self) -> BTreeMap<String, u64> {
        self.others.clone()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut all = self.of.lock();
        let Some(counts) = all.get_mut(&self.by) else { return };
        for (name, count) in &self.parts {
            if let Some(sum) = counts.get_mut(name) {
                *sum = sum.saturating_sub(*count);
            }
        }
        counts.retain(|_, sum| *sum > 0);
        if counts.is_empty() {
            all.remove(&self.by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, certificates: u64, held: u64) -> EnvironmentPart {
        EnvironmentPart {
            name: name.into(),
            certificates,
            held,
            recent: 0,
            beside: 0,
            in_force: None,
            and_more: false,
        }
    }

    #[test]
    fn whoever_acts_second_sees_the_first_until_it_is_settled() {
        let claims = Claims::default();
        let first = claims.claim("ada", &[part("prod", 10, 4), part("test", 1, 0)]);
        assert!(first.others().is_empty());
        let second = claims.claim("ada", &[part("prod", 3, 0)]);
        assert_eq!(second.others(), BTreeMap::from([("prod".to_owned(), 6), ("test".to_owned(), 1)]));
        assert!(claims.claim("bob", &[part("prod", 5, 0)]).others().is_empty());
        drop(first);
        assert_eq!(claims.of("ada"), BTreeMap::from([("prod".to_owned(), 3)]));
        drop(second);
        assert!(claims.lock().is_empty());
    }
}
