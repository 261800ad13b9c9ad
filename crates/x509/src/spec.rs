//! What a certificate is to say, and the exact bytes that say it.
//!
//! [`CertificateSpec::to_tbs_der`] writes whatever the specification holds and judges nothing: the lints judge
//! the bytes it wrote. Root, issuer, leaf, responder, operator and server certificates all pass through here.

use chancery_types::{SignatureAlgorithm, SubjectName, Timestamp};

use crate::extension::{self, AuthorityKeyId, BasicConstraints, ExtensionKind};
use crate::name_constraints::NameConstraints;
use crate::usage::{ExtendedKeyUsage, KeyUsages};
use crate::writer::Writer;
use crate::{DistinguishedName, PublicKey, oid, tag};

/// Both ends of a certificate's life; both belong to it (RFC 5280 section 4.1.2.5). Whole seconds count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Timestamp,
    /// The last moment.
    pub not_after: Timestamp,
}

/// Everything that a certificate says.
#[derive(Debug, Clone)]
pub struct CertificateSpec<'a> {
    /// The serial number, big-endian and positive; 1 to 20 bytes.
    pub serial: &'a [u8],
    /// What the issuer's key will sign with.
    pub signature_algorithm: SignatureAlgorithm,
    /// The issuer's subject, as DER, byte for byte.
    pub issuer: &'a [u8],
    /// From when to when.
    pub validity: Validity,
    /// The subject.
    pub subject: DistinguishedName,
    /// The subject's key; its key identifier goes into subjectKeyIdentifier.
    pub public_key: &'a PublicKey,
    /// The issuer's subjectKeyIdentifier; `None` only for a root, where it would be its own.
    pub authority_key_id: Option<&'a [u8]>,
    /// The names, in the order in which they are written. Critical when the subject is empty.
    pub names: &'a [SubjectName],
    /// keyUsage, critical; left out when empty.
    pub key_usages: KeyUsages,
    /// extKeyUsage; left out when empty.
    pub extended_key_usages: &'a [ExtendedKeyUsage],
    /// basicConstraints of an authority, critical; `None` leaves the extension out, as leaves have it.
    pub authority: Option<BasicConstraints>,
    /// nameConstraints, critical; left out when empty.
    pub name_constraints: Option<&'a NameConstraints>,
    /// Where the issuer's CRL is: cRLDistributionPoints.
    pub crl_url: Option<&'a str>,
    /// Where its OCSP responder is: authorityInfoAccess.
    pub ocsp_url: Option<&'a str>,
    /// Where the issuer's own certificate is: authorityInfoAccess.
    pub ca_issuers_url: Option<&'a str>,
    /// RFC 9608: there will never be status of this certificate.
    pub no_rev_avail: bool,
    /// RFC 6960: relying parties need not ask for the status of this responder.
    pub ocsp_nocheck: bool,
}

impl<'a> CertificateSpec<'a> {
    /// A root: its own issuer, an authority without a limit on the path below it, without pointers to status,
    /// which would be its own word about itself. For SPIFFE, `names` is the ID of the trust domain.
    #[must_use]
    pub fn root(
        serial: &'a [u8],
        subject: &'a DistinguishedName,
        validity: Validity,
        public_key: &'a PublicKey,
        names: &'a [SubjectName],
    ) -> Self {
        Self {
            serial,
            signature_algorithm: public_key.algorithm().signature_algorithm(),
            issuer: subject.der(),
            validity,
            subject: subject.clone(),
            public_key,
            authority_key_id: None,
            names,
            key_usages: KeyUsages::AUTHORITY,
            extended_key_usages: &[],
            authority: Some(BasicConstraints { is_authority: true, path_length: None }),
            name_constraints: None,
            crl_url: None,
            ocsp_url: None,
            ca_issuers_url: None,
            no_rev_avail: false,
            ocsp_nocheck: false,
        }
    }

    /// The DER of the TBSCertificate: the exact bytes to lint, to record and to sign.
    #[must_use]
    pub fn to_tbs_der(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(1024);
        writer.sequence(|tbs| {
            tbs.nested(tag::context_constructed(0), |version| version.unsigned(&[VERSION_3]));
            tbs.unsigned(self.serial);
            tbs.raw(self.signature_algorithm.algorithm_identifier());
            tbs.raw(self.issuer);
            tbs.sequence(|validity| {
                validity.time(self.validity.not_before);
                validity.time(self.validity.not_after);
            });
            tbs.raw(self.subject.der());
            tbs.raw(self.public_key.spki_der());
            tbs.nested(tag::context_constructed(3), |explicit| {
                explicit.sequence(|list| self.write_extensions(list));
            });
        });
        writer.finish()
    }

    /// Writes the extensions in the order of [`ExtensionKind::ALL`].
    fn write_extensions(&self, list: &mut Writer) {
        use ExtensionKind as Kind;
        let mut write = |kind: Kind, critical: bool, value: &mut dyn FnMut(&mut Writer)| {
            extension::write(list, kind.oid(), critical, value);
        };
        if let Some(key_id) = self.authority_key_id {
            write(Kind::AuthorityKeyId, false, &mut |value| AuthorityKeyId::write(value, key_id));
        }
        let key_id = self.public_key.key_identifier();
        write(Kind::SubjectKeyId, false, &mut |value| value.octet_string(&key_id));
        if !self.key_usages.is_empty() {
            write(Kind::KeyUsage, true, &mut |value| value.named_bits(self.key_usages.bits()));
        }
        if !self.extended_key_usages.is_empty() {
            write(Kind::ExtendedKeyUsage, false, &mut |value| {
                extension::write_purposes(value, self.extended_key_usages);
            });
        }
        if let Some(constraints) = self.authority {
            write(Kind::BasicConstraints, true, &mut |value| constraints.write(value));
        }
        if let Some(constraints) = self.name_constraints.filter(|constraints| !constraints.is_empty()) {
            write(Kind::NameConstraints, true, &mut |value| constraints.write(value));
        }
        if !self.names.is_empty() {
            write(Kind::SubjectAltName, self.subject.is_empty(), &mut |value| {
                extension::write_names(value, self.names);
            });
        }
        if let Some(url) = self.crl_url {
            write(Kind::CrlDistributionPoints, false, &mut |value| {
                extension::write_distribution_points(value, std::iter::once(url));
            });
        }
        if self.ocsp_url.is_some() || self.ca_issuers_url.is_some() {
            write(Kind::AuthorityInfoAccess, false, &mut |value| {
                let ocsp = self.ocsp_url.map(|url| (oid::ACCESS_OCSP, url));
                let issuers = self.ca_issuers_url.map(|url| (oid::ACCESS_CA_ISSUERS, url));
                extension::write_access(value, ocsp.into_iter().chain(issuers));
            });
        }
        if self.ocsp_nocheck {
            write(Kind::OcspNoCheck, false, &mut |value| value.null());
        }
        if self.no_rev_avail {
            write(Kind::NoRevAvail, false, &mut |value| value.null());
        }
    }
}

/// Puts the signed parts together: a Certificate from its TBSCertificate, a CertificateList from its TBSCertList.
#[must_use]
pub fn assemble(tbs_der: &[u8], algorithm: SignatureAlgorithm, signature: &[u8]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(tbs_der.len() + signature.len() + 48);
    writer.sequence(|whole| {
        whole.raw(tbs_der);
        whole.raw(algorithm.algorithm_identifier());
        whole.bit_string(signature);
    });
    writer.finish()
}

/// Version 3 is written as 2 (RFC 5280 section 4.1.2.1).
const VERSION_3: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Subtree;
    use data_encoding::HEXLOWER;

    /// The public key of the first test of RFC 8032 section 7.1.
    fn rfc_8032_key() -> PublicKey {
        let spki = HEXLOWER
            .decode(
                b"302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            )
            .unwrap();
        PublicKey::from_spki_der(&spki).unwrap()
    }

    fn everything<'a>(
        key: &'a PublicKey,
        issuer: &'a DistinguishedName,
        names: &'a [SubjectName],
        constraints: &'a NameConstraints,
    ) -> CertificateSpec<'a> {
        CertificateSpec {
            serial: &[0, 0x80, 1],
            signature_algorithm: SignatureAlgorithm::Ed25519,
            issuer: issuer.der(),
            validity: Validity {
                not_before: "2026-11-21T12:00:00.999Z".parse().unwrap(),
                not_after: "2050-01-01T00:00:00Z".parse().unwrap(),
            },
            subject: DistinguishedName::empty(),
            public_key: key,
            authority_key_id: Some(&[0xaa; 4]),
            names,
            key_usages: KeyUsages::SIGNATURE,
            extended_key_usages: &[ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::OcspSigning],
            authority: Some(BasicConstraints { is_authority: true, path_length: Some(200) }),
            name_constraints: Some(constraints),
            crl_url: Some("http://c/"),
            ocsp_url: Some("http://o/"),
            ca_issuers_url: Some("http://i/"),
            no_rev_avail: true,
            ocsp_nocheck: true,
        }
    }

    fn all_forms() -> Vec<SubjectName> {
        ["uri:spiffe://e/x", "dns:*.a.example", "ip:10.0.0.1", "ip:::1", "email:a@b.example"]
            .map(|name| name.parse().unwrap())
            .to_vec()
    }

    /// Bytes that were read with `openssl asn1parse` and frozen: any change of the encoder shows here.
    #[test]
    fn the_encoding_never_changes() {
        let (key, names) = (rfc_8032_key(), all_forms());
        let issuer: DistinguishedName = "CN=Issuer,O=Example".parse().unwrap();
        let constraints = NameConstraints {
            permitted: vec![Subtree::Dns("a.example".into()), Subtree::Ip("10.0.0.0/8".parse().unwrap())],
            excluded: vec![Subtree::Email("x@y.example".into())],
        };
        let tbs = everything(&key, &issuer, &names, &constraints).to_tbs_der();
        let frozen = include_str!("../tests/fixtures/certificates/everything.tbs.hex");
        assert_eq!(HEXLOWER.encode(&tbs), frozen.split_whitespace().collect::<String>());
    }

    #[test]
    fn everything_that_was_written_is_read_back() {
        let (key, names) = (rfc_8032_key(), all_forms());
        let issuer: DistinguishedName = "CN=Issuer,O=Example".parse().unwrap();
        let constraints =
            NameConstraints { permitted: vec![], excluded: vec![Subtree::Uri(".x.example".into())] };
        let spec = everything(&key, &issuer, &names, &constraints);
        let der = spec.to_tbs_der();
        let tbs = crate::TbsView::from_der(&der).unwrap();
        assert_eq!(tbs.version(), 3);
        assert_eq!(tbs.serial(), [0, 0x80, 1]);
        assert_eq!(tbs.signature_algorithm(), Some(SignatureAlgorithm::Ed25519));
        assert_eq!((tbs.issuer_der(), tbs.subject_der()), (issuer.der(), spec.subject.der()));
        assert_eq!(tbs.not_before(), spec.validity.not_before.whole_second());
        assert_eq!(tbs.not_after(), spec.validity.not_after);
        assert_eq!(tbs.spki_der(), key.spki_der());
        assert_eq!(tbs.subject_key_id(), Some(&key.key_identifier()[..]));
        assert_eq!(tbs.authority_key_id(), spec.authority_key_id);
        assert_eq!(tbs.subject_names(), names);
        assert_eq!(tbs.spiffe_id().unwrap().as_str(), "spiffe://e/x");
        assert_eq!(tbs.key_usages(), Some(spec.key_usages));
        assert!(tbs.purposes().eq(spec.extended_key_usages.iter().map(|usage| usage.oid())));
        assert_eq!(tbs.basic_constraints(), spec.authority);
        let view = tbs.name_constraints().unwrap();
        assert_eq!((view.permitted().count(), view.excluded().count()), (0, 1));
        assert!(tbs.crl_urls().eq(spec.crl_url));
        assert!(tbs.ocsp_urls().eq(spec.ocsp_url));
        assert!(tbs.ca_issuers_urls().eq(spec.ca_issuers_url));
        assert!(tbs.has_no_rev_avail() && tbs.has_ocsp_nocheck());
        let order: Vec<_> = tbs.extensions().map(|extension| extension.kind()).collect();
        assert_eq!(order, ExtensionKind::ALL.map(Some));
        let critical: Vec<_> =
            tbs.extensions().filter(|extension| extension.critical).filter_map(|e| e.kind()).collect();
        assert_eq!(
            critical,
            [
                ExtensionKind::KeyUsage,
                ExtensionKind::BasicConstraints,
                ExtensionKind::NameConstraints,
                ExtensionKind::SubjectAltName,
            ]
        );
    }
}
