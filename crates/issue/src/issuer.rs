//! The issuer that signs: its certificate and its key.

use std::sync::Arc;

use chancery_keys::Signer;
use chancery_types::{CrlShard, IssuerEpoch, SerialNumber, TrustDomain};
use chancery_x509::{Certificate, CertificateError, FrequentKey};

/// Where relying parties find status; written into certificates as it stands here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusUrls {
    /// The revocation lists among which certificates are divided by their counters, the first list first.
    pub crls: Vec<String>,
    /// The OCSP responder.
    pub ocsp: String,
    /// The issuer's certificate.
    pub ca_issuers: String,
}

impl StatusUrls {
    /// The URLs under this base for an issuer whose certificates are divided among so many lists.
    #[must_use]
    pub fn of(base: &str, epoch: IssuerEpoch, shards: u16) -> Self {
        Self {
            crls: CrlShard::all(shards).map(|shard| shard.url(base, epoch)).collect(),
            ocsp: format!("{base}/ocsp"),
            ca_issuers: format!("{base}/ca/{epoch}.der"),
        }
    }

    /// Those of one certificate, borrowed, as profiles and lints take them.
    #[must_use]
    pub fn of_certificate(&self, serial: SerialNumber) -> chancery_x509::StatusUrls<'_> {
        let shards = u16::try_from(self.crls.len()).unwrap_or(u16::MAX);
        let shard = CrlShard::containing(serial, shards);
        chancery_x509::StatusUrls {
            crl: self.crls.get(usize::from(shard.number())).map(String::as_str),
            ocsp: Some(&self.ocsp),
            ca_issuers: Some(&self.ca_issuers),
        }
    }
}

/// Why an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Its certificate is not one.
    #[error("the issuer's certificate cannot be read: {0}")]
    Certificate(#[from] CertificateError),
    /// It may not issue.
    #[error("the certificate of issuer {0} is not a CA certificate")]
    NotAuthority(IssuerEpoch),
    /// Key and certificate do not belong together.
    #[error(
        "the key of issuer {0} does not belong to its certificate; check keys.issuer in the configuration \
         against the certificate of that epoch"
    )]
    OtherKey(IssuerEpoch),
}

/// An active issuer.
#[derive(Debug)]
pub struct Issuer {
    trust_domain: TrustDomain,
    epoch: IssuerEpoch,
    certificate: Certificate,
    signer: Arc<dyn Signer>,
    public_key: FrequentKey,
    urls: StatusUrls,
}

impl Issuer {
    /// An issuer of this epoch.
    ///
    /// # Errors
    /// [`IssuerError`] when certificate and key do not make an issuer.
    pub fn new(
        trust_domain: TrustDomain,
        epoch: IssuerEpoch,
        certificate: &[u8],
        signer: Arc<dyn Signer>,
        urls: StatusUrls,
    ) -> Result<Self, IssuerError> {
        let certificate = Certificate::from_der(certificate)?;
        if !certificate.tbs().is_authority() {
            return Err(IssuerError::NotAuthority(epoch));
        }
        if certificate.tbs().spki_der() != signer.public_key().spki_der() {
            return Err(IssuerError::OtherKey(epoch));
        }
        let public_key = FrequentKey::new(signer.public_key().clone());
        Ok(Self { trust_domain, epoch, certificate, signer, public_key, urls })
    }

    /// The trust domain that it issues in.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> IssuerEpoch {
        self.epoch
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its key.
    #[must_use]
    pub fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    /// The public half of its key, which verifies whatever the key has signed.
    #[must_use]
    pub fn public_key(&self) -> &FrequentKey {
        &self.public_key
    }

    /// Where its status is published.
    #[must_use]
    pub fn urls(&self) -> &StatusUrls {
        &self.urls
    }
}
