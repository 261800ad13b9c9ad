//! A CRL, read: borrowed from its bytes, every entry checked once, entries handed out one after another.

use std::fmt;

use chancery_types::{RevocationReason, SignatureAlgorithm, Timestamp};

use super::RevokedCertificate;
use crate::calendar::TimeForm;
use crate::distinguished_name;
use crate::extension::{self, AuthorityKeyId, Extension};
use crate::reader::{self, DerError, Reader};
use crate::signature::{SignatureError, VerificationAlgorithm, verify_signature};
use crate::{oid, tag};

/// Largest list that is read, in bytes: about a million entries.
pub const MAX_CRL: usize = 64 * 1024 * 1024;
/// Most extensions of a list, and of an entry.
const MAX_EXTENSIONS: usize = 16;

/// Why bytes are not a list that we read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// Not DER, or not the structure of a list.
    #[error("not a CRL: {0}")]
    Der(#[from] DerError),
    /// Version 1, which has no extensions.
    #[error("the CRL is not of version 2")]
    Version,
    /// The issuer is not a Name.
    #[error("the issuer is not a distinguished name")]
    Issuer,
    /// The two places that name the signature's algorithm disagree.
    #[error("the signed and the unsigned signature algorithm differ")]
    AlgorithmMismatch,
    /// A critical extension that we do not understand: the list may mean something else than it seems.
    #[error("unknown critical extension {0}")]
    UnknownCritical(String),
    /// A list that is not complete for its issuer: delta, indirect, or of some reasons only.
    #[error("the list covers only a part: {0}")]
    Partial(&'static str),
    /// More extensions than we read.
    #[error("more than {MAX_EXTENSIONS} extensions")]
    TooManyExtensions,
}

/// A CertificateList, borrowed and taken apart. Its signature has not been looked at.
#[derive(Clone, Copy)]
pub struct CrlView<'a> {
    tbs: TbsCrlView<'a>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

/// A TBSCertList, borrowed and taken apart.
#[derive(Clone, Copy)]
pub(crate) struct TbsCrlView<'a> {
    pub(crate) der: &'a [u8],
    pub(crate) version: u32,
    pub(crate) algorithm: &'a [u8],
    pub(crate) issuer: &'a [u8],
    pub(crate) this_update: (Timestamp, TimeForm),
    pub(crate) next_update: Option<(Timestamp, TimeForm)>,
    /// The content of revokedCertificates, if it is there.
    pub(crate) entries: Option<&'a [u8]>,
    extensions: &'a [u8],
}

impl<'a> CrlView<'a> {
    /// Reads a list; all its entries are walked once.
    ///
    /// # Errors
    /// [`CrlError`] when it is not DER of at most [`MAX_CRL`] bytes, or says something that we do not understand.
    pub fn from_der(der: &'a [u8]) -> Result<Self, CrlError> {
        if der.len() > MAX_CRL {
            return Err(DerError::TooLong { got: der.len(), limit: MAX_CRL }.into());
        }
        let mut fields = Reader::single(der, tag::SEQUENCE)?.reader();
        let tbs = fields.expect(tag::SEQUENCE)?.whole;
        let algorithm = fields.expect(tag::SEQUENCE)?.whole;
        let signature = fields.bit_string()?;
        fields.finish()?;
        let tbs = TbsCrlView::from_der(tbs)?;
        tbs.check_sense()?;
        if tbs.algorithm != algorithm {
            return Err(CrlError::AlgorithmMismatch);
        }
        Ok(Self { tbs, algorithm, signature })
    }

    /// The exact bytes that were signed.
    #[must_use]
    pub fn tbs_der(&self) -> &'a [u8] {
        self.tbs.der
    }

    /// The issuer as a DER Name.
    #[must_use]
    pub fn issuer_der(&self) -> &'a [u8] {
        self.tbs.issuer
    }

    /// The issuer as RFC 4514 text.
    #[must_use]
    pub fn issuer_text(&self) -> String {
        distinguished_name::display(self.tbs.issuer)
    }

    /// The moment up to which it is complete.
    #[must_use]
    pub fn this_update(&self) -> Timestamp {
        self.tbs.this_update.0
    }

    /// When the next one is due.
    #[must_use]
    pub fn next_update(&self) -> Option<Timestamp> {
        self.tbs.next_update.map(|(moment, _)| moment)
    }

    /// The content of cRLNumber's INTEGER, big-endian.
    #[must_use]
    pub fn number(&self) -> Option<&'a [u8]> {
        self.tbs.number()
    }

    /// cRLNumber, if it is there and below 2^64.
    #[must_use]
    pub fn number_u64(&self) -> Option<u64> {
        let digits = self.number()?;
        let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
        (digits.len() <= 8).then(|| digits.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// The key identifier in authorityKeyIdentifier.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&'a [u8]> {
        self.tbs.authority_key_id()
    }

    /// The URLs of issuingDistributionPoint; none for a list that covers all of its issuer's certificates.
    pub fn distribution_points(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.tbs.distribution_points()
    }

    /// The entries, in their order.
    pub fn entries(&self) -> impl Iterator<Item = RevokedCertificate<'a>> + use<'a> {
        self.tbs.entries()
    }

    /// The entry with this serial number, found by walking from the beginning.
    #[must_use]
    pub fn entry(&self, serial: &[u8]) -> Option<RevokedCertificate<'a>> {
        self.entries().find(|entry| entry.serial == serial)
    }

    /// The algorithm of the signature, if it is one of ours.
    #[must_use]
    pub fn signature_algorithm(&self) -> Option<SignatureAlgorithm> {
        SignatureAlgorithm::from_algorithm_identifier(self.algorithm)
    }

    /// The bytes of the signature.
    #[must_use]
    pub fn signature(&self) -> &'a [u8] {
        self.signature
    }

    /// Verifies the signature with the key in this subjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, spki_der: &[u8]) -> Result<(), SignatureError> {
        let algorithm = VerificationAlgorithm::from_algorithm_identifier(self.algorithm)?;
        verify_signature(spki_der, algorithm, self.tbs.der, self.signature)
    }
}

impl fmt::Debug for CrlView<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CrlView")
            .field("issuer", &self.issuer_text())
            .field("number", &self.number())
            .field("this_update", &self.this_update())
            .finish_non_exhaustive()
    }
}

impl<'a> TbsCrlView<'a> {
    /// Reads the structure and is silent about sense, like [`TbsView`](crate::TbsView).
    pub(crate) fn from_der(der: &'a [u8]) -> Result<Self, CrlError> {
        let mut tbs = Reader::single(der, tag::SEQUENCE)?.reader();
        let version = if tbs.peek() == Some(tag::INTEGER) { tbs.small_integer()? } else { 0 };
        let algorithm = tbs.expect(tag::SEQUENCE)?.whole;
        let issuer = tbs.expect(tag::SEQUENCE)?.whole;
        distinguished_name::check(issuer).map_err(|_| CrlError::Issuer)?;
        let this_update = tbs.time()?;
        let next_update = match tbs.peek() {
            Some(tag::UTC_TIME | tag::GENERALIZED_TIME) => Some(tbs.time()?),
            _ => None,
        };
        let entries = tbs.optional(tag::SEQUENCE)?;
        let extensions = match tbs.optional(tag::context_constructed(0))? {
            None => &[],
            Some(explicit) => {
                let mut field = explicit.reader();
                let list = field.expect(tag::SEQUENCE)?;
                field.finish()?;
                check_extensions(list.reader())?;
                list.content
            }
        };
        tbs.finish()?;
        if let Some(list) = entries {
            let mut entries = list.reader();
            while !entries.is_empty() {
                read_entry(&mut entries)?;
            }
        }
        let entries = entries.map(|list| list.content);
        let view = Self { der, version, algorithm, issuer, this_update, next_update, entries, extensions };
        view.check_extension_values()?;
        Ok(view)
    }

    fn check_extension_values(&self) -> Result<(), CrlError> {
        for extension in self.extensions() {
            match extension.oid {
                oid::AUTHORITY_KEY_ID => AuthorityKeyId::read(extension.value).map(|_| ())?,
                oid::CRL_NUMBER => {
                    let mut number = Reader::new(extension.value);
                    number.integer()?;
                    number.finish()?;
                }
                oid::ISSUING_DISTRIBUTION_POINT => Scope::read(extension.value).map(|_| ())?,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_sense(&self) -> Result<(), CrlError> {
        if self.version != 1 {
            return Err(CrlError::Version);
        }
        for extension in self.extensions() {
            match extension.oid {
                oid::DELTA_CRL_INDICATOR => return Err(CrlError::Partial("it is a delta")),
                oid::ISSUING_DISTRIBUTION_POINT => {
                    if let Some(why) = Scope::read(extension.value)?.partial() {
                        return Err(CrlError::Partial(why));
                    }
                }
                oid::AUTHORITY_KEY_ID | oid::CRL_NUMBER => {}
                unknown if extension.critical => return Err(CrlError::UnknownCritical(oid::dotted(unknown))),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn extensions(&self) -> impl Iterator<Item = Extension<'a>> + use<'a> {
        let mut list = Reader::new(self.extensions);
        std::iter::from_fn(move || Extension::read(&mut list).ok())
    }

    pub(crate) fn extension(&self, oid: &[u8]) -> Option<Extension<'a>> {
        self.extensions().find(|extension| extension.oid == oid)
    }

    pub(crate) fn number(&self) -> Option<&'a [u8]> {
        Reader::new(self.extension(oid::CRL_NUMBER)?.value).integer().ok()
    }

    pub(crate) fn authority_key_id(&self) -> Option<&'a [u8]> {
        AuthorityKeyId::read(self.extension(oid::AUTHORITY_KEY_ID)?.value).ok()?.key_id
    }

    pub(crate) fn distribution_points(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let value = self.extension(oid::ISSUING_DISTRIBUTION_POINT).map(|extension| extension.value);
        let point = value.and_then(|value| Reader::new(value).sequence().ok());
        point.into_iter().flat_map(extension::full_name_urls)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = RevokedCertificate<'a>> + use<'a> {
        self.raw_entries().map(|entry| entry.revoked)
    }

    pub(crate) fn raw_entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut entries = Reader::new(self.entries.unwrap_or_default());
        std::iter::from_fn(move || read_entry(&mut entries).ok())
    }
}

/// An entry with what its lints look at.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) revoked: RevokedCertificate<'a>,
    pub(crate) time_form: TimeForm,
    /// The reason code as it stands there, even if it is one that we never write.
    pub(crate) reason_code: Option<u8>,
}

fn read_entry<'a>(list: &mut Reader<'a>) -> Result<Entry<'a>, CrlError> {
    let mut fields = list.sequence()?;
    let serial = fields.integer()?;
    let (revoked_at, time_form) = fields.time()?;
    let mut reason_code = None;
    if !fields.is_empty() {
        let mut extensions = fields.sequence()?;
        let mut count = 0;
        while !extensions.is_empty() {
            count += 1;
            if count > MAX_EXTENSIONS {
                return Err(CrlError::TooManyExtensions);
            }
            let extension = Extension::read(&mut extensions)?;
            match extension.oid {
                oid::CRL_REASON => {
                    let code = Reader::single(extension.value, tag::ENUMERATED)?;
                    let [byte] = code.content else { return Err(code.invalid("reason code").into()) };
                    reason_code = Some(*byte);
                }
                oid::CERTIFICATE_ISSUER => return Err(CrlError::Partial("it is indirect")),
                unknown if extension.critical => return Err(CrlError::UnknownCritical(oid::dotted(unknown))),
                _ => {}
            }
        }
    }
    fields.finish()?;
    let reason = reason_code.and_then(|code| RevocationReason::from_code(code).ok()).unwrap_or_default();
    Ok(Entry { revoked: RevokedCertificate { serial, revoked_at, reason }, time_form, reason_code })
}

fn check_extensions(mut list: Reader<'_>) -> Result<(), CrlError> {
    let mut count = 0;
    while !list.is_empty() {
        Extension::read(&mut list)?;
        count += 1;
        if count > MAX_EXTENSIONS {
            return Err(CrlError::TooManyExtensions);
        }
    }
    Ok(())
}

/// The flags of issuingDistributionPoint (RFC 5280 section 5.2.5), each of which makes the list a part.
struct Scope {
    only: [bool; 5],
}

impl Scope {
    const MEANINGS: [&'static str; 5] = [
        "users' certificates only",
        "authorities' certificates only",
        "some reasons only",
        "it is indirect",
        "attribute certificates only",
    ];

    fn read(value: &[u8]) -> Result<Self, DerError> {
        let mut fields = Reader::single(value, tag::SEQUENCE)?.reader();
        fields.optional(tag::context_constructed(0))?;
        let mut only = [false; 5];
        for (number, flag) in (1..).zip(&mut only) {
            if let Some(value) = fields.optional(tag::context(number))? {
                *flag = number == 3 || reader::boolean(&value)?;
            }
        }
        fields.finish()?;
        Ok(Self { only })
    }

    fn partial(&self) -> Option<&'static str> {
        self.only.iter().zip(Self::MEANINGS).find(|(flag, _)| **flag).map(|(_, meaning)| meaning)
    }
}
