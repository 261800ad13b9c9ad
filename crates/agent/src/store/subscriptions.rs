//! Who listens: one entry for each set of claims, however many processes have it.

use std::collections::HashMap;
use std::sync::Arc;

use chancery_types::{Claims, Digest, SpiffeId};
use tokio::sync::watch;

use crate::identities::X509State;

/// By the digest of the claims.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(HashMap<Digest, Subscription>);

#[derive(Debug)]
struct Subscription {
    claims: Arc<Claims>,
    /// What these claims make a process, the default first.
    entitled: Vec<SpiffeId>,
    sender: watch::Sender<Arc<X509State>>,
}

impl Subscriptions {
    pub(super) fn contains(&self, key: &Digest) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, key: Digest, claims: &Claims, entitled: Vec<SpiffeId>, state: X509State) {
        let sender = watch::Sender::new(Arc::new(state));
        self.0.insert(key, Subscription { claims: Arc::new(claims.clone()), entitled, sender });
    }

    /// # Panics
    /// When there is no such entry; ask [`contains`](Self::contains) under the same lock.
    pub(super) fn listen(&self, key: &Digest) -> watch::Receiver<Arc<X509State>> {
        self.0[key].sender.subscribe()
    }

    pub(super) fn entitled(&self, key: &Digest) -> &[SpiffeId] {
        self.0.get(key).map(|subscription| subscription.entitled.as_slice()).unwrap_or_default()
    }

    /// Forgets those whom nobody listens to any more.
    pub(super) fn drop_abandoned(&mut self) {
        self.0.retain(|_, subscription| subscription.is_heard());
    }

    pub(super) fn match_anew(&mut self, matching: impl Fn(&Claims) -> Vec<SpiffeId>) {
        for subscription in self.0.values_mut() {
            subscription.entitled = matching(&subscription.claims);
        }
    }

    /// Sends those concerned their state, if it is another one.
    pub(super) fn tell(
        &mut self,
        concerned: impl Fn(&[SpiffeId]) -> bool,
        state: impl Fn(&[SpiffeId]) -> X509State,
    ) {
        for subscription in self.0.values().filter(|subscription| concerned(&subscription.entitled)) {
            let state = state(&subscription.entitled);
            subscription.sender.send_if_modified(|current| {
                let differs = !is_same(current, &state);
                if differs {
                    *current = Arc::new(state);
                }
                differs
            });
        }
    }

    /// What somebody listens for, each with claims of one who does.
    pub(super) fn wanted(&self) -> HashMap<&SpiffeId, &Arc<Claims>> {
        let heard = self.0.values().filter(|subscription| subscription.is_heard());
        heard.flat_map(|one| one.entitled.iter().map(move |id| (id, &one.claims))).collect()
    }

    /// How many workloads listen for each identity.
    pub(super) fn listeners(&self) -> HashMap<SpiffeId, usize> {
        let mut listeners = HashMap::new();
        for subscription in self.0.values() {
            for id in &subscription.entitled {
                *listeners.entry(id.clone()).or_default() += subscription.sender.receiver_count();
            }
        }
        listeners
    }

    pub(super) fn listening(&self) -> usize {
        self.0.values().map(|subscription| subscription.sender.receiver_count()).sum()
    }
}

impl Subscription {
    fn is_heard(&self) -> bool {
        self.sender.receiver_count() > 0
    }
}

fn is_same(one: &X509State, other: &X509State) -> bool {
    one.svids.len() == other.svids.len()
        && one.svids.iter().zip(&other.svids).all(|(one, other)| Arc::ptr_eq(one, other))
        && one.bundles == other.bundles
        && one.crls == other.crls
}
