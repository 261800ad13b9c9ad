//! Who we trust and who we are, as rustls wants it.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::TrustError;

/// The roots that a server's certificate must descend from.
#[derive(Debug, Clone)]
pub struct TrustAnchors(Arc<RootCertStore>);

impl TrustAnchors {
    /// From PEM with one or more roots.
    ///
    /// # Errors
    /// [`TrustError`] when there is none, or one is unusable.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustError> {
        Self::from_certificates(certificates("trust bundle", pem)?)
    }

    /// From roots.
    ///
    /// # Errors
    /// [`TrustError::Anchor`].
    pub fn from_certificates(
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, TrustError> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(TrustError::Anchor)?;
        }
        if store.is_empty() {
            return Err(TrustError::Empty("trust bundle"));
        }
        Ok(Self(Arc::new(store)))
    }
}

/// A client certificate with its chain and its key.
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TlsIdentity {
    /// From PEM: the certificate and its issuers in `chain`, an unencrypted PKCS#8, SEC 1 or PKCS#1 key in `key`.
    ///
    /// # Errors
    /// [`TrustError::Pem`], [`TrustError::Empty`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TrustError> {
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TrustError::Pem { what: "private key", detail: error.to_string() })?;
        Ok(Self { chain: certificates("client certificate", chain)?, key })
    }

    /// From DER: the certificate first, then its issuers; the key as PKCS#8.
    #[must_use]
    pub fn from_der(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }
}

impl Clone for TlsIdentity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TlsIdentity({} certificates, key [redacted])", self.chain.len())
    }
}

/// Which HTTP to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HttpVersion {
    /// HTTP/2 if the server has it.
    #[default]
    Best,
    /// HTTP/1.1: a connection for each request that runs at the same time.
    Http1,
}

/// A configuration that trusts these roots and shows this identity. TLS 1.3 only.
pub(crate) fn client_config(
    anchors: &TrustAnchors,
    identity: Option<&TlsIdentity>,
    version: HttpVersion,
) -> Result<ClientConfig, TrustError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has cipher suites for TLS 1.3")
        .with_root_certificates(Arc::clone(&anchors.0));
    let mut config = match identity.cloned() {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain, identity.key).map_err(TrustError::Identity)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match version {
        HttpVersion::Best => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
    };
    Ok(config)
}

/// The same, for a connection that is to speak HTTP/1.1.
pub(crate) fn http1_only(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A configuration that believes any server. Only for fetching the bundle whose fingerprint is then compared:
/// nothing secret is sent over it and nothing else that comes over it is used.
pub(crate) fn dangerous_unauthenticated_config() -> ClientConfig {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has cipher suites for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

pub(crate) fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TrustError::Pem { what, detail: error.to_string() })?;
    if certificates.is_empty() {
        return Err(TrustError::Empty(what));
    }
    Ok(certificates)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Accepts every certificate, but still has the server prove that it holds the certificate's key.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_bundles_without_roots_and_keys_that_are_none() {
        assert!(matches!(TrustAnchors::from_pem(b"nothing"), Err(TrustError::Empty("trust bundle"))));
        let broken = b"-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        assert!(matches!(TrustAnchors::from_pem(broken), Err(TrustError::Anchor(_))));
        assert!(matches!(
            TlsIdentity::from_pem(broken, b"no key"),
            Err(TrustError::Pem { what: "private key", .. })
        ));
    }
}
