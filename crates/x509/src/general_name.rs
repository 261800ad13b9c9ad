//! GeneralName (RFC 5280 section 4.2.1.6): the names in subjectAltName and in name constraints.

use std::fmt;
use std::net::IpAddr;

use chancery_types::SubjectName;

use crate::distinguished_name;
use crate::reader::{DerError, Value};
use crate::tag;
use crate::writer::Writer;

/// A name as a certificate carries it: its form is known, its text has not been checked beyond being ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeneralName<'a> {
    /// rfc822Name
    Email(&'a str),
    /// dNSName
    Dns(&'a str),
    /// uniformResourceIdentifier
    Uri(&'a str),
    /// iPAddress: 4 or 16 bytes in a certificate's names, 8 or 32 (address and mask) in name constraints.
    Ip(&'a [u8]),
    /// directoryName, as a DER Name
    Directory(&'a [u8]),
    /// A form that we neither write nor understand.
    Other {
        /// Its identifier octet.
        tag: u8,
        /// Its content.
        content: &'a [u8],
    },
}

impl<'a> GeneralName<'a> {
    pub(crate) fn read(value: &Value<'a>) -> Result<Self, DerError> {
        let text = || {
            std::str::from_utf8(value.content)
                .ok()
                .filter(|text| text.is_ascii())
                .ok_or_else(|| value.invalid("ASCII text"))
        };
        Ok(match value.tag {
            EMAIL => Self::Email(text()?),
            DNS => Self::Dns(text()?),
            URI => Self::Uri(text()?),
            IP => Self::Ip(value.content),
            DIRECTORY => {
                distinguished_name::check(value.content).map_err(|_| value.invalid("distinguished name"))?;
                Self::Directory(value.content)
            }
            0xa0 | 0xa3 | 0xa5 | 0x88 => Self::Other { tag: value.tag, content: value.content },
            _ => return Err(value.invalid("general name")),
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        let content = match self {
            Self::Email(text) | Self::Dns(text) | Self::Uri(text) => text.as_bytes(),
            Self::Ip(bytes) | Self::Directory(bytes) => bytes,
            Self::Other { content, .. } => content,
        };
        writer.value(self.tag(), content);
    }

    /// Its identifier octet, which tells its form.
    pub(crate) fn tag(&self) -> u8 {
        match self {
            Self::Email(_) => EMAIL,
            Self::Dns(_) => DNS,
            Self::Uri(_) => URI,
            Self::Ip(_) => IP,
            Self::Directory(_) => DIRECTORY,
            Self::Other { tag, .. } => *tag,
        }
    }

    /// The address, for an iPAddress of 4 or 16 bytes.
    #[must_use]
    pub fn ip_address(&self) -> Option<IpAddr> {
        let Self::Ip(bytes) = self else { return None };
        <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok()
    }

    /// The checked name, when it is of a form that we issue and well formed.
    #[must_use]
    pub fn subject_name(&self) -> Option<SubjectName> {
        match self {
            Self::Email(text) => text.parse().ok().map(SubjectName::Email),
            Self::Dns(text) => text.parse().ok().map(SubjectName::Dns),
            Self::Uri(text) => text.parse().ok().map(SubjectName::Uri),
            Self::Ip(_) => self.ip_address().map(SubjectName::Ip),
            Self::Directory(_) | Self::Other { .. } => None,
        }
    }
}

impl fmt::Display for GeneralName<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Email(text) => write!(formatter, "email:{}", text.escape_debug()),
            Self::Dns(text) => write!(formatter, "dns:{}", text.escape_debug()),
            Self::Uri(text) => write!(formatter, "uri:{}", text.escape_debug()),
            Self::Ip(bytes) => match self.ip_address() {
                Some(address) => write!(formatter, "ip:{address}"),
                None => write!(formatter, "ip:{bytes:02x?}"),
            },
            Self::Directory(name) => write!(formatter, "dir:{}", distinguished_name::display(name)),
            Self::Other { tag, .. } => write!(formatter, "form {}", tag & 0x1f),
        }
    }
}

/// Writes a checked name.
pub(crate) fn write_subject_name(writer: &mut Writer, name: &SubjectName) {
    match name {
        SubjectName::Uri(uri) => writer.value(URI, uri.as_str().as_bytes()),
        SubjectName::Dns(dns) => writer.value(DNS, dns.as_str().as_bytes()),
        SubjectName::Email(email) => writer.value(EMAIL, email.as_str().as_bytes()),
        SubjectName::Ip(IpAddr::V4(address)) => writer.value(IP, &address.octets()),
        SubjectName::Ip(IpAddr::V6(address)) => writer.value(IP, &address.octets()),
    }
}

const EMAIL: u8 = tag::context(1);
const DNS: u8 = tag::context(2);
const DIRECTORY: u8 = tag::context_constructed(4);
pub(crate) const URI: u8 = tag::context(6);
const IP: u8 = tag::context(7);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Reader;

    #[test]
    fn subject_names_survive_the_encoding() {
        for text in
            ["uri:spiffe://e/x", "dns:*.a.example", "ip:10.0.0.1", "ip:2001:db8::1", "email:a@b.example"]
        {
            let name: SubjectName = text.parse().unwrap();
            let mut writer = Writer::default();
            write_subject_name(&mut writer, &name);
            let der = writer.finish();
            let value = Reader::new(&der).value().unwrap();
            let read = GeneralName::read(&value).unwrap();
            assert_eq!(read.subject_name(), Some(name));
            assert_eq!(read.to_string(), text);
            let mut again = Writer::default();
            read.write(&mut again);
            assert_eq!(again.finish(), der);
        }
    }

    #[test]
    fn refuses_text_outside_ascii_and_unknown_forms() {
        for der in [&[0x82, 2, 0xc3, 0xa4][..], &[0x89, 1, 0], &[0x30, 0], &[0xa4, 1, 0]] {
            let value = Reader::new(der).value().unwrap();
            assert!(GeneralName::read(&value).is_err(), "{der:02x?}");
        }
    }
}
