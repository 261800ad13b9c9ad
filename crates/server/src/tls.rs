//! The server's side of TLS: its certificate, which clients may show one, and replacing both while running.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The oldest TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OldestTls {
    /// TLS 1.3 alone.
    #[default]
    Tls13,
    /// TLS 1.2 too, for clients that cannot do better.
    Tls12,
}

/// Everything that a TLS configuration is made from.
#[derive(Debug)]
pub struct TlsMaterial {
    /// The server's certificate and its issuers without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The server's key, PKCS#8.
    pub key: PrivateKeyDer<'static>,
    /// The roots that a client's certificate must chain to: our own.
    pub client_roots: Vec<CertificateDer<'static>>,
    /// The oldest TLS that is spoken.
    pub oldest: OldestTls,
}

/// Why no TLS configuration can be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A root cannot be a trust anchor.
    #[error("a root for client certificates cannot be used: {0}")]
    ClientRoot(rustls::Error),
    /// No roots, so no client could ever be verified.
    #[error("there is no root to verify client certificates with: {0}")]
    ClientVerifier(#[from] rustls::server::VerifierBuilderError),
    /// The key does not fit the certificate, or cannot be used.
    #[error("the server's certificate and key cannot be used together: {0}")]
    Identity(rustls::Error),
    /// No randomness for the key that protects session tickets.
    #[error("cannot make a session ticket key: {0}")]
    Tickets(rustls::Error),
}

/// The TLS configuration that new connections use. Clones share it; connections that are open keep theirs.
#[derive(Debug, Clone)]
pub struct TlsSlot(Arc<ArcSwap<ServerConfig>>);

impl TlsSlot {
    /// Begins with this material.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(material: TlsMaterial) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(server_config(material)?))))
    }

    /// Uses other material from now on. Sessions of the old configuration cannot be resumed, so nobody gets in
    /// on a certificate that was verified against other roots.
    ///
    /// # Errors
    /// [`TlsError`]; the old configuration stays.
    pub fn replace(&self, material: TlsMaterial) -> Result<(), TlsError> {
        self.0.store(Arc::new(server_config(material)?));
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

/// Client certificates are optional, since whoever enrols has none; one that is shown must be good.
fn server_config(material: TlsMaterial) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in material.client_roots {
        roots.add(root).map_err(TlsError::ClientRoot)?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(material.oldest))
        .expect("ring has cipher suites for both versions")
        .with_client_cert_verifier(clients)
        .with_single_cert(material.chain, material.key)
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets instead of a table: resumption costs no memory for clients that do not come back.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Tickets)?;
    Ok(config)
}

fn versions(oldest: OldestTls) -> &'static [&'static SupportedProtocolVersion] {
    match oldest {
        OldestTls::Tls13 => TLS13_ALONE,
        OldestTls::Tls12 => rustls::ALL_VERSIONS,
    }
}

static TLS13_ALONE: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Authority;

    #[test]
    fn refuses_a_foreign_key_and_missing_roots_and_keeps_what_it_has() {
        let authority = Authority::new();
        let slot = TlsSlot::new(authority.material()).unwrap();
        let before = slot.current();

        let mut material = authority.material();
        material.key = Authority::new().material().key;
        assert!(matches!(slot.replace(material), Err(TlsError::Identity(_))));
        let mut material = authority.material();
        material.client_roots.clear();
        assert!(matches!(slot.replace(material), Err(TlsError::ClientVerifier(_))));
        let mut material = authority.material();
        material.client_roots = vec![CertificateDer::from(vec![1, 2, 3])];
        assert!(matches!(slot.replace(material), Err(TlsError::ClientRoot(_))));

        assert!(Arc::ptr_eq(&before, &slot.current()));
        slot.replace(authority.material()).unwrap();
        assert!(!Arc::ptr_eq(&before, &slot.current()));
    }
}
