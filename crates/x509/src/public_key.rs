//! A subject's public key that was parsed and judged: the only form in which keys travel in this project.
//!
//! [`PublicKey`] holds the exact DER that a certificate will carry. Having one means: one of our six key
//! algorithms, encoded in the one way that DER allows, a point that is on its curve and not the neutral one,
//! a modulus without the faults that can be seen from outside. It does not mean that anybody holds the
//! private half ([`ProvenRequest`](crate::ProvenRequest) says that), nor that the key is on no list of leaked
//! ones ([`WeakKeyList`](crate::WeakKeyList)).
//!
//! Cost of [`PublicKey::from_spki_der`] on one core (`benches/request.rs`): P-256 0.6 us, P-384 0.7 us,
//! Ed25519 9 us, RSA with 2048 bits 30 us. That a P-256 point is on its curve takes a few field
//! multiplications, so the enrolment path does not try to save them although ring repeats them when it
//! verifies the request.

mod close_primes;
mod ed25519;
mod rsa;

use std::fmt;

use chancery_types::{Digest, KeyAlgorithm};

use crate::pem::{self, PemError};
use crate::reader::DerError;
use crate::signature::{SignatureError, VerificationAlgorithm, verify_parts};
use crate::spki::{self, Spki};
use crate::{oid, tag};

/// Why a subjectPublicKeyInfo is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not a DER subjectPublicKeyInfo, or followed by something, or with unused bits, or too long.
    #[error("not a DER subjectPublicKeyInfo ({0}); `openssl pkey -pubout -outform DER` writes one")]
    Der(#[source] DerError),
    /// Text that is no PEM public key.
    #[error("the public key is not PEM: {0}; `openssl pkey -pubout` writes it")]
    Pem(#[from] PemError),
    /// An algorithm that we do not certify.
    #[error(
        "key algorithm {0}{hint} is not accepted; \
         use P-256, P-384, Ed25519 or RSA with 2048, 3072 or 4096 bits",
        hint = algorithm_hint(.0)
    )]
    UnknownAlgorithm(String),
    /// An elliptic curve that we do not certify.
    #[error("elliptic curve {0}{hint} is not accepted; use P-256 or P-384", hint = algorithm_hint(.0))]
    UnknownCurve(String),
    /// The curve is written out instead of named (forbidden by RFC 5480; CVE-2020-0601).
    #[error(
        "the curve is given by explicit parameters; name it (openssl: -pkeyopt ec_param_enc:named_curve)"
    )]
    ExplicitCurve,
    /// The AlgorithmIdentifier has parameters that do not belong to the algorithm, or lacks those that do.
    #[error("wrong AlgorithmIdentifier parameters for {algorithm}: {expected}")]
    Parameters {
        /// The algorithm named.
        algorithm: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// An elliptic curve point in compressed or hybrid form.
    #[error("the point is compressed or hybrid; send it uncompressed (openssl: -conv_form uncompressed)")]
    CompressedPoint,
    /// The neutral element of the curve.
    #[error("the point is the one at infinity, for which there is no private key")]
    PointAtInfinity,
    /// The key has the wrong number of bytes for its algorithm.
    #[error("a {algorithm} key has {expected} bytes, this has {length}")]
    KeyLength {
        /// The algorithm named.
        algorithm: KeyAlgorithm,
        /// The length of every such key.
        expected: usize,
        /// The length given.
        length: usize,
    },
    /// The coordinates do not fulfil the curve's equation, or are not reduced.
    #[error("the point is not on {0}; the key is damaged or an attack, make a new one")]
    OffCurve(KeyAlgorithm),
    /// An Ed25519 encoding outside RFC 8032 section 5.1.3.
    #[error("the Ed25519 point is not encoded canonically; make a new key")]
    NonCanonicalPoint,
    /// One of the eight points whose order divides eight: signatures by it prove nothing.
    #[error("the Ed25519 point has small order, so that anybody can sign for it; make a new key")]
    SmallOrder,
    /// Not an RSAPublicKey.
    #[error("not a DER RSAPublicKey ({0}); make a new key")]
    RsaDer(#[source] DerError),
    /// A modulus size that is too weak, or so unusual that relying parties differ about it.
    #[error(
        "the RSA modulus has {bits} bits; accepted are 2048, 3072 and 4096{advice}",
        advice = size_advice(*.bits)
    )]
    RsaSize {
        /// Bits of the modulus.
        bits: usize,
    },
    /// The modulus has a factor that is found at once.
    #[error("the RSA modulus is divisible by {0}, so the private key can be computed; make a new key")]
    RsaSmallFactor(u16),
    /// The two primes are so close together that Fermat's method finds them (CVE-2022-26320).
    #[error("the two primes of the RSA modulus are close together, so they can be computed; make a new key")]
    RsaClosePrimes,
    /// The modulus was made by Infineon's library with the fault CVE-2017-15361.
    #[error(
        "the RSA modulus has the ROCA fingerprint (CVE-2017-15361); update the device and make a new key"
    )]
    RsaRoca,
    /// An even exponent, one below 65537, or one beyond 33 bits.
    #[error(
        "the RSA exponent is {0}; it must be odd and from 65537 (below that padding faults become forgeries, \
         FIPS 186-5) to 2^33-1 (beyond that common verifiers refuse it); use 65537"
    )]
    RsaExponent(String),
}

/// A public key of one of our algorithms, well formed and without a fault that can be seen from outside.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    spki: Box<[u8]>,
    key_start: usize,
    algorithm: KeyAlgorithm,
}

impl PublicKey {
    /// Parses and judges a DER subjectPublicKeyInfo; equal keys always have equal bytes.
    ///
    /// # Errors
    /// [`PublicKeyError`] naming the first fault found.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, PublicKeyError> {
        let parts = Spki::read(der).map_err(PublicKeyError::Der)?;
        let algorithm = match parts.algorithm {
            spki::P256 => check_point::<p256::NistP256>(KeyAlgorithm::P256, parts.key, 65)?,
            spki::P384 => check_point::<p384::NistP384>(KeyAlgorithm::P384, parts.key, 97)?,
            spki::ED25519 => ed25519::check(parts.key)?,
            spki::RSA => rsa::check(parts.key)?,
            _ => return Err(explain_algorithm(&parts)),
        };
        Ok(Self { spki: der.into(), key_start: der.len() - parts.key.len(), algorithm })
    }

    /// Reads a key from PEM (`PUBLIC KEY`) or DER, whichever it is.
    ///
    /// # Errors
    /// [`PublicKeyError`] naming the first fault found.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self, PublicKeyError> {
        if bytes.first() == Some(&tag::SEQUENCE) {
            return Self::from_spki_der(bytes);
        }
        let block = pem::read_pem_one(bytes, &[pem::PUBLIC_KEY])?;
        Self::from_spki_der(&block.der)
    }

    /// What kind of key it is.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// The whole subjectPublicKeyInfo as it was given, in DER.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The key in PEM, as `openssl pkey -pubin` reads it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::write_pem(pem::PUBLIC_KEY, &self.spki)
    }

    /// The content of the BIT STRING: an uncompressed point, 32 bytes of Ed25519, or a DER RSAPublicKey.
    #[must_use]
    pub fn key_bytes(&self) -> &[u8] {
        &self.spki[self.key_start..]
    }

    /// SHA-256 of the subjectPublicKeyInfo: how keys are named in the ledger and in what people see.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.spki)
    }

    /// The subjectKeyIdentifier that our certificates carry: the leftmost 160 bits of SHA-256 of
    /// [`key_bytes`](Self::key_bytes) (RFC 7093 section 2 method 1). Not SHA-1, which RFC 5280 suggests and
    /// FIPS modules refuse.
    #[must_use]
    pub fn key_identifier(&self) -> [u8; 20] {
        let digest = Digest::of(self.key_bytes());
        *digest.as_bytes().first_chunk().expect("20 is less than 32")
    }

    /// The modulus of an RSA key, big-endian without leading zeros.
    pub(crate) fn rsa_modulus(&self) -> Option<&[u8]> {
        if !self.algorithm.is_rsa() {
            return None;
        }
        let (modulus, _) = rsa::read(self.key_bytes()).expect("it was read when the key was made");
        Some(modulus)
    }

    /// Verifies a signature by this key.
    ///
    /// # Errors
    /// [`SignatureError`] when the algorithm does not belong to the key or the signature is not its.
    pub fn verify(
        &self,
        algorithm: impl Into<VerificationAlgorithm>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let parts = Spki { algorithm: algorithm_identifier(self.algorithm), key: self.key_bytes() };
        verify_parts(&parts, algorithm.into(), message, signature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({} {})", self.algorithm, self.fingerprint())
    }
}

fn algorithm_identifier(algorithm: KeyAlgorithm) -> &'static [u8] {
    match algorithm {
        KeyAlgorithm::P256 => spki::P256,
        KeyAlgorithm::P384 => spki::P384,
        KeyAlgorithm::Ed25519 => spki::ED25519,
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => spki::RSA,
    }
}

/// Whether the bytes are an uncompressed point of this curve (SEC 1 section 2.3.4). Both curves have cofactor
/// one, so a point on the curve that is not at infinity has the full order.
fn check_point<C>(
    algorithm: KeyAlgorithm,
    point: &[u8],
    expected: usize,
) -> Result<KeyAlgorithm, PublicKeyError>
where
    C: p256::elliptic_curve::CurveArithmetic,
    p256::elliptic_curve::AffinePoint<C>:
        p256::elliptic_curve::sec1::FromSec1Point<C> + p256::elliptic_curve::sec1::ToSec1Point<C>,
    p256::elliptic_curve::FieldBytesSize<C>: p256::elliptic_curve::sec1::ModulusSize,
{
    match point.first() {
        Some(0) => return Err(PublicKeyError::PointAtInfinity),
        Some(2 | 3 | 5 | 6 | 7) => return Err(PublicKeyError::CompressedPoint),
        _ => {}
    }
    if point.len() != expected {
        return Err(PublicKeyError::KeyLength { algorithm, expected, length: point.len() });
    }
    p256::elliptic_curve::PublicKey::<C>::from_sec1_bytes(point)
        .map(|_| algorithm)
        .map_err(|_| PublicKeyError::OffCurve(algorithm))
}

/// The most telling error for an AlgorithmIdentifier that is none of ours.
fn explain_algorithm(parts: &Spki<'_>) -> PublicKeyError {
    let (algorithm, parameters) = match parts.algorithm_parts() {
        Ok(parts) => parts,
        Err(error) => return PublicKeyError::Der(error),
    };
    match algorithm {
        oid::RSA => PublicKeyError::Parameters { algorithm: "rsaEncryption", expected: "NULL" },
        oid::ED25519 => PublicKeyError::Parameters { algorithm: "Ed25519", expected: "none at all" },
        oid::EC_PUBLIC_KEY => match parameters {
            Some(curve) if curve.tag == tag::OID => PublicKeyError::UnknownCurve(oid::dotted(curve.content)),
            Some(curve) if curve.tag == tag::SEQUENCE => PublicKeyError::ExplicitCurve,
            _ => PublicKeyError::Parameters { algorithm: "id-ecPublicKey", expected: "the name of a curve" },
        },
        _ => PublicKeyError::UnknownAlgorithm(oid::dotted(algorithm)),
    }
}

fn algorithm_hint(dotted: &str) -> &'static str {
    match dotted {
        "1.2.840.113549.1.1.10" => " (RSASSA-PSS; send the same key as rsaEncryption)",
        "1.2.840.10040.4.1" => " (DSA)",
        "1.3.101.110" => " (X25519, which cannot sign)",
        "1.3.101.111" => " (X448, which cannot sign)",
        "1.3.101.113" => " (Ed448)",
        "1.3.132.0.10" => " (secp256k1)",
        "1.3.132.0.33" => " (P-224)",
        "1.3.132.0.35" => " (P-521)",
        "1.2.840.10045.3.1.1" => " (P-192)",
        _ => "",
    }
}

fn size_advice(bits: usize) -> &'static str {
    if bits < 2048 {
        "; fewer than 2048 can be factored"
    } else {
        "; other sizes are not supported everywhere"
    }
}

#[cfg(test)]
mod tests;
