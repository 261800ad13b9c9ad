//! The subject of a request: an X.501 Name of which the common name is read and the rest is only kept.

use super::{Ignored, RequestError};
use crate::reader::{DerError, Reader, Value};
use crate::{DistinguishedName, oid, tag};

/// Who a request says it is for. Nothing here is checked against anything: it is a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedSubject {
    name: DistinguishedName,
    common_name: Option<String>,
}

impl RequestedSubject {
    pub(super) fn read(der: &[u8], ignored: &mut Vec<Ignored>) -> Result<Self, RequestError> {
        let name = DistinguishedName::from_der(der)?;
        let mut common_name = None;
        for (kind, value) in attributes(der)? {
            if kind != COMMON_NAME {
                ignored.push(Ignored::SubjectAttribute(oid::dotted(kind)));
            } else if common_name.replace(read_text(&value)?).is_some() {
                return Err(RequestError::CommonNameRepeated);
            }
        }
        Ok(Self { name, common_name })
    }

    /// The whole name, as it was sent.
    #[must_use]
    pub fn name(&self) -> &DistinguishedName {
        &self.name
    }

    /// The common name, if there is one.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }
}

/// The attributes of a Name, those of multi-valued parts one by one.
fn attributes(der: &[u8]) -> Result<Vec<(&[u8], Value<'_>)>, DerError> {
    let mut found = Vec::new();
    let mut name = Reader::single(der, tag::SEQUENCE)?.reader();
    while !name.is_empty() {
        let mut set = name.expect(tag::SET)?.reader();
        while !set.is_empty() {
            let mut attribute = set.sequence()?;
            found.push((attribute.oid()?, attribute.value()?));
        }
    }
    Ok(found)
}

/// Text without control characters, so that it can stand in a log. T61String and BMPString are not read: what
/// the one means is disputed, and nobody sends the other.
fn read_text(value: &Value<'_>) -> Result<String, RequestError> {
    let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(byte);
    let encoding_is_kept = match value.tag {
        tag::UTF8_STRING => true,
        tag::PRINTABLE_STRING => value.content.iter().all(in_alphabet),
        tag::IA5_STRING => value.content.is_ascii(),
        _ => false,
    };
    std::str::from_utf8(value.content)
        .ok()
        .filter(|text| encoding_is_kept && !text.is_empty() && !text.chars().any(char::is_control))
        .map(str::to_owned)
        .ok_or(RequestError::CommonNameText)
}

/// id-at-commonName, 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
