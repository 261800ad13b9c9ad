//! What every custodian offers: a public key and signatures that verify under it.

use std::fmt;
use std::time::Duration;

use chancery_types::SignatureAlgorithm;
use chancery_x509::PublicKey;

/// A private key that signs, wherever it is kept.
///
/// Signing blocks: microseconds for [`Custody::Memory`] and [`Custody::File`], milliseconds and sometimes
/// seconds for [`Custody::Pkcs11`], so an async caller moves the latter to a blocking thread. Calls from many
/// threads at once are fine.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The public half, as it stands in certificates.
    fn public_key(&self) -> &PublicKey;

    /// The signature over this message in the form that X.509 carries: DER `Ecdsa-Sig-Value` for ECDSA
    /// (RFC 3279 section 2.2.3), 64 raw bytes for Ed25519 (RFC 8410), the modulus-sized string of PKCS #1 v1.5
    /// for RSA (RFC 8017 section 8.2). The message is whole, not hashed.
    ///
    /// # Errors
    /// [`SignError`], whose [`kind`](SignError::kind) says whether the same call may succeed later.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;

    /// Where the private half is kept.
    fn custody(&self) -> Custody;

    /// What [`sign`](Self::sign) signs with; it follows from the key.
    fn algorithm(&self) -> SignatureAlgorithm {
        self.public_key().algorithm().signature_algorithm()
    }
}

/// Where a private key is kept while it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Custody {
    /// In this process only; gone with it.
    Memory,
    /// In a file at rest and in this process while it runs.
    File,
    /// In a PKCS#11 token; this process never sees it.
    Pkcs11,
}

impl fmt::Display for Custody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Memory => "memory",
            Self::File => "file",
            Self::Pkcs11 => "pkcs11",
        })
    }
}

/// A key did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// *ring* refused, which happens only when the random source fails.
    #[error("signing in memory failed; check that the system's random source works")]
    Software,
    /// Every session of the token was in use for too long.
    #[error(
        "no session of token {token:?} came free within {waited:?}; it signs slower than it is asked to, \
         try again or spread the load"
    )]
    Busy {
        /// The token's label.
        token: String,
        /// How long the call waited.
        waited: Duration,
    },
    /// The token went away or forgot us, and a new session could not be had.
    #[error("token {token:?} is not reachable ({reason}); the next call opens a new session")]
    Unavailable {
        /// The token's label.
        token: String,
        /// What the module said.
        reason: String,
    },
    /// The token answered, and the answer is no.
    #[error("token {token:?} does not sign with {key}: {reason}")]
    Refused {
        /// The token's label.
        token: String,
        /// The key, as its URI names it.
        key: String,
        /// What the module said, or what was wrong with its answer.
        reason: String,
    },
    /// The process forked after the module was initialised (PKCS#11 v3.1 section 5.5 `C_Initialize`).
    #[error("a forked child may not use token {token:?}; open the key again in the child")]
    Forked {
        /// The token's label.
        token: String,
    },
}

impl SignError {
    /// Whether trying again can help.
    #[must_use]
    pub fn kind(&self) -> SignErrorKind {
        match self {
            Self::Busy { .. } | Self::Unavailable { .. } => SignErrorKind::Retry,
            Self::Software | Self::Refused { .. } | Self::Forked { .. } => SignErrorKind::Fatal,
        }
    }
}

/// Whether a failed signature is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignErrorKind {
    /// The same call may succeed later, unchanged.
    Retry,
    /// It will not until an operator does something.
    Fatal,
}

/// The key signed its fixed message, but not so that its public half agrees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelfTestError {
    /// No signature came.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A signature came and does not verify.
    #[error("its private half does not belong to its public half")]
    Mismatch,
}

/// Signs a fixed message and verifies the signature, so that a bad key is found when it is opened and not when
/// it is needed. The message cannot be a certificate, list or response: it is no DER.
pub(crate) fn self_test(signer: &dyn Signer) -> Result<(), SelfTestError> {
    let signature = signer.sign(SELF_TEST_MESSAGE)?;
    signer
        .public_key()
        .verify(signer.algorithm(), SELF_TEST_MESSAGE, &signature)
        .map_err(|_| SelfTestError::Mismatch)
}

const SELF_TEST_MESSAGE: &[u8] = b"chancery key self-test; this text authorises nothing";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chancery_types::KeyAlgorithm;

    use super::*;
    use crate::EphemeralSigner;

    /// One key's public half over another's private half.
    #[derive(Debug)]
    struct Crossed(Arc<EphemeralSigner>, Arc<EphemeralSigner>);

    impl Signer for Crossed {
        fn public_key(&self) -> &PublicKey {
            self.0.public_key()
        }

        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
            self.1.sign(message)
        }

        fn custody(&self) -> Custody {
            Custody::Memory
        }
    }

    #[test]
    fn self_test_finds_halves_that_do_not_belong_together() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
            let one = EphemeralSigner::generate(algorithm).unwrap();
            let other = EphemeralSigner::generate(algorithm).unwrap();
            assert_eq!(self_test(&Crossed(Arc::clone(&one), other)), Err(SelfTestError::Mismatch));
            assert_eq!(self_test(&Crossed(Arc::clone(&one), one)), Ok(()));
        }
    }

    #[test]
    fn says_which_failures_are_worth_another_try() {
        let token = || "ca".to_owned();
        for (error, kind) in [
            (SignError::Busy { token: token(), waited: Duration::from_secs(1) }, SignErrorKind::Retry),
            (SignError::Unavailable { token: token(), reason: token() }, SignErrorKind::Retry),
            (SignError::Refused { token: token(), key: token(), reason: token() }, SignErrorKind::Fatal),
            (SignError::Forked { token: token() }, SignErrorKind::Fatal),
            (SignError::Software, SignErrorKind::Fatal),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
