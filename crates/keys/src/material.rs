//! A private key as bytes: made, taken from the encodings that other tools write, and normalised.
//!
//! The normal form is PKCS#8 version 1 (RFC 5208, the subset of RFC 5958 that every tool reads): EC keys carry
//! their public point inside `ECPrivateKey` (RFC 5915), Ed25519 keys are the seed alone (RFC 8410 section 7),
//! RSA keys are `RSAPrivateKey` with all CRT values (RFC 8017 appendix A.1.2).

use std::fmt;

use chancery_types::{KeyAlgorithm, Random, SystemRandom};
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, SecretDocument, Sequence};
use pkcs8::{AlgorithmIdentifierRef, EncodePrivateKey, PrivateKeyInfoRef};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair};
use zeroize::Zeroizing;

/// Bytes are not a private key that this authority can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFormatError {
    /// Not the DER that its label promises.
    #[error("the private key is not well-formed DER ({0}); the file is damaged or was cut short")]
    Malformed(String),
    /// A key of a kind that we do not sign with.
    #[error("a key of algorithm {0} is not supported; use P-256, P-384, Ed25519 or RSA of 2048 to 4096 bits")]
    UnsupportedAlgorithm(String),
    /// Well-formed, but its numbers do not make a key.
    #[error("the private key's values do not make a key ({0}); the file is damaged")]
    Inconsistent(String),
    /// No randomness to make a key of.
    #[error("no key was made: {0}")]
    Random(String),
}

/// A private key in the normal form. Zeroized on drop; its `Debug` says nothing.
pub(crate) struct PrivateKey {
    kind: KeyKind,
    pkcs8: Zeroizing<Vec<u8>>,
}

/// Which of *ring*'s key pairs it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl PrivateKey {
    /// Makes a new key. Elliptic-curve keys come from *ring*; RSA keys from the `rsa` crate, because *ring* does
    /// not make them. Either way *ring* is what signs.
    pub(crate) fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyFormatError> {
        let random = ring::rand::SystemRandom::new();
        let no_random = |_| KeyFormatError::Random("the system's random source failed".to_owned());
        match algorithm {
            KeyAlgorithm::P256 => {
                let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
                    .map_err(no_random)?;
                Self::from_pkcs8_der(document.as_ref())
            }
            KeyAlgorithm::P384 => {
                let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &random)
                    .map_err(no_random)?;
                Self::from_pkcs8_der(document.as_ref())
            }
            KeyAlgorithm::Ed25519 => {
                let seed = ring::rand::generate::<[u8; 32]>(&random).map_err(no_random)?;
                Self::from_ed25519_seed(&*Zeroizing::new(seed.expose()))
            }
            KeyAlgorithm::Rsa2048 => Self::generate_rsa(2048),
            KeyAlgorithm::Rsa3072 => Self::generate_rsa(3072),
            KeyAlgorithm::Rsa4096 => Self::generate_rsa(4096),
        }
    }

    /// Takes a PKCS#8 `PrivateKeyInfo` of version 1 or 2 and normalises it.
    pub(crate) fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyFormatError> {
        let info = PrivateKeyInfoRef::from_der(der).map_err(malformed)?;
        match info.algorithm.oid {
            RSA_ENCRYPTION => Self::from_pkcs1_der(info.private_key.as_bytes()),
            ED25519 => {
                let seed = <&OctetStringRef>::from_der(info.private_key.as_bytes()).map_err(malformed)?;
                let key = Self::from_ed25519_seed(seed.as_bytes())?;
                key.check_ed25519_public(&info)?;
                Ok(key)
            }
            EC_PUBLIC_KEY => {
                let curve = info.algorithm.parameters_oid().map_err(|_| {
                    KeyFormatError::UnsupportedAlgorithm("id-ecPublicKey without a named curve".to_owned())
                })?;
                match curve {
                    SECP256R1 => Self::from_curve_key(KeyKind::P256, p256::SecretKey::try_from(info)),
                    SECP384R1 => Self::from_curve_key(KeyKind::P384, p384::SecretKey::try_from(info)),
                    other => Err(KeyFormatError::UnsupportedAlgorithm(format!("EC curve {other}"))),
                }
            }
            other => Err(KeyFormatError::UnsupportedAlgorithm(other.to_string())),
        }
    }

    /// Takes a SEC 1 `ECPrivateKey` (RFC 5915), which must name its curve.
    pub(crate) fn from_sec1_der(der: &[u8]) -> Result<Self, KeyFormatError> {
        let key = EcPrivateKey::from_der(der).map_err(malformed)?;
        let curve = key
            .parameters
            .ok_or_else(|| KeyFormatError::UnsupportedAlgorithm("EC without a named curve".to_owned()))?;
        match curve {
            SECP256R1 => Self::from_curve_key(KeyKind::P256, p256::SecretKey::from_sec1_der(der)),
            SECP384R1 => Self::from_curve_key(KeyKind::P384, p384::SecretKey::from_sec1_der(der)),
            other => Err(KeyFormatError::UnsupportedAlgorithm(format!("EC curve {other}"))),
        }
    }

    /// Takes a PKCS#1 `RSAPrivateKey` of two primes (RFC 8017 appendix A.1.2).
    pub(crate) fn from_pkcs1_der(der: &[u8]) -> Result<Self, KeyFormatError> {
        ring::rsa::KeyPair::from_der(der).map_err(rejected)?;
        let algorithm = AlgorithmIdentifierRef { oid: RSA_ENCRYPTION, parameters: Some(AnyRef::NULL) };
        Self::wrap(KeyKind::Rsa, algorithm, der)
    }

    /// Which kind of key it is.
    pub(crate) fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The normal form.
    pub(crate) fn as_pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    fn generate_rsa(bits: usize) -> Result<Self, KeyFormatError> {
        // A source that works once goes on working on every system we run on; the adapter below stops the
        // process if it does not, because there is no safe way on from there.
        SystemRandom.fill(&mut [0; 1]).map_err(|error| KeyFormatError::Random(error.to_string()))?;
        let key = rsa::RsaPrivateKey::new(&mut OsRandom, bits)
            .map_err(|error| KeyFormatError::Random(error.to_string()))?;
        let document = key.to_pkcs8_der().map_err(|error| KeyFormatError::Inconsistent(error.to_string()))?;
        Self::from_pkcs8_der(document.as_bytes())
    }

    fn from_ed25519_seed(seed: &[u8]) -> Result<Self, KeyFormatError> {
        if seed.len() != 32 {
            return Err(KeyFormatError::Malformed(format!(
                "an Ed25519 seed of {} bytes, not 32",
                seed.len()
            )));
        }
        let octets = OctetStringRef::new(seed).map_err(malformed)?;
        let inner = Zeroizing::new(octets.to_der().map_err(malformed)?);
        Self::wrap(KeyKind::Ed25519, AlgorithmIdentifierRef { oid: ED25519, parameters: None }, &inner)
    }

    fn check_ed25519_public(&self, info: &PrivateKeyInfoRef<'_>) -> Result<(), KeyFormatError> {
        let Some(public) = info.public_key else { return Ok(()) };
        let seed = &self.pkcs8[self.pkcs8.len() - 32..];
        ring::signature::Ed25519KeyPair::from_seed_and_public_key(seed, public.raw_bytes())
            .map(|_| ())
            .map_err(rejected)
    }

    fn from_curve_key<K, E>(kind: KeyKind, key: Result<K, E>) -> Result<Self, KeyFormatError>
    where
        K: EncodePrivateKey,
        E: fmt::Display,
    {
        let key = key.map_err(|error| KeyFormatError::Inconsistent(error.to_string()))?;
        let document = key.to_pkcs8_der().map_err(|error| KeyFormatError::Inconsistent(error.to_string()))?;
        Ok(Self { kind, pkcs8: document.to_bytes() })
    }

    fn wrap(
        kind: KeyKind,
        algorithm: AlgorithmIdentifierRef<'_>,
        key: &[u8],
    ) -> Result<Self, KeyFormatError> {
        let key = OctetStringRef::new(key).map_err(malformed)?;
        let document =
            SecretDocument::encode_msg(&PrivateKeyInfoRef::new(algorithm, key)).map_err(malformed)?;
        Ok(Self { kind, pkcs8: document.to_bytes() })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey([redacted])")
    }
}

/// The system's random source in the shape that the `rsa` crate asks for.
struct OsRandom;

impl rand_core::TryRng for OsRandom {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Self::Error> {
        SystemRandom.fill(buffer).expect("getrandom(2) worked a moment ago and does not stop working");
        Ok(())
    }
}

impl rand_core::TryCryptoRng for OsRandom {}

/// RFC 5915 section 3; read for its curve alone, the curve's crate reads the rest.
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    version: u8,
    private_key: &'a OctetStringRef,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    parameters: Option<ObjectIdentifier>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    public_key: Option<BitStringRef<'a>>,
}

fn malformed(error: impl fmt::Display) -> KeyFormatError {
    KeyFormatError::Malformed(error.to_string())
}

fn rejected(error: ring::error::KeyRejected) -> KeyFormatError {
    KeyFormatError::Inconsistent(error.to_string())
}

/// RFC 5480, RFC 8410 and RFC 8017.
pub(crate) const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(crate) const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
pub(crate) const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
pub(crate) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
pub(crate) const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
