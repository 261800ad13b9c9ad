//! OCSP requests: read from strangers, and written for those who ask.

use super::{IssuerHashes, NONCE_LENGTHS};
use crate::extension::{self, Extension};
use crate::reader::{DerError, Reader};
use crate::writer::Writer;
use crate::{oid, tag};

/// Largest request that is read, in bytes: twenty certificates by SHA-256 take about two thousand.
pub const MAX_OCSP_REQUEST: usize = 8 * 1024;
/// Most certificates that one request may ask about.
pub const MAX_SINGLE_REQUESTS: usize = 20;
const MAX_EXTENSIONS: usize = 16;

/// Why a request is not answered; all of them are [`OcspError::MalformedRequest`](super::OcspError).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OcspRequestError {
    /// Not DER, or not the structure of a request.
    #[error("not an OCSP request: {0}")]
    Der(#[from] DerError),
    /// A version that does not exist.
    #[error("version {0} of OCSP does not exist")]
    Version(u32),
    /// No certificate, or too many.
    #[error("{count} certificates asked about, 1 to {limit} are answered")]
    Count {
        /// Certificates asked about; one more than the limit stands for many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A nonce of a length that RFC 9654 does not allow.
    #[error("a nonce of {0} bytes, 1 to 128 are allowed (RFC 9654 section 2.1)")]
    Nonce(usize),
    /// A critical extension that we do not understand.
    #[error("unknown critical extension {0}")]
    UnknownCritical(String),
    /// The same extension twice, or too many of them.
    #[error("an extension stands there twice, or there are more than {MAX_EXTENSIONS}")]
    Extensions,
}

/// Which digest names the issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertIdHash {
    /// SHA-1: what nearly all clients send (RFC 5019 section 2.1.1).
    Sha1,
    /// SHA-256.
    Sha256,
    /// Another one; nothing matches it.
    Other,
}

/// A certificate that is asked about: CertID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertId<'a> {
    der: &'a [u8],
    hash: CertIdHash,
    issuer_name_hash: &'a [u8],
    issuer_key_hash: &'a [u8],
    serial: &'a [u8],
}

impl<'a> CertId<'a> {
    pub(super) fn read(list: &mut Reader<'a>) -> Result<Self, DerError> {
        let whole = list.expect(tag::SEQUENCE)?;
        let mut fields = whole.reader();
        let mut algorithm = fields.sequence()?;
        let name = algorithm.oid()?;
        if let Some(parameters) = algorithm.optional(tag::NULL)?
            && !parameters.content.is_empty()
        {
            return Err(parameters.invalid("null"));
        }
        algorithm.finish()?;
        let hash = match name {
            oid::SHA1 => CertIdHash::Sha1,
            oid::SHA256 => CertIdHash::Sha256,
            _ => CertIdHash::Other,
        };
        let issuer_name_hash = fields.expect(tag::OCTET_STRING)?.content;
        let issuer_key_hash = fields.expect(tag::OCTET_STRING)?.content;
        let serial = fields.integer()?;
        fields.finish()?;
        if serial.len() > LONGEST_SERIAL || issuer_name_hash.len().max(issuer_key_hash.len()) > LONGEST_HASH {
            return Err(whole.invalid("CertID of bounded size"));
        }
        Ok(Self { der: whole.whole, hash, issuer_name_hash, issuer_key_hash, serial })
    }

    /// Its exact bytes: an answer repeats them, so that clients that compare bytes find it.
    #[must_use]
    pub fn der(&self) -> &'a [u8] {
        self.der
    }

    /// Which digest names the issuer.
    #[must_use]
    pub fn hash(&self) -> CertIdHash {
        self.hash
    }

    /// The digest of the issuer's name.
    #[must_use]
    pub fn issuer_name_hash(&self) -> &'a [u8] {
        self.issuer_name_hash
    }

    /// The digest of the issuer's key.
    #[must_use]
    pub fn issuer_key_hash(&self) -> &'a [u8] {
        self.issuer_key_hash
    }

    /// The serial number: the content of the INTEGER.
    #[must_use]
    pub fn serial(&self) -> &'a [u8] {
        self.serial
    }
}

/// A request, borrowed and taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspRequest<'a> {
    ids: Vec<CertId<'a>>,
    nonce: Option<&'a [u8]>,
}

impl<'a> OcspRequest<'a> {
    /// Reads a request. Its signature and the name of who asks are not looked at.
    ///
    /// # Errors
    /// [`OcspRequestError`]; the answer to all of them is
    /// [`OcspError::MalformedRequest`](super::OcspError::MalformedRequest).
    pub fn from_der(der: &'a [u8]) -> Result<Self, OcspRequestError> {
        if der.len() > MAX_OCSP_REQUEST {
            return Err(DerError::TooLong { got: der.len(), limit: MAX_OCSP_REQUEST }.into());
        }
        let mut whole = Reader::single(der, tag::SEQUENCE)?.reader();
        let mut tbs = whole.sequence()?;
        whole.optional(tag::context_constructed(0))?;
        whole.finish()?;
        if let Some(version) = tbs.optional(tag::context_constructed(0))? {
            let mut field = version.reader();
            let version = field.small_integer()?;
            field.finish()?;
            if version != 0 {
                return Err(OcspRequestError::Version(version.saturating_add(1)));
            }
        }
        tbs.optional(tag::context_constructed(1))?;
        let ids = read_ids(tbs.sequence()?)?;
        let nonce = match tbs.optional(tag::context_constructed(2))? {
            None => None,
            Some(explicit) => read_request_extensions(explicit.reader())?,
        };
        tbs.finish()?;
        Ok(Self { ids, nonce })
    }

    /// The certificates that are asked about, at least one.
    #[must_use]
    pub fn ids(&self) -> &[CertId<'a>] {
        &self.ids
    }

    /// The nonce, to be repeated in the answer.
    #[must_use]
    pub fn nonce(&self) -> Option<&'a [u8]> {
        self.nonce
    }

    /// Writes a request about certificates of one issuer: for the command line and for tests.
    #[must_use]
    pub fn to_der(
        issuer: &IssuerHashes,
        hash: CertIdHash,
        serials: &[&[u8]],
        nonce: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut writer = Writer::with_capacity(128 * serials.len() + 192);
        writer.sequence(|request| {
            request.sequence(|tbs| {
                tbs.sequence(|list| {
                    for serial in serials {
                        list.sequence(|single| write_cert_id(single, issuer, hash, serial));
                    }
                });
                if let Some(nonce) = nonce {
                    tbs.nested(tag::context_constructed(2), |explicit| {
                        explicit.sequence(|extensions| write_nonce(extensions, nonce));
                    });
                }
            });
        });
        writer.finish()
    }
}

fn write_cert_id(writer: &mut Writer, issuer: &IssuerHashes, hash: CertIdHash, serial: &[u8]) {
    let (name, key) = issuer.by(hash);
    let algorithm = if hash == CertIdHash::Sha1 { oid::SHA1 } else { oid::SHA256 };
    writer.sequence(|id| {
        id.sequence(|identifier| {
            identifier.oid(algorithm);
            identifier.null();
        });
        id.octet_string(name.unwrap_or_default());
        id.octet_string(key.unwrap_or_default());
        id.unsigned(serial);
    });
}

/// The nonce extension, the same in requests and answers.
pub(super) fn write_nonce(list: &mut Writer, nonce: &[u8]) {
    extension::write(list, oid::OCSP_NONCE, false, |value| value.octet_string(nonce));
}

fn read_ids(mut list: Reader<'_>) -> Result<Vec<CertId<'_>>, OcspRequestError> {
    let mut ids = Vec::new();
    while !list.is_empty() {
        if ids.len() == MAX_SINGLE_REQUESTS {
            return Err(OcspRequestError::Count { count: ids.len() + 1, limit: MAX_SINGLE_REQUESTS });
        }
        let mut single = list.sequence()?;
        ids.push(CertId::read(&mut single)?);
        if let Some(explicit) = single.optional(tag::context_constructed(0))? {
            let mut field = explicit.reader();
            let extensions = field.sequence()?;
            field.finish()?;
            read_extensions(extensions, |_| Ok(false))?;
        }
        single.finish()?;
    }
    if ids.is_empty() {
        return Err(OcspRequestError::Count { count: 0, limit: MAX_SINGLE_REQUESTS });
    }
    Ok(ids)
}

fn read_request_extensions(mut explicit: Reader<'_>) -> Result<Option<&[u8]>, OcspRequestError> {
    let extensions = explicit.sequence()?;
    explicit.finish()?;
    let mut nonce = None;
    read_extensions(extensions, |extension| {
        if extension.oid != oid::OCSP_NONCE {
            return Ok(false);
        }
        nonce = Some(read_nonce(extension.value)?);
        Ok(true)
    })?;
    Ok(nonce)
}

/// The nonce inside its extension.
pub(super) fn read_nonce(value: &[u8]) -> Result<&[u8], OcspRequestError> {
    let nonce = Reader::single(value, tag::OCTET_STRING)?.content;
    if NONCE_LENGTHS.contains(&nonce.len()) { Ok(nonce) } else { Err(OcspRequestError::Nonce(nonce.len())) }
}

/// Walks extensions; `understand` says whether it knows one, and unknown ones must not be critical.
fn read_extensions<'a>(
    mut list: Reader<'a>,
    mut understand: impl FnMut(&Extension<'a>) -> Result<bool, OcspRequestError>,
) -> Result<(), OcspRequestError> {
    let mut seen: Vec<&[u8]> = Vec::new();
    while !list.is_empty() {
        let extension = Extension::read(&mut list)?;
        if seen.contains(&extension.oid) || seen.len() == MAX_EXTENSIONS {
            return Err(OcspRequestError::Extensions);
        }
        seen.push(extension.oid);
        if !understand(&extension)? && extension.critical {
            return Err(OcspRequestError::UnknownCritical(oid::dotted(extension.oid)));
        }
    }
    Ok(())
}

/// RFC 5280 allows 20; a few authorities have issued longer ones.
const LONGEST_SERIAL: usize = 32;
/// SHA-512.
const LONGEST_HASH: usize = 64;
