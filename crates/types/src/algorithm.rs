//! The key and signature algorithms that this authority deals in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text is not an algorithm that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key algorithm; use one of p256, p384, ed25519, rsa2048, rsa3072, rsa4096")]
pub struct UnknownAlgorithm(String);

/// A kind of key, with its size where that is a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256: the default.
    #[default]
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// RSA with a 2048-bit modulus.
    Rsa2048,
    /// RSA with a 3072-bit modulus.
    Rsa3072,
    /// RSA with a 4096-bit modulus.
    Rsa4096,
}

impl KeyAlgorithm {
    /// Every algorithm, in the order of preference.
    pub const ALL: [Self; 6] =
        [Self::P256, Self::P384, Self::Ed25519, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
        }
    }

    /// What such a key signs with.
    #[must_use]
    pub fn signature_algorithm(self) -> SignatureAlgorithm {
        match self {
            Self::P256 => SignatureAlgorithm::EcdsaSha256,
            Self::P384 => SignatureAlgorithm::EcdsaSha384,
            Self::Ed25519 => SignatureAlgorithm::Ed25519,
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => SignatureAlgorithm::RsaPkcs1Sha256,
        }
    }

    /// Whether it is one of the RSA sizes.
    #[must_use]
    pub fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for KeyAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted: String =
            text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        let wanted = wanted.strip_prefix("ec").filter(|rest| rest.starts_with('p')).unwrap_or(&wanted);
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == wanted)
            .ok_or_else(|| UnknownAlgorithm(text.chars().take(40).collect()))
    }
}

/// A signature algorithm as certificates name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureAlgorithm {
    /// ecdsa-with-SHA256, signature as DER `Ecdsa-Sig-Value` (RFC 5758).
    EcdsaSha256,
    /// ecdsa-with-SHA384.
    EcdsaSha384,
    /// Ed25519, 64 raw bytes (RFC 8410).
    Ed25519,
    /// sha256WithRSAEncryption (RFC 8017 PKCS #1 v1.5).
    RsaPkcs1Sha256,
}

impl SignatureAlgorithm {
    /// The DER `AlgorithmIdentifier`, whole.
    #[must_use]
    pub fn algorithm_identifier(self) -> &'static [u8] {
        match self {
            // SEQUENCE { OID 1.2.840.10045.4.3.2 }
            Self::EcdsaSha256 => &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
            // SEQUENCE { OID 1.2.840.10045.4.3.3 }
            Self::EcdsaSha384 => &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
            // SEQUENCE { OID 1.3.101.112 }
            Self::Ed25519 => &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70],
            // SEQUENCE { OID 1.2.840.113549.1.1.11, NULL }
            Self::RsaPkcs1Sha256 => &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0],
        }
    }

    /// The algorithm that this DER `AlgorithmIdentifier` names, if it is one of ours.
    #[must_use]
    pub fn from_algorithm_identifier(der: &[u8]) -> Option<Self> {
        [Self::EcdsaSha256, Self::EcdsaSha384, Self::Ed25519, Self::RsaPkcs1Sha256]
            .into_iter()
            .find(|algorithm| algorithm.algorithm_identifier() == der)
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::EcdsaSha256 => "ecdsa-with-SHA256",
            Self::EcdsaSha384 => "ecdsa-with-SHA384",
            Self::Ed25519 => "Ed25519",
            Self::RsaPkcs1Sha256 => "sha256WithRSAEncryption",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for algorithm in KeyAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse::<KeyAlgorithm>().unwrap(), algorithm);
            let identifier = algorithm.signature_algorithm().algorithm_identifier();
            assert_eq!(
                SignatureAlgorithm::from_algorithm_identifier(identifier),
                Some(algorithm.signature_algorithm())
            );
        }
        assert_eq!("EC-P256".parse::<KeyAlgorithm>().unwrap(), KeyAlgorithm::P256);
        assert!("dsa".parse::<KeyAlgorithm>().is_err());
    }
}
