//! Why a peer is refused: what the program that verifies is told, and what the peer is (RFC 8446 section 6.2).

use std::sync::{Arc, OnceLock};

use chancery_types::{SpiffeId, TrustDomain};
use rustls::{CertificateError, OtherError};

use super::{NotGood, Unknown};

/// Which check a peer failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// Its certificate cannot be read.
    #[error("the peer's certificate cannot be read: {0}")]
    Unreadable(String),
    /// It does not carry exactly one URI that is a SPIFFE ID (X509-SVID section 2).
    #[error("the peer's certificate must carry one SPIFFE ID and no other URI, it carries {0} URIs")]
    Identity(usize),
    /// It is of a trust domain that is not trusted here.
    #[error("{id} is of trust domain {domain}, for which there is no bundle here")]
    Domain {
        /// Who it is.
        id: SpiffeId,
        /// Of which trust domain.
        domain: TrustDomain,
    },
    /// Its chain does not hold against the trust bundle.
    #[error("the chain of {id} does not hold: {error}")]
    Chain {
        /// Who it says it is.
        id: SpiffeId,
        /// Why.
        error: webpki::Error,
    },
    /// It is who it says, and nobody whom we talk to.
    #[error("{0} is not among the peers that are allowed")]
    NotAllowed(SpiffeId),
    /// Its certificate is revoked or held.
    #[error("the peer's certificate is {0}")]
    NotGood(NotGood),
    /// How its certificate stands is not known, and the rules are to refuse then.
    #[error("how the peer's certificate stands is not known: {0}")]
    Unknown(Unknown),
}

impl Refusal {
    /// The error for rustls, which makes the peer's alert of it: `certificate_revoked`, `certificate_expired`,
    /// `unknown_ca`, `access_denied`, `unsupported_certificate`, `bad_certificate`, or `certificate_unknown`.
    #[must_use]
    pub fn to_rustls(&self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self {
            Self::NoCertificate => return rustls::Error::NoCertificatesPresented,
            Self::Unreadable(_) | Self::Identity(_) => CertificateError::BadEncoding,
            Self::Domain { .. } => CertificateError::UnknownIssuer,
            Self::Chain { error, .. } => self.of_chain(error),
            Self::NotAllowed(_) => CertificateError::ApplicationVerificationFailure,
            Self::NotGood(_) => CertificateError::Revoked,
            Self::Unknown(_) => self.other(),
        })
    }

    fn of_chain(&self, error: &webpki::Error) -> CertificateError {
        use webpki::Error;
        match error {
            Error::CertExpired { .. } => CertificateError::Expired,
            Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
            Error::UnknownIssuer => CertificateError::UnknownIssuer,
            Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
            Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
            Error::BadDer => CertificateError::BadEncoding,
            _ => self.other(),
        }
    }

    fn other(&self) -> CertificateError {
        CertificateError::Other(OtherError(Arc::new(self.clone())))
    }
}

tokio::task_local! {
    /// Where a verifier leaves what exactly it refused, for whoever makes the handshake: most errors of rustls have
    /// no room for it.
    static SAID: Arc<OnceLock<Refusal>>;
}

/// Leaves a refusal for [`heard_during`], if there is one around this handshake.
pub(crate) fn say(refusal: &Refusal) {
    let _ = SAID.try_with(|said| said.set(refusal.clone()));
}

/// Makes a handshake; returns its result, and what a verifier refused in it.
pub(crate) async fn heard_during<T>(handshake: impl Future<Output = T>) -> (T, Option<Refusal>) {
    let said = Arc::new(OnceLock::new());
    let result = SAID.scope(Arc::clone(&said), handshake).await;
    (result, said.get().cloned())
}
