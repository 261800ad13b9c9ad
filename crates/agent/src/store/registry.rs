//! The identities of this node, and which of them a process is.
//!
//! Every set of claims that makes a process an identity is filed under one claim of it, the one that the fewest
//! other sets are filed under. Whose claims are known, is looked up claim by claim, and only what is found there is
//! compared in full: with ten thousand identities a process is still compared with a handful.
//!
//! What a template makes of a process is filed as an identity of its own as soon as such a process is seen, until the
//! authority has registered it and says more of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chancery_api::{AgentIdentity, AgentTemplate};
use chancery_types::{Claims, Selectors, SpiffeId, TrustDomain};

use crate::workload::{Depth, EXECUTABLE_HASH};

/// The identities, and where to look for them.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: HashMap<SpiffeId, Entry>,
    /// Claim name, then value, to the identities filed there.
    index: HashMap<String, HashMap<String, BTreeSet<SpiffeId>>>,
    trust_domain: Option<TrustDomain>,
    /// By name.
    templates: BTreeMap<String, AgentTemplate>,
    /// What templates made and the authority has not spoken of, each with its template.
    made: HashMap<SpiffeId, String>,
    /// How many entries ask for the hash of an executable.
    hashed: usize,
    /// What the authority took away: no template makes it again until the authority says so.
    barred: HashSet<SpiffeId>,
}

#[derive(Debug)]
struct Entry {
    identity: Arc<AgentIdentity>,
    filed: Vec<(String, String)>,
}

impl Entry {
    fn asks_for_hash(&self) -> bool {
        sets(&self.identity).any(|set| set.names(EXECUTABLE_HASH))
    }
}

impl Registry {
    /// How closely a process has to be looked at before it can be matched.
    pub(super) fn depth(&self) -> Depth {
        let asks = |template: &AgentTemplate| {
            template.selectors.names(EXECUTABLE_HASH)
                || template.path.contains(&format!("{{{EXECUTABLE_HASH}}}"))
        };
        if self.hashed > 0 || self.templates.values().any(asks) { Depth::Content } else { Depth::Facts }
    }

    /// Files what the authority says of an identity, in place of an earlier one of that name, which is returned.
    pub(super) fn insert(&mut self, identity: AgentIdentity) -> Option<Arc<AgentIdentity>> {
        self.made.remove(&identity.spiffe_id);
        self.barred.remove(&identity.spiffe_id);
        self.file(identity)
    }

    fn file(&mut self, identity: AgentIdentity) -> Option<Arc<AgentIdentity>> {
        let before = self.remove(&identity.spiffe_id);
        let filed = sets(&identity).filter_map(|set| self.least_crowded(set)).collect::<Vec<_>>();
        for (name, value) in &filed {
            let values = self.index.entry(name.clone()).or_default();
            values.entry(value.clone()).or_default().insert(identity.spiffe_id.clone());
        }
        let entry = Entry { identity: Arc::new(identity), filed };
        self.hashed += usize::from(entry.asks_for_hash());
        self.entries.insert(entry.identity.spiffe_id.clone(), entry);
        before
    }

    pub(super) fn remove(&mut self, id: &SpiffeId) -> Option<Arc<AgentIdentity>> {
        let entry = self.entries.remove(id)?;
        self.made.remove(id);
        self.hashed -= usize::from(entry.asks_for_hash());
        for (name, value) in &entry.filed {
            let Some(values) = self.index.get_mut(name) else { continue };
            if let Some(ids) = values.get_mut(value) {
                ids.remove(id);
                if ids.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.index.remove(name);
            }
        }
        Some(entry.identity)
    }

    /// Makes no template give this name to anybody.
    pub(super) fn bar(&mut self, id: &SpiffeId) {
        if !self.templates.is_empty() && self.barred.len() < MAX_MADE {
            self.barred.insert(id.clone());
        }
    }

    /// Whose members all of them are, once that is known.
    pub(super) fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }

    /// Takes over all templates, in place of those that were known; nothing is barred any more.
    pub(super) fn use_templates(&mut self, trust_domain: TrustDomain, templates: Vec<AgentTemplate>) {
        self.trust_domain = Some(trust_domain);
        self.templates = templates.into_iter().map(|template| (template.name.clone(), template)).collect();
        self.barred.clear();
    }

    pub(super) fn insert_template(&mut self, template: AgentTemplate) {
        self.templates.insert(template.name.clone(), template);
    }

    /// Forgets a template; returns what it made and the authority has not registered yet.
    pub(super) fn remove_template(&mut self, name: &str) -> Vec<SpiffeId> {
        self.templates.remove(name);
        let made = self.made.iter().filter(|(_, template)| *template == name);
        made.map(|(id, _)| id.clone()).collect()
    }

    /// Files what the templates make of a process with these claims. What two of them would make is nobody's: the
    /// authority could not tell which was meant either.
    fn make(&mut self, claims: &Claims) {
        let Some(trust_domain) = &self.trust_domain else { return };
        let mut made: BTreeMap<SpiffeId, Option<(AgentIdentity, String)>> = BTreeMap::new();
        for template in self.templates.values() {
            if let Some(identity) = template.make(trust_domain, claims) {
                let id = identity.spiffe_id.clone();
                let only = Some((identity, template.name.clone()));
                made.entry(id).and_modify(|one| *one = None).or_insert(only);
            }
        }
        for (id, only) in made {
            let Some((identity, template)) = only else { continue };
            let is_known = self.entries.contains_key(&id) || self.barred.contains(&id);
            if !is_known && self.made.len() < MAX_MADE {
                self.file(identity);
                self.made.insert(id, template);
            }
        }
    }

    pub(super) fn find(&self, id: &SpiffeId) -> Option<&Arc<AgentIdentity>> {
        self.entries.get(id).map(|entry| &entry.identity)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<AgentIdentity>> {
        self.entries.values().map(|entry| &entry.identity)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What a process with these claims is: the identity that asked for the most of it first, so that the default
    /// is the most specific one.
    pub(super) fn matching(&mut self, claims: &Claims) -> Vec<Arc<AgentIdentity>> {
        self.make(claims);
        let mut found = BTreeMap::new();
        for (name, value) in claims.iter() {
            let Some(values) = self.index.get(name) else { continue };
            for text in value.texts() {
                for id in values.get(&text).into_iter().flatten() {
                    found.entry(id).or_insert_with(|| self.specificity(id, claims));
                }
            }
        }
        let mut matching: Vec<_> =
            found.into_iter().filter_map(|(id, depth)| Some((depth?, self.find(id)?))).collect();
        matching.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        matching.into_iter().map(|(_, identity)| Arc::clone(identity)).collect()
    }

    /// How many texts the largest of its sets asks for that these fulfil.
    fn specificity(&self, id: &SpiffeId, claims: &Claims) -> Option<usize> {
        sets(self.find(id)?).filter(|set| set.fulfilled_by(claims)).map(Selectors::len).max()
    }

    fn least_crowded(&self, set: &Selectors) -> Option<(String, String)> {
        let crowd = |name: &str, value: &str| {
            self.index.get(name).and_then(|values| values.get(value)).map_or(0, BTreeSet::len)
        };
        set.iter()
            .min_by_key(|(name, value)| crowd(name, value))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }
}

/// Identities that templates may make before the authority has spoken of any: more than a machine runs.
const MAX_MADE: usize = 16_384;

fn sets(identity: &AgentIdentity) -> impl Iterator<Item = &Selectors> {
    // An empty set would make everybody everything; an identity without sets is nobody's.
    std::iter::once(&identity.selectors).chain(&identity.alternatives).filter(|set| !set.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(name: &str, sets: serde_json::Value) -> AgentIdentity {
        let mut sets: Vec<Selectors> = serde_json::from_value(sets).unwrap();
        let selectors = if sets.is_empty() { Selectors::new() } else { sets.remove(0) };
        serde_json::from_value(json!({
            "spiffe_id": format!("spiffe://example.org/{name}"), "profile": "workload", "key_algorithm": "p256",
            "selectors": selectors, "alternatives": sets,
        }))
        .unwrap()
    }

    fn names(registry: &mut Registry, claims: serde_json::Value) -> Vec<String> {
        let claims: Claims = serde_json::from_value(claims).unwrap();
        let path =
            |identity: &Arc<AgentIdentity>| identity.spiffe_id.path().trim_start_matches('/').to_owned();
        registry.matching(&claims).iter().map(path).collect()
    }

    #[test]
    fn all_claims_of_a_set_must_hold_and_the_most_specific_identity_comes_first() {
        let mut registry = Registry::default();
        registry.insert(identity("any", json!([{"unix.uid": "1000"}])));
        registry.insert(identity("web", json!([{"unix.uid": "1000", "unix.path": "/usr/bin/web"}])));
        registry.insert(identity("other", json!([{"unix.uid": "1000", "unix.path": "/usr/bin/other"}])));
        let claims = json!({"unix.uid": "1000", "unix.path": "/usr/bin/web", "unix.gid": "1000"});
        assert_eq!(names(&mut registry, claims), ["web", "any"]);
        assert_eq!(names(&mut registry, json!({"unix.uid": "1001"})), [""; 0]);
    }

    #[test]
    fn an_alternative_serves_and_lists_hold_each_of_their_members() {
        let mut registry = Registry::default();
        registry.insert(identity("web", json!([{"unix.uid": "1"}, {"unix.supplementary_gid": "7"}])));
        assert_eq!(names(&mut registry, json!({"unix.supplementary_gid": ["6", "7"]})), ["web"]);
    }

    #[test]
    fn several_texts_of_one_claim_must_all_hold_and_make_an_identity_the_more_specific() {
        let mut registry = Registry::default();
        registry.insert(identity("web", json!([{"k8s.pod_label": "app:web"}])));
        registry.insert(identity("front", json!([{"k8s.pod_label": ["app:web", "tier:front"]}])));
        assert_eq!(
            names(&mut registry, json!({"k8s.pod_label": ["app:web", "tier:front"]})),
            ["front", "web"]
        );
        assert_eq!(names(&mut registry, json!({"k8s.pod_label": ["app:web", "tier:back"]})), ["web"]);
        assert_eq!(names(&mut registry, json!({"k8s.pod_label": "tier:front"})), [""; 0]);
    }

    #[test]
    fn an_identity_without_selectors_is_nobodys() {
        let mut registry = Registry::default();
        registry.insert(identity("open", json!([])));
        assert_eq!(names(&mut registry, json!({"unix.uid": "0"})), [""; 0]);
    }

    fn template(name: &str, path: &str) -> AgentTemplate {
        serde_json::from_value(json!({
            "name": name, "path": path, "selectors": {"k8s.cluster": "east"}, "profile": "workload",
            "key_algorithm": "p256",
        }))
        .unwrap()
    }

    fn with_templates(templates: &[(&str, &str)]) -> Registry {
        let mut registry = Registry::default();
        let templates = templates.iter().map(|(name, path)| template(name, path)).collect();
        registry.use_templates(TrustDomain::parse("example.org").unwrap(), templates);
        registry
    }

    #[test]
    fn a_template_makes_an_identity_of_whoever_fulfils_it_until_it_is_taken_away() {
        let mut registry = with_templates(&[("pods", "/ns/{k8s.ns}")]);
        let shop = json!({"k8s.cluster": "east", "k8s.ns": "shop"});
        assert_eq!(names(&mut registry, shop.clone()), ["ns/shop"]);
        assert_eq!(names(&mut registry, json!({"k8s.cluster": "east", "k8s.ns": "a/b"})), [""; 0]);
        assert_eq!(names(&mut registry, json!({"k8s.cluster": "west", "k8s.ns": "shop"})), [""; 0]);
        let id: SpiffeId = "spiffe://example.org/ns/shop".parse().unwrap();
        assert_eq!(registry.remove_template("pods"), std::slice::from_ref(&id));
        registry.insert_template(template("pods", "/ns/{k8s.ns}"));
        registry.remove(&id);
        registry.bar(&id);
        assert_eq!(names(&mut registry, shop.clone()), [""; 0], "the authority took it away");
        registry.insert(identity("ns/shop", json!([{"k8s.ns": "shop"}])));
        assert_eq!(names(&mut registry, shop), ["ns/shop"]);
        assert!(registry.remove_template("pods").is_empty(), "what is registered stays");
    }

    #[test]
    fn what_two_templates_would_make_is_nobodys() {
        let mut registry = with_templates(&[("a", "/ns/{k8s.ns}"), ("b", "/ns/{k8s.sa}")]);
        let claims = json!({"k8s.cluster": "east", "k8s.ns": "shop", "k8s.sa": "shop"});
        assert_eq!(names(&mut registry, claims), [""; 0]);
        let claims = json!({"k8s.cluster": "east", "k8s.ns": "shop", "k8s.sa": "web"});
        assert_eq!(names(&mut registry, claims), ["ns/shop", "ns/web"]);
    }

    #[test]
    fn what_was_changed_or_removed_is_found_no_more() {
        let mut registry = Registry::default();
        registry.insert(identity("web", json!([{"unix.uid": "1"}])));
        registry.insert(identity("web", json!([{"unix.uid": "2"}])));
        assert_eq!(names(&mut registry, json!({"unix.uid": "1"})), [""; 0]);
        assert_eq!(names(&mut registry, json!({"unix.uid": "2"})), ["web"]);
        assert!(registry.remove(&"spiffe://example.org/web".parse().unwrap()).is_some());
        assert!(registry.index.is_empty() && registry.entries.is_empty());
    }

    #[test]
    fn executables_are_read_only_while_somebody_asks_for_their_hash() {
        let mut registry = with_templates(&[("pods", "/ns/{k8s.ns}")]);
        registry.insert(identity("web", json!([{"unix.uid": "1"}])));
        assert_eq!(registry.depth(), Depth::Facts);
        registry.insert(identity("web", json!([{"unix.uid": "1"}, {"unix.sha256": "00"}])));
        assert_eq!(registry.depth(), Depth::Content);
        registry.insert(identity("web", json!([{"unix.uid": "2"}])));
        assert_eq!(registry.depth(), Depth::Facts);
        registry.insert_template(template("by-hash", "/program/{unix.sha256}"));
        assert_eq!(registry.depth(), Depth::Content);
        registry.remove_template("by-hash");
        assert_eq!(registry.depth(), Depth::Facts);
    }

    #[test]
    fn a_claim_that_everybody_asks_for_does_not_make_everybody_a_candidate() {
        let mut registry = Registry::default();
        for number in 0..1000 {
            let set = json!([{"unix.uid": "0", "unix.sha256": format!("{number:064x}")}]);
            registry.insert(identity(&format!("w{number}"), set));
        }
        let crowd =
            registry.index.get("unix.uid").and_then(|values| values.values().map(BTreeSet::len).max());
        let crowd = crowd.unwrap_or(0);
        assert!(crowd <= 1, "{crowd} identities are filed under the uid");
        let claims = json!({"unix.uid": "0", "unix.sha256": format!("{:064x}", 500)});
        assert_eq!(names(&mut registry, claims), ["w500"]);
    }
}
