//! Whom a bundle endpoint has to be: a name under public roots, or a SPIFFE ID under the bundle that we have of it.

use std::path::Path;
use std::sync::Arc;

use chancery_types::SpiffeId;
use chancery_x509::Certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// TLS as the `https_web` profile wants it.
pub(crate) fn web(roots: &Path) -> Result<ClientConfig, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", roots.display());
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots).map_err(|error| failed(&error))? {
        // A public store may hold what webpki does not read; the others serve.
        let _ = store.add(root.map_err(|error| failed(&error))?);
    }
    if store.is_empty() {
        return Err(failed(&"no certificate in it can be used"));
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| failed(&error))?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

/// TLS as the `https_spiffe` profile wants it: the endpoint shows an SVID with this ID that these authorities verify.
pub(super) fn spiffe(endpoint: &SpiffeId, authorities: &[Vec<u8>]) -> Result<ClientConfig, String> {
    let verifier = SpiffeEndpoint {
        endpoint: endpoint.clone(),
        authorities: authorities.iter().cloned().map(CertificateDer::from).collect(),
        provider: provider(),
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[derive(Debug)]
struct SpiffeEndpoint {
    endpoint: SpiffeId,
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

/// Another SPIFFE ID than the one that was expected.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint is not {0}")]
struct Somebody(SpiffeId);

impl ServerCertVerifier for SpiffeEndpoint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let other = |error: Arc<dyn std::error::Error + Send + Sync>| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(error)))
        };
        let roots = self.authorities.iter().map(webpki::anchor_from_trusted_cert);
        let roots = roots.collect::<Result<Vec<_>, _>>().map_err(|error| other(Arc::new(error)))?;
        webpki::EndEntityCert::try_from(end_entity)
            .and_then(|leaf| {
                let usage = webpki::KeyUsage::server_auth();
                let algorithms = webpki::ALL_VERIFICATION_ALGS;
                leaf.verify_for_usage(algorithms, &roots, intermediates, now, usage, None, None).map(|_| ())
            })
            .map_err(|error| other(Arc::new(error)))?;
        let leaf = Certificate::from_der(end_entity).map_err(|error| other(Arc::new(error)))?;
        if leaf.tbs().spiffe_id().as_ref() != Some(&self.endpoint) {
            return Err(other(Arc::new(Somebody(self.endpoint.clone()))));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    };

    use super::*;

    fn authority() -> (Vec<u8>, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().to_vec();
        (root, Issuer::new(params, key))
    }

    fn svid(issuer: &Issuer<'static, KeyPair>, id: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
    }

    #[test]
    fn an_endpoint_is_whom_the_configuration_names_under_the_bundle_that_is_known() {
        let ((root, issuer), (_, stranger)) = (authority(), authority());
        let endpoint = SpiffeId::parse("spiffe://other.example/server").unwrap();
        let authorities = vec![CertificateDer::from(root)];
        let verifier = SpiffeEndpoint { endpoint, authorities, provider: provider() };
        let judge = |leaf: &CertificateDer<'_>| {
            // The name does not matter: it is the SPIFFE ID that counts.
            let name = ServerName::try_from("anything.example").unwrap();
            verifier.verify_server_cert(leaf, &[], &name, &[], UnixTime::now())
        };
        judge(&svid(&issuer, "spiffe://other.example/server")).unwrap();
        let other = judge(&svid(&issuer, "spiffe://other.example/web")).unwrap_err();
        assert!(format!("{other:?}").contains("Somebody"), "{other}");
        assert!(judge(&svid(&stranger, "spiffe://other.example/server")).is_err());
    }
}
