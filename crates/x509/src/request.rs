//! Certificate requests (PKCS #10, RFC 2986) as strangers send them.
//!
//! [`CertificateRequest`] is what was asked for, read strictly and reported whole: what is understood, what
//! is ignored, and whether it asks to be a CA. It grants nothing; names and usages come from the registered
//! identity and the profile, and a request can only narrow them. [`CertificateRequest::verify`] turns it into
//! a [`ProvenRequest`](crate::ProvenRequest).
//!
//! The order of the members of a SET is not checked: widespread clients do not sort them, and nothing here is
//! encoded again.

mod extensions;
mod subject;

use std::fmt;
use std::ops::Range;

use chancery_types::{NameError, SubjectName};

pub(crate) use self::extensions::MAX_NAMES;
use self::extensions::Requested;
pub use self::extensions::{RequestedConstraints, RequestedExtension};
pub use self::subject::RequestedSubject;
use crate::pem::{self, PemError};
use crate::reader::{DerError, Reader, Value};
use crate::signature::{SignatureError, VerificationAlgorithm};
use crate::usage::{KeyUsage, KeyUsages};
use crate::{DistinguishedNameError, ProvenRequest, PublicKey, PublicKeyError, oid, tag};

/// Longest request that is read, in bytes: of DER, and of PEM.
pub const MAX_REQUEST: usize = 64 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Larger than what we read.
    #[error("the request has {length} bytes, at most {limit} are read")]
    TooLong {
        /// Bytes given.
        length: usize,
        /// Bytes read at most.
        limit: usize,
    },
    /// Text that is no PEM request.
    #[error("the request is not PEM: {0}")]
    Pem(#[from] PemError),
    /// Not a DER CertificationRequest.
    #[error("the request is not DER PKCS #10 ({0}); `openssl req -new -outform DER` writes one")]
    Der(#[from] DerError),
    /// Another version than v1.
    #[error("the request has version field {0}; PKCS #10 has only 0")]
    Version(u32),
    /// The key is not one that we certify.
    #[error(transparent)]
    PublicKey(#[from] PublicKeyError),
    /// The subject is not a distinguished name, or has too many attributes.
    #[error("the subject of the request is refused: {0}")]
    Subject(#[from] DistinguishedNameError),
    /// The subject has two common names, so it is unclear who is meant.
    #[error("the subject has more than one common name; send one or none")]
    CommonNameRepeated,
    /// The common name is in an encoding that we do not read, or not printable.
    #[error("the common name is not printable text as UTF8String, PrintableString or IA5String")]
    CommonNameText,
    /// An attribute stands twice.
    #[error("attribute {0} stands twice in the request")]
    AttributeRepeated(String),
    /// The extension request has not exactly one list of extensions.
    #[error("the extensionRequest attribute must have exactly one value")]
    ExtensionRequestValues,
    /// An extension is requested twice.
    #[error("extension {0} is requested twice")]
    ExtensionRepeated(String),
    /// A critical extension that we do not know, so that ignoring it would be wrong.
    #[error(
        "critical extension {0} is requested and not known here; ask for it as non-critical or not at all"
    )]
    ExtensionCritical(String),
    /// An extension that we know does not have its own form.
    #[error("requested extension {extension} is malformed: {error}")]
    Extension {
        /// Its dotted object identifier.
        extension: String,
        /// What is wrong.
        error: DerError,
    },
    /// A requested name that is none of its kind.
    #[error("requested name number {number} is malformed: {error}")]
    Name {
        /// Its place in the subjectAltName, from 1.
        number: usize,
        /// What is wrong, with the name.
        error: NameError,
    },
    /// A requested iPAddress that has neither 4 nor 16 bytes.
    #[error("requested name number {number} is malformed: an iPAddress has 4 or 16 bytes, this has {length}")]
    Address {
        /// Its place in the subjectAltName, from 1.
        number: usize,
        /// Bytes given.
        length: usize,
    },
    /// More of something than any certificate needs.
    #[error("the request has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many are read.
        limit: usize,
    },
    /// The signature is of an unknown kind or not by the key in the request.
    #[error("the request does not prove possession of its key: {0}")]
    Possession(#[source] SignatureError),
}

/// Something in a request that has no effect; the reply names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// A part of the subject other than the common name.
    SubjectAttribute(String),
    /// The challengePassword attribute (its value is not even looked at).
    ChallengePassword,
    /// Another attribute than extensionRequest.
    Attribute(String),
    /// A non-critical extension that is not known or not for requests.
    Extension(String),
    /// A kind of GeneralName that we do not certify.
    NameKind(&'static str),
}

impl fmt::Display for Ignored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SubjectAttribute(oid) => write!(formatter, "subject attribute {oid}"),
            Self::ChallengePassword => formatter.write_str("attribute challengePassword"),
            Self::Attribute(oid) => write!(formatter, "attribute {oid}"),
            Self::Extension(oid) => write!(formatter, "extension {oid}"),
            Self::NameKind(kind) => write!(formatter, "subjectAltName of kind {kind}"),
        }
    }
}

/// A parsed request whose signature nobody has looked at yet.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    der: Box<[u8]>,
    info: Range<usize>,
    signature: Range<usize>,
    signature_algorithm: VerificationAlgorithm,
    subject: RequestedSubject,
    public_key: PublicKey,
    requested: Requested,
    ignored: Vec<Ignored>,
}

impl CertificateRequest {
    /// Reads a request from DER, at most [`MAX_REQUEST`] bytes.
    ///
    /// # Errors
    /// [`RequestError`] naming the first thing that is wrong.
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        check_length(der)?;
        let mut fields = Reader::single(der, tag::SEQUENCE)?.reader();
        let info = fields.expect(tag::SEQUENCE)?;
        let signature_algorithm = fields.expect(tag::SEQUENCE)?;
        let signature = fields.bit_string()?;
        fields.finish()?;

        let mut ignored = Vec::new();
        let mut fields = info.reader();
        let version = fields.small_integer()?;
        if version != 0 {
            return Err(RequestError::Version(version));
        }
        let subject = RequestedSubject::read(fields.expect(tag::SEQUENCE)?.whole, &mut ignored)?;
        let spki = fields.expect(tag::SEQUENCE)?;
        let attributes = fields.expect(tag::context_constructed(0))?;
        fields.finish()?;
        let public_key = PublicKey::from_spki_der(spki.whole)?;
        let requested = read_attributes(&attributes, &mut ignored)?;
        let signature_algorithm = VerificationAlgorithm::from_algorithm_identifier(signature_algorithm.whole)
            .map_err(RequestError::Possession)?;

        Ok(Self {
            info: info.at..info.at + info.whole.len(),
            signature: der.len() - signature.len()..der.len(),
            der: der.into(),
            signature_algorithm,
            subject,
            public_key,
            requested,
            ignored,
        })
    }

    /// Reads a request from PEM (`CERTIFICATE REQUEST`, also with `NEW` before it) or DER, whichever it is.
    ///
    /// # Errors
    /// [`RequestError`] naming the first thing that is wrong.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self, RequestError> {
        check_length(bytes)?;
        if bytes.first() == Some(&tag::SEQUENCE) && !bytes.is_ascii() {
            return Self::from_der(bytes);
        }
        let block = pem::read_pem_one(bytes, &[pem::CERTIFICATE_REQUEST, "NEW CERTIFICATE REQUEST"])?;
        Self::from_der(&block.der)
    }

    /// Verifies that the request was signed with the key it is for: proof of possession.
    ///
    /// # Errors
    /// [`RequestError::Possession`].
    pub fn verify(self) -> Result<ProvenRequest, RequestError> {
        self.public_key
            .verify(self.signature_algorithm, &self.der[self.info.clone()], &self.der[self.signature.clone()])
            .map_err(RequestError::Possession)?;
        Ok(ProvenRequest::from_verified(self))
    }

    /// The request as it was sent.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Who the request says it is for.
    #[must_use]
    pub fn subject(&self) -> &RequestedSubject {
        &self.subject
    }

    /// The key to be certified.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The subject alternative names asked for, without repetitions, in the order of the request.
    #[must_use]
    pub fn names(&self) -> &[SubjectName] {
        &self.requested.names
    }

    /// Every extension asked for, known or not.
    #[must_use]
    pub fn extensions(&self) -> &[RequestedExtension] {
        &self.requested.extensions
    }

    /// The basicConstraints asked for.
    #[must_use]
    pub fn basic_constraints(&self) -> Option<RequestedConstraints> {
        self.requested.basic_constraints
    }

    /// The keyUsage asked for.
    #[must_use]
    pub fn key_usage(&self) -> Option<KeyUsages> {
        self.requested.key_usage
    }

    /// The extKeyUsage asked for: by name those that we issue for, the others as dotted object identifiers.
    #[must_use]
    pub fn extended_key_usage(&self) -> &[String] {
        &self.requested.extended_key_usage
    }

    /// Whether it asks for the powers of a CA: cA true, keyCertSign or cRLSign.
    #[must_use]
    pub fn asks_for_ca(&self) -> bool {
        let for_cas =
            |usage: KeyUsages| usage.contains(KeyUsage::KeyCertSign) || usage.contains(KeyUsage::CrlSign);
        self.requested.basic_constraints.is_some_and(|constraints| constraints.ca)
            || self.requested.key_usage.is_some_and(for_cas)
    }

    /// What in the request has no effect.
    #[must_use]
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }
}

/// Shows no attribute values: challengePassword is a secret.
impl fmt::Debug for CertificateRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CertificateRequest")
            .field("subject", &self.subject)
            .field("public_key", &self.public_key)
            .field("names", &self.requested.names)
            .field("ignored", &self.ignored)
            .finish_non_exhaustive()
    }
}

fn check_length(bytes: &[u8]) -> Result<(), RequestError> {
    if bytes.len() > MAX_REQUEST {
        return Err(RequestError::TooLong { length: bytes.len(), limit: MAX_REQUEST });
    }
    Ok(())
}

/// Reads the attributes, each SEQUENCE { type, SET OF value } (RFC 2986 section 4).
fn read_attributes(attributes: &Value<'_>, ignored: &mut Vec<Ignored>) -> Result<Requested, RequestError> {
    const LIMIT: usize = 16;
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut requested = Requested::default();
    let mut rest = attributes.reader();
    while !rest.is_empty() {
        let mut attribute = rest.sequence()?;
        let kind = attribute.oid()?;
        let values = attribute.expect(tag::SET)?;
        attribute.finish()?;
        if seen.contains(&kind) {
            return Err(RequestError::AttributeRepeated(oid::dotted(kind)));
        }
        if seen.len() == LIMIT {
            return Err(RequestError::TooMany { what: "attributes", limit: LIMIT });
        }
        seen.push(kind);
        match kind {
            EXTENSION_REQUEST => requested = Requested::read(&values, ignored)?,
            CHALLENGE_PASSWORD => ignored.push(Ignored::ChallengePassword),
            _ => ignored.push(Ignored::Attribute(oid::dotted(kind))),
        }
    }
    Ok(requested)
}

/// extensionRequest, 1.2.840.113549.1.9.14 (RFC 2985 section 5.4.2).
pub(crate) const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];
/// challengePassword, 1.2.840.113549.1.9.7 (RFC 2985 section 5.4.1).
const CHALLENGE_PASSWORD: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 7];

#[cfg(test)]
mod tests;
