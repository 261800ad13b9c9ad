//! A handshake that keeps the certificate it was shown.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Connects, and returns the leaf whose key the other side has shown to hold.
pub(super) async fn served_leaf(
    stream: TcpStream,
    name: ServerName<'static>,
    alpn: &[Vec<u8>],
) -> Result<Vec<u8>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let witness =
        Arc::new(Witness { provider: provider.clone(), leaf: OnceLock::new(), proven: OnceLock::new() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    config.alpn_protocols = alpn.to_vec();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    // A service that wants a certificate from its clients may end the handshake for want of one, after it has shown
    // its own.
    match (witness.proven.get().and(witness.leaf.get()), connected) {
        (Some(leaf), _) => Ok(leaf.clone()),
        (None, Err(error)) => Err(error.to_string()),
        (None, Ok(_)) => Err("it showed no certificate".to_owned()),
    }
}

/// Believes any certificate, for it only takes note of it; but not a signature that is not of its key.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    leaf: OnceLock<Vec<u8>>,
    proven: OnceLock<()>,
}

impl Witness {
    fn note(
        &self,
        checked: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        if checked.is_ok() {
            self.proven.get_or_init(|| ());
        }
        checked
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.leaf.get_or_init(|| leaf.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.note(verify_tls12_signature(message, certificate, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.note(verify_tls13_signature(message, certificate, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
