//! Certificate extensions: which ones we know, and how each is read and written.

use chancery_types::SubjectName;

use crate::general_name::{self, GeneralName, write_subject_name};
use crate::name_constraints::NameConstraintsView;
use crate::reader::{self, DerError, Reader, Value};
use crate::usage::{ExtendedKeyUsage, KeyUsages};
use crate::writer::Writer;
use crate::{oid, tag};

/// The extensions that we write and understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtensionKind {
    /// authorityKeyIdentifier, RFC 5280 section 4.2.1.1
    AuthorityKeyId = 0,
    /// subjectKeyIdentifier, RFC 5280 section 4.2.1.2
    SubjectKeyId = 1,
    /// keyUsage, RFC 5280 section 4.2.1.3
    KeyUsage = 2,
    /// extKeyUsage, RFC 5280 section 4.2.1.12
    ExtendedKeyUsage = 3,
    /// basicConstraints, RFC 5280 section 4.2.1.9
    BasicConstraints = 4,
    /// nameConstraints, RFC 5280 section 4.2.1.10
    NameConstraints = 5,
    /// subjectAltName, RFC 5280 section 4.2.1.6
    SubjectAltName = 6,
    /// cRLDistributionPoints, RFC 5280 section 4.2.1.13
    CrlDistributionPoints = 7,
    /// authorityInfoAccess, RFC 5280 section 4.2.2.1
    AuthorityInfoAccess = 8,
    /// id-pkix-ocsp-nocheck, RFC 6960 section 4.2.2.2.1
    OcspNoCheck = 9,
    /// noRevAvail, RFC 9608
    NoRevAvail = 10,
}

impl ExtensionKind {
    /// Every kind, in the order in which we write them.
    pub const ALL: [Self; 11] = [
        Self::AuthorityKeyId,
        Self::SubjectKeyId,
        Self::KeyUsage,
        Self::ExtendedKeyUsage,
        Self::BasicConstraints,
        Self::NameConstraints,
        Self::SubjectAltName,
        Self::CrlDistributionPoints,
        Self::AuthorityInfoAccess,
        Self::OcspNoCheck,
        Self::NoRevAvail,
    ];

    /// The content bytes of its OBJECT IDENTIFIER.
    #[must_use]
    pub fn oid(self) -> &'static [u8] {
        match self {
            Self::AuthorityKeyId => oid::AUTHORITY_KEY_ID,
            Self::SubjectKeyId => oid::SUBJECT_KEY_ID,
            Self::KeyUsage => oid::KEY_USAGE,
            Self::ExtendedKeyUsage => oid::EXTENDED_KEY_USAGE,
            Self::BasicConstraints => oid::BASIC_CONSTRAINTS,
            Self::NameConstraints => oid::NAME_CONSTRAINTS,
            Self::SubjectAltName => oid::SUBJECT_ALT_NAME,
            Self::CrlDistributionPoints => oid::CRL_DISTRIBUTION_POINTS,
            Self::AuthorityInfoAccess => oid::AUTHORITY_INFO_ACCESS,
            Self::OcspNoCheck => oid::OCSP_NOCHECK,
            Self::NoRevAvail => oid::NO_REV_AVAIL,
        }
    }

    /// The kind with these content bytes, if it is one that we know.
    #[must_use]
    pub fn from_oid(content: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.oid() == content)
    }

    /// What RFC 5280 calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorityKeyId => "authorityKeyIdentifier",
            Self::SubjectKeyId => "subjectKeyIdentifier",
            Self::KeyUsage => "keyUsage",
            Self::ExtendedKeyUsage => "extKeyUsage",
            Self::BasicConstraints => "basicConstraints",
            Self::NameConstraints => "nameConstraints",
            Self::SubjectAltName => "subjectAltName",
            Self::CrlDistributionPoints => "cRLDistributionPoints",
            Self::AuthorityInfoAccess => "authorityInfoAccess",
            Self::OcspNoCheck => "ocsp-nocheck",
            Self::NoRevAvail => "noRevAvail",
        }
    }
}

/// One extension as it stands in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// The content bytes of its OBJECT IDENTIFIER.
    pub oid: &'a [u8],
    /// Whether whoever does not understand it must refuse the certificate.
    pub critical: bool,
    /// The content of the OCTET STRING.
    pub value: &'a [u8],
}

impl<'a> Extension<'a> {
    /// Which one it is, if we know it.
    #[must_use]
    pub fn kind(&self) -> Option<ExtensionKind> {
        ExtensionKind::from_oid(self.oid)
    }

    /// Its object identifier in dotted form.
    #[must_use]
    pub fn dotted_oid(&self) -> String {
        oid::dotted(self.oid)
    }

    /// The next extension of a list. `critical FALSE` written out, which DER forbids, passes: a lint finds it.
    pub(crate) fn read(list: &mut Reader<'a>) -> Result<Self, DerError> {
        let mut fields = list.sequence()?;
        let oid = fields.oid()?;
        let critical = fields.optional(tag::BOOLEAN)?.map_or(Ok(false), |value| reader::boolean(&value))?;
        let value = fields.expect(tag::OCTET_STRING)?.content;
        fields.finish()?;
        Ok(Self { oid, critical, value })
    }
}

/// Writes one extension.
pub(crate) fn write(list: &mut Writer, oid: &[u8], critical: bool, value: impl FnOnce(&mut Writer)) {
    list.sequence(|extension| {
        extension.oid(oid);
        if critical {
            extension.boolean(true);
        }
        extension.nested(tag::OCTET_STRING, value);
    });
}

/// basicConstraints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BasicConstraints {
    /// Whether the subject is a certificate authority.
    pub is_authority: bool,
    /// How many authorities may stand between it and a leaf; `None` for any number.
    pub path_length: Option<u8>,
}

impl BasicConstraints {
    pub(crate) fn read(value: &[u8]) -> Result<Self, DerError> {
        let whole = Reader::single(value, tag::SEQUENCE)?;
        let mut fields = whole.reader();
        let is_authority =
            fields.optional(tag::BOOLEAN)?.map_or(Ok(false), |value| reader::boolean(&value))?;
        let path_length = if fields.is_empty() { None } else { Some(fields.small_integer()?) };
        fields.finish()?;
        let path_length =
            path_length.map(u8::try_from).transpose().map_err(|_| whole.invalid("path length below 256"))?;
        Ok(Self { is_authority, path_length })
    }

    pub(crate) fn write(self, writer: &mut Writer) {
        writer.sequence(|fields| {
            if self.is_authority {
                fields.boolean(true);
            }
            if let Some(length) = self.path_length {
                fields.unsigned(&[length]);
            }
        });
    }
}

/// Reads keyUsage.
pub(crate) fn read_key_usage(value: &[u8]) -> Result<KeyUsages, DerError> {
    reader::named_bits(&Reader::single(value, tag::BIT_STRING)?).map(KeyUsages::from_bits)
}

/// The key identifier of an authorityKeyIdentifier, and whether issuer name and serial stand beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AuthorityKeyId<'a> {
    pub(crate) key_id: Option<&'a [u8]>,
    pub(crate) names_certificate: bool,
}

impl<'a> AuthorityKeyId<'a> {
    pub(crate) fn read(value: &'a [u8]) -> Result<Self, DerError> {
        let mut fields = Reader::single(value, tag::SEQUENCE)?.reader();
        let key_id = fields.optional(tag::context(0))?.map(|value| value.content);
        let issuer = fields.optional(tag::context_constructed(1))?;
        let serial = fields.optional(tag::context(2))?;
        fields.finish()?;
        Ok(Self { key_id, names_certificate: issuer.is_some() || serial.is_some() })
    }

    pub(crate) fn write(writer: &mut Writer, key_id: &[u8]) {
        writer.sequence(|fields| fields.value(tag::context(0), key_id));
    }
}

/// Checks a SEQUENCE OF and gives its content.
fn list_content<'a>(
    value: &'a [u8],
    read: impl Fn(&mut Reader<'a>) -> Result<(), DerError>,
) -> Result<&'a [u8], DerError> {
    let list = Reader::single(value, tag::SEQUENCE)?;
    let mut items = list.reader();
    while !items.is_empty() {
        read(&mut items)?;
    }
    Ok(list.content)
}

/// Checks the known extensions' structure, so that the accessors that come later can read them without errors.
pub(crate) fn check_structure(kind: ExtensionKind, value: &[u8]) -> Result<(), DerError> {
    match kind {
        ExtensionKind::AuthorityKeyId => AuthorityKeyId::read(value).map(drop),
        ExtensionKind::SubjectKeyId => Reader::single(value, tag::OCTET_STRING).map(drop),
        ExtensionKind::KeyUsage => read_key_usage(value).map(drop),
        ExtensionKind::ExtendedKeyUsage => list_content(value, |items| items.oid().map(drop)).map(drop),
        ExtensionKind::BasicConstraints => BasicConstraints::read(value).map(drop),
        ExtensionKind::NameConstraints => {
            NameConstraintsView::read(&Reader::single(value, tag::SEQUENCE)?).map(drop)
        }
        ExtensionKind::SubjectAltName => {
            list_content(value, |items| GeneralName::read(&items.value()?).map(drop)).map(drop)
        }
        ExtensionKind::CrlDistributionPoints => list_content(value, |items| {
            let mut point = items.sequence()?;
            while !point.is_empty() {
                point.value()?;
            }
            Ok(())
        })
        .map(drop),
        ExtensionKind::AuthorityInfoAccess => {
            list_content(value, |items| read_access(items).map(drop)).map(drop)
        }
        ExtensionKind::OcspNoCheck | ExtensionKind::NoRevAvail => {
            let null = Reader::single(value, tag::NULL)?;
            if null.content.is_empty() { Ok(()) } else { Err(null.invalid("null")) }
        }
    }
}

/// The purposes of an extKeyUsage, as OBJECT IDENTIFIER contents.
pub(crate) fn purposes<'a>(value: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let mut items = items_of(value);
    std::iter::from_fn(move || items.oid().ok())
}

/// The names of a subjectAltName.
pub(crate) fn names<'a>(value: &'a [u8]) -> impl Iterator<Item = GeneralName<'a>> + use<'a> {
    let mut items = items_of(value);
    std::iter::from_fn(move || GeneralName::read(&items.value().ok()?).ok())
}

/// The URIs in the fullName of every distribution point.
pub(crate) fn distribution_urls<'a>(value: &'a [u8]) -> impl Iterator<Item = &'a str> + use<'a> {
    let mut points = items_of(value);
    std::iter::from_fn(move || points.sequence().ok()).flat_map(full_name_urls)
}

/// The URIs in `[0] { [0] { GeneralName... } }`, the distributionPoint of a DistributionPoint or of an
/// issuingDistributionPoint.
pub(crate) fn full_name_urls<'a>(mut point: Reader<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    let names = point.optional(tag::context_constructed(0)).ok().flatten();
    let names = names.and_then(|name| name.reader().optional(tag::context_constructed(0)).ok().flatten());
    let mut names = names.map_or(Reader::new(&[]), |names| names.reader());
    std::iter::from_fn(move || names.value().ok()).filter_map(|value| match GeneralName::read(&value) {
        Ok(GeneralName::Uri(uri)) => Some(uri),
        _ => None,
    })
}

/// The locations of one access method that are URIs.
pub(crate) fn access_urls<'a>(
    value: &'a [u8],
    method: &'static [u8],
) -> impl Iterator<Item = &'a str> + use<'a> {
    let mut items = items_of(value);
    std::iter::from_fn(move || read_access(&mut items).ok()).filter_map(move |(found, location)| {
        match location {
            GeneralName::Uri(uri) if found == method => Some(uri),
            _ => None,
        }
    })
}

pub(crate) fn read_access<'a>(items: &mut Reader<'a>) -> Result<(&'a [u8], GeneralName<'a>), DerError> {
    let mut fields = items.sequence()?;
    let method = fields.oid()?;
    let location = GeneralName::read(&fields.value()?)?;
    fields.finish()?;
    Ok((method, location))
}

fn items_of(value: &[u8]) -> Reader<'_> {
    Reader::single(value, tag::SEQUENCE).map_or(Reader::new(&[]), |list: Value<'_>| list.reader())
}

pub(crate) fn write_purposes(writer: &mut Writer, purposes: &[ExtendedKeyUsage]) {
    writer.sequence(|list| purposes.iter().for_each(|purpose| list.oid(purpose.oid())));
}

pub(crate) fn write_names(writer: &mut Writer, names: &[SubjectName]) {
    writer.sequence(|list| names.iter().for_each(|name| write_subject_name(list, name)));
}

/// One distribution point per URL.
pub(crate) fn write_distribution_points<'a>(writer: &mut Writer, urls: impl Iterator<Item = &'a str>) {
    writer.sequence(|points| {
        for url in urls {
            points.sequence(|point| write_full_name(point, std::iter::once(url)));
        }
    });
}

pub(crate) fn write_full_name<'a>(point: &mut Writer, urls: impl Iterator<Item = &'a str>) {
    point.nested(tag::context_constructed(0), |name| {
        name.nested(tag::context_constructed(0), |full| {
            urls.for_each(|url| full.value(general_name::URI, url.as_bytes()));
        });
    });
}

pub(crate) fn write_access<'a>(writer: &mut Writer, access: impl Iterator<Item = (&'static [u8], &'a str)>) {
    writer.sequence(|descriptions| {
        for (method, url) in access {
            descriptions.sequence(|description| {
                description.oid(method);
                description.value(general_name::URI, url.as_bytes());
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds_are_found_by_their_identifier() {
        for (index, kind) in ExtensionKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            assert_eq!(ExtensionKind::from_oid(kind.oid()), Some(kind));
        }
        assert_eq!(ExtensionKind::from_oid(oid::CERTIFICATE_POLICIES), None);
    }

    proptest! {
        #[test]
        fn any_value_is_read_without_panic(value in proptest::collection::vec(any::<u8>(), 0..100)) {
            for kind in ExtensionKind::ALL {
                let _ = check_structure(kind, &value);
            }
            let _ = purposes(&value).count() + names(&value).count() + distribution_urls(&value).count();
            let _ = access_urls(&value, oid::ACCESS_OCSP).count();
        }
    }
}
