//! OCSP responses: the exact bytes that the responder's key signs, and the whole around them.

use chancery_types::{RevocationReason, SignatureAlgorithm, Timestamp};

use super::request::write_nonce;
use super::responder_key_hash;
use crate::writer::Writer;
use crate::{PublicKey, oid, tag};

/// What is known about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateStatus {
    /// Issued by us and not revoked.
    Good,
    /// Revoked or held.
    Revoked {
        /// Since when.
        at: Timestamp,
        /// Why; [`RevocationReason::Unspecified`] is left out.
        reason: RevocationReason,
    },
    /// Nothing is known.
    Unknown,
}

/// The status of one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SingleStatus<'a> {
    /// The CertID, byte for byte as it was asked.
    pub cert_id: &'a [u8],
    /// The status.
    pub status: CertificateStatus,
    /// Since when it is known to be so.
    pub this_update: Timestamp,
    /// When there will be newer information; until then the answer may be kept.
    pub next_update: Option<Timestamp>,
}

/// What a response says.
#[derive(Debug, Clone, Copy)]
pub struct OcspSpec<'a> {
    /// The key that will sign; the response names its responder by it.
    pub responder: &'a PublicKey,
    /// The moment of signing.
    pub produced_at: Timestamp,
    /// One status for each certificate asked about.
    pub statuses: &'a [SingleStatus<'a>],
    /// The nonce of the request. A response without one may be given to many.
    pub nonce: Option<&'a [u8]>,
}

impl OcspSpec<'_> {
    /// The DER of the ResponseData: the exact bytes to sign.
    #[must_use]
    pub fn to_tbs_der(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(256 + 192 * self.statuses.len());
        writer.sequence(|data| {
            data.nested(tag::context_constructed(2), |by_key| {
                by_key.octet_string(&responder_key_hash(self.responder));
            });
            data.generalized_time(self.produced_at);
            data.sequence(|responses| {
                self.statuses.iter().for_each(|status| write_single(responses, status))
            });
            if let Some(nonce) = self.nonce {
                data.nested(tag::context_constructed(1), |explicit| {
                    explicit.sequence(|extensions| write_nonce(extensions, nonce));
                });
            }
        });
        writer.finish()
    }
}

fn write_single(list: &mut Writer, single: &SingleStatus<'_>) {
    list.sequence(|fields| {
        fields.raw(single.cert_id);
        match single.status {
            CertificateStatus::Good => fields.value(tag::context(0), &[]),
            CertificateStatus::Revoked { at, reason } => {
                fields.nested(tag::context_constructed(1), |revoked| {
                    revoked.generalized_time(at);
                    if reason != RevocationReason::Unspecified {
                        revoked.nested(tag::context_constructed(0), |explicit| {
                            explicit.value(tag::ENUMERATED, &[reason.code()]);
                        });
                    }
                });
            }
            CertificateStatus::Unknown => fields.value(tag::context(2), &[]),
        }
        fields.generalized_time(single.this_update);
        if let Some(moment) = single.next_update {
            fields.nested(tag::context_constructed(0), |explicit| explicit.generalized_time(moment));
        }
    });
}

/// Puts a signed response together: the whole OCSPResponse, with the responder's certificate for those who do
/// not have it.
#[must_use]
pub fn assemble_response(
    tbs_der: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
    responder_certificate: Option<&[u8]>,
) -> Vec<u8> {
    let certificate = responder_certificate.unwrap_or_default();
    let mut writer = Writer::with_capacity(tbs_der.len() + signature.len() + certificate.len() + 96);
    writer.sequence(|response| {
        response.value(tag::ENUMERATED, &[SUCCESSFUL]);
        response.nested(tag::context_constructed(0), |explicit| {
            explicit.sequence(|bytes| {
                bytes.oid(oid::OCSP_BASIC);
                bytes.nested(tag::OCTET_STRING, |content| {
                    content.sequence(|basic| {
                        basic.raw(tbs_der);
                        basic.raw(algorithm.algorithm_identifier());
                        basic.bit_string(signature);
                        if !certificate.is_empty() {
                            basic.nested(tag::context_constructed(0), |explicit| {
                                explicit.sequence(|list| list.raw(certificate));
                            });
                        }
                    });
                });
            });
        });
    });
    writer.finish()
}

/// OCSPResponseStatus successful
pub(super) const SUCCESSFUL: u8 = 0;
