//! OCSP responses, read and verified.

use chancery_types::{RevocationReason, Timestamp};
use sha1::{Digest as _, Sha1};

use super::request::{CertId, MAX_SINGLE_REQUESTS, read_nonce};
use super::response::{CertificateStatus, SUCCESSFUL, SingleStatus};
use super::{IssuerHashes, OcspError};
use crate::calendar::{self, TimeForm};
use crate::chain::{ChainError, check_issued_by};
use crate::distinguished_name;
use crate::extension::Extension;
use crate::reader::{DerError, Reader, Value};
use crate::signature::{SignatureError, VerificationAlgorithm, verify_signature};
use crate::spki::Spki;
use crate::tbs::CertificateError;
use crate::{Certificate, ExtendedKeyUsage, KeyUsage, oid, tag};

/// Largest response that is read, in bytes.
pub const MAX_OCSP_RESPONSE: usize = 64 * 1024;
/// Most certificates beside a response.
const MAX_CERTIFICATES: usize = 8;

/// Why bytes are not a response that we read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OcspResponseError {
    /// Not DER, or not the structure of a response.
    #[error("not an OCSP response: {0}")]
    Der(#[from] DerError),
    /// A response type other than the basic one.
    #[error("response type {0}, only the basic one is read")]
    Type(String),
    /// A status without meaning.
    #[error("response status {0} does not exist")]
    Status(u8),
    /// More answers or certificates than we read.
    #[error("more than {0} of them in one response")]
    TooMany(usize),
    /// A critical extension that we do not understand.
    #[error("unknown critical extension {0}")]
    UnknownCritical(String),
}

/// Who signed a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponderId<'a> {
    /// Its subject, as a DER Name.
    Name(&'a [u8]),
    /// SHA-1 of its key.
    KeyHash(&'a [u8]),
}

/// A response, borrowed and taken apart.
#[derive(Debug, Clone)]
pub enum OcspResponse<'a> {
    /// The responder did not answer.
    Error(OcspError),
    /// It did; nothing is verified yet.
    Basic(BasicResponse<'a>),
}

/// A signed answer.
#[derive(Debug, Clone)]
pub struct BasicResponse<'a> {
    tbs: &'a [u8],
    responder: ResponderId<'a>,
    produced_at: Timestamp,
    statuses: Vec<(CertId<'a>, SingleStatus<'a>)>,
    nonce: Option<&'a [u8]>,
    algorithm: &'a [u8],
    signature: &'a [u8],
    certificates: Vec<&'a [u8]>,
}

/// Why an answer must not be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OcspVerifyError {
    /// No certificate in the response, nor the issuer, is the responder that it names.
    #[error("the responder's certificate is not in the response, and the issuer is not the responder")]
    NoResponder,
    /// A certificate in it cannot be read.
    #[error("a certificate in the response: {0}")]
    Certificate(#[from] CertificateError),
    /// The responder's certificate is not one of the issuer's.
    #[error("the responder's certificate: {0}")]
    Chain(#[from] ChainError),
    /// The responder's certificate does not make it a responder.
    #[error("the responder's certificate lacks {0}")]
    NotAResponder(&'static str),
    /// The responder's certificate is not valid now.
    #[error("the responder's certificate is valid from {not_before} to {not_after}")]
    Expired {
        /// From.
        not_before: Timestamp,
        /// To.
        not_after: Timestamp,
    },
    /// The signature is not the responder's.
    #[error("the signature: {0}")]
    Signature(#[from] SignatureError),
    /// The answer is not about this certificate.
    #[error("no answer about this certificate")]
    NoAnswer,
    /// The answer is of the future, or too old.
    #[error("the answer holds from {this_update} to {next_update:?}")]
    Stale {
        /// thisUpdate
        this_update: Timestamp,
        /// nextUpdate
        next_update: Option<Timestamp>,
    },
    /// The nonce is not the one that was sent.
    #[error("the nonce is not the one of the request")]
    Nonce,
}

impl<'a> OcspResponse<'a> {
    /// Reads a response.
    ///
    /// # Errors
    /// [`OcspResponseError`] when it is none.
    pub fn from_der(der: &'a [u8]) -> Result<Self, OcspResponseError> {
        if der.len() > MAX_OCSP_RESPONSE {
            return Err(DerError::TooLong { got: der.len(), limit: MAX_OCSP_RESPONSE }.into());
        }
        let mut response = Reader::single(der, tag::SEQUENCE)?.reader();
        let status = response.expect(tag::ENUMERATED)?;
        let [code] = status.content else { return Err(status.invalid("response status").into()) };
        if *code != SUCCESSFUL {
            response.finish()?;
            return OcspError::from_code(*code).map(Self::Error).ok_or(OcspResponseError::Status(*code));
        }
        let mut explicit = response.expect(tag::context_constructed(0))?.reader();
        response.finish()?;
        let mut bytes = explicit.sequence()?;
        explicit.finish()?;
        let kind = bytes.oid()?;
        if kind != oid::OCSP_BASIC {
            return Err(OcspResponseError::Type(oid::dotted(kind)));
        }
        let content = bytes.expect(tag::OCTET_STRING)?;
        bytes.finish()?;
        let mut content = content.reader();
        let basic = content.expect(tag::SEQUENCE)?;
        content.finish()?;
        BasicResponse::read(&basic).map(Self::Basic)
    }
}

impl<'a> BasicResponse<'a> {
    fn read(basic: &Value<'a>) -> Result<Self, OcspResponseError> {
        let mut fields = basic.reader();
        let data = fields.expect(tag::SEQUENCE)?;
        let algorithm = fields.expect(tag::SEQUENCE)?.whole;
        let signature = fields.bit_string()?;
        let mut certificates = Vec::new();
        if let Some(explicit) = fields.optional(tag::context_constructed(0))? {
            let mut field = explicit.reader();
            let mut list = field.sequence()?;
            field.finish()?;
            while !list.is_empty() {
                if certificates.len() == MAX_CERTIFICATES {
                    return Err(OcspResponseError::TooMany(MAX_CERTIFICATES));
                }
                certificates.push(list.expect(tag::SEQUENCE)?.whole);
            }
        }
        fields.finish()?;
        let mut answer = Self {
            tbs: data.whole,
            responder: ResponderId::KeyHash(&[]),
            produced_at: Timestamp::default(),
            statuses: Vec::new(),
            nonce: None,
            algorithm,
            signature,
            certificates,
        };
        answer.read_data(&data)?;
        Ok(answer)
    }

    fn read_data(&mut self, data: &Value<'a>) -> Result<(), OcspResponseError> {
        let mut fields = data.reader();
        if let Some(version) = fields.optional(tag::context_constructed(0))? {
            return Err(version.invalid("ResponseData of version 1").into());
        }
        let responder = fields.value()?;
        let mut inner = responder.reader();
        self.responder = match responder.tag {
            BY_NAME => {
                let name = inner.expect(tag::SEQUENCE)?;
                distinguished_name::check(name.whole).map_err(|_| name.invalid("distinguished name"))?;
                ResponderId::Name(name.whole)
            }
            BY_KEY => ResponderId::KeyHash(inner.expect(tag::OCTET_STRING)?.content),
            _ => return Err(responder.invalid("responder").into()),
        };
        inner.finish()?;
        self.produced_at = generalized_time(&mut fields)?;
        let mut responses = fields.sequence()?;
        while !responses.is_empty() {
            if self.statuses.len() == MAX_SINGLE_REQUESTS {
                return Err(OcspResponseError::TooMany(MAX_SINGLE_REQUESTS));
            }
            self.statuses.push(read_single(&mut responses)?);
        }
        if let Some(explicit) = fields.optional(tag::context_constructed(1))? {
            self.nonce = read_response_extensions(&explicit)?;
        }
        Ok(fields.finish()?)
    }

    /// The exact bytes that were signed.
    #[must_use]
    pub fn tbs_der(&self) -> &'a [u8] {
        self.tbs
    }

    /// Who signed, by name or key.
    #[must_use]
    pub fn responder(&self) -> ResponderId<'a> {
        self.responder
    }

    /// When it was signed.
    #[must_use]
    pub fn produced_at(&self) -> Timestamp {
        self.produced_at
    }

    /// The answers.
    pub fn statuses(&self) -> impl Iterator<Item = SingleStatus<'a>> + '_ {
        self.statuses.iter().map(|(_, status)| *status)
    }

    /// The nonce that was repeated.
    #[must_use]
    pub fn nonce(&self) -> Option<&'a [u8]> {
        self.nonce
    }

    /// The certificates beside the answer, in DER.
    #[must_use]
    pub fn certificates(&self) -> &[&'a [u8]] {
        &self.certificates
    }

    /// The status of one certificate of this issuer, after verifying everything: the signature by the issuer or
    /// by a responder that it delegated, the responder's certificate, the times, and the nonce if one was sent.
    ///
    /// # Errors
    /// [`OcspVerifyError`], the first reason not to believe it.
    pub fn verified_status(
        &self,
        issuer: &Certificate,
        serial: &[u8],
        sent_nonce: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<CertificateStatus, OcspVerifyError> {
        self.verify(issuer, now)?;
        if sent_nonce.is_some() && self.nonce != sent_nonce {
            return Err(OcspVerifyError::Nonce);
        }
        let hashes = IssuerHashes::of(issuer);
        let mut about = self.statuses.iter().filter(|(id, _)| id.serial() == serial && hashes.matches(id));
        let (_, answer) = about.next().ok_or(OcspVerifyError::NoAnswer)?;
        let is_fresh = answer.this_update <= now && answer.next_update.is_none_or(|next| now <= next);
        if !is_fresh {
            let (this_update, next_update) = (answer.this_update, answer.next_update);
            return Err(OcspVerifyError::Stale { this_update, next_update });
        }
        Ok(answer.status)
    }

    /// Verifies the signature: by the issuer itself, or by a certificate in the response that the issuer issued
    /// for OCSP signing (RFC 6960 section 4.2.2.2).
    ///
    /// # Errors
    /// [`OcspVerifyError`].
    pub fn verify(&self, issuer: &Certificate, now: Timestamp) -> Result<(), OcspVerifyError> {
        if self.is_responder(issuer) {
            return self.verify_signature(issuer);
        }
        for der in &self.certificates {
            let certificate = Certificate::from_der(der)?;
            if self.is_responder(&certificate) {
                check_delegation(&certificate, issuer, now)?;
                return self.verify_signature(&certificate);
            }
        }
        Err(OcspVerifyError::NoResponder)
    }

    fn is_responder(&self, certificate: &Certificate) -> bool {
        match self.responder {
            ResponderId::Name(name) => certificate.tbs().subject_der() == name,
            ResponderId::KeyHash(hash) => {
                Spki::read(certificate.tbs().spki_der()).is_ok_and(|spki| Sha1::digest(spki.key)[..] == *hash)
            }
        }
    }

    fn verify_signature(&self, responder: &Certificate) -> Result<(), OcspVerifyError> {
        let algorithm = VerificationAlgorithm::from_algorithm_identifier(self.algorithm)?;
        Ok(verify_signature(responder.tbs().spki_der(), algorithm, self.tbs, self.signature)?)
    }
}

fn check_delegation(
    responder: &Certificate,
    issuer: &Certificate,
    now: Timestamp,
) -> Result<(), OcspVerifyError> {
    check_issued_by(responder, issuer)?;
    let tbs = responder.tbs();
    if !tbs.has_purpose(ExtendedKeyUsage::OcspSigning) {
        return Err(OcspVerifyError::NotAResponder("OCSPSigning"));
    }
    if tbs.key_usages().is_some_and(|usages| !usages.contains(KeyUsage::DigitalSignature)) {
        return Err(OcspVerifyError::NotAResponder("digitalSignature"));
    }
    if !tbs.is_valid_at(now) {
        return Err(OcspVerifyError::Expired { not_before: tbs.not_before(), not_after: tbs.not_after() });
    }
    Ok(())
}

fn read_single<'a>(list: &mut Reader<'a>) -> Result<(CertId<'a>, SingleStatus<'a>), OcspResponseError> {
    let mut fields = list.sequence()?;
    let id = CertId::read(&mut fields)?;
    let value = fields.value()?;
    let status = match value.tag {
        GOOD if value.content.is_empty() => CertificateStatus::Good,
        UNKNOWN if value.content.is_empty() => CertificateStatus::Unknown,
        REVOKED => read_revoked(&value)?,
        _ => return Err(value.invalid("certificate status").into()),
    };
    let this_update = generalized_time(&mut fields)?;
    let next_update = match fields.optional(tag::context_constructed(0))? {
        None => None,
        Some(explicit) => {
            let mut field = explicit.reader();
            let moment = generalized_time(&mut field)?;
            field.finish()?;
            Some(moment)
        }
    };
    if let Some(explicit) = fields.optional(tag::context_constructed(1))? {
        refuse_critical(&explicit)?;
    }
    fields.finish()?;
    Ok((id, SingleStatus { cert_id: id.der(), status, this_update, next_update }))
}

fn read_revoked(value: &Value<'_>) -> Result<CertificateStatus, OcspResponseError> {
    let mut fields = value.reader();
    let at = generalized_time(&mut fields)?;
    let mut reason = RevocationReason::Unspecified;
    if let Some(explicit) = fields.optional(tag::context_constructed(0))? {
        let mut field = explicit.reader();
        let code = field.expect(tag::ENUMERATED)?;
        field.finish()?;
        let [byte] = code.content else { return Err(code.invalid("reason code").into()) };
        reason = RevocationReason::from_code(*byte).unwrap_or_default();
    }
    fields.finish()?;
    Ok(CertificateStatus::Revoked { at, reason })
}

fn read_response_extensions<'a>(explicit: &Value<'a>) -> Result<Option<&'a [u8]>, OcspResponseError> {
    let mut nonce = None;
    for_each_extension(explicit, |extension| {
        if extension.oid == oid::OCSP_NONCE {
            nonce = read_nonce(extension.value).ok();
            return true;
        }
        false
    })?;
    Ok(nonce)
}

fn refuse_critical(explicit: &Value<'_>) -> Result<(), OcspResponseError> {
    for_each_extension(explicit, |_| false)
}

fn for_each_extension<'a>(
    explicit: &Value<'a>,
    mut understand: impl FnMut(&Extension<'a>) -> bool,
) -> Result<(), OcspResponseError> {
    let mut field = explicit.reader();
    let mut list = field.sequence()?;
    field.finish()?;
    while !list.is_empty() {
        let extension = Extension::read(&mut list)?;
        if !understand(&extension) && extension.critical {
            return Err(OcspResponseError::UnknownCritical(oid::dotted(extension.oid)));
        }
    }
    Ok(())
}

fn generalized_time(fields: &mut Reader<'_>) -> Result<Timestamp, DerError> {
    let value = fields.expect(tag::GENERALIZED_TIME)?;
    calendar::read(TimeForm::GeneralizedTime, value.content).ok_or_else(|| value.invalid("time"))
}

const BY_NAME: u8 = tag::context_constructed(1);
const BY_KEY: u8 = tag::context_constructed(2);
const GOOD: u8 = tag::context(0);
const REVOKED: u8 = tag::context_constructed(1);
const UNKNOWN: u8 = tag::context(2);
