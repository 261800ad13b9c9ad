//! OCSP (RFC 6960, profile RFC 5019 and RFC 9654): requests in, responses out, as exact DER.
//!
//! [`OcspRequest`] reads what strangers send; [`OcspSpec`] writes what the responder's key signs, and
//! [`assemble_response`] what goes out; [`OcspError`] is the five bytes for everything that cannot be answered.
//! [`OcspResponse`] reads an answer and verifies it: for the command line, for relying parties, and for the
//! server that checks its own. Whether a certificate is revoked is not known here.
//!
//! A responder answers for the certificates of one or more [`IssuerHashes`]. Requests are not authenticated: a
//! signature on one is read over.

mod request;
mod response;
mod view;

use std::fmt;

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

pub use request::{CertId, CertIdHash, MAX_OCSP_REQUEST, MAX_SINGLE_REQUESTS, OcspRequest, OcspRequestError};
pub use response::{CertificateStatus, OcspSpec, SingleStatus, assemble_response};
pub use view::{
    BasicResponse, MAX_OCSP_RESPONSE, OcspResponse, OcspResponseError, OcspVerifyError, ResponderId,
};

use crate::spki::Spki;
use crate::{Certificate, PublicKey};

/// Shortest and longest nonce (RFC 9654 section 2.1).
pub const NONCE_LENGTHS: std::ops::RangeInclusive<usize> = 1..=128;

/// Why a responder does not answer (OCSPResponseStatus). These answers are not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OcspError {
    /// The request cannot be read.
    MalformedRequest,
    /// The responder failed.
    InternalError,
    /// Ask again later.
    TryLater,
    /// Not a certificate that this responder answers for.
    Unauthorized,
}

impl OcspError {
    /// The whole response.
    #[must_use]
    pub fn to_der(self) -> [u8; 5] {
        [0x30, 3, 0x0a, 1, self.code()]
    }

    /// The ENUMERATED value.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::MalformedRequest => 1,
            Self::InternalError => 2,
            Self::TryLater => 3,
            Self::Unauthorized => 6,
        }
    }

    /// From the ENUMERATED value; `None` for success and for values without meaning.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::MalformedRequest, Self::InternalError, Self::TryLater, Self::Unauthorized]
            .into_iter()
            .find(|error| error.code() == code)
    }
}

impl fmt::Display for OcspError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::MalformedRequest => "malformedRequest",
            Self::InternalError => "internalError",
            Self::TryLater => "tryLater",
            Self::Unauthorized => "unauthorized",
        })
    }
}

/// How requests name an issuer: digests of its name and of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuerHashes {
    sha1: ([u8; 20], [u8; 20]),
    sha256: ([u8; 32], [u8; 32]),
}

impl IssuerHashes {
    /// Computes them once for an issuer.
    #[must_use]
    pub fn of(issuer: &Certificate) -> Self {
        let name = issuer.tbs().subject_der();
        let key = Spki::read(issuer.tbs().spki_der()).map_or(&[][..], |spki| spki.key);
        Self {
            sha1: (Sha1::digest(name).into(), Sha1::digest(key).into()),
            sha256: (Sha256::digest(name).into(), Sha256::digest(key).into()),
        }
    }

    /// Whether a request means a certificate of this issuer.
    #[must_use]
    pub fn matches(&self, id: &CertId<'_>) -> bool {
        let (name, key) = self.by(id.hash());
        matches!((name, key), (Some(name), Some(key)) if name == id.issuer_name_hash() && key == id.issuer_key_hash())
    }

    fn by(&self, hash: CertIdHash) -> (Option<&[u8]>, Option<&[u8]>) {
        match hash {
            CertIdHash::Sha1 => (Some(&self.sha1.0), Some(&self.sha1.1)),
            CertIdHash::Sha256 => (Some(&self.sha256.0), Some(&self.sha256.1)),
            CertIdHash::Other => (None, None),
        }
    }
}

/// SHA-1 of the key's bits: how responses name their responder (RFC 6960 section 4.2.1, KeyHash), by definition
/// and without any need for collision resistance.
#[must_use]
pub fn responder_key_hash(key: &PublicKey) -> [u8; 20] {
    Sha1::digest(key.key_bytes()).into()
}

#[cfg(test)]
mod tests;
