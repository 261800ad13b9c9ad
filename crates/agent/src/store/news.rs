//! What the authority says: taken in, and told to everybody concerned before the next event is looked at.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chancery_api::{AgentEvent, AgentIdentity, AgentTemplate, BundleView};
use chancery_rotate::client::Window;
use chancery_types::{SerialNumber, SpiffeId, Timestamp, TrustDomain};

use super::{Held, Inner, Origin, Store, Wish, is_issued_alike, window};
use crate::identities::{Bundle, Bundles, X509Svid};

/// Serial numbers of withdrawn certificates that are remembered, for answers that the withdrawal overtook.
const REMEMBERED: usize = 4096;

impl Store {
    /// Takes one event of the stream in; everybody concerned has been told when this returns.
    pub(crate) fn take_in(&self, event: AgentEvent) {
        let revision = event.revision();
        match event {
            AgentEvent::Sync { identities, templates, bundle, federated, spread_milliseconds, .. } => {
                self.use_federated(&bundle.trust_domain, &federated);
                self.sync(identities, templates, &bundle, Duration::from_millis(spread_milliseconds));
            }
            AgentEvent::Changed { identity, spread_milliseconds, .. } => {
                self.change(*identity, Duration::from_millis(spread_milliseconds));
            }
            AgentEvent::Removed { spiffe_id, .. } => self.remove(&spiffe_id),
            AgentEvent::Template { template, .. } => self.use_template(*template),
            AgentEvent::TemplateRemoved { name, .. } => self.remove_template(&name),
            AgentEvent::Revoked { serials, .. } => self.withdraw(&serials),
            AgentEvent::Bundle { bundle, .. } => self.use_bundle(&bundle),
            AgentEvent::Renew { scope, recorded_before, until, .. } => {
                self.renew_early(Wish { scope, recorded_before, until });
            }
            AgentEvent::Heartbeat { .. } => {}
        }
        self.revision.send_replace(Some(revision));
    }

    /// The authority can be reached again: who has nothing because it could not be, is asked for now. Those who have
    /// something keep the moments that they were spread over, and who was told to wait waits.
    pub(crate) fn authority_is_back(&self) {
        let mut inner = self.lock();
        let Inner { failed, held, .. } = &mut *inner;
        failed.retain(|id, failure| held.contains_key(id) || failure.failed.retry_after.is_some());
        drop(inner);
        self.wake.notify_one();
    }

    fn sync(
        &self,
        identities: Vec<AgentIdentity>,
        templates: Vec<AgentTemplate>,
        bundle: &BundleView,
        spread: Duration,
    ) {
        let mut inner = self.lock();
        let named: HashSet<SpiffeId> = identities.iter().map(|identity| identity.spiffe_id.clone()).collect();
        let gone: Vec<SpiffeId> = inner
            .registry
            .iter()
            .map(|identity| identity.spiffe_id.clone())
            .filter(|id| !named.contains(id))
            .collect();
        for id in &gone {
            inner.forget(id);
        }
        inner.registry.use_templates(bundle.trust_domain.clone(), templates);
        for identity in identities {
            inner.take_over(identity, self.pace.now(), spread);
        }
        tracing::info!(
            identities = inner.registry.len(),
            gone = gone.len(),
            "synchronised with the authority"
        );
        self.replace_bundle(bundle);
        self.match_anew(&mut inner);
        drop(inner);
        self.attempt_ended();
    }

    fn change(&self, identity: AgentIdentity, spread: Duration) {
        let mut inner = self.lock();
        tracing::info!(identity = %identity.spiffe_id, "an identity is new or has changed");
        let id = identity.spiffe_id.clone();
        inner.failed.remove(&id);
        inner.take_over(identity, self.pace.now(), spread);
        self.match_one_anew(&mut inner, &id);
        drop(inner);
        self.attempt_ended();
    }

    fn remove(&self, id: &SpiffeId) {
        let mut inner = self.lock();
        tracing::info!(identity = %id, "an identity is this node's no more; it is withdrawn");
        inner.forget(id);
        inner.registry.bar(id);
        self.match_one_anew(&mut inner, id);
        drop(inner);
        self.attempt_ended();
    }

    fn use_template(&self, template: AgentTemplate) {
        let mut inner = self.lock();
        tracing::info!(template = template.name, "a template is new or has changed");
        for id in inner.registry.remove_template(&template.name) {
            inner.forget(&id);
        }
        inner.registry.insert_template(template);
        self.match_anew(&mut inner);
        drop(inner);
        self.attempt_ended();
    }

    fn remove_template(&self, name: &str) {
        let mut inner = self.lock();
        tracing::info!(template = name, "a template is this node's no more");
        for id in inner.registry.remove_template(name) {
            inner.forget(&id);
        }
        self.match_anew(&mut inner);
        drop(inner);
        self.attempt_ended();
    }

    /// Serves these certificates no more, from now on; for their identities others are asked for.
    pub(crate) fn withdraw(&self, serials: &[SerialNumber]) {
        let mut inner = self.lock();
        inner.withdrawn.extend(serials);
        let surplus = inner.withdrawn.len().saturating_sub(REMEMBERED);
        inner.withdrawn.drain(..surplus);
        let serials: HashSet<&SerialNumber> = serials.iter().collect();
        let ids: Vec<SpiffeId> = inner
            .held
            .iter()
            .filter(|(_, held)| serials.contains(&held.svid.serial))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &ids {
            tracing::warn!(identity = %id, "its certificate was revoked; it is withdrawn");
            inner.held.remove(id);
            inner.bereft.insert(id.clone());
        }
        self.tell_of(&inner, &ids);
        drop(inner);
        self.wake.notify_one();
    }

    fn renew_early(&self, wish: Wish) {
        let now = self.pace.now();
        let mut inner = self.lock();
        let Inner { held, crowd, wishes, .. } = &mut *inner;
        let meant = held.iter_mut().filter(|(id, held)| wish.means(id, held.svid.serial, &held.origin));
        let mut count = 0;
        for (_, held) in meant {
            held.ask(window(now, crowd.join(), Some(wish.until)));
            count += 1;
        }
        wishes.add(wish);
        drop(inner);
        tracing::info!(certificates = count, "the authority asks for certificates to be replaced early");
        self.wake.notify_one();
    }

    fn use_bundle(&self, bundle: &BundleView) {
        let inner = self.lock();
        tracing::info!(domain = %bundle.trust_domain, sequence = bundle.sequence, "a trust bundle has changed");
        if inner.registry.trust_domain().is_none_or(|own| *own == bundle.trust_domain) {
            self.replace_bundle(bundle);
        } else {
            self.keep_bundle(bundle);
        }
        self.tell_all(&inner);
    }

    /// Takes over the bundles of other trust domains; what is not among them is known no more. Whoever is concerned
    /// is told with what comes with them.
    fn use_federated(&self, own: &TrustDomain, federated: &[BundleView]) {
        let is_known = |domain: &TrustDomain| {
            domain == own || federated.iter().any(|bundle| bundle.trust_domain == *domain)
        };
        self.bundles.send_if_modified(|bundles| {
            let before = bundles.len();
            let mut next = Bundles::clone(bundles);
            next.retain(|domain, _| is_known(domain));
            let has_lost = next.len() != before;
            if has_lost {
                *bundles = Arc::new(next);
            }
            has_lost
        });
        federated
            .iter()
            .filter(|bundle| bundle.trust_domain != *own)
            .for_each(|bundle| self.keep_bundle(bundle));
    }

    fn replace_bundle(&self, view: &BundleView) {
        let authorities: Vec<Vec<u8>> =
            view.x509_authorities.iter().map(|root| root.as_der().to_vec()).collect();
        self.roots.send_replace(Arc::new(authorities));
        self.keep_bundle(view);
    }

    fn keep_bundle(&self, view: &BundleView) {
        let authorities = view.x509_authorities.iter().map(|root| root.as_der().to_vec()).collect();
        let jwt_keys = serde_json::to_vec(&view.jwt_keys).expect("a key set is plain JSON");
        let bundle = Bundle { x509_authorities: authorities, jwt_keys };
        self.bundles.send_if_modified(|bundles| {
            let known = bundles.get(&view.trust_domain).is_some_and(|known| **known == bundle);
            if !known {
                let mut next = Bundles::clone(bundles);
                next.insert(view.trust_domain.clone(), Arc::new(bundle));
                *bundles = Arc::new(next);
            }
            !known
        });
    }

    /// Finds out anew who is who, after the identities have changed.
    fn match_anew(&self, inner: &mut Inner) {
        self.look_as_closely_as_asked(inner);
        let Inner { registry, subscriptions, .. } = inner;
        subscriptions.match_all_anew(|claims| names(&registry.matching(claims)));
        self.tell_all(inner);
        self.wake.notify_one();
    }

    /// The same after one identity has changed, for those whom it concerns: of thousands of changes in a row, each
    /// costs a look at every listener's claims, and no more.
    fn match_one_anew(&self, inner: &mut Inner, id: &SpiffeId) {
        self.look_as_closely_as_asked(inner);
        let Inner { registry, subscriptions, .. } = inner;
        let identity = registry.find(id).cloned();
        let concerned = subscriptions
            .concerned(id, |claims| identity.as_ref().is_some_and(|identity| identity.matches(claims)));
        subscriptions.match_anew(&concerned, |claims| names(&registry.matching(claims)));
        let now = self.pace.now();
        inner.subscriptions.tell(&concerned, |entitled| self.state(inner, entitled, now));
        self.wake.notify_one();
    }
}

impl Store {
    fn look_as_closely_as_asked(&self, inner: &Inner) {
        let depth = inner.registry.depth();
        self.depth.send_if_modified(|current| std::mem::replace(current, depth) != depth);
    }
}

impl Inner {
    fn take_over(&mut self, identity: AgentIdentity, now: Timestamp, spread: Duration) {
        let id = identity.spiffe_id.clone();
        let before = self.registry.insert(identity);
        let (Some(before), Some(held)) = (before, self.held.get_mut(&id)) else { return };
        let Some(identity) = self.registry.find(&id) else { return };
        if !is_issued_alike(identity, &before) {
            held.ask(window(now, self.crowd.join().max(spread), None));
        }
        if identity.hint != before.hint || identity.federates_with != before.federates_with {
            // Both go with a certificate and are not in it.
            held.svid = Arc::new(X509Svid {
                hint: identity.hint.clone().unwrap_or_default(),
                federates_with: identity.federates_with.clone(),
                ..X509Svid::clone(&held.svid)
            });
        }
    }

    /// When a certificate that has just come is to be replaced already.
    pub(super) fn asked(
        &mut self,
        id: &SpiffeId,
        svid: &X509Svid,
        origin: &Origin,
        is_outdated: bool,
        now: Timestamp,
    ) -> Option<Window> {
        let deadline = self.wishes.deadline(id, svid.serial, origin);
        if is_outdated {
            return Some(window(now, self.crowd.join(), None));
        }
        deadline.map(|deadline| window(now, self.crowd.join(), Some(deadline)))
    }

    fn forget(&mut self, id: &SpiffeId) {
        self.registry.remove(id);
        self.held.remove(id);
        self.failed.remove(id);
        self.bereft.remove(id);
    }
}

impl Held {
    /// To be replaced in this window, or in an earlier one that it was asked for in before.
    fn ask(&mut self, window: Window) {
        self.asked = Some(self.asked.filter(|asked| asked.until <= window.until).unwrap_or(window));
    }
}

fn names(identities: &[Arc<AgentIdentity>]) -> Vec<SpiffeId> {
    identities.iter().map(|identity| identity.spiffe_id.clone()).collect()
}
