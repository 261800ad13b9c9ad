//! Whom we talk to, of those who are who they say.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use chancery_types::{SpiffeId, TrustDomain};

/// The peers that are allowed. Nobody, until somebody is named; clones are cheap.
#[derive(Clone, Default)]
pub struct Allowed(Vec<Rule>);

#[derive(Clone)]
enum Rule {
    Members(TrustDomain),
    Ids(Arc<BTreeSet<SpiffeId>>),
    Below(SpiffeId),
    When(Arc<dyn Fn(&SpiffeId) -> bool + Send + Sync>),
}

impl Allowed {
    /// Every member of a trust domain.
    #[must_use]
    pub fn members_of(domain: TrustDomain) -> Self {
        Self(vec![Rule::Members(domain)])
    }

    /// These alone.
    #[must_use]
    pub fn ids(ids: impl IntoIterator<Item = SpiffeId>) -> Self {
        Self(vec![Rule::Ids(Arc::new(ids.into_iter().collect()))])
    }

    /// This one and all whose path continues its path by whole segments: `spiffe://example.org/ns/prod` allows
    /// `spiffe://example.org/ns/prod/web` and not `spiffe://example.org/ns/production`.
    #[must_use]
    pub fn below(prefix: SpiffeId) -> Self {
        Self(vec![Rule::Below(prefix)])
    }

    /// Those of whom a function says so. It is asked in the middle of a handshake and must not wait.
    #[must_use]
    pub fn when(function: impl Fn(&SpiffeId) -> bool + Send + Sync + 'static) -> Self {
        Self(vec![Rule::When(Arc::new(function))])
    }

    /// And others.
    #[must_use]
    pub fn or(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Whether a peer is among them.
    #[must_use]
    pub fn allows(&self, id: &SpiffeId) -> bool {
        self.0.iter().any(|rule| rule.allows(id))
    }
}

impl Rule {
    fn allows(&self, id: &SpiffeId) -> bool {
        match self {
            // The ID of the domain itself is an authority's, not a member's.
            Self::Members(domain) => id.trust_domain_name() == domain.as_str() && !id.path().is_empty(),
            Self::Ids(ids) => ids.contains(id),
            Self::Below(prefix) => id
                .as_str()
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::When(function) => function(id),
        }
    }
}

impl fmt::Debug for Allowed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(&self.0).finish()
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Members(domain) => write!(formatter, "members of {domain}"),
            Self::Ids(ids) => formatter.debug_set().entries(ids.iter().map(SpiffeId::as_str)).finish(),
            Self::Below(prefix) => write!(formatter, "below {prefix}"),
            Self::When(_) => formatter.write_str("by a function"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }

    #[test]
    fn allows_who_is_named_and_nobody_else() {
        let members = Allowed::members_of("example.org".parse().unwrap());
        let ids = Allowed::ids([id("spiffe://example.org/web"), id("spiffe://other.org/db")]);
        let below = Allowed::below(id("spiffe://example.org/ns/prod"));
        let function = Allowed::when(|id| id.path().ends_with("/web"));
        for (allowed, text, expected) in [
            (Allowed::default(), "spiffe://example.org/web", false),
            (members.clone(), "spiffe://example.org/web", true),
            (members.clone(), "spiffe://example.org", false),
            (members.clone(), "spiffe://example.org.evil/web", false),
            (ids.clone(), "spiffe://other.org/db", true),
            (ids.clone(), "spiffe://example.org/web/more", false),
            (below.clone(), "spiffe://example.org/ns/prod", true),
            (below.clone(), "spiffe://example.org/ns/prod/web", true),
            (below.clone(), "spiffe://example.org/ns/production", false),
            (below.clone(), "spiffe://other.org/ns/prod/web", false),
            (function.clone(), "spiffe://other.org/web", true),
            (function, "spiffe://other.org/db", false),
            (ids.or(below), "spiffe://example.org/ns/prod/web", true),
        ] {
            assert_eq!(allowed.allows(&id(text)), expected, "{allowed:?} {text}");
        }
    }
}
