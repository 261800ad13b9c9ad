//! Keys as users hand them over: made here, read from a file, or known by what stands in one.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use chancery_api::{CertificateDer, KeySource, PublicKeyDer};
use chancery_client::Client;
use chancery_types::{KeyAlgorithm, SecretString, TrustDomain};
use chancery_x509::{Certificate, CertificateRequest, PRIVATE_KEY, SubjectKey, read_certificates, read_pem};

use crate::files::{self, MAX_PEM};

/// A key that a file names.
#[derive(Debug)]
pub(crate) enum NamedKey {
    /// The public key, or a certificate that has it.
    Public(KeySource),
    /// The private key itself, which can prove its possession.
    Private(Box<SubjectKey>),
}

/// Reads a key from PEM of a certificate, a public key, a certificate request or a private key.
pub(crate) fn named_key(path: &Path) -> Result<NamedKey> {
    let text = files::read_secret(path, MAX_PEM)?;
    let blocks = read_pem(&text, 16).with_context(|| path.display().to_string())?;
    let Some(first) = blocks.first() else {
        bail!(
            "{} holds no PEM; give a certificate, a public key, a certificate request or a private key",
            path.display()
        );
    };
    let der = first.der.to_vec();
    match first.label.as_str() {
        "CERTIFICATE" => Ok(NamedKey::Public(KeySource::Certificate(CertificateDer::from_der(der)))),
        "PUBLIC KEY" => Ok(NamedKey::Public(KeySource::PublicKey(PublicKeyDer::from_der(der)))),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
            let request = CertificateRequest::from_der(&der).with_context(|| path.display().to_string())?;
            let key = PublicKeyDer::from_der(request.public_key().spki_der().to_vec());
            Ok(NamedKey::Public(KeySource::PublicKey(key)))
        }
        label if label.ends_with(PRIVATE_KEY) => {
            let key = SubjectKey::from_pkcs8_pem(&text).with_context(|| path.display().to_string())?;
            Ok(NamedKey::Private(Box::new(key)))
        }
        other => bail!(
            "{} holds a {other}; give a certificate, a public key, a certificate request or a private key",
            path.display()
        ),
    }
}

/// Reads a private key.
pub(crate) fn private_key(path: &Path) -> Result<SubjectKey> {
    let text = files::read_secret(path, MAX_PEM)?;
    SubjectKey::from_pkcs8_pem(&text).with_context(|| path.display().to_string())
}

/// Makes a new key.
pub(crate) fn new_key(algorithm: KeyAlgorithm) -> Result<SubjectKey> {
    SubjectKey::generate(algorithm).context("cannot make a key")
}

/// The root fingerprint that a join token carries, if it does: its fourth part.
///
/// What the token proves is the authority's business; here it only helps to recognise the authority.
pub(crate) fn fingerprint_in(token: &SecretString) -> Option<chancery_types::Digest> {
    let mut parts = token.expose_secret().trim().split('.').skip(3);
    let fingerprint = parts.next()?;
    (parts.next().is_none() && fingerprint.len() == 64).then(|| fingerprint.parse().ok()).flatten()
}

/// The trust domain of the authority at the other end, as its root or an issuer under it names it.
///
/// What is signed for one authority is thereby worth nothing at another.
pub(crate) async fn trust_domain(client: &Client) -> Result<TrustDomain> {
    let roots = read_certificates(&client.bundle().await?, 64).context("the authority's bundle")?;
    if let Some(domain) = roots.iter().find_map(|der| named_domain(der)) {
        return Ok(domain);
    }
    // A root of somebody else's names no trust domain; the issuers under it do.
    let issuers = client.issuers().await?.issuers;
    issuers
        .iter()
        .filter_map(|issuer| read_certificates(issuer.certificate.as_bytes(), 1).ok()?.pop())
        .find_map(|der| named_domain(&der))
        .context("neither root nor issuers of the authority name a trust domain")
}

fn named_domain(der: &[u8]) -> Option<TrustDomain> {
    Some(Certificate::from_der(der).ok()?.tbs().spiffe_id()?.trust_domain())
}

#[cfg(test)]
mod tests {
    use chancery_types::Digest;
    use chancery_x509::{DistinguishedName, write_pem};

    use super::*;

    fn in_file(text: &str) -> Result<NamedKey> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        std::fs::write(&path, text).unwrap();
        named_key(&path)
    }

    #[test]
    fn a_key_is_read_from_whatever_names_it() {
        let key = new_key(KeyAlgorithm::P256).unwrap();
        let spki = key.public_key().spki_der().to_vec();
        let public = write_pem("PUBLIC KEY", &spki);
        let csr = write_pem("CERTIFICATE REQUEST", &key.request(&DistinguishedName::empty(), &[]).unwrap());
        for text in [public, csr] {
            let NamedKey::Public(KeySource::PublicKey(found)) = in_file(&text).unwrap() else {
                panic!("{text}")
            };
            assert_eq!(found.as_der(), spki);
        }
        let NamedKey::Private(found) = in_file(&key.to_pkcs8_pem()).unwrap() else { panic!("private") };
        assert_eq!(found.public_key(), key.public_key());
        let certificate = in_file(&write_pem("CERTIFICATE", b"x")).unwrap();
        assert!(matches!(certificate, NamedKey::Public(KeySource::Certificate(_))));
    }

    #[test]
    fn other_files_are_refused_with_what_would_do() {
        for text in ["", &write_pem("X509 CRL", b"x")] {
            let refused = in_file(text).unwrap_err().to_string();
            assert!(refused.contains("certificate request or a private key"), "{refused}");
        }
    }

    #[test]
    fn a_token_bootstraps_trust_if_it_carries_a_fingerprint() {
        let fingerprint = Digest::of(b"root");
        let token = |text: String| SecretString::new(text);
        assert_eq!(fingerprint_in(&token(format!("chancery1.id.secret.{fingerprint}\n"))), Some(fingerprint));
        assert_eq!(fingerprint_in(&token("chancery1.id.secret".into())), None);
        assert_eq!(fingerprint_in(&token(format!("chancery1.id.secret.{fingerprint}.more"))), None);
        assert_eq!(fingerprint_in(&token("chancery1.id.secret.short".into())), None);
    }
}
