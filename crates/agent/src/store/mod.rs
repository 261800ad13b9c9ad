//! What this node may serve, and what is served of it: the one place where both meet.
//!
//! ```text
//! the stream says      identities, bundles, what is revoked      -> here, at once, to everybody concerned
//! a workload asks      which identities its claims make it       -> missing certificates are asked for
//! rotation installs    certificates that were verified           -> to everybody who is served them
//! ```
//! A certificate is wanted as long as a workload that is entitled to it listens. One that nobody listens for any
//! more is kept until it would be due, in case somebody comes back, and is not renewed: there is nobody left whom
//! the agent could vouch for. A certificate that has ended is never served, whatever else goes wrong.

mod news;
mod planning;
mod registry;
mod subscriptions;
mod wishes;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chancery_api::AgentIdentity;
use chancery_rotate::client::{Failed, Window};
use chancery_types::{Claims, Digest, SerialNumber, SpiffeId, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub(crate) use planning::Ask;
use registry::Registry;
use subscriptions::Subscriptions;
use wishes::{Crowd, Wishes, window};
pub(crate) use wishes::{Origin, Wish};

use crate::config::Limits;
use crate::identities::{Bundles, X509State, X509Svid};
use crate::timing::Pace;
use crate::workload::Depth;

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
    bundles: watch::Sender<Arc<Bundles>>,
    /// How closely processes have to be looked at.
    depth: watch::Sender<Depth>,
    /// The roots of our own trust domain, for those who verify.
    roots: watch::Sender<Arc<Vec<Vec<u8>>>>,
    /// Something may be due.
    wake: Notify,
    /// Rises when an attempt has ended, well or not.
    settled: watch::Sender<u64>,
    /// Rises with every event of the stream that was taken in.
    revision: watch::Sender<Option<u64>>,
    pace: Pace,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Inner {
    /// What tells the moments of this agent's renewals from those of others that serve the same identities.
    salt: [u8; 8],
    registry: Registry,
    held: HashMap<SpiffeId, Held>,
    failed: HashMap<SpiffeId, Failure>,
    /// What is being asked for at this moment.
    asking: HashSet<SpiffeId>,
    subscriptions: Subscriptions,
    withdrawn: VecDeque<SerialNumber>,
    /// Identities whose certificate was withdrawn, until there is another.
    bereft: HashSet<SpiffeId>,
    wishes: Wishes,
    crowd: Crowd,
    /// The authority asked everybody to wait.
    pause: Option<Timestamp>,
}

/// A certificate that is served.
#[derive(Debug, Clone)]
struct Held {
    svid: Arc<X509Svid>,
    /// When it came, by the clock and by elapsed time.
    from: Timestamp,
    received: Instant,
    window: Window,
    origin: Origin,
    /// The authority asked for an early renewal, or the identity has changed.
    asked: Option<Window>,
    /// When somebody last wanted it.
    wanted: Timestamp,
}

/// A certificate that was verified, and what the authority says of it.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) svid: X509Svid,
    /// When it would like it to be renewed.
    pub(crate) window: Window,
    pub(crate) origin: Origin,
}

/// Why there is no (new) certificate.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// For the plan.
    pub(crate) failed: Failed,
    /// Whether the authority has said no, for good.
    pub(crate) answer: Answer,
    /// For people.
    pub(crate) why: String,
}

/// What there was in place of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The authority has refused it.
    Refusal,
    /// No answer, or one that is no decision.
    Trouble,
}

/// How an identity stands: for `chancery agent status`.
#[derive(Debug, Clone)]
pub(crate) struct IdentityStanding {
    pub(crate) identity: Arc<AgentIdentity>,
    pub(crate) svid: Option<Arc<X509Svid>>,
    pub(crate) next: Option<Timestamp>,
    pub(crate) workloads: usize,
    pub(crate) failure: Option<Failure>,
}

impl Store {
    /// An empty store, which believes in these roots until the stream says more.
    pub(crate) fn new(roots: Vec<Vec<u8>>, pace: Pace, limits: Limits, salt: [u8; 8]) -> Self {
        Self {
            inner: Mutex::new(Inner { salt, ..Inner::default() }),
            bundles: watch::Sender::default(),
            depth: watch::Sender::default(),
            roots: watch::Sender::new(Arc::new(roots)),
            wake: Notify::new(),
            settled: watch::Sender::new(0),
            revision: watch::Sender::new(None),
            pace,
            limits,
        }
    }

    /// The revision up to which everything was taken in; none before the first synchronisation.
    pub(crate) fn revision(&self) -> watch::Receiver<Option<u64>> {
        self.revision.subscribe()
    }

    /// The roots of our own trust domain, now and at every change.
    pub(crate) fn roots(&self) -> watch::Receiver<Arc<Vec<Vec<u8>>>> {
        self.roots.subscribe()
    }

    /// All bundles, now and at every change.
    pub(crate) fn bundles(&self) -> watch::Receiver<Arc<Bundles>> {
        self.bundles.subscribe()
    }

    /// How closely processes have to be looked at to be matched, now and at every change.
    pub(crate) fn depth(&self) -> watch::Receiver<Depth> {
        self.depth.subscribe()
    }

    /// The state of whoever has these claims, now and at every change; what is missing has been asked for.
    pub(crate) fn subscribe(&self, claims: &Claims) -> Option<watch::Receiver<Arc<X509State>>> {
        let mut inner = self.lock();
        let key = Digest::of(&serde_json::to_vec(claims).expect("claims are plain JSON"));
        if !inner.subscriptions.contains(&key) && inner.subscriptions.len() >= self.limits.workloads {
            inner.subscriptions.drop_abandoned();
            if inner.subscriptions.len() >= self.limits.workloads {
                tracing::warn!(limit = self.limits.workloads, "more workloads than limits.workloads allows");
                return None;
            }
        }
        let now = self.pace.now();
        if !inner.subscriptions.contains(&key) {
            let entitled: Vec<_> =
                inner.registry.matching(claims).iter().map(|identity| identity.spiffe_id.clone()).collect();
            let state = self.state(&inner, &entitled, now);
            inner.subscriptions.add(key, claims, entitled, state);
        }
        let receiver = inner.subscriptions.listen(&key);
        let entitled = inner.subscriptions.entitled(&key).to_vec();
        for id in &entitled {
            if let Some(held) = inner.held.get_mut(id) {
                held.wanted = now;
            }
        }
        Some(receiver)
    }

    /// What a process with these claims is, the default first.
    pub(crate) fn matching(&self, claims: &Claims) -> Vec<Arc<AgentIdentity>> {
        self.lock().registry.matching(claims)
    }

    /// Whether a process with these claims has an identity, as far as the authority has not said otherwise: one whose
    /// certificate was revoked, or refused, is none until there is another.
    pub(crate) fn is_entitled(&self, claims: &Claims) -> bool {
        let mut inner = self.lock();
        inner.registry.matching(claims).iter().any(|identity| {
            let id = &identity.spiffe_id;
            let is_refused = inner.failed.get(id).is_some_and(|failure| failure.answer == Answer::Refusal);
            inner.held.contains_key(id) || !(is_refused || inner.bereft.contains(id))
        })
    }

    /// Serial numbers of the certificates that are held.
    pub(crate) fn held(&self) -> Vec<SerialNumber> {
        self.lock().held.values().map(|held| held.svid.serial).collect()
    }

    /// Whether this node may serve an identity.
    pub(crate) fn is_ours(&self, id: &SpiffeId) -> bool {
        self.lock().registry.find(id).is_some()
    }

    /// Returns when every identity of these claims has a certificate, or was asked for in vain.
    pub(crate) async fn settle(&self, claims: &Claims, patience: Duration) {
        let mut settled = self.settled.subscribe();
        let wait = async {
            loop {
                settled.borrow_and_update();
                if !self.is_pending(claims) {
                    return;
                }
                self.wake.notify_one();
                if settled.changed().await.is_err() {
                    return;
                }
            }
        };
        // Whoever waited in vain gets what there is.
        let _ = tokio::time::timeout(patience, wait).await;
    }

    /// Returns when something may be due that was not planned for.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Puts a certificate that was verified in the place of the old one. Refused when the identity is not ours any
    /// more, or the certificate was withdrawn before it came.
    pub(crate) fn install(&self, identity: &Arc<AgentIdentity>, arrival: Arrival) -> bool {
        let Arrival { svid, window, origin } = arrival;
        let now = self.pace.now();
        let mut inner = self.lock();
        let id = &identity.spiffe_id;
        inner.asking.remove(id);
        let current = inner.registry.find(id).cloned();
        let accepted = current.is_some() && !inner.withdrawn.contains(&svid.serial);
        if accepted {
            // It was made for what the identity was when it was asked for.
            let outdated = current.is_some_and(|current| !is_issued_alike(&current, identity));
            let asked = inner.asked(id, &svid, &origin, outdated, now);
            let held = Held {
                svid: Arc::new(svid),
                from: now,
                received: Instant::now(),
                window,
                origin,
                asked,
                wanted: now,
            };
            inner.held.insert(id.clone(), held);
            inner.failed.remove(id);
            inner.bereft.remove(id);
            self.tell_of(&inner, std::slice::from_ref(id));
        }
        drop(inner);
        self.attempt_ended();
        accepted
    }

    /// An attempt has failed; what is in use stays in use.
    pub(crate) fn fail(&self, ids: &[SpiffeId], failed: Failed, answer: Answer, why: &str) {
        let mut inner = self.lock();
        for id in ids {
            inner.asking.remove(id);
            let attempts = inner.failed.get(id).map_or(0, |failure| failure.failed.attempts) + 1;
            let failed = Failed { attempts, ..failed };
            inner.failed.insert(id.clone(), Failure { failed, answer, why: why.to_owned() });
        }
        drop(inner);
        self.attempt_ended();
    }

    /// Nothing counts as asked for any more: whatever was is asked for anew, at worst twice.
    pub(crate) fn forget_attempts(&self) {
        self.lock().asking.clear();
        self.attempt_ended();
    }

    /// Nobody asks before this moment: the authority has asked for it.
    pub(crate) fn pause_until(&self, moment: Timestamp) {
        let mut inner = self.lock();
        inner.pause = inner.pause.max(Some(moment));
    }

    /// How long everybody was asked to wait, from now.
    pub(crate) fn pause(&self, now: Timestamp) -> Option<Duration> {
        self.lock().pause.map(|until| until.since(now)).filter(|left| !left.is_zero())
    }

    /// How every identity stands, by name.
    pub(crate) fn standing(&self) -> Vec<IdentityStanding> {
        let now = self.pace.now();
        let inner = self.lock();
        let listeners = inner.subscriptions.listeners();
        let mut all: Vec<_> = inner
            .registry
            .iter()
            .map(|identity| IdentityStanding {
                svid: inner.held.get(&identity.spiffe_id).map(|held| Arc::clone(&held.svid)),
                next: inner.next_attempt(&identity.spiffe_id, now),
                workloads: listeners.get(&identity.spiffe_id).copied().unwrap_or(0),
                failure: inner.failed.get(&identity.spiffe_id).cloned(),
                identity: Arc::clone(identity),
            })
            .collect();
        drop(inner);
        all.sort_by(|one, other| one.identity.spiffe_id.cmp(&other.identity.spiffe_id));
        all
    }

    /// Workloads that listen.
    pub(crate) fn workloads(&self) -> usize {
        self.lock().subscriptions.listening()
    }

    fn tell_all(&self, inner: &Inner) {
        let now = self.pace.now();
        inner.subscriptions.tell_all(|entitled| self.state(inner, entitled, now));
    }

    fn tell_of(&self, inner: &Inner, ids: &[SpiffeId]) {
        let now = self.pace.now();
        inner.subscriptions.tell_of(ids, |entitled| self.state(inner, entitled, now));
    }

    fn state(&self, inner: &Inner, entitled: &[SpiffeId], now: Timestamp) -> X509State {
        let svids: Vec<_> = entitled
            .iter()
            .filter_map(|id| inner.held.get(id))
            .filter(|held| now < held.svid.not_after)
            .map(|held| Arc::clone(&held.svid))
            .collect();
        let known = self.bundles.borrow();
        let mut bundles = Bundles::new();
        for svid in &svids {
            let own = svid.spiffe_id.trust_domain();
            for domain in std::iter::once(&own).chain(&svid.federates_with) {
                if let Some(bundle) = known.get(domain) {
                    bundles.insert(domain.clone(), Arc::clone(bundle));
                }
            }
        }
        X509State { svids, bundles, crls: Vec::new() }
    }

    fn attempt_ended(&self) {
        self.settled.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the certificates of both would look the same.
fn is_issued_alike(one: &AgentIdentity, other: &AgentIdentity) -> bool {
    one.profile == other.profile
        && one.key_algorithm == other.key_algorithm
        && one.lifetime == other.lifetime
        && one.dns_names == other.dns_names
}
