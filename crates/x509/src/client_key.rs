//! A subject's own private key, for the command line and the agent. The keys of the authority live elsewhere,
//! behind the `Signer` of crate keys.
//!
//! Keys are made and used by ring, which does not wipe its copies; what this file keeps and hands out is
//! wiped. The random numbers inside ECDSA signatures come from the operating system by ring.

use std::fmt;

use chancery_types::{KeyAlgorithm, SignatureAlgorithm, SubjectName};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use zeroize::Zeroizing;

use crate::pem::{self, PemError};
use crate::reader::{DerError, Reader};
use crate::request_builder::{RequestBuildError, RequestPurpose, RequestSpec};
use crate::writer::Writer;
use crate::{DistinguishedName, PublicKey, PublicKeyError, spki, tag};

/// Why a private key cannot be made, read or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectKeyError {
    /// RSA keys are read, not made.
    #[error(
        "{0} keys are not generated here; use p256, p384 or ed25519, or make one with \
         `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`"
    )]
    NotGenerated(KeyAlgorithm),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Random,
    /// Not PEM, or not a private key.
    #[error("the private key cannot be read: {0}")]
    Pem(#[from] PemError),
    /// An older PEM format of a private key, or an encrypted one.
    #[error(
        "the file holds a {found}, which is not read; \
         convert it with `openssl pkcs8 -topk8 -nocrypt -in FILE`"
    )]
    Format {
        /// The PEM label.
        found: String,
    },
    /// Not PKCS #8.
    #[error("the private key is not PKCS #8 ({0}); `openssl pkcs8 -topk8 -nocrypt -in FILE` writes it")]
    Pkcs8(#[from] DerError),
    /// Neither P-256, P-384, Ed25519 nor RSA.
    #[error("the private key is of a kind that is not used here; make a P-256, P-384, Ed25519 or RSA key")]
    Algorithm,
    /// The key contradicts itself, lacks its public half, or is outside what ring accepts.
    #[error("the private key is refused ({0}); make a new one")]
    Refused(String),
    /// The public half is not one that is certified.
    #[error("the private key is of no use: {0}")]
    Public(#[from] PublicKeyError),
    /// ring did not sign.
    #[error("the private key did not sign")]
    Sign,
}

/// A private key that its subject holds in memory.
pub struct SubjectKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: Pair,
    public_key: PublicKey,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl SubjectKey {
    /// Makes a new key: P-256, P-384 or Ed25519.
    ///
    /// # Errors
    /// [`SubjectKeyError::NotGenerated`] for RSA; [`SubjectKeyError::Random`].
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, SubjectKeyError> {
        let random = SystemRandom::new();
        let ecdsa = |signing: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::generate_pkcs8(signing, &random)
                .map(|document| Zeroizing::new(document.as_ref().to_vec()))
                .map_err(|_| SubjectKeyError::Random)
        };
        let pkcs8 = match algorithm {
            KeyAlgorithm::P256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)?,
            KeyAlgorithm::P384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING)?,
            KeyAlgorithm::Ed25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                random.fill(&mut *seed).map_err(|_| SubjectKeyError::Random)?;
                ed25519_pkcs8(&seed)
            }
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
                return Err(SubjectKeyError::NotGenerated(algorithm));
            }
        };
        Self::from_pkcs8_der(pkcs8)
    }

    /// Reads an unencrypted PKCS #8 key from PEM: P-256, P-384, Ed25519 or RSA with 2048, 3072 or 4096 bits.
    ///
    /// # Errors
    /// [`SubjectKeyError`], with the command that converts other formats.
    pub fn from_pkcs8_pem(text: &[u8]) -> Result<Self, SubjectKeyError> {
        match pem::read_pem_one(text, &[pem::PRIVATE_KEY]) {
            Ok(block) => Self::from_pkcs8_der(block.der),
            Err(PemError::Label { found, .. }) if found.ends_with(pem::PRIVATE_KEY) => {
                Err(SubjectKeyError::Format { found })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads an unencrypted PKCS #8 key from DER (RFC 5958, versions 1 and 2).
    ///
    /// # Errors
    /// [`SubjectKeyError`].
    pub fn from_pkcs8_der(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, SubjectKeyError> {
        let mut fields = Reader::single(&pkcs8, tag::SEQUENCE)?.reader();
        fields.small_integer()?;
        let algorithm = fields.expect(tag::SEQUENCE)?.whole;
        let refused = |error: ring::error::KeyRejected| SubjectKeyError::Refused(error.to_string());
        let ecdsa = |signing: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_pkcs8(signing, &pkcs8, &SystemRandom::new()).map(Pair::Ecdsa).map_err(refused)
        };
        let pair = match algorithm {
            spki::P256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)?,
            spki::P384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING)?,
            spki::ED25519 => {
                Pair::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(refused)?)
            }
            spki::RSA => Pair::Rsa(RsaKeyPair::from_pkcs8(&pkcs8).map_err(refused)?),
            _ => return Err(SubjectKeyError::Algorithm),
        };
        let public_key = PublicKey::from_spki_der(&write_spki(algorithm, pair.public_bytes()))?;
        Ok(Self { pkcs8, pair, public_key })
    }

    /// The key as PKCS #8 in PEM, unencrypted: for a file that only its owner can read.
    #[must_use]
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        pem::write_secret_pem(pem::PRIVATE_KEY, &self.pkcs8)
    }

    /// The key as PKCS #8 in DER, unencrypted.
    #[must_use]
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What [`sign`](Self::sign) signs with.
    #[must_use]
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.public_key.algorithm().signature_algorithm()
    }

    /// Signs a message; the bytes are those of X.509 (ECDSA in DER, Ed25519 raw, RSA PKCS #1 v1.5).
    ///
    /// # Errors
    /// [`SubjectKeyError::Sign`] when ring fails, which it does without randomness.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SubjectKeyError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SubjectKeyError::Sign),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| SubjectKeyError::Sign)?;
                Ok(signature)
            }
        }
    }

    /// A subject's certificate request for this key, signed by it, in DER.
    ///
    /// # Errors
    /// [`RequestBuildError`].
    pub fn request(
        &self,
        subject: &DistinguishedName,
        names: &[SubjectName],
    ) -> Result<Vec<u8>, RequestBuildError<SubjectKeyError>> {
        let spec = RequestSpec {
            public_key: &self.public_key,
            signature_algorithm: self.signature_algorithm(),
            subject,
            names,
            purpose: RequestPurpose::Subject,
        };
        spec.build(|info| self.sign(info))
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SubjectKey({:?})", self.public_key)
    }
}

impl Pair {
    fn public_bytes(&self) -> &[u8] {
        match self {
            Self::Ecdsa(pair) => pair.public_key().as_ref(),
            Self::Ed25519(pair) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
        }
    }
}

fn write_spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(key.len() + 40);
    writer.sequence(|spki| {
        spki.raw(algorithm);
        spki.bit_string(key);
    });
    writer.finish()
}

/// PKCS #8 version 1, which OpenSSL reads too; ring's own writer makes version 2, which OpenSSL 3.0 refuses.
fn ed25519_pkcs8(seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    // SEQUENCE { 0, SEQUENCE { id-Ed25519 }, OCTET STRING { OCTET STRING { seed } } } (RFC 8410 section 7)
    const HEADER: [u8; 16] = [0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 34, 4, 32];
    let mut pkcs8 = Zeroizing::new(Vec::with_capacity(HEADER.len() + seed.len()));
    pkcs8.extend_from_slice(&HEADER);
    pkcs8.extend_from_slice(seed);
    pkcs8
}

#[cfg(test)]
mod tests;
