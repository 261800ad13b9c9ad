//! A chain of foreign certificates as a stranger sent it: size and key limits, and the facts in its leaf.
//!
//! Everything here happens before the first signature is checked, so that nobody can buy a minute of our
//! processor with a certificate that holds a 64 kbit RSA key.

use std::net::IpAddr;

use chancery_types::{ClaimValue, Claims, Digest};
use data_encoding::HEXLOWER;
use der::asn1::{ObjectIdentifier, UintRef};
use der::oid::AssociatedOid;
use der::{Decode, Encode};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::ring as algorithms;
use x509_cert::Certificate;
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectAltName};
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::PopError;

/// Intermediates that are read besides the leaf.
const MAX_INTERMEDIATES: usize = 4;
/// Longest certificate, in bytes. Device certificates with many names stay well below 8 KiB.
const MAX_CERTIFICATE: usize = 16 * 1024;
/// Subject alternative names that are read from the leaf.
const MAX_NAMES: usize = 100;
/// Smallest and largest RSA modulus, in bits; the larger is also what ring verifies at most.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Largest RSA public exponent, in bytes: a long one makes each verification as slow as a signature.
const MAX_EXPONENT: usize = 4;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A chain within all limits, parsed, not verified.
pub(crate) struct ForeignChain<'a> {
    /// The leaf's DER.
    pub(crate) leaf: CertificateDer<'a>,
    /// The others' DER, in the order they came.
    pub(crate) intermediates: Vec<CertificateDer<'a>>,
    /// How a signature of the leaf's key is verified.
    pub(crate) proof_algorithm: &'static dyn SignatureVerificationAlgorithm,
    parsed: Certificate,
}

impl<'a> ForeignChain<'a> {
    /// Applies every limit and parses every certificate.
    pub(crate) fn read(chain: &'a [Vec<u8>]) -> Result<Self, PopError> {
        let (leaf, intermediates) = chain.split_first().ok_or(PopError::NoCertificate)?;
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(PopError::ChainTooLong { count: chain.len(), limit: MAX_INTERMEDIATES + 1 });
        }
        for (index, certificate) in chain.iter().enumerate() {
            if certificate.len() > MAX_CERTIFICATE {
                let size = certificate.len();
                return Err(PopError::CertificateTooLarge { index, size, limit: MAX_CERTIFICATE });
            }
        }
        let (parsed, proof_algorithm) = read_certificate(0, leaf)?;
        for (index, certificate) in intermediates.iter().enumerate() {
            read_certificate(index + 1, certificate)?;
        }
        Ok(Self {
            leaf: CertificateDer::from(leaf.as_slice()),
            intermediates: intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect(),
            proof_algorithm,
            parsed,
        })
    }

    /// The extended key usages that the leaf names; none if it has no such extension.
    pub(crate) fn purposes(&self) -> Result<Vec<ObjectIdentifier>, PopError> {
        let extension: Option<ExtendedKeyUsage> = self.extension(ExtendedKeyUsage::OID)?;
        Ok(extension.map(|purposes| purposes.0).unwrap_or_default())
    }

    /// The facts in the leaf, as claims `x509.*`. They are only worth anything once the chain is verified.
    pub(crate) fn claims(&self, authority: &str) -> Result<Claims, PopError> {
        let tbs = self.parsed.tbs_certificate();
        let spki = tbs.subject_public_key_info().to_der().map_err(|error| malformed(0, &error))?;
        let mut claims = Claims::new();
        claims.insert("x509.ca", authority);
        claims.insert("x509.subject", tbs.subject().to_string());
        claims.insert("x509.issuer", tbs.issuer().to_string());
        claims.insert("x509.serial", HEXLOWER.encode(tbs.serial_number().as_bytes()));
        claims.insert("x509.fingerprint", Digest::of(&self.leaf).to_string());
        claims.insert("x509.spki", Digest::of(&spki).to_string());
        let not_after = tbs.validity().not_after.to_unix_duration().as_secs();
        claims.insert("x509.not_after", ClaimValue::Number(i64::try_from(not_after).unwrap_or(i64::MAX)));
        insert_texts(&mut claims, "x509.subject.cn", common_names(tbs.subject())?);
        self.insert_alternative_names(&mut claims)?;
        Ok(claims)
    }

    fn insert_alternative_names(&self, claims: &mut Claims) -> Result<(), PopError> {
        let extension: Option<SubjectAltName> = self.extension(SubjectAltName::OID)?;
        let names = extension.map(|names| names.0).unwrap_or_default();
        if names.len() > MAX_NAMES {
            return Err(PopError::TooManyNames { count: names.len(), limit: MAX_NAMES });
        }
        let (mut dns, mut uri, mut email, mut ip) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for name in &names {
            match name {
                GeneralName::DnsName(text) => dns.push(printable(text.as_str())?.to_ascii_lowercase()),
                GeneralName::UniformResourceIdentifier(text) => uri.push(printable(text.as_str())?),
                GeneralName::Rfc822Name(text) => email.push(printable(text.as_str())?),
                GeneralName::IpAddress(octets) => ip.push(ip_address(octets.as_bytes())?.to_string()),
                _ => {}
            }
        }
        for (claim, texts) in [("x509.dns", dns), ("x509.uri", uri), ("x509.email", email), ("x509.ip", ip)] {
            if !texts.is_empty() {
                claims.insert(claim, ClaimValue::List(texts));
            }
        }
        Ok(())
    }

    fn extension<T: for<'d> Decode<'d>>(&self, oid: ObjectIdentifier) -> Result<Option<T>, PopError> {
        let extensions = self.parsed.tbs_certificate().extensions();
        let Some(extension) =
            extensions.and_then(|all| all.iter().find(|extension| extension.extn_id == oid))
        else {
            return Ok(None);
        };
        let value = T::from_der(extension.extn_value.as_bytes())
            .map_err(|_| PopError::Malformed { index: 0, why: format!("extension {oid} does not parse") })?;
        Ok(Some(value))
    }
}

fn read_certificate(
    index: usize,
    der: &[u8],
) -> Result<(Certificate, &'static dyn SignatureVerificationAlgorithm), PopError> {
    let certificate = Certificate::from_der(der).map_err(|error| malformed(index, &error))?;
    let algorithm = judge_key(certificate.tbs_certificate().subject_public_key_info())
        .map_err(|why| PopError::Key { index, why })?;
    Ok((certificate, algorithm))
}

/// The algorithm that signatures of this key are verified with, if the key is of an accepted kind and size.
fn judge_key(
    spki: &SubjectPublicKeyInfoOwned,
) -> Result<&'static dyn SignatureVerificationAlgorithm, String> {
    match spki.algorithm.oid {
        ED25519 => Ok(algorithms::ED25519),
        EC_PUBLIC_KEY => {
            let parameters = spki.algorithm.parameters.as_ref();
            match parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok()) {
                Some(P256) => Ok(algorithms::ECDSA_P256_SHA256),
                Some(P384) => Ok(algorithms::ECDSA_P384_SHA384),
                Some(curve) => Err(format!("curve {curve} is not supported; use P-256 or P-384")),
                None => Err("its curve is not named; use P-256 or P-384".to_owned()),
            }
        }
        RSA_ENCRYPTION => {
            judge_rsa(spki.subject_public_key.raw_bytes())?;
            Ok(algorithms::RSA_PKCS1_2048_8192_SHA256)
        }
        other => Err(format!("algorithm {other} is not supported; use ECDSA, Ed25519 or RSA")),
    }
}

/// RFC 8017 section A.1.1.
#[derive(der::Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

fn judge_rsa(der: &[u8]) -> Result<(), String> {
    let key = RsaPublicKey::from_der(der).map_err(|_| "not an RSA public key".to_owned())?;
    let modulus = key.modulus.as_bytes();
    let leading = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - leading;
    if !RSA_BITS.contains(&bits) {
        let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
        return Err(format!("the RSA modulus has {bits} bits, {least} to {most} are accepted"));
    }
    let exponent = key.public_exponent.as_bytes();
    if exponent.len() > MAX_EXPONENT {
        return Err(format!("the RSA exponent has {} bytes, at most {MAX_EXPONENT}", exponent.len()));
    }
    Ok(())
}

fn common_names(name: &Name) -> Result<Vec<String>, PopError> {
    let attributes = name.iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let texts = attributes.filter_map(|attribute| attribute.value.decode_as::<DirectoryString>().ok());
    texts.map(|text| printable(&text.value())).collect()
}

fn insert_texts(claims: &mut Claims, name: &str, mut texts: Vec<String>) {
    match texts.len() {
        0 => {}
        1 => claims.insert(name, texts.remove(0)),
        _ => claims.insert(name, ClaimValue::List(texts)),
    }
}

fn printable(text: &str) -> Result<String, PopError> {
    if text.chars().any(char::is_control) {
        let why = "a name has control characters".to_owned();
        return Err(PopError::Malformed { index: 0, why });
    }
    Ok(text.to_owned())
}

fn ip_address(octets: &[u8]) -> Result<IpAddr, PopError> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).map_err(|_| PopError::Malformed {
        index: 0,
        why: format!("an IP address has 4 or 16 bytes, one in it has {}", octets.len()),
    })
}

fn malformed(index: usize, error: &der::Error) -> PopError {
    PopError::Malformed { index, why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RSAPublicKey with a modulus of this many bits and this exponent.
    fn rsa(bits: usize, exponent: &[u8]) -> Vec<u8> {
        let mut modulus = vec![0xff_u8; bits.div_ceil(8)];
        modulus[0] = 0xff >> (modulus.len() * 8 - bits);
        let modulus = UintRef::new(&modulus).unwrap();
        RsaPublicKey { modulus, public_exponent: UintRef::new(exponent).unwrap() }.to_der().unwrap()
    }

    #[test]
    fn rsa_keys_are_accepted_from_2048_to_8192_bits() {
        for bits in [2048, 3072, 8192] {
            assert_eq!(judge_rsa(&rsa(bits, &[1, 0, 1])), Ok(()));
        }
        for bits in [2047, 8193, 65_536] {
            let why = judge_rsa(&rsa(bits, &[1, 0, 1])).unwrap_err();
            assert!(why.contains(&format!("{bits} bits")), "{why}");
        }
    }

    #[test]
    fn long_rsa_exponents_are_refused() {
        assert_eq!(judge_rsa(&rsa(2048, &[0xff; 4])), Ok(()));
        assert!(judge_rsa(&rsa(2048, &[0xff; 5])).is_err());
        assert!(judge_rsa(b"garbage").is_err());
    }
}
