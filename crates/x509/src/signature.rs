//! Verification of signatures by ring, for keys in subjectPublicKeyInfo form.
//!
//! [`verify_signature`] takes any well-formed key, also one that we would not certify (a foreign CA with RSA
//! 8192, say): whether a key deserves trust is the caller's question. Nothing here signs.

use chancery_types::SignatureAlgorithm;
use ring::signature::{self as verifiers, UnparsedPublicKey, VerificationAlgorithm as Verifier};

use crate::oid;
use crate::reader::Reader;
use crate::spki::{self, Spki};

/// Why a signature does not stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// An AlgorithmIdentifier that we do not verify, or one with wrong parameters.
    #[error(
        "signature algorithm {0} is not accepted; use ECDSA or RSA PKCS #1 v1.5 with SHA-256 or SHA-384, \
         RSA with SHA-512, or Ed25519"
    )]
    UnknownAlgorithm(String),
    /// The key is not a subjectPublicKeyInfo of a kind that we can verify with.
    #[error(
        "the key is none that signatures can be verified with; accepted are P-256, P-384, Ed25519 and RSA"
    )]
    UnknownKey,
    /// The algorithm belongs to another kind of key.
    #[error("a {key} key does not sign with {algorithm}")]
    WrongKey {
        /// The algorithm claimed.
        algorithm: VerificationAlgorithm,
        /// The kind of key given.
        key: &'static str,
    },
    /// The signature was not made over this message by this key, or the key itself is invalid.
    #[error("the signature does not verify")]
    Invalid,
}

/// A signature algorithm whose results we accept from others; a superset of what we sign with ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerificationAlgorithm {
    /// ecdsa-with-SHA256 on P-256 or P-384 (RFC 5758).
    EcdsaSha256,
    /// ecdsa-with-SHA384 on P-256 or P-384 (RFC 5758).
    EcdsaSha384,
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// sha256WithRSAEncryption (RFC 4055).
    RsaPkcs1Sha256,
    /// sha384WithRSAEncryption (RFC 4055).
    RsaPkcs1Sha384,
    /// sha512WithRSAEncryption (RFC 4055).
    RsaPkcs1Sha512,
}

impl VerificationAlgorithm {
    /// The algorithm that this DER `AlgorithmIdentifier`, whole, names.
    ///
    /// # Errors
    /// [`SignatureError::UnknownAlgorithm`], also when the parameters are not those of the RFC.
    pub fn from_algorithm_identifier(der: &[u8]) -> Result<Self, SignatureError> {
        if let Some(ours) = SignatureAlgorithm::from_algorithm_identifier(der) {
            return Ok(ours.into());
        }
        match der {
            RSA_SHA384 => Ok(Self::RsaPkcs1Sha384),
            RSA_SHA512 => Ok(Self::RsaPkcs1Sha512),
            _ => Err(SignatureError::UnknownAlgorithm(name_of(der))),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaSha256 => "ecdsa-with-SHA256",
            Self::EcdsaSha384 => "ecdsa-with-SHA384",
            Self::Ed25519 => "Ed25519",
            Self::RsaPkcs1Sha256 => "sha256WithRSAEncryption",
            Self::RsaPkcs1Sha384 => "sha384WithRSAEncryption",
            Self::RsaPkcs1Sha512 => "sha512WithRSAEncryption",
        }
    }
}

impl From<SignatureAlgorithm> for VerificationAlgorithm {
    fn from(algorithm: SignatureAlgorithm) -> Self {
        match algorithm {
            SignatureAlgorithm::EcdsaSha256 => Self::EcdsaSha256,
            SignatureAlgorithm::EcdsaSha384 => Self::EcdsaSha384,
            SignatureAlgorithm::Ed25519 => Self::Ed25519,
            SignatureAlgorithm::RsaPkcs1Sha256 => Self::RsaPkcs1Sha256,
        }
    }
}

impl std::fmt::Display for VerificationAlgorithm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Verifies `signature` over `message` with the key in `spki_der`; RSA keys from 2048 to 8192 bits.
///
/// # Errors
/// [`SignatureError`]: whether it is the key, the algorithm or the signature.
pub fn verify_signature(
    spki_der: &[u8],
    algorithm: impl Into<VerificationAlgorithm>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let parts = Spki::read(spki_der).map_err(|_| SignatureError::UnknownKey)?;
    verify_parts(&parts, algorithm.into(), message, signature)
}

pub(crate) fn verify_parts(
    key: &Spki<'_>,
    algorithm: VerificationAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let verifier = verifier(key, algorithm)?;
    UnparsedPublicKey::new(verifier, key.key).verify(message, signature).map_err(|_| SignatureError::Invalid)
}

fn verifier(
    key: &Spki<'_>,
    algorithm: VerificationAlgorithm,
) -> Result<&'static dyn Verifier, SignatureError> {
    use VerificationAlgorithm as A;
    let (name, verifier): (_, Option<&'static dyn Verifier>) = match key.algorithm {
        spki::P256 => (
            "P-256",
            match algorithm {
                A::EcdsaSha256 => Some(&verifiers::ECDSA_P256_SHA256_ASN1),
                A::EcdsaSha384 => Some(&verifiers::ECDSA_P256_SHA384_ASN1),
                _ => None,
            },
        ),
        spki::P384 => (
            "P-384",
            match algorithm {
                A::EcdsaSha256 => Some(&verifiers::ECDSA_P384_SHA256_ASN1),
                A::EcdsaSha384 => Some(&verifiers::ECDSA_P384_SHA384_ASN1),
                _ => None,
            },
        ),
        spki::ED25519 => ("Ed25519", (algorithm == A::Ed25519).then_some(&verifiers::ED25519 as _)),
        spki::RSA => (
            "RSA",
            match algorithm {
                A::RsaPkcs1Sha256 => Some(&verifiers::RSA_PKCS1_2048_8192_SHA256),
                A::RsaPkcs1Sha384 => Some(&verifiers::RSA_PKCS1_2048_8192_SHA384),
                A::RsaPkcs1Sha512 => Some(&verifiers::RSA_PKCS1_2048_8192_SHA512),
                _ => None,
            },
        ),
        _ => return Err(SignatureError::UnknownKey),
    };
    verifier.ok_or(SignatureError::WrongKey { algorithm, key: name })
}

/// The object identifier in an AlgorithmIdentifier, as text for an error.
fn name_of(der: &[u8]) -> String {
    let oid = Reader::new(der).sequence().and_then(|mut fields| fields.oid());
    oid.map_or_else(|_| "(not DER)".to_owned(), oid::dotted)
}

/// SEQUENCE { sha384WithRSAEncryption, NULL }
const RSA_SHA384: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12, 5, 0];
/// SEQUENCE { sha512WithRSAEncryption, NULL }
const RSA_SHA512: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13, 5, 0];

#[cfg(test)]
mod tests;
