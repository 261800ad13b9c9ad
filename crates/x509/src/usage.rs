//! What a key may be used for: keyUsage and extendedKeyUsage (RFC 5280 sections 4.2.1.3 and 4.2.1.12).

use std::fmt;
use std::str::FromStr;

use crate::oid;

/// One bit of keyUsage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyUsage {
    /// Signatures other than on certificates and CRLs: what TLS needs.
    DigitalSignature = 0,
    /// contentCommitment, once called nonRepudiation.
    ContentCommitment = 1,
    /// Encrypting keys: RSA key transport.
    KeyEncipherment = 2,
    /// Encrypting data directly.
    DataEncipherment = 3,
    /// Key agreement: static Diffie-Hellman.
    KeyAgreement = 4,
    /// Signing certificates.
    KeyCertSign = 5,
    /// Signing CRLs.
    CrlSign = 6,
    /// With key agreement: encrypt only.
    EncipherOnly = 7,
    /// With key agreement: decrypt only.
    DecipherOnly = 8,
}

/// A text is not a key usage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key usage; use {list}", list = KeyUsage::ALL.map(|(_, text)| text).join(", "))]
pub struct UnknownKeyUsage(String);

impl KeyUsage {
    const ALL: [(Self, &'static str); 9] = [
        (Self::DigitalSignature, "digital-signature"),
        (Self::ContentCommitment, "content-commitment"),
        (Self::KeyEncipherment, "key-encipherment"),
        (Self::DataEncipherment, "data-encipherment"),
        (Self::KeyAgreement, "key-agreement"),
        (Self::KeyCertSign, "key-cert-sign"),
        (Self::CrlSign, "crl-sign"),
        (Self::EncipherOnly, "encipher-only"),
        (Self::DecipherOnly, "decipher-only"),
    ];

    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl FromStr for KeyUsage {
    type Err = UnknownKeyUsage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|(_, known)| *known == text)
            .map(|(usage, _)| usage)
            .ok_or_else(|| UnknownKeyUsage(text.chars().take(40).collect()))
    }
}

/// A set of key usages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeyUsages(u16);

impl KeyUsages {
    /// What an issuer's key is for: certificates and CRLs, nothing else.
    pub const AUTHORITY: Self = Self(1 << KeyUsage::KeyCertSign as u16 | 1 << KeyUsage::CrlSign as u16);
    /// What a TLS or OCSP key is for.
    pub const SIGNATURE: Self = Self(1 << KeyUsage::DigitalSignature as u16);

    /// From the bits of the extension, bit 0 of the list in bit 0.
    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    /// Whether this usage is in it.
    #[must_use]
    pub fn contains(self, usage: KeyUsage) -> bool {
        self.0 & 1 << usage as u16 != 0
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The usages in it.
    pub fn iter(self) -> impl Iterator<Item = KeyUsage> {
        KeyUsage::ALL.into_iter().map(|(usage, _)| usage).filter(move |usage| self.contains(*usage))
    }
}

impl FromIterator<KeyUsage> for KeyUsages {
    fn from_iter<T: IntoIterator<Item = KeyUsage>>(usages: T) -> Self {
        Self(usages.into_iter().fold(0, |bits, usage| bits | 1 << usage as u16))
    }
}

impl fmt::Display for KeyUsages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.iter().map(KeyUsage::as_str).collect();
        formatter.write_str(&texts.join(", "))
    }
}

impl fmt::Debug for KeyUsages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyUsages({self})")
    }
}

/// One purpose of extendedKeyUsage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtendedKeyUsage {
    /// id-kp-serverAuth: TLS servers.
    ServerAuth,
    /// id-kp-clientAuth: TLS clients.
    ClientAuth,
    /// id-kp-codeSigning
    CodeSigning,
    /// id-kp-emailProtection
    EmailProtection,
    /// id-kp-OCSPSigning: delegated OCSP responders.
    OcspSigning,
}

/// A text is not an extended key usage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an extended key usage; use {list}", list = ExtendedKeyUsage::ALL.map(|(_, _, text)| text).join(", "))]
pub struct UnknownExtendedKeyUsage(String);

impl ExtendedKeyUsage {
    const ALL: [(Self, &'static [u8], &'static str); 5] = [
        (Self::ServerAuth, &[0x2b, 6, 1, 5, 5, 7, 3, 1], "server-auth"),
        (Self::ClientAuth, &[0x2b, 6, 1, 5, 5, 7, 3, 2], "client-auth"),
        (Self::CodeSigning, &[0x2b, 6, 1, 5, 5, 7, 3, 3], "code-signing"),
        (Self::EmailProtection, &[0x2b, 6, 1, 5, 5, 7, 3, 4], "email-protection"),
        (Self::OcspSigning, &[0x2b, 6, 1, 5, 5, 7, 3, 9], "ocsp-signing"),
    ];

    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].2
    }

    /// The content bytes of its OBJECT IDENTIFIER.
    #[must_use]
    pub fn oid(self) -> &'static [u8] {
        Self::ALL[self as usize].1
    }

    /// The purpose with these content bytes, if it is one that we issue for.
    #[must_use]
    pub fn from_oid(content: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known, _)| *known == content).map(|(usage, ..)| usage)
    }
}

impl fmt::Display for ExtendedKeyUsage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for ExtendedKeyUsage {
    type Err = UnknownExtendedKeyUsage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|(_, _, known)| *known == text)
            .map(|(usage, ..)| usage)
            .ok_or_else(|| UnknownExtendedKeyUsage(text.chars().take(40).collect()))
    }
}

/// Names the purpose with these content bytes, ours by text, others by number.
pub(crate) fn purpose_text(content: &[u8]) -> String {
    ExtendedKeyUsage::from_oid(content)
        .map_or_else(|| oid::dotted(content), |usage| usage.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_positions_agree() {
        for (usage, text) in KeyUsage::ALL {
            assert_eq!(usage.as_str(), text);
            assert_eq!(text.parse::<KeyUsage>().unwrap(), usage);
        }
        for (usage, oid, text) in ExtendedKeyUsage::ALL {
            assert_eq!((usage.as_str(), usage.oid()), (text, oid));
            assert_eq!(text.parse::<ExtendedKeyUsage>().unwrap(), usage);
            assert_eq!(ExtendedKeyUsage::from_oid(oid), Some(usage));
        }
        assert!("signing".parse::<KeyUsage>().is_err());
        let error = "any".parse::<ExtendedKeyUsage>().unwrap_err();
        assert!(error.to_string().contains("ocsp-signing"));
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set: KeyUsages = [KeyUsage::DigitalSignature, KeyUsage::DecipherOnly].into_iter().collect();
        assert_eq!(set.bits(), 0b1_0000_0001);
        assert_eq!(set.to_string(), "digital-signature, decipher-only");
        assert_eq!(KeyUsages::AUTHORITY.to_string(), "key-cert-sign, crl-sign");
    }
}
