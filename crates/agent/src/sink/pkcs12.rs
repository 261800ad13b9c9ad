//! PKCS#12 (RFC 7292): a key and its certificates, or only authorities, in one file with a password.
//!
//! The key is encrypted as in PKCS#8 with PBES2 (PBKDF2-HMAC-SHA-256, AES-256-CBC); the certificates are public
//! and stand there plainly; the whole has an HMAC-SHA-256. OpenSSL 1.1 and Java 8u301 and everything later read it.

use chancery_types::{Random, SecretString};
use pkcs8::PrivateKeyInfoRef;
use pkcs8::pkcs5::pbes2;
use ring::{digest, hmac};

use super::der::{explicit, integer, octets, oid, sequence, set, tlv};
use super::render::RenderError;

/// Costs whoever opens the file some milliseconds; the password lies beside the file as a rule, so that more would
/// buy nothing.
const ITERATIONS: u32 = 10_000;

/// What goes into a store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contents<'a> {
    /// The name of the entry.
    pub(super) alias: &'a str,
    /// A key, PKCS#8 DER, and its chain, the leaf first.
    pub(super) entry: Option<(&'a [u8], &'a [Vec<u8>])>,
    /// Authorities to trust, DER.
    pub(super) authorities: &'a [Vec<u8>],
}

/// Writes a store.
pub(super) fn encode(
    contents: &Contents<'_>,
    password: &SecretString,
    random: &dyn Random,
) -> Result<Vec<u8>, RenderError> {
    let mut bags = Vec::new();
    if let Some((key, chain)) = contents.entry {
        let leaf = chain.first().map_or(&[][..], Vec::as_slice);
        let key_id = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf);
        let pairing = [friendly_name(contents.alias), local_key_id(key_id.as_ref())].concat();
        bags.push(bag(SHROUDED_KEY_BAG, &shroud(key, password, random)?, &pairing));
        for (index, certificate) in chain.iter().enumerate() {
            bags.push(certificate_bag(certificate, if index == 0 { &pairing } else { &[] }));
        }
    }
    for (index, authority) in contents.authorities.iter().enumerate() {
        let attributes = [friendly_name(&format!("authority-{index}")), trusted_key_usage()].concat();
        bags.push(certificate_bag(authority, &attributes));
    }
    let bags: Vec<&[u8]> = bags.iter().map(Vec::as_slice).collect();
    let safe = sequence(&[&data(&sequence(&bags))]);
    let mac = mac(&safe, password, random)?;
    Ok(sequence(&[&integer(3), &data(&safe), &mac]))
}

/// `ContentInfo` of type data.
fn data(content: &[u8]) -> Vec<u8> {
    sequence(&[&oid(DATA), &explicit(&octets(content))])
}

/// `SafeBag`; the attributes are the encoded members of their set.
fn bag(kind: &[u8], value: &[u8], attributes: &[u8]) -> Vec<u8> {
    let attributes = if attributes.is_empty() { Vec::new() } else { set(&[attributes]) };
    sequence(&[&oid(kind), &explicit(value), &attributes])
}

fn certificate_bag(certificate: &[u8], attributes: &[u8]) -> Vec<u8> {
    let value = sequence(&[&oid(X509_CERTIFICATE), &explicit(&octets(certificate))]);
    bag(CERTIFICATE_BAG, &value, attributes)
}

fn local_key_id(id: &[u8]) -> Vec<u8> {
    sequence(&[&oid(LOCAL_KEY_ID), &set(&[&octets(id)])])
}

fn friendly_name(name: &str) -> Vec<u8> {
    sequence(&[&oid(FRIENDLY_NAME), &set(&[&tlv(0x1e, &[&utf16(name)])])])
}

/// Without this attribute Java does not see that a certificate stands there to be trusted.
fn trusted_key_usage() -> Vec<u8> {
    sequence(&[&oid(TRUSTED_KEY_USAGE), &set(&[&oid(ANY_EXTENDED_KEY_USAGE)])])
}

fn shroud(key: &[u8], password: &SecretString, random: &dyn Random) -> Result<Vec<u8>, RenderError> {
    let (mut salt, mut iv) = ([0_u8; 16], [0_u8; 16]);
    random.fill(&mut salt)?;
    random.fill(&mut iv)?;
    let parameters = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(ITERATIONS, &salt, iv)
        .map_err(|_| RenderError::Encryption)?;
    let encrypted = PrivateKeyInfoRef::try_from(key)
        .and_then(|key| key.encrypt_with_params(parameters, password.expose_secret()))
        .map_err(|_| RenderError::Encryption)?;
    Ok(encrypted.as_bytes().to_vec())
}

/// `MacData`.
fn mac(safe: &[u8], password: &SecretString, random: &dyn Random) -> Result<Vec<u8>, RenderError> {
    let mut salt = [0_u8; 16];
    random.fill(&mut salt)?;
    let mut terminated = utf16(password.expose_secret());
    terminated.extend([0, 0]);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &mac_key(&terminated, &salt));
    let tag = hmac::sign(&key, safe);
    let algorithm = sequence(&[&oid(SHA256), &tlv(0x05, &[])]);
    let digest_info = sequence(&[&algorithm, &octets(tag.as_ref())]);
    Ok(sequence(&[&digest_info, &octets(&salt), &integer(ITERATIONS)]))
}

/// RFC 7292 appendix B.2, purpose 3, for the one block that SHA-256 needs for a key of its own length.
fn mac_key(password: &[u8], salt: &[u8]) -> Vec<u8> {
    let mut input = vec![3_u8; BLOCK];
    for part in [salt, password] {
        input.extend(part.iter().cycle().take(part.len().next_multiple_of(BLOCK)));
    }
    let mut hash = digest::digest(&digest::SHA256, &input);
    for _ in 1..ITERATIONS {
        hash = digest::digest(&digest::SHA256, hash.as_ref());
    }
    hash.as_ref().to_vec()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// Bytes in a block of SHA-256.
const BLOCK: usize = 64;

// Object identifiers: the content octets.
const DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
const SHROUDED_KEY_BAG: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02";
const CERTIFICATE_BAG: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x03";
const X509_CERTIFICATE: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x16\x01";
const FRIENDLY_NAME: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x14";
const LOCAL_KEY_ID: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x15";
const SHA256: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x01";
/// 2.16.840.1.113894.746875.1.1, Oracle's.
const TRUSTED_KEY_USAGE: &[u8] = b"\x60\x86\x48\x01\x86\xf9\x66\xad\xca\x7b\x01\x01";
const ANY_EXTENDED_KEY_USAGE: &[u8] = b"\x55\x1d\x25\x00";
