//! JWT-SVIDs: asked for by identity and audiences, and used again until half of their life.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chancery_types::{SpiffeId, Timestamp};

use crate::identities::JwtSvid;

/// For whom, and for which audiences, sorted.
type Key = (SpiffeId, Vec<String>);

/// Tokens that were made lately.
#[derive(Debug)]
pub(crate) struct Tokens {
    kept: Mutex<HashMap<Key, Kept>>,
    limit: usize,
}

#[derive(Debug, Clone)]
struct Kept {
    svid: JwtSvid,
    /// Half of its life: until then it is as good as a new one.
    fresh_until: Timestamp,
}

impl Tokens {
    pub(crate) fn new(limit: usize) -> Self {
        Self { kept: Mutex::default(), limit }
    }

    /// A token in the first half of its life.
    pub(crate) fn fresh(&self, id: &SpiffeId, audiences: &[String], now: Timestamp) -> Option<JwtSvid> {
        self.find(id, audiences).filter(|kept| now < kept.fresh_until).map(|kept| kept.svid)
    }

    /// A token that has not ended: for when the authority cannot be reached.
    pub(crate) fn valid(&self, id: &SpiffeId, audiences: &[String], now: Timestamp) -> Option<JwtSvid> {
        self.find(id, audiences).filter(|kept| now < kept.svid.expires).map(|kept| kept.svid)
    }

    /// Keeps a token; the one that ends first makes room.
    pub(crate) fn keep(&self, audiences: &[String], svid: JwtSvid, now: Timestamp) {
        let key = (svid.spiffe_id.clone(), sorted(audiences));
        let fresh_until = now + svid.expires.since(now) / 2;
        let mut kept = self.lock();
        if kept.len() >= self.limit && !kept.contains_key(&key) {
            kept.retain(|_, kept| now < kept.svid.expires);
        }
        if kept.len() >= self.limit
            && let Some(first) =
                kept.iter().min_by_key(|(_, kept)| kept.svid.expires).map(|(key, _)| key.clone())
        {
            kept.remove(&first);
        }
        kept.insert(key, Kept { svid, fresh_until });
    }

    /// Forgets all tokens but those of these identities.
    pub(crate) fn retain(&self, is_ours: impl Fn(&SpiffeId) -> bool) {
        self.lock().retain(|(id, _), _| is_ours(id));
    }

    fn find(&self, id: &SpiffeId, audiences: &[String]) -> Option<Kept> {
        self.lock().get(&(id.clone(), sorted(audiences))).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sorted(audiences: &[String]) -> Vec<String> {
    let mut sorted = audiences.to_vec();
    sorted.sort();
    sorted.dedup();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, expires: i64) -> JwtSvid {
        JwtSvid {
            spiffe_id: format!("spiffe://example.org/{name}").parse().unwrap(),
            token: name.into(),
            hint: String::new(),
            expires: Timestamp::from_seconds(expires),
        }
    }

    #[test]
    fn a_token_is_used_again_until_half_of_its_life_and_in_need_until_its_end() {
        let tokens = Tokens::new(10);
        let at = Timestamp::from_seconds;
        let (svid, audiences) = (token("web", 300), ["b".to_owned(), "a".to_owned()]);
        tokens.keep(&audiences, svid.clone(), at(0));
        let other_order = ["a".to_owned(), "b".to_owned()];
        assert!(tokens.fresh(&svid.spiffe_id, &other_order, at(149)).is_some());
        assert!(tokens.fresh(&svid.spiffe_id, &audiences, at(150)).is_none());
        assert!(tokens.valid(&svid.spiffe_id, &audiences, at(299)).is_some());
        assert!(tokens.valid(&svid.spiffe_id, &audiences, at(300)).is_none());
        assert!(tokens.fresh(&svid.spiffe_id, &["a".to_owned()], at(0)).is_none());
    }

    #[test]
    fn the_cache_is_bounded_and_the_one_that_ends_first_makes_room() {
        let tokens = Tokens::new(2);
        let (now, audience) = (Timestamp::from_seconds(0), ["a".to_owned()]);
        for (name, expires) in [("one", 300), ("two", 200), ("three", 400)] {
            tokens.keep(&audience, token(name, expires), now);
        }
        let is_kept = |name: &str| tokens.fresh(&token(name, 0).spiffe_id, &audience, now).is_some();
        assert_eq!(["one", "two", "three"].map(is_kept), [true, false, true]);
        tokens.retain(|id| id.path() == "/one");
        assert_eq!(["one", "three"].map(is_kept), [true, false]);
    }
}
