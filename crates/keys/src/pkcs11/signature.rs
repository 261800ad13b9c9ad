//! Between what a token signs and what X.509 carries.

use chancery_types::KeyAlgorithm;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use der::asn1::UintRef;
use der::{Encode, Sequence};
use ring::digest::{SHA256, SHA384, digest};

use super::connection::Connection;
use super::error::TokenError;
use super::object::KeySelector;

/// What is handed to the token: a digest for ECDSA, a `DigestInfo` for RSA, the message itself for Ed25519.
pub(super) fn input(algorithm: KeyAlgorithm, message: &[u8]) -> Vec<u8> {
    match algorithm {
        KeyAlgorithm::P256 => digest(&SHA256, message).as_ref().to_vec(),
        KeyAlgorithm::P384 => digest(&SHA384, message).as_ref().to_vec(),
        KeyAlgorithm::Ed25519 => message.to_vec(),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            [SHA256_DIGEST_INFO, digest(&SHA256, message).as_ref()].concat()
        }
    }
}

/// The raw operation of each key.
pub(super) fn mechanism(algorithm: KeyAlgorithm) -> Mechanism<'static> {
    match algorithm {
        KeyAlgorithm::P256 | KeyAlgorithm::P384 => Mechanism::Ecdsa,
        KeyAlgorithm::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => Mechanism::RsaPkcs,
    }
}

/// The signature as X.509 carries it, if it has the length that this key's signatures have.
pub(super) fn to_x509(algorithm: KeyAlgorithm, raw: &[u8]) -> Option<Vec<u8>> {
    let length = match algorithm {
        KeyAlgorithm::P256 | KeyAlgorithm::Ed25519 => 64,
        KeyAlgorithm::P384 => 96,
        KeyAlgorithm::Rsa2048 => 256,
        KeyAlgorithm::Rsa3072 => 384,
        KeyAlgorithm::Rsa4096 => 512,
    };
    if raw.len() != length {
        return None;
    }
    match algorithm {
        KeyAlgorithm::P256 | KeyAlgorithm::P384 => {
            let (r, s) = raw.split_at(length / 2);
            EcdsaSigValue { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? }.to_der().ok()
        }
        _ => Some(raw.to_vec()),
    }
}

/// Whether the token does what this key needs.
pub(super) fn check_mechanism(
    connection: &Connection,
    selector: &KeySelector,
    algorithm: KeyAlgorithm,
) -> Result<(), TokenError> {
    let token = connection.token();
    let offered = token
        .module
        .context()
        .get_mechanism_list(token.slot)
        .map_err(TokenError::failed("list its mechanisms"))?;
    let needed: MechanismType = mechanism(algorithm).mechanism_type();
    if offered.contains(&needed) {
        return Ok(());
    }
    Err(TokenError::NoMechanism {
        token: format!("{} ({selector})", connection.label()),
        mechanism: needed.to_string(),
        algorithm,
    })
}

/// RFC 3279 section 2.2.3.
#[derive(Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// What precedes the digest in a SHA-256 `DigestInfo` (RFC 8017 section 9.2, note 1).
const SHA256_DIGEST_INFO: &[u8] =
    &[0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_ecdsa_values_minimally_and_positively() {
        let mut raw = [0; 64];
        raw[31] = 0x7f;
        raw[32] = 0x80;
        let mut expected = vec![0x30, 38, 2, 1, 0x7f, 2, 33, 0, 0x80];
        expected.extend([0; 31]);
        assert_eq!(to_x509(KeyAlgorithm::P256, &raw).unwrap(), expected);
    }

    #[test]
    fn refuses_signatures_of_the_wrong_length() {
        for algorithm in KeyAlgorithm::ALL {
            for length in [0, 63, 65, 97, 255, 257, 513] {
                assert_eq!(to_x509(algorithm, &vec![1; length]), None, "{algorithm} {length}");
            }
        }
    }
}
