//! A key pair in this process, signing with *ring*.

use std::fmt;

use chancery_x509::PublicKey;
use der::Encode;
use der::asn1::{AnyRef, BitStringRef};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use crate::material::{
    EC_PUBLIC_KEY, ED25519, KeyFormatError, KeyKind, PrivateKey, RSA_ENCRYPTION, SECP256R1, SECP384R1,
};
use crate::signer::SignError;

/// A private key unpacked for signing, with its public half. Signing takes no lock.
pub(crate) struct SoftwareKey {
    pair: Pair,
    public_key: PublicKey,
    random: SystemRandom,
}

enum Pair {
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl SoftwareKey {
    /// Unpacks the key; *ring* checks that its halves belong together where both are there.
    pub(crate) fn new(key: &PrivateKey) -> Result<Self, KeyFormatError> {
        let random = SystemRandom::new();
        let pair =
            Pair::new(key, &random).map_err(|error| KeyFormatError::Inconsistent(error.to_string()))?;
        let public_key = PublicKey::from_spki_der(&pair.spki_der(key.kind()))
            .map_err(|error| KeyFormatError::UnsupportedAlgorithm(error.to_string()))?;
        Ok(Self { pair, public_key, random })
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match &self.pair {
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&self.random, message).map_err(|_| SignError::Software)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature)
                    .map_err(|_| SignError::Software)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SoftwareKey").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

impl Pair {
    fn new(key: &PrivateKey, random: &SystemRandom) -> Result<Self, ring::error::KeyRejected> {
        let der = key.as_pkcs8_der();
        Ok(match key.kind() {
            KeyKind::P256 => {
                Self::Ecdsa(Box::new(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, random)?))
            }
            KeyKind::P384 => {
                Self::Ecdsa(Box::new(EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, der, random)?))
            }
            KeyKind::Ed25519 => Self::Ed25519(Box::new(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)?)),
            KeyKind::Rsa => Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(der)?)),
        })
    }

    fn spki_der(&self, kind: KeyKind) -> Vec<u8> {
        let public: &[u8] = match self {
            Self::Ecdsa(pair) => pair.public_key().as_ref(),
            Self::Ed25519(pair) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
        };
        spki_der(kind, public)
    }
}

/// The `SubjectPublicKeyInfo` around a public key as its algorithm writes it: an uncompressed point, 32 bytes,
/// or an `RSAPublicKey`.
pub(crate) fn spki_der(kind: KeyKind, public: &[u8]) -> Vec<u8> {
    let algorithm = match &kind {
        KeyKind::P256 => AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters: Some((&SECP256R1).into()) },
        KeyKind::P384 => AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters: Some((&SECP384R1).into()) },
        KeyKind::Ed25519 => AlgorithmIdentifierRef { oid: ED25519, parameters: None },
        KeyKind::Rsa => AlgorithmIdentifierRef { oid: RSA_ENCRYPTION, parameters: Some(AnyRef::NULL) },
    };
    let subject_public_key = BitStringRef::from_bytes(public).expect("a public key is below a kilobyte");
    SubjectPublicKeyInfoRef { algorithm, subject_public_key }
        .to_der()
        .expect("a public key is below a kilobyte")
}
