//! The certificates at the top: the root and the issuers that sign.

use chancery_types::{Digest, IssuerEpoch};
use chancery_x509::{Certificate, verify_signature};

use super::finding::{Check, Finding};

/// An issuer as its activation recorded it.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) epoch: IssuerEpoch,
    pub(crate) certificate: Certificate,
}

impl Issuer {
    /// Reads an issuer's certificate and checks that a root made it.
    pub(crate) fn read(
        epoch: IssuerEpoch,
        der: &[u8],
        roots: &[Certificate],
    ) -> (Option<Self>, Option<Finding>) {
        let certificate = match Certificate::from_der(der) {
            Ok(certificate) => certificate,
            Err(error) => {
                let detail = format!("the certificate of issuer {epoch} cannot be read: {error}");
                return (None, Some(Finding::new(Check::IssuerCertificate, detail)));
            }
        };
        let mut findings = roots.iter().map(|root| made_by(epoch, &certificate, root));
        let is_made = findings.clone().any(|finding| finding.is_none());
        let finding = if is_made { None } else { findings.next().flatten() };
        (Some(Self { epoch, certificate }), finding)
    }

    /// What is wrong with a signature that this issuer is said to have made; nothing if it stands.
    pub(crate) fn refuses(&self, algorithm: &[u8], message: &[u8], signature: &[u8]) -> Option<String> {
        refuses(&self.certificate, algorithm, message, signature)
    }

    pub(crate) fn fingerprint(&self) -> Digest {
        self.certificate.fingerprint()
    }
}

fn made_by(epoch: IssuerEpoch, certificate: &Certificate, root: &Certificate) -> Option<Finding> {
    let (tbs, root_tbs) = (certificate.tbs(), root.tbs());
    if certificate.der() == root.der() {
        return None;
    }
    if tbs.issuer_der() != root_tbs.subject_der() {
        let detail = format!("issuer {epoch} was certified by {:?}, not by the root", tbs.issuer_text());
        return Some(Finding::new(Check::IssuerChain, detail));
    }
    if !tbs.is_authority() {
        let detail = format!("the certificate of issuer {epoch} does not allow it to issue");
        return Some(Finding::new(Check::IssuerCertificate, detail));
    }
    let signed = certificate.tbs_der();
    let why = refuses(root, certificate.signature_algorithm_der(), signed, certificate.signature())?;
    let detail = format!("the certificate of issuer {epoch} is not the root's: {why}");
    Some(Finding::new(Check::IssuerCertificate, detail))
}

fn refuses(signer: &Certificate, algorithm: &[u8], message: &[u8], signature: &[u8]) -> Option<String> {
    let verified = chancery_x509::VerificationAlgorithm::from_algorithm_identifier(algorithm)
        .and_then(|algorithm| verify_signature(signer.tbs().spki_der(), algorithm, message, signature));
    verified.err().map(|error| error.to_string())
}
