//! Why a certificate was revoked (RFC 5280 section 5.3.1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text or a code is not a revocation reason that we accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a revocation reason; use one of unspecified, key-compromise, ca-compromise, \
     affiliation-changed, superseded, cessation-of-operation, certificate-hold, privilege-withdrawn"
)]
pub struct UnknownReason(String);

/// CRLReason. `removeFromCRL` has no place here (no delta CRLs), `aACompromise` no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationReason {
    /// 0: not given; left out of CRLs, as RFC 5280 asks.
    #[default]
    Unspecified,
    /// 1: somebody else has, or may have, the private key.
    KeyCompromise,
    /// 2: somebody else has the issuer's key.
    CaCompromise,
    /// 3: the subject's name or affiliation changed.
    AffiliationChanged,
    /// 4: replaced by another certificate.
    Superseded,
    /// 5: the workload is gone.
    CessationOfOperation,
    /// 6: held: not valid now, may come back.
    CertificateHold,
    /// 9: a privilege in it was withdrawn.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    const ALL: [(Self, u8, &'static str); 8] = [
        (Self::Unspecified, 0, "unspecified"),
        (Self::KeyCompromise, 1, "key-compromise"),
        (Self::CaCompromise, 2, "ca-compromise"),
        (Self::AffiliationChanged, 3, "affiliation-changed"),
        (Self::Superseded, 4, "superseded"),
        (Self::CessationOfOperation, 5, "cessation-of-operation"),
        (Self::CertificateHold, 6, "certificate-hold"),
        (Self::PrivilegeWithdrawn, 9, "privilege-withdrawn"),
    ];

    /// The ENUMERATED value.
    #[must_use]
    pub fn code(self) -> u8 {
        Self::ALL.iter().find(|(reason, ..)| *reason == self).map_or(0, |(_, code, _)| *code)
    }

    /// From the ENUMERATED value.
    ///
    /// # Errors
    /// [`UnknownReason`] for a value we never write.
    pub fn from_code(code: u8) -> Result<Self, UnknownReason> {
        Self::ALL
            .iter()
            .find(|(_, known, _)| *known == code)
            .map(|(reason, ..)| *reason)
            .ok_or_else(|| UnknownReason(code.to_string()))
    }

    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, ..)| *reason == self).map_or("unspecified", |(.., text)| text)
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for RevocationReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted: String =
            text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        Self::ALL
            .iter()
            .find(|(.., known)| known.replace('-', "") == wanted)
            .map(|(reason, ..)| *reason)
            .ok_or_else(|| UnknownReason(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_texts_round_trip() {
        for (reason, code, text) in RevocationReason::ALL {
            assert_eq!(RevocationReason::from_code(code).unwrap(), reason);
            assert_eq!(text.parse::<RevocationReason>().unwrap(), reason);
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{text}\""));
        }
        assert_eq!("keyCompromise".parse::<RevocationReason>().unwrap(), RevocationReason::KeyCompromise);
        assert!(RevocationReason::from_code(8).is_err());
        assert!("whim".parse::<RevocationReason>().is_err());
    }
}
