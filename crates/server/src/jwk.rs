//! Public keys as JSON writes them (RFC 7517), for bundles and for those who verify our tokens.

use chancery_api::Jwk;
use chancery_types::{Digest, KeyAlgorithm};
use chancery_x509::PublicKey;
use data_encoding::BASE64URL_NOPAD;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{self, Decode, Reader, SliceReader};

/// The key of JWT-SVIDs with its name and algorithm; `purpose` is `jwt-svid` in a SPIFFE bundle, `sig` elsewhere.
pub(crate) fn jwt_authority(key: &PublicKey, purpose: &str) -> Result<Jwk, der::Error> {
    let mut jwk = jwk(key, purpose)?;
    jwk.kid = Some(thumbprint(&jwk));
    jwk.alg = Some(jws_algorithm(key.algorithm()).to_owned());
    Ok(jwk)
}

/// How JWS calls a signature with such a key (RFC 7518 section 3.1, RFC 8037 section 3.1).
pub(crate) fn jws_algorithm(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::P256 => "ES256",
        KeyAlgorithm::P384 => "ES384",
        KeyAlgorithm::Ed25519 => "EdDSA",
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => "RS256",
    }
}

/// A key as RFC 7518 section 6 and RFC 8037 section 2 write it.
pub(crate) fn jwk(key: &PublicKey, purpose: &str) -> Result<Jwk, der::Error> {
    let encode = |bytes: &[u8]| Some(BASE64URL_NOPAD.encode(bytes));
    let mut jwk = Jwk {
        kty: String::new(),
        purpose: purpose.to_owned(),
        kid: None,
        alg: None,
        x5c: None,
        crv: None,
        x: None,
        y: None,
        n: None,
        e: None,
    };
    let mut point = |curve: &str| {
        // An uncompressed point: 4, and two coordinates of equal length (SEC 1 section 2.3.3).
        let coordinates = &key.key_bytes()[1..];
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        (jwk.kty, jwk.crv) = ("EC".to_owned(), Some(curve.to_owned()));
        (jwk.x, jwk.y) = (encode(x), encode(y));
    };
    match key.algorithm() {
        KeyAlgorithm::P256 => point("P-256"),
        KeyAlgorithm::P384 => point("P-384"),
        KeyAlgorithm::Ed25519 => {
            (jwk.kty, jwk.crv) = ("OKP".to_owned(), Some("Ed25519".to_owned()));
            jwk.x = encode(key.key_bytes());
        }
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            let (modulus, exponent) = rsa_numbers(key.key_bytes())?;
            jwk.kty = "RSA".to_owned();
            (jwk.n, jwk.e) = (encode(modulus), encode(exponent));
        }
    }
    Ok(jwk)
}

/// Modulus and exponent without leading zeros (RFC 8017 appendix A.1.1).
fn rsa_numbers(key: &[u8]) -> der::Result<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(key)?;
    let numbers = reader.sequence(|fields| {
        let modulus = UintRef::decode(fields)?;
        let exponent = UintRef::decode(fields)?;
        Ok::<_, der::Error>((modulus.as_bytes(), exponent.as_bytes()))
    })?;
    reader.finish()?;
    Ok(numbers)
}

/// RFC 7638: SHA-256 over the required members, in the order of their names, without a space.
pub(crate) fn thumbprint(jwk: &Jwk) -> String {
    let members = [
        ("crv", jwk.crv.as_deref()),
        ("e", jwk.e.as_deref()),
        ("kty", Some(jwk.kty.as_str())),
        ("n", jwk.n.as_deref()),
        ("x", jwk.x.as_deref()),
        ("y", jwk.y.as_deref()),
    ];
    // No value has a character that JSON would escape.
    let members: Vec<String> =
        members.iter().filter_map(|(name, value)| Some(format!("\"{name}\":\"{}\"", (*value)?))).collect();
    let canonical = format!("{{{}}}", members.join(","));
    BASE64URL_NOPAD.encode(Digest::of(canonical.as_bytes()).as_bytes())
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    fn public_key(key: &KeyPair) -> PublicKey {
        PublicKey::from_spki_der(&key.subject_public_key_info()).unwrap()
    }

    /// The example of RFC 7638 section 3.1.
    #[test]
    fn the_thumbprint_is_that_of_the_specification() {
        let jwk = Jwk {
            kty: "RSA".into(),
            purpose: "jwt-svid".into(),
            kid: Some("2011-04-29".into()),
            alg: None,
            x5c: None,
            crv: None,
            x: None,
            y: None,
            n: Some(
                "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWK\
                 RXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMic\
                 AtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3\
                 XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
                    .into(),
            ),
            e: Some("AQAB".into()),
        };
        assert_eq!(thumbprint(&jwk), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn every_kind_of_key_has_its_members() {
        let ed25519 = public_key(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
        let found = jwk(&ed25519, "jwt-svid").unwrap();
        assert_eq!((found.kty.as_str(), found.crv.as_deref(), &found.y), ("OKP", Some("Ed25519"), &None));
        let p384 = public_key(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
        let found = jwk(&p384, "jwt-svid").unwrap();
        assert_eq!((found.kty.as_str(), found.crv.as_deref()), ("EC", Some("P-384")));
        assert_eq!(found.x.unwrap().len(), 64);
    }

    #[test]
    fn rsa_numbers_have_no_leading_zero_and_nothing_behind_them() {
        let key = [0x30, 9, 2, 2, 0, 0x81, 2, 3, 1, 0, 1];
        assert_eq!(rsa_numbers(&key).unwrap(), ([0x81].as_slice(), [1, 0, 1].as_slice()));
        assert!(rsa_numbers(&[key.as_slice(), &[0]].concat()).is_err());
        assert!(rsa_numbers(&key[..7]).is_err());
    }
}
