//! The identities of this node, and which of them a process is.
//!
//! Every set of claims that makes a process an identity is filed under one claim of it, the one that the fewest
//! other sets are filed under. Whose claims are known, is looked up claim by claim, and only what is found there is
//! compared in full: with ten thousand identities a process is still compared with a handful.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chancery_api::AgentIdentity;
use chancery_types::{Claims, Selectors, SpiffeId};

/// The identities, and where to look for them.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: HashMap<SpiffeId, Entry>,
    /// Claim name, then value, to the identities filed there.
    index: HashMap<String, HashMap<String, BTreeSet<SpiffeId>>>,
}

#[derive(Debug)]
struct Entry {
    identity: Arc<AgentIdentity>,
    filed: Vec<(String, String)>,
}

impl Registry {
    /// Files an identity, in place of an earlier one of that name, which is returned.
    pub(super) fn insert(&mut self, identity: AgentIdentity) -> Option<Arc<AgentIdentity>> {
        let before = self.remove(&identity.spiffe_id);
        let filed = sets(&identity).filter_map(|set| self.least_crowded(set)).collect::<Vec<_>>();
        for (name, value) in &filed {
            let values = self.index.entry(name.clone()).or_default();
            values.entry(value.clone()).or_default().insert(identity.spiffe_id.clone());
        }
        let entry = Entry { identity: Arc::new(identity), filed };
        self.entries.insert(entry.identity.spiffe_id.clone(), entry);
        before
    }

    pub(super) fn remove(&mut self, id: &SpiffeId) -> Option<Arc<AgentIdentity>> {
        let entry = self.entries.remove(id)?;
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
    pub(super) fn matching(&self, claims: &Claims) -> Vec<Arc<AgentIdentity>> {
        let mut found = BTreeMap::new();
        for (name, value) in claims.iter() {
            let Some(values) = self.index.get(name) else { continue };
            for text in value.texts() {
                for id in values.get(&text).into_iter().flatten() {
                    found.entry(id).or_insert_with(|| self.depth(id, claims));
                }
            }
        }
        let mut matching: Vec<_> =
            found.into_iter().filter_map(|(id, depth)| Some((depth?, self.find(id)?))).collect();
        matching.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        matching.into_iter().map(|(_, identity)| Arc::clone(identity)).collect()
    }

    /// How many texts the largest of its sets asks for that these fulfil.
    fn depth(&self, id: &SpiffeId, claims: &Claims) -> Option<usize> {
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

    fn names(registry: &Registry, claims: serde_json::Value) -> Vec<String> {
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
        assert_eq!(names(&registry, claims), ["web", "any"]);
        assert_eq!(names(&registry, json!({"unix.uid": "1001"})), [""; 0]);
    }

    #[test]
    fn an_alternative_serves_and_lists_hold_each_of_their_members() {
        let mut registry = Registry::default();
        registry.insert(identity("web", json!([{"unix.uid": "1"}, {"unix.supplementary_gid": "7"}])));
        assert_eq!(names(&registry, json!({"unix.supplementary_gid": ["6", "7"]})), ["web"]);
    }

    #[test]
    fn several_texts_of_one_claim_must_all_hold_and_make_an_identity_the_more_specific() {
        let mut registry = Registry::default();
        registry.insert(identity("web", json!([{"k8s.pod_label": "app:web"}])));
        registry.insert(identity("front", json!([{"k8s.pod_label": ["app:web", "tier:front"]}])));
        assert_eq!(names(&registry, json!({"k8s.pod_label": ["app:web", "tier:front"]})), ["front", "web"]);
        assert_eq!(names(&registry, json!({"k8s.pod_label": ["app:web", "tier:back"]})), ["web"]);
        assert_eq!(names(&registry, json!({"k8s.pod_label": "tier:front"})), [""; 0]);
    }

    #[test]
    fn an_identity_without_selectors_is_nobodys() {
        let mut registry = Registry::default();
        registry.insert(identity("open", json!([])));
        assert_eq!(names(&registry, json!({"unix.uid": "0"})), [""; 0]);
    }

    #[test]
    fn what_was_changed_or_removed_is_found_no_more() {
        let mut registry = Registry::default();
        registry.insert(identity("web", json!([{"unix.uid": "1"}])));
        registry.insert(identity("web", json!([{"unix.uid": "2"}])));
        assert_eq!(names(&registry, json!({"unix.uid": "1"})), [""; 0]);
        assert_eq!(names(&registry, json!({"unix.uid": "2"})), ["web"]);
        assert!(registry.remove(&"spiffe://example.org/web".parse().unwrap()).is_some());
        assert!(registry.index.is_empty() && registry.entries.is_empty());
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
        assert_eq!(names(&registry, claims), ["w500"]);
    }
}
