//! A signed certificate: its exact bytes, and what they say.

use std::fmt;

use chancery_types::{Digest, SerialNumber, SignatureAlgorithm};

use crate::chain::check_identifiers;
use crate::reader::{DerError, Reader};
use crate::tag;
use crate::tbs::{CertificateError, Layout, MAX_CERTIFICATE, Span, TbsView};

/// A certificate that was read: version 3, DER, no extension twice, of bounded size. Its signature has not been
/// looked at, and no lint has been run.
#[derive(Clone)]
pub struct Certificate {
    der: Box<[u8]>,
    tbs: Span,
    layout: Layout,
    algorithm: Span,
    signature: Span,
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`CertificateError`] when it is not DER of at most [`MAX_CERTIFICATE`] bytes, is not of version 3, has an
    /// extension twice, or a malformed extension of a kind that we know.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE {
            return Err(DerError::TooLong { got: der.len(), limit: MAX_CERTIFICATE }.into());
        }
        let der: Box<[u8]> = der.into();
        let mut fields = Reader::single(&der, tag::SEQUENCE)?.reader();
        let tbs = fields.expect(tag::SEQUENCE)?.whole;
        let algorithm = fields.expect(tag::SEQUENCE)?.whole;
        let signature = fields.bit_string()?;
        fields.finish()?;
        let view = TbsView::from_der(tbs)?;
        check_sense(&view, algorithm)?;
        let layout = view.layout();
        let (tbs, algorithm) = (Span::locate(&der, tbs), Span::locate(&der, algorithm));
        let signature = Span::locate(&der, signature);
        Ok(Self { der, tbs, layout, algorithm, signature })
    }

    /// The whole certificate.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The exact bytes that were signed.
    #[must_use]
    pub fn tbs_der(&self) -> &[u8] {
        self.tbs.of(&self.der)
    }

    /// What it says.
    #[must_use]
    pub fn tbs(&self) -> TbsView<'_> {
        TbsView::with_layout(self.tbs_der(), self.layout)
    }

    /// The AlgorithmIdentifier of the signature, whole.
    #[must_use]
    pub fn signature_algorithm_der(&self) -> &[u8] {
        self.algorithm.of(&self.der)
    }

    /// The algorithm of the signature, if it is one of ours.
    #[must_use]
    pub fn signature_algorithm(&self) -> Option<SignatureAlgorithm> {
        SignatureAlgorithm::from_algorithm_identifier(self.signature_algorithm_der())
    }

    /// The bytes of the signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        self.signature.of(&self.der)
    }

    /// The serial number, if it is one of this authority's.
    #[must_use]
    pub fn serial_number(&self) -> Option<SerialNumber> {
        SerialNumber::from_bytes(self.tbs().serial()).ok()
    }

    /// Whether it says of itself that this issuer's key signed it: by name and by key identifier. Whether that is true
    /// says [`check_issued_by`](crate::check_issued_by).
    #[must_use]
    pub fn is_issued_in_the_name_of(&self, issuer: &Self) -> bool {
        check_identifiers(&self.tbs(), &issuer.tbs()).is_ok()
    }

    /// SHA-256 of the whole certificate: the fingerprint that people compare.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.der)
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl std::hash::Hash for Certificate {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.der.hash(state);
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Certificate({:?})", self.tbs())
    }
}

fn check_sense(tbs: &TbsView<'_>, algorithm: &[u8]) -> Result<(), CertificateError> {
    if tbs.version() != 3 {
        return Err(CertificateError::Version(tbs.version()));
    }
    if tbs.signature_algorithm_der() != algorithm {
        return Err(CertificateError::AlgorithmMismatch);
    }
    match repeated_extension(tbs) {
        Some(twice) => Err(CertificateError::DuplicateExtension(twice)),
        None => Ok(()),
    }
}

/// The dotted identifier of an extension that stands there twice.
pub(crate) fn repeated_extension(tbs: &TbsView<'_>) -> Option<String> {
    let mut seen: Vec<&[u8]> = Vec::with_capacity(16);
    let twice = tbs.extensions().find(|extension| {
        let is_there = seen.contains(&extension.oid);
        seen.push(extension.oid);
        is_there
    });
    twice.map(|extension| extension.dotted_oid())
}

/// The certificates of a text of DER in which one follows the other, as the SPIFFE Workload API sends chains and
/// bundles. They are told apart and not looked into.
///
/// # Errors
/// [`DerError`] when it is not DER, or there are more than `limit`.
pub fn split_certificates(der: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, DerError> {
    let mut reader = Reader::new(der);
    let mut certificates = Vec::new();
    while !reader.is_empty() {
        let value = reader.expect(tag::SEQUENCE)?;
        if certificates.len() == limit {
            return Err(value.invalid("end of the certificates"));
        }
        certificates.push(value.whole.to_vec());
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use chancery_types::KeyAlgorithm;
    use proptest::prelude::*;

    use super::*;
    use crate::authority::{Authority, names, profile, serial};
    use crate::lint::tests::{Criticality, Parts};
    use crate::{ExtensionKind, MAX_EXTENSIONS, assemble, oid};

    fn good() -> Certificate {
        let names = names(&["spiffe://example.org/web", "dns:web.example.org"]);
        Authority::new(KeyAlgorithm::P256).leaf(&profile("workload"), KeyAlgorithm::P256, &names).certificate
    }

    fn bent(bend: impl FnOnce(&mut Parts)) -> Result<Certificate, CertificateError> {
        let mut parts = Parts::of(good().tbs_der());
        bend(&mut parts);
        Certificate::from_der(&assemble(&parts.der(), SignatureAlgorithm::EcdsaSha256, &[7; 70]))
    }

    #[test]
    fn every_byte_of_it_is_given_back() {
        let certificate = good();
        let again = Certificate::from_der(certificate.der()).unwrap();
        assert_eq!(again, certificate);
        let whole = assemble(certificate.tbs_der(), SignatureAlgorithm::EcdsaSha256, certificate.signature());
        assert_eq!(whole, certificate.der());
        assert_eq!(certificate.serial_number(), Some(serial(7)));
        assert_eq!(certificate.signature_algorithm(), Some(SignatureAlgorithm::EcdsaSha256));
        assert_eq!(certificate.fingerprint(), Digest::of(certificate.der()));
        assert_eq!(certificate.tbs().der(), certificate.tbs_der());
        assert!(format!("{certificate:?}").contains("dns:web.example.org"));
    }

    #[test]
    fn refuses_what_no_relying_party_should_see() {
        assert_eq!(bent(|_| ()).map(drop), Ok(()));
        assert_eq!(bent(|p| p.version = None).unwrap_err(), CertificateError::Version(1));
        assert_eq!(bent(|p| p.version = Some(1)).unwrap_err(), CertificateError::Version(2));
        assert!(matches!(bent(|p| p.version = Some(3)).unwrap_err(), CertificateError::Der(_)));
        assert_eq!(
            bent(|p| p.extensions.push(p.extensions[0].clone())).unwrap_err(),
            CertificateError::DuplicateExtension("2.5.29.35".into())
        );
        assert_eq!(
            bent(|p| p.algorithm = SignatureAlgorithm::Ed25519.algorithm_identifier().to_vec()).unwrap_err(),
            CertificateError::AlgorithmMismatch
        );
        assert_eq!(
            bent(|p| p.subject = vec![0x30, 2, 0x31, 0]).unwrap_err(),
            CertificateError::Name { which: "subject" }
        );
        assert!(matches!(
            bent(|p| p.set(ExtensionKind::SubjectAltName, |value| value.octet_string(b"x"))).unwrap_err(),
            CertificateError::Extension { name: "subjectAltName", .. }
        ));
        let unknown = (oid::CERTIFICATE_POLICIES.to_vec(), Criticality::No, Vec::new());
        assert_eq!(
            bent(|p| p.extensions.extend(vec![unknown; MAX_EXTENSIONS])).unwrap_err(),
            CertificateError::TooManyExtensions
        );
    }

    #[test]
    fn refuses_bytes_around_and_too_many_of_them() {
        let der = good().der().to_vec();
        for length in 0..der.len() {
            assert!(Certificate::from_der(&der[..length]).is_err(), "{length}");
        }
        let trailing = [der.as_slice(), &[0]].concat();
        assert!(matches!(
            Certificate::from_der(&trailing),
            Err(CertificateError::Der(DerError::Trailing { .. }))
        ));
        assert!(matches!(
            Certificate::from_der(&vec![0x30; MAX_CERTIFICATE + 1]),
            Err(CertificateError::Der(DerError::TooLong { .. }))
        ));
    }

    proptest! {
        #[test]
        fn changed_and_random_bytes_never_panic(
            changes in proptest::collection::vec((0_usize..900, any::<u8>()), 1..4),
            junk in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            thread_local!(static GOOD: Certificate = good());
            let mut der = GOOD.with(|certificate| certificate.der().to_vec());
            for (place, value) in changes {
                let length = der.len();
                der[place % length] = value;
            }
            for input in [der.as_slice(), &junk] {
                if let Ok(certificate) = Certificate::from_der(input) {
                    let tbs = certificate.tbs();
                    let _ = (tbs.subject_names(), tbs.spiffe_id(), tbs.crl_urls().count(), tbs.ocsp_urls().count());
                    let _ = (tbs.key_usages(), tbs.basic_constraints(), format!("{certificate:?}"));
                    let _ = crate::chain::check_issued_by(&certificate, &certificate);
                }
            }
        }
    }
}
