//! Name constraints (RFC 5280 section 4.2.1.10): written for issuers, judged for the names below them.
//!
//! A word on relying parties: rustls-webpki and GnuTLS refuse *every* certificate with a URI name below an
//! issuer that constrains URIs, because they cannot judge the constraint; rustls-webpki does the same for email
//! addresses and for directory names, the last of which are therefore not offered at all.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::general_name::GeneralName;
use crate::reader::{DerError, Reader, Value};
use crate::tag;
use crate::writer::Writer;

/// A text is not an IP network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network such as 10.0.0.0/8 or fd00::/8, with no bits set behind the prefix")]
pub struct NetworkError(String);

/// An IP network: `10.0.0.0/8`. A bare address is the network of that one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNetwork {
    address: IpAddr,
    prefix: u8,
}

impl IpNetwork {
    /// Whether the address lies in it; an IPv4 address is never in an IPv6 network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()) & mask_v4(self.prefix) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()) & mask_v6(self.prefix) == 0
            }
            _ => false,
        }
    }

    fn write(self, writer: &mut Writer) {
        match self.address {
            IpAddr::V4(address) => {
                let mask = Ipv4Addr::from_bits(mask_v4(self.prefix));
                GeneralName::Ip(&[address.octets(), mask.octets()].concat()).write(writer);
            }
            IpAddr::V6(address) => {
                let mask = Ipv6Addr::from_bits(mask_v6(self.prefix));
                GeneralName::Ip(&[address.octets(), mask.octets()].concat()).write(writer);
            }
        }
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpNetwork {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || NetworkError(text.chars().take(60).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = prefix.map_or(Ok(widest), |prefix| prefix.parse().map_err(|_| error()))?;
        let aligned = match address {
            IpAddr::V4(address) => prefix <= 32 && address.to_bits() & !mask_v4(prefix) == 0,
            IpAddr::V6(address) => prefix <= 128 && address.to_bits() & !mask_v6(prefix) == 0,
        };
        if aligned { Ok(Self { address, prefix }) } else { Err(error()) }
    }
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

/// One constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subtree {
    /// This DNS name and all below it.
    Dns(String),
    /// URIs on this host; with a leading dot, on hosts below it.
    Uri(String),
    /// This mailbox, or mailboxes on this host; with a leading dot, on hosts below it.
    Email(String),
    /// Addresses in this network.
    Ip(IpNetwork),
}

impl Subtree {
    fn write(&self, writer: &mut Writer) {
        writer.sequence(|subtree| match self {
            Self::Dns(name) => GeneralName::Dns(name).write(subtree),
            Self::Uri(host) => GeneralName::Uri(host).write(subtree),
            Self::Email(address) => GeneralName::Email(address).write(subtree),
            Self::Ip(network) => network.write(subtree),
        });
    }
}

/// The constraints that an issuer's certificate will carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameConstraints {
    /// Of each form named here, only names within one of these.
    pub permitted: Vec<Subtree>,
    /// Never names within one of these.
    pub excluded: Vec<Subtree>,
}

impl NameConstraints {
    /// Whether nothing is constrained; then the extension must not be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.permitted.is_empty() && self.excluded.is_empty()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.sequence(|constraints| {
            for (number, subtrees) in [(0, &self.permitted), (1, &self.excluded)] {
                if !subtrees.is_empty() {
                    constraints.nested(tag::context_constructed(number), |list| {
                        subtrees.iter().for_each(|subtree| subtree.write(list));
                    });
                }
            }
        });
    }

    /// The content of the extension.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(128);
        self.write(&mut writer);
        writer.finish()
    }
}

/// Constraints as a certificate carries them.
#[derive(Debug, Clone, Copy)]
pub struct NameConstraintsView<'a> {
    permitted: &'a [u8],
    excluded: &'a [u8],
}

impl<'a> NameConstraintsView<'a> {
    /// Reads the value of the extension; minimum and maximum, which RFC 5280 forbids, are refused.
    pub(crate) fn read(value: &Value<'a>) -> Result<Self, DerError> {
        let view = Self::locate(value)?;
        for list in [view.permitted, view.excluded] {
            let mut reader = Reader::new(list);
            while !reader.is_empty() {
                read_subtree(&mut reader)?;
            }
        }
        Ok(view)
    }

    /// The same for a value whose subtrees were read before.
    pub(crate) fn locate(value: &Value<'a>) -> Result<Self, DerError> {
        let mut constraints = value.reader();
        let mut lists = [&[][..]; 2];
        for (number, list) in (0..).zip(&mut lists) {
            if let Some(subtrees) = constraints.optional(tag::context_constructed(number))? {
                if subtrees.content.is_empty() {
                    return Err(subtrees.invalid("list of name constraints"));
                }
                *list = subtrees.content;
            }
        }
        constraints.finish()?;
        Ok(Self { permitted: lists[0], excluded: lists[1] })
    }

    /// The permitted subtrees.
    pub fn permitted(&self) -> impl Iterator<Item = GeneralName<'a>> + use<'a> {
        subtrees(self.permitted)
    }

    /// The excluded subtrees.
    pub fn excluded(&self) -> impl Iterator<Item = GeneralName<'a>> + use<'a> {
        subtrees(self.excluded)
    }

    /// Whether the constraints let this name pass: inside a permitted subtree of its form, if there is one of
    /// its form, and outside every excluded one. Constraints of a form we cannot judge let nothing of it pass.
    #[must_use]
    pub fn permit(&self, name: &GeneralName<'_>) -> bool {
        let mut is_constrained = false;
        let is_within_one = subtrees_of(self.permitted, name.tag()).any(|base| {
            is_constrained = true;
            is_within(name, &base)
        });
        let is_excluded = || subtrees_of(self.excluded, name.tag()).any(|base| may_touch(name, &base));
        (is_within_one || !is_constrained) && !is_excluded()
    }
}

fn read_subtree<'a>(list: &mut Reader<'a>) -> Result<GeneralName<'a>, DerError> {
    let mut subtree = list.sequence()?;
    let base = subtree.value()?;
    let name = GeneralName::read(&base)?;
    if matches!(name, GeneralName::Ip(bytes) if bytes.len() != 8 && bytes.len() != 32) {
        return Err(base.invalid("address and mask"));
    }
    subtree.finish()?;
    Ok(name)
}

fn subtrees<'a>(content: &'a [u8]) -> impl Iterator<Item = GeneralName<'a>> + use<'a> {
    let mut reader = Reader::new(content);
    std::iter::from_fn(move || read_subtree(&mut reader).ok())
}

/// The subtrees of one form; the others are skipped unread.
fn subtrees_of<'a>(content: &'a [u8], form: u8) -> impl Iterator<Item = GeneralName<'a>> + use<'a> {
    let mut reader = Reader::new(content);
    let bases = std::iter::from_fn(move || reader.sequence().ok()?.value().ok());
    bases.filter(move |base| base.tag == form).filter_map(|base| GeneralName::read(&base).ok())
}

fn is_within(name: &GeneralName<'_>, base: &GeneralName<'_>) -> bool {
    match (name, base) {
        (GeneralName::Dns(name), GeneralName::Dns(base)) => {
            host_is_below_or_equal(name.strip_prefix("*.").unwrap_or(name), base)
        }
        (GeneralName::Uri(uri), GeneralName::Uri(base)) => {
            uri_host(uri).is_some_and(|host| host_matches(host, base))
        }
        (GeneralName::Email(address), GeneralName::Email(base)) => email_matches(address, base),
        (GeneralName::Ip(address), GeneralName::Ip(base)) => {
            let (network, mask) = base.split_at(base.len() / 2);
            address.len() == network.len()
                && address.iter().zip(network).zip(mask).all(|((a, n), m)| (a ^ n) & m == 0)
        }
        (GeneralName::Directory(name), GeneralName::Directory(base)) => directory_is_below(name, base),
        _ => false,
    }
}

/// Whether a name is, or could be, within an excluded subtree: a wildcard touches everything it can match, a
/// form without a rule touches everything.
fn may_touch(name: &GeneralName<'_>, base: &GeneralName<'_>) -> bool {
    match (name, base) {
        (GeneralName::Dns(name), GeneralName::Dns(base)) => {
            let parent = name.strip_prefix("*.");
            is_within(&GeneralName::Dns(name), &GeneralName::Dns(base))
                || parent.is_some_and(|parent| host_is_below_or_equal(base, parent))
        }
        (GeneralName::Uri(uri), GeneralName::Uri(base)) => {
            uri_host(uri).is_none_or(|host| host_matches(host, base))
        }
        (GeneralName::Other { .. }, _) => true,
        (name, base) => is_within(name, base),
    }
}

/// RFC 5280: "any DNS name that can be constructed by simply adding zero or more labels to the left".
fn host_is_below_or_equal(name: &str, base: &str) -> bool {
    let base = base.strip_prefix('.').unwrap_or(base);
    if base.is_empty() {
        return true;
    }
    let (name, base) = (name.as_bytes(), base.as_bytes());
    match name.len().checked_sub(base.len()) {
        None => false,
        Some(head) => name[head..].eq_ignore_ascii_case(base) && (head == 0 || name[head - 1] == b'.'),
    }
}

/// Hosts of URIs and mailboxes: equal, or strictly below a base that begins with a dot.
fn host_matches(host: &str, base: &str) -> bool {
    match base.strip_prefix('.') {
        Some(domain) => host.len() > domain.len() && host_is_below_or_equal(host, domain),
        None => host.eq_ignore_ascii_case(base),
    }
}

fn email_matches(address: &str, base: &str) -> bool {
    let Some((local, host)) = address.rsplit_once('@') else { return false };
    match base.rsplit_once('@') {
        Some((base_local, base_host)) => local == base_local && host.eq_ignore_ascii_case(base_host),
        None => host_matches(host, base),
    }
}

/// The host of a URI with an authority; none for an address in brackets or digits, which RFC 5280 refuses
/// under a constraint.
fn uri_host(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = host.split(':').next()?;
    (!host.is_empty() && !host.starts_with('[') && host.parse::<IpAddr>().is_err()).then_some(host)
}

/// Whether the RDNs of `base` are the first RDNs of `name`, byte by byte.
fn directory_is_below(name: &[u8], base: &[u8]) -> bool {
    let content = |der| Reader::single(der, tag::SEQUENCE).map(|value| value.content);
    matches!((content(name), content(base)), (Ok(name), Ok(base)) if name.starts_with(base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chancery_types::SubjectName;

    fn permits(constraints: &NameConstraints, text: &str) -> bool {
        let der = constraints.to_der();
        let value = Reader::single(&der, tag::SEQUENCE).unwrap();
        let view = NameConstraintsView::read(&value).unwrap();
        let name: SubjectName = text.parse().unwrap();
        let mut writer = Writer::default();
        crate::general_name::write_subject_name(&mut writer, &name);
        let der = writer.finish();
        let value = Reader::new(&der).value().unwrap();
        view.permit(&GeneralName::read(&value).unwrap())
    }

    #[test]
    fn permits_what_lies_within_and_forms_that_are_not_named() {
        let constraints = NameConstraints {
            permitted: vec![
                Subtree::Dns("example.org".into()),
                Subtree::Uri("example.org".into()),
                Subtree::Uri(".deep.example".into()),
                Subtree::Ip("10.0.0.0/8".parse().unwrap()),
            ],
            excluded: vec![
                Subtree::Dns("secret.example.org".into()),
                Subtree::Ip("10.9.0.0/16".parse().unwrap()),
            ],
        };
        for (name, expected) in [
            ("dns:example.org", true),
            ("dns:a.b.example.org", true),
            ("dns:badexample.org", false),
            ("dns:org", false),
            ("dns:secret.example.org", false),
            ("dns:x.secret.example.org", false),
            ("dns:*.a.example.org", true),
            ("dns:*.example.org", false),
            ("uri:spiffe://example.org/x", true),
            ("uri:spiffe://a.example.org/x", false),
            ("uri:spiffe://a.deep.example/x", true),
            ("uri:spiffe://deep.example/x", false),
            ("uri:https://user@example.org:8443/x", true),
            ("uri:https://example.org@evil.example/x", false),
            ("uri:urn:example:x", false),
            ("uri:spiffe://10.0.0.1/x", false),
            ("ip:10.1.2.3", true),
            ("ip:10.9.2.3", false),
            ("ip:11.0.0.1", false),
            ("ip:::1", false),
            ("email:a@anywhere.example", true),
        ] {
            assert_eq!(permits(&constraints, name), expected, "{name}");
        }
    }

    #[test]
    fn mailboxes_hosts_and_domains_differ() {
        let of =
            |base: &str| NameConstraints { permitted: vec![Subtree::Email(base.into())], excluded: vec![] };
        assert!(permits(&of("example.org"), "email:a@example.org"));
        assert!(!permits(&of("example.org"), "email:a@x.example.org"));
        assert!(permits(&of(".example.org"), "email:a@x.example.org"));
        assert!(!permits(&of(".example.org"), "email:a@example.org"));
        assert!(permits(&of("a@example.org"), "email:a@example.org"));
        assert!(!permits(&of("a@example.org"), "email:b@example.org"));
    }

    #[test]
    fn networks_are_read_and_shown() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "127.0.0.1/32"] {
            assert_eq!(text.parse::<IpNetwork>().unwrap().to_string(), text);
        }
        assert_eq!("::1".parse::<IpNetwork>().unwrap().to_string(), "::1/128");
        for text in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "x/8", "fd00::1/8", "::/129", ""] {
            assert!(text.parse::<IpNetwork>().is_err(), "{text}");
        }
        let everything: IpNetwork = "0.0.0.0/0".parse().unwrap();
        assert!(everything.contains("1.2.3.4".parse().unwrap()));
        assert!(!everything.contains("::1".parse().unwrap()));
    }

    #[test]
    fn refuses_minimum_maximum_and_empty_lists() {
        for der in [
            &[0x30, 2, 0xa0, 0][..],
            &[0x30, 10, 0xa0, 8, 0x30, 6, 0x82, 1, b'a', 0x80, 1, 0],
            &[0x30, 7, 0xa0, 5, 0x30, 3, 0x87, 1, 10],
        ] {
            let value = Reader::single(der, tag::SEQUENCE).unwrap();
            assert!(NameConstraintsView::read(&value).is_err(), "{der:02x?}");
        }
    }
}
