//! The registered identity: whose it is, what it may be called, and what it takes to be it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    AssuranceLevel, Claims, DnsName, EmailAddress, HumanDuration, KeyAlgorithm, Selectors, SpiffeId,
    SubjectName, Timestamp, TrustDomain,
};

/// How bad it is when this identity is abused. Policy reads it; nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Sensitivity {
    /// A nuisance.
    Low,
    /// A bad day.
    #[default]
    Medium,
    /// An incident.
    High,
    /// The company.
    Critical,
}

impl Sensitivity {
    /// 0 (low) to 3 (critical).
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// A text is not a sensitivity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sensitivity; use low, medium, high or critical")]
pub struct UnknownSensitivity(String);

impl FromStr for Sensitivity {
    type Err = UnknownSensitivity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "low" => Ok(Self::Low),
            "medium" => Ok(Self::Medium),
            "high" => Ok(Self::High),
            "critical" => Ok(Self::Critical),
            _ => Err(UnknownSensitivity(text.chars().take(40).collect())),
        }
    }
}

/// What an operator may do; each action names the roles that policy permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything, including policy, profiles and other operators.
    Admin,
    /// Identities, tokens, revocation.
    Operator,
    /// Reads everything, exports the log.
    Auditor,
    /// Reads identities, certificates and status.
    Viewer,
}

impl Role {
    /// Every role, the mightiest first.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Auditor, Self::Viewer];

    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role; use admin, operator, auditor or viewer")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.chars().take(40).collect()))
    }
}

/// Whether an identity may be issued to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityState {
    /// Yes.
    Active,
    /// Not now: enrolment and renewal are refused until it is released.
    Held,
    /// Never again: the name is tombstoned.
    Retired,
}

/// A registered identity. Its SPIFFE ID is its key; the other names are what its certificates may also carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The name that everything else hangs on; unique, never reused after retirement.
    pub spiffe_id: SpiffeId,
    /// DNS names that its certificates may carry; a wildcard needs a profile that allows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<DnsName>,
    /// IP addresses that its certificates may carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_addresses: Vec<IpAddr>,
    /// Email addresses that its certificates may carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email_addresses: Vec<EmailAddress>,
    /// Who answers for it. No owner, no issuance.
    #[serde(default)]
    pub owner: String,
    /// The owner's team.
    #[serde(default)]
    pub team: String,
    /// What it is for, in a sentence.
    #[serde(default)]
    pub purpose: String,
    /// `prod`, `staging`, ...; policy keeps environments apart.
    #[serde(default)]
    pub environment: String,
    /// How bad abuse of it is.
    #[serde(default)]
    pub sensitivity: Sensitivity,
    /// When somebody has to look at it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review_by: Option<Timestamp>,
    /// When it ends; no certificate outlives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Profiles it may be issued under; the first is the default. Empty: `workload` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Key algorithms it may use; empty: what the profile allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_algorithms: Vec<KeyAlgorithm>,
    /// A lifetime shorter than the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<HumanDuration>,
    /// The least assurance that its evidence must reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_assurance: Option<AssuranceLevel>,
    /// Claims that must hold for evidence to be evidence of this identity: all of them.
    #[serde(default, skip_serializing_if = "Selectors::is_empty")]
    pub selectors: Selectors,
    /// Sets of claims of which each serves as well as `selectors`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Selectors>,
    /// Nodes whose agents may ask for it on behalf of a process that fulfils its selectors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<SpiffeId>,
    /// Claims that make any node that fulfils them such a parent: all of them. With neither these nor `parents`, no
    /// agent may ask for it.
    #[serde(default, skip_serializing_if = "Selectors::is_empty")]
    pub node_selectors: Selectors,
    /// How programs with several identities tell them apart (SPIFFE Workload API).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Other trust domains whose members it deals with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<TrustDomain>,
    /// For operators' identities: what they may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// Why a document is not a usable identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The SPIFFE ID has no path: that is the trust domain itself, which is nobody's workload.
    #[error("{0} names a trust domain; an identity needs a path")]
    NoPath(SpiffeId),
    /// A text field is too long or has control characters.
    #[error("{field} must have at most {limit} characters and no control characters")]
    Field {
        /// The field.
        field: &'static str,
        /// Its limit.
        limit: usize,
    },
    /// A list has too many members.
    #[error("{field} has {count} members, at most {limit} are allowed")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Members given.
        count: usize,
        /// Members allowed.
        limit: usize,
    },
    /// A set of selectors that everything would fulfil.
    #[error("an alternative has no selectors, so that anything would match it; leave it out")]
    EmptyAlternative,
    /// A parent of another trust domain, whose nodes are not ours to attest.
    #[error("{0} is of another trust domain; a parent is a node of this one")]
    ForeignParent(SpiffeId),
    /// It federates with its own trust domain.
    #[error("{0} is this trust domain; federates_with names others")]
    FederatesWithItself(TrustDomain),
}

impl Identity {
    /// The least that an identity is: a name and an owner; everything else is left to its default.
    #[must_use]
    pub fn new(spiffe_id: SpiffeId, owner: &str) -> Self {
        Self {
            spiffe_id,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            email_addresses: Vec::new(),
            owner: owner.to_owned(),
            team: String::new(),
            purpose: String::new(),
            environment: String::new(),
            sensitivity: Sensitivity::default(),
            review_by: None,
            expires: None,
            profiles: Vec::new(),
            key_algorithms: Vec::new(),
            max_lifetime: None,
            minimum_assurance: None,
            selectors: Selectors::new(),
            alternatives: Vec::new(),
            parents: Vec::new(),
            node_selectors: Selectors::new(),
            hint: String::new(),
            federates_with: Vec::new(),
            role: None,
        }
    }

    /// Checks what the field types cannot.
    ///
    /// # Errors
    /// [`IdentityError`], the first found.
    pub fn check(&self) -> Result<(), IdentityError> {
        if self.spiffe_id.path().is_empty() {
            return Err(IdentityError::NoPath(self.spiffe_id.clone()));
        }
        let texts = [
            ("owner", &self.owner, 256),
            ("team", &self.team, 256),
            ("purpose", &self.purpose, 1024),
            ("environment", &self.environment, 64),
            ("hint", &self.hint, 1024),
        ];
        for (field, text, limit) in texts {
            if text.chars().count() > limit || text.chars().any(char::is_control) {
                return Err(IdentityError::Field { field, limit });
            }
        }
        let lists = [
            ("dns_names", self.dns_names.len(), 64),
            ("ip_addresses", self.ip_addresses.len(), 64),
            ("email_addresses", self.email_addresses.len(), 64),
            ("profiles", self.profiles.len(), 16),
            ("selectors", self.selectors.len(), 32),
            ("alternatives", self.alternatives.len(), 16),
            ("alternatives", self.alternatives.iter().map(Selectors::len).max().unwrap_or(0), 32),
            ("parents", self.parents.len(), 64),
            ("node_selectors", self.node_selectors.len(), 32),
            ("federates_with", self.federates_with.len(), 32),
        ];
        for (field, count, limit) in lists {
            if count > limit {
                return Err(IdentityError::TooMany { field, count, limit });
            }
        }
        self.check_relations()
    }

    fn check_relations(&self) -> Result<(), IdentityError> {
        if self.alternatives.iter().any(Selectors::is_empty) {
            return Err(IdentityError::EmptyAlternative);
        }
        let own = self.spiffe_id.trust_domain_name();
        if let Some(parent) = self.parents.iter().find(|parent| parent.trust_domain_name() != own) {
            return Err(IdentityError::ForeignParent(parent.clone()));
        }
        match self.federates_with.iter().find(|domain| domain.as_str() == own) {
            Some(domain) => Err(IdentityError::FederatesWithItself(domain.clone())),
            None => Ok(()),
        }
    }

    /// Every name that its certificates may carry, the SPIFFE ID first.
    #[must_use]
    pub fn subject_names(&self) -> Vec<SubjectName> {
        let mut names = vec![SubjectName::from(self.spiffe_id.clone())];
        names.extend(self.dns_names.iter().cloned().map(SubjectName::Dns));
        names.extend(self.ip_addresses.iter().copied().map(SubjectName::Ip));
        names.extend(self.email_addresses.iter().cloned().map(SubjectName::Email));
        names
    }

    /// The profiles it may use, the default one first.
    #[must_use]
    pub fn allowed_profiles(&self) -> Vec<&str> {
        if self.profiles.is_empty() {
            return vec!["workload"];
        }
        self.profiles.iter().map(String::as_str).collect()
    }

    /// Whether these claims hold every selector, or every one of an alternative. An identity without selectors
    /// matches nothing by claims: it can only be reached by evidence that names it, such as a join token made for it.
    #[must_use]
    pub fn matches(&self, claims: &Claims) -> bool {
        std::iter::once(&self.selectors).chain(&self.alternatives).any(|set| set.fulfilled_by(claims))
    }

    /// Whether the agent of this node may ask for it: it is a named parent, or these claims of the node fulfil the
    /// node selectors. With neither, nobody may.
    #[must_use]
    pub fn is_served_by(&self, node: &SpiffeId, claims: &Claims) -> bool {
        self.parents.contains(node) || self.node_selectors.fulfilled_by(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Identity {
        Identity::new("spiffe://example.org/web".parse().unwrap(), "ada@example.org")
    }

    #[test]
    fn a_minimal_document_is_enough_and_unknown_fields_are_refused() {
        let identity: Identity =
            serde_json::from_str(r#"{"spiffe_id":"spiffe://example.org/web","owner":"ada@example.org"}"#)
                .unwrap();
        assert_eq!(identity, web());
        assert!(serde_json::from_str::<Identity>(r#"{"spiffe_id":"spiffe://e/x","ownr":"x"}"#).is_err());
    }

    #[test]
    fn without_selectors_no_claims_match() {
        let mut claims = Claims::new();
        claims.insert("x509.cn", "web");
        let mut identity = web();
        assert!(!identity.matches(&claims));
        identity.selectors.add("x509.cn", "web");
        assert!(identity.matches(&claims));
        identity.selectors.add("x509.issuer", "corp");
        assert!(!identity.matches(&claims));
    }

    #[test]
    fn an_alternative_serves_as_well_and_must_say_something() {
        let mut claims = Claims::new();
        claims.insert("unix.uid", "1000");
        let mut identity = web();
        identity.selectors.add("unix.uid", "1001");
        assert!(!identity.matches(&claims));
        identity.alternatives.push(Selectors::from([("unix.uid", "1000")]));
        assert!(identity.matches(&claims) && identity.check().is_ok());
        identity.alternatives.push(Selectors::new());
        assert_eq!(identity.check(), Err(IdentityError::EmptyAlternative));
    }

    #[test]
    fn no_node_serves_an_identity_that_names_none() {
        let node: SpiffeId = "spiffe://example.org/node/a".parse().unwrap();
        let mut claims = Claims::new();
        claims.insert("x509.cn", "a");
        let mut identity = web();
        assert!(!identity.is_served_by(&node, &claims));
        identity.node_selectors = Selectors::from([("x509.cn", "b")]);
        assert!(!identity.is_served_by(&node, &claims));
        identity.parents.push(node.clone());
        assert!(identity.is_served_by(&node, &Claims::new()));
        identity.parents[0] = "spiffe://example.org/node/b".parse().unwrap();
        identity.node_selectors = Selectors::from([("x509.cn", "a")]);
        assert!(identity.is_served_by(&node, &claims));
        assert!(!identity.is_served_by(&node, &Claims::new()));
    }

    #[test]
    fn refuses_relations_that_make_no_sense() {
        let mut identity = web();
        identity.parents.push("spiffe://elsewhere.org/node/a".parse().unwrap());
        assert!(matches!(identity.check(), Err(IdentityError::ForeignParent(_))));
        identity.parents.clear();
        identity.federates_with.push(TrustDomain::parse("example.org").unwrap());
        assert!(matches!(identity.check(), Err(IdentityError::FederatesWithItself(_))));
        identity.federates_with.clear();
        identity.hint = "x".repeat(1025);
        assert!(matches!(identity.check(), Err(IdentityError::Field { field: "hint", .. })));
    }

    #[test]
    fn refuses_the_trust_domain_and_control_characters() {
        let bare = Identity::new("spiffe://example.org".parse().unwrap(), "x");
        assert!(matches!(bare.check(), Err(IdentityError::NoPath(_))));
        let mut identity = web();
        identity.purpose = "line\nbreak".into();
        assert!(matches!(identity.check(), Err(IdentityError::Field { field: "purpose", .. })));
        identity.purpose.clear();
        identity.dns_names = vec!["a.example".parse().unwrap(); 65];
        assert!(matches!(identity.check(), Err(IdentityError::TooMany { count: 65, .. })));
    }
}
