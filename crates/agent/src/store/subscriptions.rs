//! Who listens: one entry for each set of claims, however many processes have it.

use std::collections::HashMap;
use std::sync::Arc;

use chancery_types::{Claims, Digest, SpiffeId};
use tokio::sync::watch;

use crate::identities::X509State;

/// By the digest of the claims.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    all: HashMap<Digest, Subscription>,
    /// Who is entitled to each identity: ten thousand listeners are not looked through for each new certificate.
    by_identity: HashMap<SpiffeId, Vec<Digest>>,
}

#[derive(Debug)]
struct Subscription {
    claims: Arc<Claims>,
    /// What these claims make a process, the default first.
    entitled: Vec<SpiffeId>,
    sender: watch::Sender<Arc<X509State>>,
}

impl Subscriptions {
    pub(super) fn contains(&self, key: &Digest) -> bool {
        self.all.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn add(&mut self, key: Digest, claims: &Claims, entitled: Vec<SpiffeId>, state: X509State) {
        let sender = watch::Sender::new(Arc::new(state));
        for id in &entitled {
            self.by_identity.entry(id.clone()).or_default().push(key);
        }
        self.all.insert(key, Subscription { claims: Arc::new(claims.clone()), entitled, sender });
    }

    /// # Panics
    /// When there is no such entry; ask [`contains`](Self::contains) under the same lock.
    pub(super) fn listen(&self, key: &Digest) -> watch::Receiver<Arc<X509State>> {
        self.all[key].sender.subscribe()
    }

    pub(super) fn entitled(&self, key: &Digest) -> &[SpiffeId] {
        self.all.get(key).map(|subscription| subscription.entitled.as_slice()).unwrap_or_default()
    }

    /// Forgets those whom nobody listens to any more.
    pub(super) fn drop_abandoned(&mut self) {
        let before = self.all.len();
        self.all.retain(|_, subscription| subscription.is_heard());
        if self.all.len() != before {
            self.file();
        }
    }

    /// Who is entitled to an identity, or will be: whose claims fulfil the condition.
    pub(super) fn concerned(&self, id: &SpiffeId, will_be: impl Fn(&Claims) -> bool) -> Vec<Digest> {
        let is = |subscription: &Subscription| subscription.entitled.contains(id);
        self.all
            .iter()
            .filter(|(_, subscription)| is(subscription) || will_be(&subscription.claims))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Finds out anew what these are.
    pub(super) fn match_anew(&mut self, keys: &[Digest], mut matching: impl FnMut(&Claims) -> Vec<SpiffeId>) {
        for key in keys {
            let Some(subscription) = self.all.get_mut(key) else { continue };
            for id in &subscription.entitled {
                if let Some(filed) = self.by_identity.get_mut(id) {
                    filed.retain(|filed| filed != key);
                }
            }
            subscription.entitled = matching(&subscription.claims);
            for id in &subscription.entitled {
                self.by_identity.entry(id.clone()).or_default().push(*key);
            }
        }
        self.by_identity.retain(|_, filed| !filed.is_empty());
    }

    /// Finds out anew what everybody is.
    pub(super) fn match_all_anew(&mut self, mut matching: impl FnMut(&Claims) -> Vec<SpiffeId>) {
        for subscription in self.all.values_mut() {
            subscription.entitled = matching(&subscription.claims);
        }
        self.file();
    }

    /// Sends everybody the state that is due to them, if it is another one.
    pub(super) fn tell_all(&self, state: impl Fn(&[SpiffeId]) -> X509State) {
        self.all.values().for_each(|subscription| subscription.tell(&state));
    }

    /// The same for those who are entitled to one of these identities.
    pub(super) fn tell_of(&self, ids: &[SpiffeId], state: impl Fn(&[SpiffeId]) -> X509State) {
        for keys in ids.iter().filter_map(|id| self.by_identity.get(id)) {
            self.tell(keys, &state);
        }
    }

    /// The same for these.
    pub(super) fn tell(&self, keys: &[Digest], state: impl Fn(&[SpiffeId]) -> X509State) {
        for subscription in keys.iter().filter_map(|key| self.all.get(key)) {
            subscription.tell(&state);
        }
    }

    fn file(&mut self) {
        self.by_identity.clear();
        for (key, subscription) in &self.all {
            for id in &subscription.entitled {
                self.by_identity.entry(id.clone()).or_default().push(*key);
            }
        }
    }

    /// What somebody listens for, each with claims of one who does.
    pub(super) fn wanted(&self) -> HashMap<&SpiffeId, &Arc<Claims>> {
        let heard = self.all.values().filter(|subscription| subscription.is_heard());
        heard.flat_map(|one| one.entitled.iter().map(move |id| (id, &one.claims))).collect()
    }

    /// How many workloads listen for each identity.
    pub(super) fn listeners(&self) -> HashMap<SpiffeId, usize> {
        let mut listeners = HashMap::new();
        for subscription in self.all.values() {
            for id in &subscription.entitled {
                *listeners.entry(id.clone()).or_default() += subscription.sender.receiver_count();
            }
        }
        listeners
    }

    pub(super) fn listening(&self) -> usize {
        self.all.values().map(|subscription| subscription.sender.receiver_count()).sum()
    }
}

impl Subscription {
    fn is_heard(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    fn tell(&self, state: impl Fn(&[SpiffeId]) -> X509State) {
        let state = state(&self.entitled);
        self.sender.send_if_modified(|current| {
            let differs = !is_same(current, &state);
            if differs {
                *current = Arc::new(state);
            }
            differs
        });
    }
}

fn is_same(one: &X509State, other: &X509State) -> bool {
    one.svids.len() == other.svids.len()
        && one.svids.iter().zip(&other.svids).all(|(one, other)| Arc::ptr_eq(one, other))
        && one.bundles == other.bundles
        && one.crls == other.crls
}
