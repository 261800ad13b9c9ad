//! A TBSCertificate, read: borrowed from the bytes, structure checked once, nothing copied.
//!
//! Reading is strict about structure (DER, and the syntax of every extension we know) and silent about sense: a
//! certificate of version 1 or with two subjectAltNames can be read, so that the lints can say what is wrong
//! with it. [`Certificate`](crate::Certificate) refuses what no relying party should see.

use std::fmt;

use chancery_types::{SignatureAlgorithm, SpiffeId, SubjectName, Timestamp};

use crate::calendar::TimeForm;
use crate::extension::{self, AuthorityKeyId, BasicConstraints, Extension, ExtensionKind};
use crate::general_name::GeneralName;
use crate::name_constraints::NameConstraintsView;
use crate::reader::{DerError, Reader};
use crate::usage::{ExtendedKeyUsage, KeyUsages};
use crate::{distinguished_name, oid, tag};

/// Largest certificate, or TBSCertificate, that is read, in bytes.
pub const MAX_CERTIFICATE: usize = 64 * 1024;
/// Most extensions in a certificate that is read.
pub const MAX_EXTENSIONS: usize = 64;

/// Why bytes are not a certificate that we read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not DER, or not the structure of a certificate.
    #[error("not a certificate: {0}")]
    Der(#[from] DerError),
    /// An extension that we know does not have its syntax.
    #[error("extension {name} is malformed: {error}")]
    Extension {
        /// Which.
        name: &'static str,
        /// Where in its value.
        error: DerError,
    },
    /// More extensions than we read.
    #[error("more than {MAX_EXTENSIONS} extensions")]
    TooManyExtensions,
    /// An issuer or subject that is not a Name.
    #[error("the {which} is not a distinguished name")]
    Name {
        /// `issuer` or `subject`.
        which: &'static str,
    },
    /// Not version 3.
    #[error("version {0}; only version 3 is accepted")]
    Version(u8),
    /// The same extension twice.
    #[error("extension {0} stands in it twice")]
    DuplicateExtension(String),
    /// The two places that name the signature's algorithm disagree.
    #[error("the signed and the unsigned signature algorithm differ")]
    AlgorithmMismatch,
}

/// A TBSCertificate, borrowed and taken apart.
#[derive(Clone, Copy)]
pub struct TbsView<'a> {
    der: &'a [u8],
    layout: Layout,
}

impl<'a> TbsView<'a> {
    /// Reads a TBSCertificate.
    ///
    /// # Errors
    /// [`CertificateError`] when the structure is not that of a TBSCertificate.
    pub fn from_der(der: &'a [u8]) -> Result<Self, CertificateError> {
        Ok(Self { der, layout: Layout::read(der)? })
    }

    pub(crate) fn with_layout(der: &'a [u8], layout: Layout) -> Self {
        Self { der, layout }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The bytes it was read from.
    #[must_use]
    pub fn der(&self) -> &'a [u8] {
        self.der
    }

    /// 1, 2 or 3.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.layout.version
    }

    /// The content of the serial number's INTEGER, in two's complement: our own serials are these very bytes.
    #[must_use]
    pub fn serial(&self) -> &'a [u8] {
        self.layout.serial.of(self.der)
    }

    /// The AlgorithmIdentifier that the signature is to have, whole.
    #[must_use]
    pub fn signature_algorithm_der(&self) -> &'a [u8] {
        self.layout.algorithm.of(self.der)
    }

    /// The signature algorithm, if it is one of ours.
    #[must_use]
    pub fn signature_algorithm(&self) -> Option<SignatureAlgorithm> {
        SignatureAlgorithm::from_algorithm_identifier(self.signature_algorithm_der())
    }

    /// The issuer as a DER Name.
    #[must_use]
    pub fn issuer_der(&self) -> &'a [u8] {
        self.layout.issuer.of(self.der)
    }

    /// The issuer as RFC 4514 text.
    #[must_use]
    pub fn issuer_text(&self) -> String {
        distinguished_name::display(self.issuer_der())
    }

    /// The subject as a DER Name.
    #[must_use]
    pub fn subject_der(&self) -> &'a [u8] {
        self.layout.subject.of(self.der)
    }

    /// The subject as RFC 4514 text; empty for an empty one.
    #[must_use]
    pub fn subject_text(&self) -> String {
        distinguished_name::display(self.subject_der())
    }

    /// Whether the subject has no attributes.
    #[must_use]
    pub fn has_empty_subject(&self) -> bool {
        self.subject_der() == [tag::SEQUENCE, 0]
    }

    /// The first moment of its life.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.layout.not_before.0
    }

    /// The last moment of its life.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.layout.not_after.0
    }

    pub(crate) fn time_forms(&self) -> [(Timestamp, TimeForm); 2] {
        [self.layout.not_before, self.layout.not_after]
    }

    /// Whether this moment lies in its life.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before() <= now && now.whole_second() <= self.not_after()
    }

    /// The subjectPublicKeyInfo, whole.
    #[must_use]
    pub fn spki_der(&self) -> &'a [u8] {
        self.layout.spki.of(self.der)
    }

    /// Whether issuerUniqueID or subjectUniqueID is there, which RFC 5280 tells CAs not to write.
    pub(crate) fn has_unique_ids(&self) -> bool {
        self.layout.has_unique_ids
    }

    /// Every extension in its order, also unknown and repeated ones.
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'a>> + use<'a> {
        let mut list = Reader::new(self.layout.extensions.of(self.der));
        std::iter::from_fn(move || Extension::read(&mut list).ok())
    }

    /// The extension of this kind; the first when there are several.
    #[must_use]
    pub fn extension(&self, kind: ExtensionKind) -> Option<Extension<'a>> {
        self.layout.known[kind as usize].map(|found| Extension {
            oid: kind.oid(),
            critical: found.critical,
            value: found.value.of(self.der),
        })
    }

    fn value(&self, kind: ExtensionKind) -> Option<&'a [u8]> {
        self.layout.known[kind as usize].map(|found| found.value.of(self.der))
    }

    /// subjectKeyIdentifier.
    #[must_use]
    pub fn subject_key_id(&self) -> Option<&'a [u8]> {
        let value = self.value(ExtensionKind::SubjectKeyId)?;
        Reader::single(value, tag::OCTET_STRING).ok().map(|value| value.content)
    }

    /// The key identifier in authorityKeyIdentifier.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&'a [u8]> {
        self.authority_key_identifier()?.key_id
    }

    pub(crate) fn authority_key_identifier(&self) -> Option<AuthorityKeyId<'a>> {
        AuthorityKeyId::read(self.value(ExtensionKind::AuthorityKeyId)?).ok()
    }

    /// keyUsage; `None` when the extension is absent.
    #[must_use]
    pub fn key_usages(&self) -> Option<KeyUsages> {
        extension::read_key_usage(self.value(ExtensionKind::KeyUsage)?).ok()
    }

    /// The purposes of extKeyUsage as OBJECT IDENTIFIER contents; none when the extension is absent.
    pub fn purposes(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.value(ExtensionKind::ExtendedKeyUsage).into_iter().flat_map(extension::purposes)
    }

    /// Whether extKeyUsage names this purpose.
    #[must_use]
    pub fn has_purpose(&self, usage: ExtendedKeyUsage) -> bool {
        self.purposes().any(|found| found == usage.oid())
    }

    /// basicConstraints; `None` when the extension is absent.
    #[must_use]
    pub fn basic_constraints(&self) -> Option<BasicConstraints> {
        BasicConstraints::read(self.value(ExtensionKind::BasicConstraints)?).ok()
    }

    /// Whether basicConstraints says that the subject is a certificate authority.
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.basic_constraints().is_some_and(|constraints| constraints.is_authority)
    }

    /// The names of subjectAltName, as they stand there.
    pub fn names(&self) -> impl Iterator<Item = GeneralName<'a>> + use<'a> {
        self.value(ExtensionKind::SubjectAltName).into_iter().flat_map(extension::names)
    }

    /// The names of subjectAltName that are of our four forms and well formed.
    #[must_use]
    pub fn subject_names(&self) -> Vec<SubjectName> {
        self.names().filter_map(|name| name.subject_name()).collect()
    }

    /// The SPIFFE ID, if there is exactly one URI name and it is one (X509-SVID section 2).
    #[must_use]
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        let mut uris = self.names().filter_map(|name| match name {
            GeneralName::Uri(uri) => Some(uri),
            _ => None,
        });
        let only = uris.next().filter(|_| uris.next().is_none())?;
        SpiffeId::parse(only).ok()
    }

    /// nameConstraints.
    #[must_use]
    pub fn name_constraints(&self) -> Option<NameConstraintsView<'a>> {
        let value = Reader::single(self.value(ExtensionKind::NameConstraints)?, tag::SEQUENCE).ok()?;
        NameConstraintsView::locate(&value).ok()
    }

    /// The URLs in cRLDistributionPoints.
    pub fn crl_urls(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.value(ExtensionKind::CrlDistributionPoints).into_iter().flat_map(extension::distribution_urls)
    }

    /// The OCSP URLs in authorityInfoAccess.
    pub fn ocsp_urls(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.access_urls(oid::ACCESS_OCSP)
    }

    /// The caIssuers URLs in authorityInfoAccess.
    pub fn ca_issuers_urls(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.access_urls(oid::ACCESS_CA_ISSUERS)
    }

    fn access_urls(&self, method: &'static [u8]) -> impl Iterator<Item = &'a str> + use<'a> {
        self.value(ExtensionKind::AuthorityInfoAccess)
            .into_iter()
            .flat_map(move |value| extension::access_urls(value, method))
    }

    /// Whether noRevAvail is there (RFC 9608).
    #[must_use]
    pub fn has_no_rev_avail(&self) -> bool {
        self.value(ExtensionKind::NoRevAvail).is_some()
    }

    /// Whether id-pkix-ocsp-nocheck is there (RFC 6960 section 4.2.2.2.1).
    #[must_use]
    pub fn has_ocsp_nocheck(&self) -> bool {
        self.value(ExtensionKind::OcspNoCheck).is_some()
    }
}

impl fmt::Debug for TbsView<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TbsView")
            .field("serial", &self.serial())
            .field("issuer", &self.issuer_text())
            .field("subject", &self.subject_text())
            .field("names", &self.names().map(|name| name.to_string()).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Where in the bytes everything is.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    version: u8,
    has_unique_ids: bool,
    serial: Span,
    algorithm: Span,
    issuer: Span,
    not_before: (Timestamp, TimeForm),
    not_after: (Timestamp, TimeForm),
    subject: Span,
    spki: Span,
    extensions: Span,
    known: [Option<KnownExtension>; ExtensionKind::ALL.len()],
}

#[derive(Clone, Copy)]
struct KnownExtension {
    critical: bool,
    value: Span,
}

/// A range of the bytes: a part that was read, without its borrow.
#[derive(Clone, Copy, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The place of `part`, which must have been borrowed from `whole`.
    pub(crate) fn locate(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        let end = start.wrapping_add(part.len());
        debug_assert!(end <= whole.len(), "the part lies in the whole");
        let number = |place: usize| u32::try_from(place).unwrap_or(0);
        Self { start: number(start), end: number(end) }
    }

    pub(crate) fn of(self, whole: &[u8]) -> &[u8] {
        whole.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

impl Layout {
    fn read(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE {
            return Err(DerError::TooLong { got: der.len(), limit: MAX_CERTIFICATE }.into());
        }
        let mut tbs = Reader::single(der, tag::SEQUENCE)?.reader();
        let version = match tbs.optional(tag::context_constructed(0))? {
            None => 1,
            Some(explicit) => {
                let mut field = explicit.reader();
                let number = field.small_integer()?;
                field.finish()?;
                let number = u8::try_from(number).ok().filter(|number| *number <= 2);
                number.ok_or_else(|| explicit.invalid("version"))? + 1
            }
        };
        let serial = tbs.integer()?;
        let algorithm = tbs.expect(tag::SEQUENCE)?.whole;
        let issuer = tbs.expect(tag::SEQUENCE)?.whole;
        let mut validity = tbs.sequence()?;
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        validity.finish()?;
        let subject = tbs.expect(tag::SEQUENCE)?.whole;
        let spki = tbs.expect(tag::SEQUENCE)?.whole;
        let issuer_id = tbs.optional(tag::context(1))?;
        let subject_id = tbs.optional(tag::context(2))?;
        for (which, name) in [("issuer", issuer), ("subject", subject)] {
            distinguished_name::check(name).map_err(|_| CertificateError::Name { which })?;
        }
        let extensions = match tbs.optional(tag::context_constructed(3))? {
            None => None,
            Some(explicit) => {
                let mut field = explicit.reader();
                let list = field.expect(tag::SEQUENCE)?;
                field.finish()?;
                Some(list)
            }
        };
        tbs.finish()?;
        let mut layout = Self {
            version,
            has_unique_ids: issuer_id.is_some() || subject_id.is_some(),
            serial: Span::locate(der, serial),
            algorithm: Span::locate(der, algorithm),
            issuer: Span::locate(der, issuer),
            not_before,
            not_after,
            subject: Span::locate(der, subject),
            spki: Span::locate(der, spki),
            extensions: Span::default(),
            known: [None; ExtensionKind::ALL.len()],
        };
        if let Some(list) = extensions {
            layout.extensions = Span::locate(der, list.content);
            layout.find_known(der, list.reader())?;
        }
        Ok(layout)
    }

    fn find_known(&mut self, der: &[u8], mut list: Reader<'_>) -> Result<(), CertificateError> {
        let mut count = 0;
        while !list.is_empty() {
            count += 1;
            if count > MAX_EXTENSIONS {
                return Err(CertificateError::TooManyExtensions);
            }
            let extension = Extension::read(&mut list)?;
            let Some(kind) = extension.kind() else { continue };
            extension::check_structure(kind, extension.value)
                .map_err(|error| CertificateError::Extension { name: kind.as_str(), error })?;
            let value = Span::locate(der, extension.value);
            self.known[kind as usize].get_or_insert(KnownExtension { critical: extension.critical, value });
        }
        Ok(())
    }
}
