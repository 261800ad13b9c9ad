//! Names that may stand in a certificate's subjectAltName (RFC 5280 section 4.2.1.6).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::SpiffeId;
use crate::spiffe::text_type;

/// Why a text is not a name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a DNS name, not even after IDNA mapping.
    #[error("{name:?} is not a DNS name: {why}")]
    Dns {
        /// The beginning of the text.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not an email address of the form local@domain in ASCII.
    #[error("{0:?} is not an email address of the form local@domain")]
    Email(String),
    /// Not an absolute URI in ASCII without spaces.
    #[error("{0:?} is not an absolute URI")]
    Uri(String),
    /// Neither `dns:`, `ip:`, `email:` nor `uri:` stands before it, or the address is none.
    #[error("{0:?} is not a subject name; write dns:NAME, ip:ADDRESS, email:ADDRESS or uri:URI")]
    Kind(String),
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A DNS name in its ASCII form (IDNA A-labels), lower case, without a trailing dot; may begin with `*.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// Parses a name; labels outside ASCII are mapped by IDNA (UTS 46, non-transitional, STD3 rules).
    ///
    /// # Errors
    /// [`NameError::Dns`] saying what is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let error = |why| NameError::Dns { name: excerpt(text), why };
        if text.len() > 1024 {
            return Err(error("longer than 253 bytes"));
        }
        let (star, rest) = match text.strip_prefix("*.") {
            Some(rest) => ("*.", rest),
            None => ("", text),
        };
        let rest = rest.strip_suffix('.').unwrap_or(rest);
        if rest.is_empty() {
            return Err(error("empty"));
        }
        let ascii = idna::domain_to_ascii_strict(rest).map_err(|_| error("not valid under IDNA"))?;
        if star.len() + ascii.len() > 253 {
            return Err(error("longer than 253 bytes"));
        }
        for label in ascii.split('.') {
            let bytes = label.as_bytes();
            if bytes.is_empty() || bytes.len() > 63 {
                return Err(error("a label has 1 to 63 characters"));
            }
            if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') {
                return Err(error("labels hold letters, digits and dashes"));
            }
            if bytes[0] == b'-' || bytes[bytes.len() - 1] == b'-' {
                return Err(error("a label neither begins nor ends with a dash"));
            }
        }
        let last = ascii.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error("the last label is a number, so this would be read as an IP address"));
        }
        Ok(Self(format!("{star}{ascii}")))
    }

    /// The ASCII form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the first label is `*`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// Whether this is `domain` itself or a name below it.
    #[must_use]
    pub fn is_within(&self, domain: &DnsName) -> bool {
        let name = self.0.strip_prefix("*.").unwrap_or(&self.0);
        name == domain.0 || name.strip_suffix(&domain.0).is_some_and(|head| head.ends_with('.'))
    }
}

/// An email address in ASCII, the domain in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// Parses `local@domain`; quoted local parts are not accepted.
    ///
    /// # Errors
    /// [`NameError::Email`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let error = || NameError::Email(excerpt(text));
        let (local, domain) = text.rsplit_once('@').ok_or_else(error)?;
        let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
        let dot_atom = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(atext));
        if local.len() > 64 || !dot_atom {
            return Err(error());
        }
        let domain = DnsName::parse(domain).map_err(|_| error())?;
        if domain.is_wildcard() {
            return Err(error());
        }
        Ok(Self(format!("{local}@{domain}")))
    }

    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An absolute URI. Our own are SPIFFE IDs; others pass only where a profile says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UriName(String);

impl UriName {
    /// Parses a URI; a `spiffe:` one must be a valid SPIFFE ID.
    ///
    /// # Errors
    /// [`NameError::Uri`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let error = || NameError::Uri(excerpt(text));
        let (scheme, rest) = text.split_once(':').ok_or_else(error)?;
        let scheme_is_fine = scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        let printable = |b: u8| b.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&b);
        if !scheme_is_fine || rest.is_empty() || text.len() > 2048 || !rest.bytes().all(printable) {
            return Err(error());
        }
        if scheme.eq_ignore_ascii_case("spiffe") {
            return SpiffeId::parse(text).map(Self::from).map_err(|_| error());
        }
        Ok(Self(text.to_owned()))
    }

    /// The URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SPIFFE ID, if it is one.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        SpiffeId::parse(&self.0).ok()
    }
}

impl From<SpiffeId> for UriName {
    fn from(id: SpiffeId) -> Self {
        Self(id.as_str().to_owned())
    }
}

/// One subject alternative name. Text form: `dns:web.example.org`, `ip:10.0.0.1`, `uri:spiffe://...`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectName {
    /// uniformResourceIdentifier
    Uri(UriName),
    /// dNSName
    Dns(DnsName),
    /// iPAddress
    Ip(IpAddr),
    /// rfc822Name
    Email(EmailAddress),
}

impl SubjectName {
    /// Parses the text form.
    ///
    /// # Errors
    /// [`NameError`] for an unknown kind or a malformed name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let kind_error = || NameError::Kind(excerpt(text));
        let (kind, rest) = text.split_once(':').ok_or_else(kind_error)?;
        match kind {
            "uri" => UriName::parse(rest).map(Self::Uri),
            "dns" => DnsName::parse(rest).map(Self::Dns),
            "ip" => rest.parse().map(Self::Ip).map_err(|_| kind_error()),
            "email" => EmailAddress::parse(rest).map(Self::Email),
            "spiffe" => UriName::parse(text).map(Self::Uri),
            _ => Err(kind_error()),
        }
    }
}

impl From<SpiffeId> for SubjectName {
    fn from(id: SpiffeId) -> Self {
        Self::Uri(id.into())
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(name) => write!(formatter, "uri:{name}"),
            Self::Dns(name) => write!(formatter, "dns:{name}"),
            Self::Ip(address) => write!(formatter, "ip:{address}"),
            Self::Email(name) => write!(formatter, "email:{name}"),
        }
    }
}

impl FromStr for SubjectName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for SubjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SubjectName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

text_type!(DnsName, NameError);
text_type!(EmailAddress, NameError);
text_type!(UriName, NameError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_are_normalised() {
        for (text, expected) in [
            ("Web.Example.ORG.", "web.example.org"),
            ("*.example.org", "*.example.org"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(DnsName::parse(text).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn refuses_what_is_not_a_dns_name() {
        for text in [
            "",
            ".",
            "*.",
            "a..b",
            "-a.example",
            "a-.example",
            "a_b.example",
            "10.0.0.1",
            "a b",
            "a*.example",
            "foo.*.example",
            "xn--a.example",
            "a.example/x",
        ] {
            assert!(DnsName::parse(text).is_err(), "{text}");
        }
        assert!(DnsName::parse(&format!("{}.example", "a".repeat(64))).is_err());
        assert!(DnsName::parse(&vec!["abcdefgh"; 40].join(".")).is_err());
    }

    #[test]
    fn containment_respects_label_boundaries() {
        let domain = DnsName::parse("example.org").unwrap();
        assert!(DnsName::parse("a.example.org").unwrap().is_within(&domain));
        assert!(DnsName::parse("*.example.org").unwrap().is_within(&domain));
        assert!(!DnsName::parse("badexample.org").unwrap().is_within(&domain));
    }

    #[test]
    fn subject_names_round_trip() {
        for text in
            ["dns:a.example", "ip:10.0.0.1", "ip:2001:db8::1", "email:a.b@example.org", "uri:spiffe://e/x"]
        {
            assert_eq!(SubjectName::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(SubjectName::parse("spiffe://e/x").unwrap().to_string(), "uri:spiffe://e/x");
        for text in
            ["x", "ip:300.1.1.1", "email:@x", "email:a@*.x", "uri:spiffe://e/../x", "uri:no scheme", "dns:"]
        {
            assert!(SubjectName::parse(text).is_err(), "{text}");
        }
    }
}
