//! Which identities belong to which nodes, found without looking at all of them.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use chancery_types::{Claims, Identity, Selectors, SpiffeId};

/// Active identities that name nodes, by what names them.
#[derive(Debug, Default)]
pub(super) struct Roster {
    identities: HashMap<SpiffeId, Arc<Identity>>,
    by_parent: HashMap<SpiffeId, BTreeSet<SpiffeId>>,
    /// By one of the node selectors; whether all hold is checked on the identity itself.
    by_selector: HashMap<(String, String), BTreeSet<SpiffeId>>,
}

impl Roster {
    /// Puts an identity in its place, or takes it out; returns what was there.
    pub(super) fn put(&mut self, id: &SpiffeId, identity: Option<Arc<Identity>>) -> Option<Arc<Identity>> {
        let before = self.identities.remove(id);
        if let Some(before) = &before {
            for parent in &before.parents {
                remove(&mut self.by_parent, parent, id);
            }
            if let Some(selector) = first(&before.node_selectors) {
                remove(&mut self.by_selector, &selector, id);
            }
        }
        if let Some(identity) = identity.filter(|one| names_nodes(one)) {
            for parent in &identity.parents {
                self.by_parent.entry(parent.clone()).or_default().insert(id.clone());
            }
            if let Some(selector) = first(&identity.node_selectors) {
                self.by_selector.entry(selector).or_default().insert(id.clone());
            }
            self.identities.insert(id.clone(), identity);
        }
        before
    }

    pub(super) fn find(&self, id: &SpiffeId) -> Option<&Identity> {
        self.identities.get(id).map(AsRef::as_ref)
    }

    /// The identities of a node that has proved these claims, in the order of their names.
    pub(super) fn of(&self, node: &SpiffeId, claims: &Claims) -> Vec<Arc<Identity>> {
        let mut found: BTreeSet<&SpiffeId> = self.by_parent.get(node).into_iter().flatten().collect();
        for (name, value) in claims.iter() {
            for text in value.texts() {
                found.extend(self.by_selector.get(&(name.to_owned(), text)).into_iter().flatten());
            }
        }
        let identities = found.into_iter().filter_map(|id| self.identities.get(id));
        identities.filter(|identity| identity.is_served_by(node, claims)).cloned().collect()
    }
}

/// Whether any agent may ask for it.
pub(super) fn names_nodes(identity: &Identity) -> bool {
    !identity.parents.is_empty() || !identity.node_selectors.is_empty()
}

fn first(selectors: &Selectors) -> Option<(String, String)> {
    selectors.iter().next().map(|(name, text)| (name.to_owned(), text.to_owned()))
}

fn remove<K: Eq + Hash + Clone>(index: &mut HashMap<K, BTreeSet<SpiffeId>>, key: &K, id: &SpiffeId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://example.org/{name}").parse().unwrap()
    }

    fn identity(name: &str, parents: &[&str], selectors: &[(&str, &str)]) -> Arc<Identity> {
        let mut identity = Identity::new(id(name), "ada");
        identity.parents = parents.iter().map(|parent| id(parent)).collect();
        identity.node_selectors = selectors.iter().copied().collect();
        Arc::new(identity)
    }

    fn names(found: &[Arc<Identity>]) -> Vec<&str> {
        found.iter().map(|identity| identity.spiffe_id.path()).collect()
    }

    #[test]
    fn a_node_finds_what_names_it_and_what_its_claims_fulfil() {
        let mut roster = Roster::default();
        roster.put(&id("web"), Some(identity("web", &["a", "b"], &[])));
        roster.put(&id("db"), Some(identity("db", &[], &[("x509.ca", "racks"), ("x509.ou", "dc1")])));
        roster.put(&id("lost"), Some(identity("lost", &[], &[])));
        let mut claims = Claims::new();
        assert_eq!(names(&roster.of(&id("a"), &claims)), ["/web"]);
        assert!(roster.of(&id("c"), &claims).is_empty());
        claims.insert("x509.ca", "racks");
        assert!(roster.of(&id("c"), &claims).is_empty(), "one of two selectors is not enough");
        claims.insert("x509.ou", "dc1");
        assert_eq!(names(&roster.of(&id("a"), &claims)), ["/db", "/web"]);
    }

    #[test]
    fn what_is_taken_out_or_changed_leaves_nothing_behind() {
        let mut roster = Roster::default();
        roster.put(&id("web"), Some(identity("web", &["a"], &[("x509.ca", "racks")])));
        let before = roster.put(&id("web"), Some(identity("web", &["b"], &[])));
        assert_eq!(before.unwrap().parents, [id("a")]);
        assert!(roster.of(&id("a"), &Claims::new()).is_empty());
        assert!(roster.by_selector.is_empty());
        roster.put(&id("web"), None);
        assert!(roster.by_parent.is_empty() && roster.identities.is_empty());
    }
}
