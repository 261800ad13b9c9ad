//! Which names a profile allows.

use std::fmt;
use std::net::IpAddr;

use chancery_types::{DnsName, SubjectName, UriName};

use crate::name_constraints::IpNetwork;

/// The four forms of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameForm {
    /// uniformResourceIdentifier
    Uri,
    /// dNSName
    Dns,
    /// iPAddress
    Ip,
    /// rfc822Name
    Email,
}

impl NameForm {
    pub(super) const ALL: [(Self, &'static str); 4] =
        [(Self::Uri, "uri"), (Self::Dns, "dns"), (Self::Ip, "ip"), (Self::Email, "email")];

    /// The form of a name.
    #[must_use]
    pub fn of(name: &SubjectName) -> Self {
        match name {
            SubjectName::Uri(_) => Self::Uri,
            SubjectName::Dns(_) => Self::Dns,
            SubjectName::Ip(_) => Self::Ip,
            SubjectName::Email(_) => Self::Email,
        }
    }

    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl fmt::Display for NameForm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Which URIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UriKind {
    /// SPIFFE IDs, and exactly one of them (X509-SVID section 2).
    Spiffe,
    /// Any URI that begins with an allowed prefix.
    Any,
}

/// A pattern of DNS domains: of names and of the hosts of mailboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DomainPattern {
    /// `*`
    Any,
    /// This domain and all below it.
    Within(DnsName),
}

impl DomainPattern {
    fn allows(&self, name: &DnsName) -> bool {
        match self {
            Self::Any => true,
            Self::Within(domain) => name.is_within(domain),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => formatter.write_str("*"),
            Self::Within(domain) => domain.fmt(formatter),
        }
    }
}

/// The allowed names: a form that is absent here is not allowed at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameRules {
    pub(super) max: usize,
    pub(super) required: Vec<NameForm>,
    pub(super) uri: Option<(UriKind, Vec<String>)>,
    pub(super) dns: Option<(Vec<DomainPattern>, bool)>,
    pub(super) ip: Option<Vec<IpNetwork>>,
    pub(super) email: Option<Vec<DomainPattern>>,
}

/// Why names are not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameRefusal {
    /// More names than the profile allows.
    #[error("{count} names, the profile allows {limit}")]
    TooMany {
        /// Names given.
        count: usize,
        /// Names allowed.
        limit: usize,
    },
    /// No name at all.
    #[error("no name; the profile needs one at least")]
    None,
    /// A name of a form that the profile demands is missing.
    #[error("the profile demands a name of the form {0}")]
    Missing(NameForm),
    /// The profile allows no names of this form.
    #[error("{name}: the profile allows no names of this form")]
    Form {
        /// The name.
        name: SubjectName,
    },
    /// The name lies outside the patterns of its form.
    #[error("{name}: the profile allows {allowed}")]
    Pattern {
        /// The name.
        name: SubjectName,
        /// The patterns.
        allowed: String,
    },
    /// A wildcard, where the profile allows none.
    #[error("{name}: the profile allows no wildcards")]
    Wildcard {
        /// The name.
        name: SubjectName,
    },
    /// The name is not a SPIFFE ID with a path.
    #[error("{name}: the profile allows SPIFFE IDs with a path only")]
    NotSpiffe {
        /// The name.
        name: SubjectName,
    },
    /// A second URI beside a SPIFFE ID (X509-SVID section 2 allows one).
    #[error("{count} URIs; a certificate with a SPIFFE ID has exactly one")]
    SeveralUris {
        /// URIs given.
        count: usize,
    },
    /// The same name twice.
    #[error("{name} is given twice")]
    Twice {
        /// The name.
        name: SubjectName,
    },
}

impl NameRules {
    /// Most names in a certificate.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// The forms of which there must be a name.
    #[must_use]
    pub fn required(&self) -> &[NameForm] {
        &self.required
    }

    /// Whether names of this form are allowed at all.
    #[must_use]
    pub fn allows_form(&self, form: NameForm) -> bool {
        match form {
            NameForm::Uri => self.uri.is_some(),
            NameForm::Dns => self.dns.is_some(),
            NameForm::Ip => self.ip.is_some(),
            NameForm::Email => self.email.is_some(),
        }
    }

    /// Whether no form is allowed: the certificate has a subject and no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        NameForm::ALL.iter().all(|(form, _)| !self.allows_form(*form))
    }

    /// Which URIs are allowed.
    #[must_use]
    pub fn uri_kind(&self) -> Option<UriKind> {
        self.uri.as_ref().map(|(kind, _)| *kind)
    }

    /// Whether DNS names may begin with `*.`.
    #[must_use]
    pub fn allows_wildcards(&self) -> bool {
        self.dns.as_ref().is_some_and(|(_, wildcards)| *wildcards)
    }

    /// Everything that is wrong with these names.
    #[must_use]
    pub fn refusals(&self, names: &[SubjectName]) -> Vec<NameRefusal> {
        let mut refusals = Vec::new();
        if names.is_empty() && self.required.is_empty() && !self.is_empty() {
            refusals.push(NameRefusal::None);
        }
        if names.len() > self.max {
            refusals.push(NameRefusal::TooMany { count: names.len(), limit: self.max });
        }
        for form in &self.required {
            if !names.iter().any(|name| NameForm::of(name) == *form) {
                refusals.push(NameRefusal::Missing(*form));
            }
        }
        let uris = names.iter().filter(|name| NameForm::of(name) == NameForm::Uri).count();
        if uris > 1 && self.uri_kind() == Some(UriKind::Spiffe) {
            refusals.push(NameRefusal::SeveralUris { count: uris });
        }
        for (index, name) in names.iter().enumerate().take(self.max) {
            if names[..index].contains(name) {
                refusals.push(NameRefusal::Twice { name: name.clone() });
            }
            refusals.extend(self.refusal(name));
        }
        refusals
    }

    /// Why this name alone is not allowed.
    #[must_use]
    pub fn refusal(&self, name: &SubjectName) -> Option<NameRefusal> {
        match name {
            SubjectName::Uri(uri) => self.uri_refusal(name, uri),
            SubjectName::Dns(dns) => {
                let Some((patterns, wildcards)) = &self.dns else { return Some(form_refusal(name)) };
                if dns.is_wildcard() && !wildcards {
                    return Some(NameRefusal::Wildcard { name: name.clone() });
                }
                within(name, patterns, |pattern| pattern.allows(dns))
            }
            SubjectName::Ip(address) => {
                let Some(networks) = &self.ip else { return Some(form_refusal(name)) };
                within(name, networks, |network: &IpNetwork| network.contains(unmapped(*address)))
            }
            SubjectName::Email(email) => {
                let Some(patterns) = &self.email else { return Some(form_refusal(name)) };
                let host = email.as_str().rsplit_once('@').and_then(|(_, host)| DnsName::parse(host).ok());
                within(name, patterns, |pattern| host.as_ref().is_some_and(|host| pattern.allows(host)))
            }
        }
    }

    fn uri_refusal(&self, name: &SubjectName, uri: &UriName) -> Option<NameRefusal> {
        let Some((kind, prefixes)) = &self.uri else { return Some(form_refusal(name)) };
        if *kind == UriKind::Spiffe && uri.spiffe_id().is_none() {
            return Some(NameRefusal::NotSpiffe { name: name.clone() });
        }
        within(name, prefixes, |prefix| begins_with(uri.as_str(), prefix))
    }
}

/// Whether a URI is the prefix, or continues it at a slash.
fn begins_with(uri: &str, prefix: &str) -> bool {
    uri.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// `::ffff:10.0.0.1` is 10.0.0.1 to every program that connects to it.
fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn form_refusal(name: &SubjectName) -> NameRefusal {
    NameRefusal::Form { name: name.clone() }
}

fn within<P: fmt::Display>(
    name: &SubjectName,
    patterns: &[P],
    allows: impl Fn(&P) -> bool,
) -> Option<NameRefusal> {
    if patterns.iter().any(allows) {
        return None;
    }
    let allowed = patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Some(NameRefusal::Pattern { name: name.clone(), allowed })
}
