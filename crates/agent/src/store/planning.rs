//! From what is held and wanted to what is asked for now.

use std::sync::Arc;
use std::time::Duration;

use chancery_api::AgentIdentity;
use chancery_rotate::client::{self, Life, Seed, Window, latest};
use chancery_types::{Claims, SpiffeId, Timestamp};

use super::{Held, Inner, Store};

/// One certificate to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// Whose.
    pub(crate) identity: Arc<AgentIdentity>,
    /// What a process that wants it was found to be.
    pub(crate) claims: Arc<Claims>,
}

/// What to do now.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Requests, the most urgent first.
    pub(crate) batches: Vec<Vec<Ask>>,
    /// When to look again.
    pub(crate) next: Option<Timestamp>,
}

impl Store {
    /// What is to be asked for at `now`. What it returns counts as asked for until it is installed or has failed.
    pub(crate) fn plan(&self, now: Timestamp) -> Work {
        let mut inner = self.lock();
        inner.subscriptions.drop_abandoned();
        self.drop_ended(&mut inner, now);
        self.drop_unwanted(&mut inner, now);

        let asks: Vec<Ask> = inner
            .subscriptions
            .wanted()
            .into_iter()
            .filter(|(id, _)| !inner.asking.contains(*id))
            .filter_map(|(id, claims)| {
                let identity = Arc::clone(inner.registry.find(id)?);
                Some(Ask { identity, claims: Arc::clone(claims) })
            })
            .collect();
        let held: Vec<client::Held> =
            asks.iter().map(|ask| inner.plannable(&ask.identity.spiffe_id, now)).collect();
        let plan = client::plan(&held, now);

        let mut room = self.limits.svids.saturating_sub(inner.held.len());
        let mut work = Work { batches: Vec::new(), next: plan.next.map(|wake| wake.at) };
        for batch in plan.batches {
            let mut chosen = Vec::with_capacity(batch.members.len());
            for member in batch.members {
                let ask = asks[member.held].clone();
                let id = &ask.identity.spiffe_id;
                if !inner.held.contains_key(id) {
                    if room == 0 {
                        tracing::warn!(identity = %id, limit = self.limits.svids, "limits.svids is reached");
                        continue;
                    }
                    room -= 1;
                }
                inner.asking.insert(id.clone());
                chosen.push(ask);
            }
            if !chosen.is_empty() {
                work.batches.push(chosen);
            }
        }
        // Whoever is served a certificate that ends is told when it does.
        let ends = inner.held.values().map(|held| held.svid.not_after).min();
        work.next = [work.next, ends].into_iter().flatten().min();
        work
    }

    /// Whether an identity of these claims is still to be asked for.
    pub(super) fn is_pending(&self, claims: &Claims) -> bool {
        let now = self.pace.now();
        let mut inner = self.lock();
        let matching = inner.registry.matching(claims);
        matching.iter().any(|identity| {
            let id = &identity.spiffe_id;
            let served = inner.held.get(id).is_some_and(|held| now < held.svid.not_after);
            let hopeless = !inner.asking.contains(id)
                && (inner.failed.contains_key(id) && client::due(&inner.plannable(id, now), now).at > now
                    || inner.held.len() >= self.limits.svids);
            !served && !hopeless
        })
    }

    fn drop_ended(&self, inner: &mut Inner, now: Timestamp) {
        let ended: Vec<SpiffeId> = inner
            .held
            .iter()
            .filter(|(_, held)| held.svid.not_after <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &ended {
            tracing::error!(identity = %id, "its certificate has ended and no new one came; it is withdrawn");
            inner.held.remove(id);
        }
        self.tell_of(inner, &ended);
    }

    /// What nobody listens for is let go when it would be due, or when there is no room: the longest unwanted first.
    fn drop_unwanted(&self, inner: &mut Inner, now: Timestamp) {
        let wanted = inner.subscriptions.wanted();
        let mut unwanted: Vec<(Timestamp, SpiffeId)> = inner
            .held
            .iter()
            .filter(|(id, _)| !wanted.contains_key(*id))
            .map(|(id, held)| (held.wanted, id.clone()))
            .collect();
        unwanted.sort();
        for (_, id) in unwanted {
            let full = inner.held.len() >= self.limits.svids;
            if full || client::due(&inner.plannable(&id, now), now).at <= now {
                inner.held.remove(&id);
                inner.failed.remove(&id);
            }
        }
        let Inner { failed, registry, .. } = inner;
        failed.retain(|id, _| registry.find(id).is_some());
    }
}

impl Inner {
    /// When an identity's certificate will be asked for, if it is wanted.
    pub(super) fn next_attempt(&self, id: &SpiffeId, now: Timestamp) -> Option<Timestamp> {
        self.held.contains_key(id).then(|| client::due(&self.plannable(id, now), now).at)
    }

    fn plannable(&self, id: &SpiffeId, now: Timestamp) -> client::Held {
        let held = self.held.get(id);
        let at_once = Window { from: now, until: now };
        client::Held {
            seed: Seed::of(&[&self.salt, id.as_str().as_bytes()].concat()),
            life: held.map(Held::life),
            window: held.and_then(Held::window),
            asked: held
                .and_then(|held| held.asked.or_else(|| held.is_overdue_by_elapsed_time().then_some(at_once))),
            failed: self.failed.get(id).map(|failure| failure.failed),
        }
    }
}

impl Held {
    fn life(&self) -> Life {
        Life { from: self.from, until: self.svid.not_after }
    }

    /// The part of the authority's window that leaves half of a life for an authority that is away. All of a window
    /// that lies behind it would be one moment, the same for everybody; without one, moments are spread.
    fn window(&self) -> Option<Window> {
        let until = self.window.until.min(latest(self.life()));
        (self.window.from < until).then_some(Window { from: self.window.from, until })
    }

    /// A clock that was set back does not make a certificate last longer: what elapsed counts too.
    fn is_overdue_by_elapsed_time(&self) -> bool {
        let life = self.life();
        !life.length().is_zero() && self.received.elapsed() > latest(life).since(life.from) + SLACK
    }
}

/// What the two ways of telling time may differ by.
const SLACK: Duration = Duration::from_secs(5);
