//! The extensions that a request asks for (RFC 2985 section 5.4.2), those that we understand taken apart.

use chancery_types::{DnsName, EmailAddress, SubjectName, UriName};

use super::{Ignored, RequestError};
use crate::general_name::GeneralName;
use crate::reader::{self, DerError, Value};
use crate::usage::{KeyUsages, purpose_text};
use crate::{oid, tag};

/// One extension as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedExtension {
    /// Its object identifier, dotted.
    pub oid: String,
    /// Whether it was asked for as critical.
    pub critical: bool,
    /// The content of its OCTET STRING.
    pub value: Vec<u8>,
}

/// The basicConstraints (RFC 5280 section 4.2.1.9) that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedConstraints {
    /// Whether it wants to be a CA.
    pub ca: bool,
    /// The pathLenConstraint, if there is one.
    pub path_length: Option<u32>,
}

/// What an extensionRequest attribute says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Requested {
    pub(super) extensions: Vec<RequestedExtension>,
    pub(super) names: Vec<SubjectName>,
    pub(super) basic_constraints: Option<RequestedConstraints>,
    pub(super) key_usage: Option<KeyUsages>,
    pub(super) extended_key_usage: Vec<String>,
}

impl Requested {
    /// Reads the attribute's SET of values, which must be one SEQUENCE OF Extension.
    pub(super) fn read(values: &Value<'_>, ignored: &mut Vec<Ignored>) -> Result<Self, RequestError> {
        let mut values = values.reader();
        if values.is_empty() {
            return Err(RequestError::ExtensionRequestValues);
        }
        let mut list = values.sequence()?;
        if !values.is_empty() {
            return Err(RequestError::ExtensionRequestValues);
        }
        let mut requested = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        while !list.is_empty() {
            let mut extension = list.sequence()?;
            let kind = extension.oid()?;
            let critical = read_default_false(extension.optional(tag::BOOLEAN)?)?;
            let value = extension.expect(tag::OCTET_STRING)?;
            extension.finish()?;
            if seen.contains(&kind) {
                return Err(RequestError::ExtensionRepeated(oid::dotted(kind)));
            }
            if seen.len() == MAX_EXTENSIONS {
                return Err(RequestError::TooMany { what: "requested extensions", limit: MAX_EXTENSIONS });
            }
            seen.push(kind);
            requested.take(kind, critical, &value, ignored)?;
            let (oid, value) = (oid::dotted(kind), value.content.to_vec());
            requested.extensions.push(RequestedExtension { oid, critical, value });
        }
        Ok(requested)
    }

    /// Takes one extension apart, or says that it is ignored.
    fn take(
        &mut self,
        kind: &[u8],
        critical: bool,
        value: &Value<'_>,
        ignored: &mut Vec<Ignored>,
    ) -> Result<(), RequestError> {
        let malformed = |error| RequestError::Extension { extension: oid::dotted(kind), error };
        match kind {
            oid::SUBJECT_ALT_NAME => self.names = read_names(value, ignored)?,
            oid::BASIC_CONSTRAINTS => {
                self.basic_constraints = Some(read_basic_constraints(value).map_err(malformed)?);
            }
            oid::KEY_USAGE => self.key_usage = Some(read_key_usage(value).map_err(malformed)?),
            oid::EXTENDED_KEY_USAGE => {
                self.extended_key_usage = read_extended_key_usage(value).map_err(malformed)?;
            }
            _ if critical => return Err(RequestError::ExtensionCritical(oid::dotted(kind))),
            _ => ignored.push(Ignored::Extension(oid::dotted(kind))),
        }
        Ok(())
    }
}

/// A BOOLEAN DEFAULT FALSE: in DER it is there only when it is true.
fn read_default_false(value: Option<Value<'_>>) -> Result<bool, DerError> {
    match value {
        None => Ok(false),
        Some(value) if reader::boolean(&value)? => Ok(true),
        Some(value) => Err(value.invalid("DER value: FALSE is the default and is left out")),
    }
}

fn read_basic_constraints(value: &Value<'_>) -> Result<RequestedConstraints, DerError> {
    let mut outer = value.reader();
    let mut fields = outer.sequence()?;
    outer.finish()?;
    let ca = read_default_false(fields.optional(tag::BOOLEAN)?)?;
    let path_length = if fields.is_empty() { None } else { Some(fields.small_integer()?) };
    fields.finish()?;
    Ok(RequestedConstraints { ca, path_length })
}

fn read_key_usage(value: &Value<'_>) -> Result<KeyUsages, DerError> {
    let mut outer = value.reader();
    let bits = reader::named_bits(&outer.expect(tag::BIT_STRING)?)?;
    outer.finish()?;
    Ok(KeyUsages::from_bits(bits))
}

fn read_extended_key_usage(value: &Value<'_>) -> Result<Vec<String>, DerError> {
    let mut outer = value.reader();
    let mut list = outer.sequence()?;
    outer.finish()?;
    let mut purposes = Vec::new();
    while purposes.is_empty() || !list.is_empty() {
        if purposes.len() == MAX_PURPOSES {
            return Err(DerError::TooLong { got: purposes.len() + 1, limit: MAX_PURPOSES });
        }
        purposes.push(purpose_text(list.oid()?));
    }
    Ok(purposes)
}

/// Reads a GeneralNames (RFC 5280 section 4.2.1.6) and reports the kinds that we do not certify as ignored.
fn read_names(value: &Value<'_>, ignored: &mut Vec<Ignored>) -> Result<Vec<SubjectName>, RequestError> {
    let malformed = |error| RequestError::Extension { extension: oid::dotted(oid::SUBJECT_ALT_NAME), error };
    let mut outer = value.reader();
    let mut list = outer.sequence().map_err(malformed)?;
    outer.finish().map_err(malformed)?;
    if list.is_empty() {
        return Err(malformed(value.invalid("list of one name or more")));
    }
    let mut names = Vec::new();
    let mut number = 0;
    while !list.is_empty() {
        let general_name = list.value().and_then(|value| GeneralName::read(&value)).map_err(malformed)?;
        number += 1;
        if number > MAX_NAMES {
            return Err(RequestError::TooMany { what: "requested names", limit: MAX_NAMES });
        }
        match read_name(general_name, number)? {
            Ok(name) if names.contains(&name) => {}
            Ok(name) => names.push(name),
            Err(kind) => {
                let entry = Ignored::NameKind(kind);
                if !ignored.contains(&entry) {
                    ignored.push(entry);
                }
            }
        }
    }
    Ok(names)
}

/// The name, or the kind where we do not certify it.
fn read_name(
    name: GeneralName<'_>,
    number: usize,
) -> Result<Result<SubjectName, &'static str>, RequestError> {
    let bad = |error| RequestError::Name { number, error };
    Ok(match name {
        GeneralName::Email(text) => Ok(SubjectName::Email(EmailAddress::parse(text).map_err(bad)?)),
        GeneralName::Dns(text) => Ok(SubjectName::Dns(DnsName::parse(text).map_err(bad)?)),
        GeneralName::Uri(text) => Ok(SubjectName::Uri(UriName::parse(text).map_err(bad)?)),
        GeneralName::Ip(bytes) => Ok(SubjectName::Ip(
            name.ip_address().ok_or(RequestError::Address { number, length: bytes.len() })?,
        )),
        GeneralName::Directory(_) => Err("directoryName"),
        GeneralName::Other { tag: 0xa0, .. } => Err("otherName"),
        GeneralName::Other { tag: 0xa3, .. } => Err("x400Address"),
        GeneralName::Other { tag: 0xa5, .. } => Err("ediPartyName"),
        GeneralName::Other { .. } => Err("registeredID"),
    })
}

/// Extensions read in one request.
const MAX_EXTENSIONS: usize = 32;
/// Names read in one request; a certificate with more would be a sign of an error.
pub(crate) const MAX_NAMES: usize = 128;
/// Purposes read in one extKeyUsage.
const MAX_PURPOSES: usize = 32;
