//! SPIFFE IDs and trust domains, as the SPIFFE-ID standard words them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest trust domain name, in bytes (SPIFFE-ID section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;
/// Longest SPIFFE ID, in bytes, that we accept or mint (SPIFFE-ID section 2.3).
const MAX_SPIFFE_ID: usize = 2048;

/// Why a text is not a SPIFFE ID or a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// The text does not begin with `spiffe://`.
    #[error("a SPIFFE ID begins with spiffe://, this is {0:?}")]
    Scheme(String),
    /// The trust domain is empty, too long, or has a character outside `[a-z0-9.-_]`.
    #[error("a trust domain is 1 to 255 characters of a-z, 0-9, dot, dash and underscore, this is {0:?}")]
    TrustDomain(String),
    /// A path segment is empty, `.` or `..`, or has a character outside `[a-zA-Z0-9.-_]`.
    #[error(
        "path segments hold a-z, A-Z, 0-9, dot, dash and underscore and are neither empty, . nor .., this is {0:?}"
    )]
    Path(String),
    /// The whole is longer than 2048 bytes.
    #[error("a SPIFFE ID has at most 2048 bytes, this has {0}")]
    TooLong(usize),
}

/// The name of a trust domain, in lower case: the authority part of every SPIFFE ID in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Parses a bare name (`example.org`); upper case is folded.
    ///
    /// # Errors
    /// [`SpiffeIdError::TrustDomain`] when the name is not one.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        let name = text.to_ascii_lowercase();
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_TRUST_DOMAIN || !name.bytes().all(allowed) {
            return Err(SpiffeIdError::TrustDomain(text.chars().take(80).collect()));
        }
        Ok(Self(name))
    }

    /// The name alone.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SPIFFE ID of the trust domain itself, `spiffe://name`: what a CA certificate carries.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        SpiffeId { text: format!("spiffe://{}", self.0), domain_end: "spiffe://".len() + self.0.len() }
    }

    /// The SPIFFE ID with this path (`/ns/prod/sa/web`).
    ///
    /// # Errors
    /// [`SpiffeIdError::Path`] when a segment is not allowed.
    pub fn member(&self, path: &str) -> Result<SpiffeId, SpiffeIdError> {
        SpiffeId::parse(&format!("spiffe://{}{path}", self.0))
    }
}

/// A SPIFFE ID: `spiffe://trust-domain/path`, normalised and checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: String,
    domain_end: usize,
}

impl SpiffeId {
    /// Parses an ID; scheme and trust domain are case-insensitive, the path is not.
    ///
    /// # Errors
    /// [`SpiffeIdError`] naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_SPIFFE_ID {
            return Err(SpiffeIdError::TooLong(text.len()));
        }
        let rest = match text.split_at_checked("spiffe://".len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("spiffe://") => rest,
            _ => return Err(SpiffeIdError::Scheme(text.chars().take(80).collect())),
        };
        let (domain, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let domain = TrustDomain::parse(domain)?;
        if !path.is_empty() && !path[1..].split('/').all(segment_is_allowed) {
            return Err(SpiffeIdError::Path(path.chars().take(80).collect()));
        }
        let domain_end = "spiffe://".len() + domain.0.len();
        Ok(Self { text: format!("spiffe://{}{path}", domain.0), domain_end })
    }

    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path with its leading slash; empty for the ID of a trust domain.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[self.domain_end..]
    }

    /// The trust domain it belongs to.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_name().to_owned())
    }

    /// The trust domain's name, borrowed.
    #[must_use]
    pub fn trust_domain_name(&self) -> &str {
        &self.text["spiffe://".len()..self.domain_end]
    }
}

fn segment_is_allowed(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

macro_rules! text_type {
    ($name:ident, $error:ty) => {
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_type;

text_type!(TrustDomain, SpiffeIdError);
text_type!(SpiffeId, SpiffeIdError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_standard_accepts() {
        for (text, path) in [
            ("spiffe://example.org", ""),
            ("spiffe://example.org/a/b", "/a/b"),
            ("SPIFFE://Example.ORG/Path", "/Path"),
            ("spiffe://1.2.3.4/x", "/x"),
            ("spiffe://a_b-c/x._-9", "/x._-9"),
        ] {
            let id = SpiffeId::parse(text).unwrap();
            assert_eq!(id.path(), path);
            assert!(id.as_str().starts_with("spiffe://"));
        }
        assert_eq!(SpiffeId::parse("SPIFFE://Example.ORG/P").unwrap().trust_domain_name(), "example.org");
    }

    #[test]
    fn refuses_what_the_standard_refuses() {
        for text in [
            "",
            "spiffe:/example.org",
            "https://example.org/x",
            "spiffe://",
            "spiffe:///x",
            "spiffe://exa mple/x",
            "spiffe://user@example.org/x",
            "spiffe://example.org:8443/x",
            "spiffe://example.org/",
            "spiffe://example.org/a//b",
            "spiffe://example.org/a/",
            "spiffe://example.org/.",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/a%20b",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://exämple.org/a",
            "spiffe://example.org/ä",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text}");
        }
        assert!(matches!(
            SpiffeId::parse(&format!("spiffe://e/{}", "a".repeat(2048))),
            Err(SpiffeIdError::TooLong(2059))
        ));
        assert!(TrustDomain::parse(&"a".repeat(256)).is_err());
    }
}
