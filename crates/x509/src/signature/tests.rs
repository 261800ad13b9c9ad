use chancery_types::KeyAlgorithm;

use super::*;
use crate::SubjectKey;

fn keys() -> Vec<SubjectKey> {
    let mut keys: Vec<SubjectKey> = [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519]
        .into_iter()
        .map(|algorithm| SubjectKey::generate(algorithm).unwrap())
        .collect();
    keys.push(SubjectKey::from_pkcs8_pem(include_bytes!("../../tests/fixtures/keys/rsa2048.pem")).unwrap());
    keys
}

const ALL: [VerificationAlgorithm; 6] = [
    VerificationAlgorithm::EcdsaSha256,
    VerificationAlgorithm::EcdsaSha384,
    VerificationAlgorithm::Ed25519,
    VerificationAlgorithm::RsaPkcs1Sha256,
    VerificationAlgorithm::RsaPkcs1Sha384,
    VerificationAlgorithm::RsaPkcs1Sha512,
];

#[test]
fn verifies_what_each_key_signs_and_nothing_else() {
    for key in keys() {
        let spki = key.public_key().spki_der();
        let signature = key.sign(b"message").unwrap();
        let ours = VerificationAlgorithm::from(key.signature_algorithm());
        for algorithm in ALL {
            let result = verify_signature(spki, algorithm, b"message", &signature);
            assert_eq!(result.is_ok(), algorithm == ours, "{algorithm} {key:?}");
            assert_eq!(key.public_key().verify(algorithm, b"message", &signature), result);
        }
        assert_eq!(verify_signature(spki, ours, b"other", &signature), Err(SignatureError::Invalid));
        for place in 0..signature.len() {
            let mut altered = signature.clone();
            altered[place] ^= 1;
            assert_eq!(verify_signature(spki, ours, b"message", &altered), Err(SignatureError::Invalid));
        }
        for length in [0, 1, signature.len() - 1] {
            let cut = &signature[..length];
            assert_eq!(verify_signature(spki, ours, b"message", cut), Err(SignatureError::Invalid));
        }
    }
}

#[test]
fn says_when_the_algorithm_belongs_to_another_kind_of_key() {
    let keys = keys();
    let error = keys[0].public_key().verify(SignatureAlgorithm::RsaPkcs1Sha256, b"", b"").unwrap_err();
    assert_eq!(error.to_string(), "a P-256 key does not sign with sha256WithRSAEncryption");
    let error = keys[2].public_key().verify(SignatureAlgorithm::EcdsaSha256, b"", b"").unwrap_err();
    assert_eq!(error.to_string(), "a Ed25519 key does not sign with ecdsa-with-SHA256");
    let error = keys[3].public_key().verify(SignatureAlgorithm::Ed25519, b"", b"").unwrap_err();
    assert_eq!(error.to_string(), "a RSA key does not sign with Ed25519");
}

#[test]
fn refuses_keys_that_are_none() {
    let p521 =
        [
            &[
                0x30, 0x81, 0x9b, 0x30, 16, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0,
                35,
            ][..],
            &[3, 0x81, 0x86, 0, 4],
            &[1; 132],
        ]
        .concat();
    for spki in [&b""[..], b"\x30\x00", &p521, &[0x30; 5000]] {
        assert_eq!(
            verify_signature(spki, SignatureAlgorithm::EcdsaSha256, b"", b""),
            Err(SignatureError::UnknownKey)
        );
    }
}

#[test]
fn names_the_algorithm_that_it_does_not_know() {
    for algorithm in ALL {
        let error = SignatureError::UnknownAlgorithm(algorithm.to_string());
        assert!(error.to_string().starts_with("signature algorithm "));
    }
    let sha1 = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0];
    let ecdsa_with_null = [0x30, 12, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2, 5, 0];
    let rsa_without_null = [0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
    for (identifier, shown) in [
        (&sha1[..], "1.2.840.113549.1.1.5"),
        (&ecdsa_with_null, "1.2.840.10045.4.3.2"),
        (&rsa_without_null, "1.2.840.113549.1.1.11"),
        (&[0x30, 0x80], "(not DER)"),
        (&[], "(not DER)"),
    ] {
        assert_eq!(
            VerificationAlgorithm::from_algorithm_identifier(identifier),
            Err(SignatureError::UnknownAlgorithm(shown.to_owned()))
        );
    }
    for (last, algorithm) in [
        (11, VerificationAlgorithm::RsaPkcs1Sha256),
        (12, VerificationAlgorithm::RsaPkcs1Sha384),
        (13, VerificationAlgorithm::RsaPkcs1Sha512),
    ] {
        let identifier = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, last, 5, 0];
        assert_eq!(VerificationAlgorithm::from_algorithm_identifier(&identifier), Ok(algorithm));
    }
}
