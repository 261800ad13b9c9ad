//! What proves the node, read anew each time: a file that was replaced counts at once.

use std::path::Path;

use chancery_api::{Base64Bytes, CertificateDer, CsrDer, Evidence, enrollment_message};
use chancery_client::Client;
use chancery_types::{Digest, SecretString, TrustDomain};
use chancery_x509::{Certificate, CertificateRequest, SubjectKey, read_certificates};

use super::NodeError;
use crate::config::EvidenceConfig;
use crate::state;

/// What was read.
pub(super) enum Proof {
    /// A token, which works once.
    Token(SecretString),
    /// A certificate and its key, which work again and again.
    ForeignCertificate { chain: Vec<CertificateDer>, key: Box<SubjectKey> },
}

impl Proof {
    pub(super) fn read(config: &EvidenceConfig) -> Result<Self, NodeError> {
        match config {
            EvidenceConfig::JoinToken(path) => {
                let bytes = state::read(path)?;
                let text = std::str::from_utf8(&bytes).map_err(|_| unusable(path, "not text"))?;
                match text.lines().next().map(str::trim) {
                    Some(token) if !token.is_empty() => Ok(Self::Token(SecretString::new(token.to_owned()))),
                    _ => Err(unusable(path, "the token must stand in the first line")),
                }
            }
            EvidenceConfig::X509Pop { certificate, key } => {
                let most = chancery_api::limits::CHAIN_CERTIFICATES;
                let chain = read_certificates(&state::read(certificate)?, most)
                    .map_err(|error| unusable(certificate, error))?;
                let key =
                    SubjectKey::from_pkcs8_pem(&state::read(key)?).map_err(|error| unusable(key, error))?;
                let chain = chain.into_iter().map(CertificateDer::from_der).collect();
                Ok(Self::ForeignCertificate { chain, key: Box::new(key) })
            }
        }
    }

    /// What a request that shows it is for; a secret only by its digest.
    pub(super) fn purpose(&self) -> String {
        match self {
            Self::Token(token) => format!("enroll {}", Digest::of(token.expose_secret().as_bytes())),
            Self::ForeignCertificate { .. } => "enroll x509-pop".to_owned(),
        }
    }

    /// Whether a lost answer can be asked for again with the very same request.
    pub(super) fn is_spent_by_use(&self) -> bool {
        matches!(self, Self::Token(_))
    }

    pub(super) async fn show(
        &self,
        client: &Client,
        csr: &CsrDer,
        roots: &[Vec<u8>],
    ) -> Result<Evidence, NodeError> {
        match self {
            Self::Token(token) => Ok(Evidence::JoinToken { token: token.clone() }),
            Self::ForeignCertificate { chain, key } => {
                let nonce = client.nonce().await?.nonce;
                let request = CertificateRequest::from_der(csr.as_der()).map_err(NodeError::key)?;
                let asked_for = Digest::of(request.public_key().spki_der());
                let message = enrollment_message(&nonce.0, &trust_domain(client, roots).await?, &asked_for);
                let signature = Base64Bytes(key.sign(&message).map_err(NodeError::key)?);
                Ok(Evidence::X509Pop { chain: chain.clone(), nonce, signature })
            }
        }
    }
}

/// The authority's trust domain: what is signed for one authority is thereby worth nothing at another.
async fn trust_domain(client: &Client, roots: &[Vec<u8>]) -> Result<TrustDomain, NodeError> {
    if let Some(domain) = roots.iter().find_map(|der| named_domain(der)) {
        return Ok(domain);
    }
    // A root of somebody else's names no trust domain; the issuers under it do.
    let issuers = client.issuers().await?.issuers;
    issuers
        .iter()
        .find_map(|issuer| named_domain(read_certificates(issuer.certificate.as_bytes(), 1).ok()?.first()?))
        .ok_or(NodeError::TrustDomain)
}

fn named_domain(der: &[u8]) -> Option<TrustDomain> {
    Some(Certificate::from_der(der).ok()?.tbs().spiffe_id()?.trust_domain())
}

fn unusable(path: &Path, why: impl ToString) -> NodeError {
    NodeError::Evidence { path: path.display().to_string(), why: why.to_string() }
}
