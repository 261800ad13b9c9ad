//! Keys, the certificates of authorities, and revocation lists, built with other code than the authority's own.

use std::str::FromStr;

use chancery_types::{RevocationReason, SerialNumber, SignatureAlgorithm, SubjectName, Timestamp};
use chancery_x509::{
    BasicConstraints, Certificate, CertificateSpec, DistinguishedName, KeyUsages, Profile, PublicKey,
    StatusUrls, Validity, assemble,
};
use der::asn1::{OctetString, UtcTime};
use der::{Decode, Encode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::CrlNumber;

use super::{START, domain};

pub(crate) fn ecdsa_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap()
}

pub(crate) fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

/// RFC 5480: the SubjectPublicKeyInfo of a P-256 key up to the point.
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

pub(crate) fn spki(key: &EcdsaKeyPair) -> Vec<u8> {
    [P256_SPKI, key.public_key().as_ref()].concat()
}

pub(super) fn reference_profile(name: &str) -> String {
    let path = format!("{}/../../ca-config/profiles/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// A root, or the certificate by which `issuer`, whose key is `signer`, vouches for it.
pub(super) fn authority_certificate(
    name: &str,
    key: &EcdsaKeyPair,
    signer: &EcdsaKeyPair,
    issuer: Option<&Certificate>,
) -> Certificate {
    let public_key = PublicKey::from_spki_der(&spki(key)).unwrap();
    let subject = DistinguishedName::common_name(name).unwrap();
    let above = issuer.map(Certificate::tbs);
    let name = above.map_or(subject.der(), |issuer| issuer.subject_der()).to_vec();
    let names = [domain().id().into()];
    let start = Timestamp::from_millis(START - 86_400_000);
    let tbs = CertificateSpec {
        serial: &[1],
        signature_algorithm: SignatureAlgorithm::EcdsaSha256,
        issuer: &name,
        validity: Validity {
            not_before: start,
            not_after: Timestamp::from_millis(START + 3650 * 86_400_000),
        },
        subject,
        public_key: &public_key,
        authority_key_id: above.and_then(|issuer| issuer.subject_key_id()),
        names: &names,
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
    .to_tbs_der();
    Certificate::from_der(&assemble(&tbs, SignatureAlgorithm::EcdsaSha256, &sign(signer, &tbs))).unwrap()
}

pub(super) fn issuer_certificate(
    root: &Certificate,
    root_key: &EcdsaKeyPair,
    key: &EcdsaKeyPair,
) -> Certificate {
    let profile = Profile::from_toml(&reference_profile("issuer"), &domain()).unwrap();
    let public_key = PublicKey::from_spki_der(&spki(key)).unwrap();
    let now = Timestamp::from_millis(START);
    let lifetime = profile.lifetime().default;
    let validity = profile.validity(now, lifetime, root.tbs().not_before(), root.tbs().not_after());
    let subject = DistinguishedName::common_name("Example Issuer 1").unwrap();
    let particulars = chancery_x509::Issuance {
        serial: &[2],
        issuer: root,
        signature_algorithm: SignatureAlgorithm::EcdsaSha256,
        validity,
        public_key: &public_key,
        names: &[SubjectName::from_str("spiffe://example.org").unwrap()],
        subject: Some(&subject),
        urls: StatusUrls::default(),
    };
    let tbs = profile.specify(&particulars).unwrap().to_tbs_der();
    Certificate::from_der(&assemble(&tbs, SignatureAlgorithm::EcdsaSha256, &sign(root_key, &tbs))).unwrap()
}

/// The bytes to sign of a full revocation list, built with other code than the authority's own.
pub(crate) fn revocation_list(
    issuer: &Certificate,
    number: u64,
    this_update: Timestamp,
    lines: &[(SerialNumber, Timestamp, RevocationReason)],
) -> Vec<u8> {
    let time = |moment: Timestamp| {
        let since = std::time::Duration::from_secs(u64::try_from(moment.seconds()).unwrap());
        x509_cert::time::Time::UtcTime(UtcTime::from_unix_duration(since).unwrap())
    };
    let extension = |extn_id, value: Vec<u8>| Extension {
        extn_id,
        critical: false,
        extn_value: OctetString::new(value).unwrap(),
    };
    let line = |(serial, date, reason): &(SerialNumber, Timestamp, RevocationReason)| RevokedCert {
        serial_number: x509_cert::serial_number::SerialNumber::new(serial.as_bytes()).unwrap(),
        revocation_date: time(*date),
        crl_entry_extensions: (*reason != RevocationReason::Unspecified).then(|| {
            vec![extension(const_oid::db::rfc5280::ID_CE_CRL_REASONS, vec![0x0a, 1, reason.code()])]
        }),
    };
    let number = CrlNumber(der::asn1::Uint::new(&number.to_be_bytes()[7..]).unwrap());
    let algorithm = SignatureAlgorithm::EcdsaSha256;
    let tbs: TbsCertList = TbsCertList {
        version: x509_cert::Version::V2,
        signature: Decode::from_der(algorithm.algorithm_identifier()).unwrap(),
        issuer: Decode::from_der(issuer.tbs().subject_der()).unwrap(),
        this_update: time(this_update),
        next_update: Some(time(Timestamp::from_millis(this_update.millis() + 86_400_000))),
        revoked_certificates: (!lines.is_empty()).then(|| lines.iter().map(line).collect()),
        crl_extensions: Some(vec![extension(
            const_oid::db::rfc5280::ID_CE_CRL_NUMBER,
            number.to_der().unwrap(),
        )]),
    };
    tbs.to_der().unwrap()
}
