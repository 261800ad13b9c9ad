//! A signed certificate: its exact bytes, and what they say.

use std::fmt;

use chancery_types::{Digest, SerialNumber, SignatureAlgorithm};

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
    let twice = tbs.extensions().enumerate().find(|(index, extension)| {
        tbs.extensions().take(*index).any(|earlier| earlier.oid == extension.oid)
    });
    twice.map(|(_, extension)| extension.dotted_oid())
}
