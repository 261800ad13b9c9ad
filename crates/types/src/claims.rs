//! What a verifier of evidence found out, in one shape for every kind of evidence.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much a proof is worth: policy speaks of levels, never of mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AssuranceLevel {
    /// A shared secret: whoever holds it passes.
    #[serde(rename = "AL0")]
    SharedSecret,
    /// A platform's token, trusted on first use.
    #[serde(rename = "AL1")]
    FirstUse,
    /// Platform evidence that can be asked for again at every renewal.
    #[serde(rename = "AL2")]
    Repeatable,
    /// A key that cannot leave its hardware.
    #[serde(rename = "AL3")]
    HardwareKey,
    /// Measured boot or a trusted execution environment running a signed artefact.
    #[serde(rename = "AL4")]
    Measured,
}

impl AssuranceLevel {
    const ALL: [Self; 5] =
        [Self::SharedSecret, Self::FirstUse, Self::Repeatable, Self::HardwareKey, Self::Measured];

    /// 0 to 4.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// From 0 to 4.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for AssuranceLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AL{}", self.number())
    }
}

/// The kinds of evidence that a verifier exists for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceKind {
    /// A single-use secret made by an operator.
    JoinToken,
    /// A certificate of a configured foreign CA and a signature with its key over our nonce.
    X509Pop,
    /// The current certificate over mTLS, and the new key's request.
    Renewal,
    /// An attested node vouches for a process on it.
    Workload,
    /// An operator or the authority itself asks: server certificates, operators' own certificates.
    Operator,
}

impl EvidenceKind {
    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JoinToken => "join-token",
            Self::X509Pop => "x509-pop",
            Self::Renewal => "renewal",
            Self::Workload => "workload",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for EvidenceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::JoinToken, Self::X509Pop, Self::Renewal, Self::Workload, Self::Operator]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a kind of evidence"))
    }
}

/// The value of one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClaimValue {
    /// yes or no
    Flag(bool),
    /// a whole number
    Number(i64),
    /// a text
    Text(String),
    /// several texts, in the order they were found
    List(Vec<String>),
}

impl ClaimValue {
    /// The texts in it: one for a text, all for a list, the decimal or `true`/`false` otherwise.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::Flag(flag) => vec![flag.to_string()],
            Self::Number(number) => vec![number.to_string()],
            Self::Text(text) => vec![text.clone()],
            Self::List(texts) => texts.clone(),
        }
    }
}

impl From<&str> for ClaimValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for ClaimValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Proven facts by name (`x509.issuer`, `token.id`), in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Claims(BTreeMap<String, ClaimValue>);

impl Claims {
    /// No claims.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one claim.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<ClaimValue>) {
        self.0.insert(name.into(), value.into());
    }

    /// The value of a claim.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&ClaimValue> {
        self.0.get(name)
    }

    /// Whether the claim exists and is, or contains, this text.
    #[must_use]
    pub fn holds(&self, name: &str, text: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.texts().iter().any(|found| found == text))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ClaimValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_named() {
        assert!(AssuranceLevel::Measured > AssuranceLevel::SharedSecret);
        assert_eq!(AssuranceLevel::from_number(2).unwrap().to_string(), "AL2");
        assert_eq!(serde_json::to_string(&AssuranceLevel::FirstUse).unwrap(), "\"AL1\"");
        assert!(AssuranceLevel::from_number(5).is_none());
    }

    #[test]
    fn claims_hold_texts_and_members_of_lists() {
        let mut claims = Claims::new();
        claims.insert("x509.dns", ClaimValue::List(vec!["a".into(), "b".into()]));
        claims.insert("token.id", "t1");
        assert!(claims.holds("x509.dns", "b"));
        assert!(claims.holds("token.id", "t1"));
        assert!(!claims.holds("token.id", "t"));
        assert!(!claims.holds("none", ""));
        let text = serde_json::to_string(&claims).unwrap();
        assert_eq!(serde_json::from_str::<Claims>(&text).unwrap(), claims);
    }
}
