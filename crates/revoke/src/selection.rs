//! Which certificates an operation is about.

use chancery_ledger::CertificateRecord;
use chancery_types::{Digest, IssuerEpoch, LineageId, Selector as ClaimSelector, SerialNumber, SpiffeId};
use serde::{Deserialize, Serialize};

/// What an operator names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// One certificate.
    Serial(SerialNumber),
    /// Every certificate of an identity.
    Identity(SpiffeId),
    /// Every certificate of an identity and of those below it in the path.
    Under(SpiffeId),
    /// Every certificate of an enrolment.
    Lineage(LineageId),
    /// Every certificate with this public key (SHA-256 of the SPKI).
    Key(Digest),
    /// Every certificate that the agent of this node asked for on behalf of a process.
    Node(SpiffeId),
    /// Every certificate whose evidence, or that of its enrolment, holds this claim; where neither speaks of the
    /// claim, whose identity asks for it.
    Claim(ClaimSelector),
    /// Every certificate of this owner's identities.
    Owner(String),
    /// Every certificate of this team's identities.
    Team(String),
    /// Every certificate of this environment's identities.
    Environment(String),
    /// Every certificate of this issuer.
    Issuer(IssuerEpoch),
}

impl std::fmt::Display for Selector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Serial(serial) => write!(formatter, "serial:{serial}"),
            Self::Identity(identity) => write!(formatter, "identity:{identity}"),
            Self::Under(identity) => write!(formatter, "under:{identity}"),
            Self::Lineage(lineage) => write!(formatter, "lineage:{lineage}"),
            Self::Key(key) => write!(formatter, "key:{key}"),
            Self::Node(node) => write!(formatter, "node:{node}"),
            Self::Claim(claim) => write!(formatter, "claim:{claim}"),
            Self::Owner(owner) => write!(formatter, "owner:{owner}"),
            Self::Team(team) => write!(formatter, "team:{team}"),
            Self::Environment(environment) => write!(formatter, "environment:{environment}"),
            Self::Issuer(epoch) => write!(formatter, "issuer:{epoch}"),
        }
    }
}

/// What every certificate of an operation matches: all of these selectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(Vec<Selector>);

impl Scope {
    /// Certificates that match this and every further selector.
    #[must_use]
    pub fn new(first: Selector, further: impl IntoIterator<Item = Selector>) -> Self {
        Self(std::iter::once(first).chain(further).collect())
    }

    /// Every certificate.
    pub(crate) fn everything() -> Self {
        Self(Vec::new())
    }

    /// The selectors.
    #[must_use]
    pub fn selectors(&self) -> &[Selector] {
        &self.0
    }

    /// The identity that it is about by name, whether or not that has any certificate.
    #[must_use]
    pub fn identity(&self) -> Option<&SpiffeId> {
        match self.0.as_slice() {
            [Selector::Identity(identity)] => Some(identity),
            _ => None,
        }
    }

    /// The lineage that it is, as a whole.
    #[must_use]
    pub fn lineage(&self) -> Option<LineageId> {
        match self.0.as_slice() {
            [Selector::Lineage(lineage)] => Some(*lineage),
            _ => None,
        }
    }

    /// What a record alone says; the rest is for the identity and the evidence to say.
    pub(crate) fn may_hold(&self, record: &CertificateRecord) -> bool {
        self.0.iter().all(|selector| match selector {
            Selector::Serial(serial) => record.serial == *serial,
            Selector::Identity(identity) => record.identity == *identity,
            Selector::Under(above) => is_under(&record.identity, above),
            Selector::Lineage(lineage) => record.lineage == *lineage,
            Selector::Key(key) => record.key == *key,
            Selector::Node(node) => record.node.as_ref() == Some(node),
            Selector::Issuer(epoch) => record.serial.epoch() == *epoch,
            Selector::Claim(_) | Selector::Owner(_) | Selector::Team(_) | Selector::Environment(_) => true,
        })
    }

    /// Whether it names few certificates: a search for them is short.
    pub(crate) fn is_narrow(&self) -> bool {
        use Selector::{Key, Lineage, Serial};
        self.0.iter().any(|selector| matches!(selector, Serial(_) | Lineage(_) | Key(_)))
    }

    /// Whether documents of identities decide.
    pub(crate) fn asks_identities(&self) -> bool {
        use Selector::{Environment, Owner, Team};
        self.0.iter().any(|selector| matches!(selector, Owner(_) | Team(_) | Environment(_)))
    }

    pub(crate) fn claims(&self) -> impl Iterator<Item = &ClaimSelector> {
        self.0.iter().filter_map(|selector| match selector {
            Selector::Claim(claim) => Some(claim),
            _ => None,
        })
    }
}

impl From<Selector> for Scope {
    fn from(selector: Selector) -> Self {
        Self(vec![selector])
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, selector) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(formatter, "{comma}{selector}")?;
        }
        Ok(())
    }
}

/// Whether an identity is this one, or stands below it: `a/b` stands below `a`, `ab` does not.
fn is_under(identity: &SpiffeId, above: &SpiffeId) -> bool {
    let rest = identity.as_str().strip_prefix(above.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_segments_of_a_path_are_below() {
        let id = |text: &str| text.parse::<SpiffeId>().unwrap();
        let above = id("spiffe://example.org/shop");
        for (identity, expected) in [
            ("spiffe://example.org/shop", true),
            ("spiffe://example.org/shop/web", true),
            ("spiffe://example.org/shopping", false),
            ("spiffe://example.org/other", false),
            ("spiffe://example.org", false),
        ] {
            assert_eq!(is_under(&id(identity), &above), expected, "{identity}");
        }
        assert!(is_under(&above, &id("spiffe://example.org")));
        assert!(!is_under(&id("spiffe://example.org.evil/x"), &id("spiffe://example.org")));
    }

    #[test]
    fn a_scope_reads_what_it_writes() {
        let scope = Scope::new(
            Selector::Claim("unix:sha256:00".parse().unwrap()),
            [Selector::Environment("prod".into()), Selector::Issuer(IssuerEpoch(7))],
        );
        let text = r#"[{"claim":"unix:sha256:00"},{"environment":"prod"},{"issuer":7}]"#;
        assert_eq!(serde_json::to_string(&scope).unwrap(), text);
        assert_eq!(serde_json::from_str::<Scope>(text).unwrap(), scope);
        assert_eq!(scope.to_string(), "claim:unix:sha256:00, environment:prod, issuer:7");
    }
}
