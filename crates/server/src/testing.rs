//! What the tests of this crate share: an authority, and documents that are kept equal to the code.

use std::path::Path;

use chancery_client::{Client, ClientBuilder, Endpoint, RetryPolicy, TlsIdentity, TrustAnchors};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::{OldestTls, TlsMaterial};

/// A root that signs certificates for a server and its clients.
pub(crate) struct Authority {
    root: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self { root, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn material(&self) -> TlsMaterial {
        let (chain, key) = self.server();
        TlsMaterial { chain, key, client_roots: vec![self.root.der().clone()], oldest: OldestTls::Tls13 }
    }

    pub(crate) fn server(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        self.leaf(SanType::DnsName("localhost".try_into().unwrap()), ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn client(&self, id: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        self.leaf(SanType::URI(Ia5String::try_from(id).unwrap()), ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub(crate) fn client_identity(&self, id: &str) -> TlsIdentity {
        let (chain, key) = self.client(id);
        TlsIdentity::from_der(chain, key)
    }

    pub(crate) fn root_der(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// A client that trusts this authority, sends everything once, and has no certificate.
    pub(crate) fn client_of(&self, port: u16) -> ClientBuilder {
        Client::builder(Endpoint::Https { host: "localhost".into(), port })
            .trust(TrustAnchors::from_certificates([self.root_der()]).unwrap())
            .retry(RetryPolicy::never())
    }

    fn leaf(
        &self,
        name: SanType,
        usage: ExtendedKeyUsagePurpose,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// Fails when a committed document is not what the code says; with `CHANCERY_REWRITE=1` it is rewritten.
pub(crate) fn compare_or_rewrite(path: &Path, expected: &str) {
    if std::env::var_os("CHANCERY_REWRITE").is_some() {
        std::fs::write(path, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is not up to date; run the tests once with CHANCERY_REWRITE=1 and commit the change",
        path.display()
    );
}
