use proptest::prelude::*;

use super::*;
use crate::SubjectKey;
use crate::writer::Writer;

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.sequence(|spki| {
        spki.raw(algorithm);
        spki.bit_string(key);
    });
    writer.finish()
}

fn valid_keys() -> Vec<PublicKey> {
    let mut keys: Vec<PublicKey> = [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519]
        .into_iter()
        .map(|algorithm| SubjectKey::generate(algorithm).unwrap().public_key().clone())
        .collect();
    let request = include_bytes!("../../tests/fixtures/requests/rsa2048.pem");
    keys.push(crate::CertificateRequest::from_pem_or_der(request).unwrap().public_key().clone());
    keys
}

#[test]
fn keeps_the_exact_bytes_and_names_keys_by_them() {
    for key in valid_keys() {
        let again = PublicKey::from_spki_der(key.spki_der()).unwrap();
        assert_eq!(again, key);
        assert_eq!(key.fingerprint(), Digest::of(key.spki_der()));
        assert!(key.spki_der().ends_with(key.key_bytes()));
        assert_eq!(key.key_identifier(), Digest::of(key.key_bytes()).as_bytes()[..20]);
        assert_eq!(format!("{key:?}"), format!("PublicKey({} {})", key.algorithm(), key.fingerprint()));
    }
}

#[test]
fn another_library_encodes_the_key_to_the_same_bytes() {
    use der::{Decode as _, Encode as _};
    for key in valid_keys() {
        let theirs = ::spki::SubjectPublicKeyInfoRef::from_der(key.spki_der()).unwrap();
        assert_eq!(theirs.to_der().unwrap(), key.spki_der());
        assert_eq!(theirs.subject_public_key.as_bytes(), Some(key.key_bytes()));
    }
}

#[test]
fn reads_pem_and_der() {
    for key in valid_keys() {
        for bytes in [key.to_pem().as_bytes(), key.spki_der()] {
            assert_eq!(PublicKey::from_pem_or_der(bytes).unwrap(), key);
        }
    }
    let private = SubjectKey::generate(KeyAlgorithm::P256).unwrap().to_pkcs8_pem();
    let error = PublicKey::from_pem_or_der(private.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the public key is not PEM: line 1: a PUBLIC KEY was expected here, this is a PRIVATE KEY; \
         `openssl pkey -pubout` writes it"
    );
}

#[test]
fn refuses_bytes_that_are_not_der() {
    let der = valid_keys()[0].spki_der().to_vec();
    for length in 0..der.len() {
        assert!(matches!(PublicKey::from_spki_der(&der[..length]), Err(PublicKeyError::Der(_))), "{length}");
    }
    let trailing = [&der[..], &[0]].concat();
    let long_length = [&[0x30, 0x81], &der[1..]].concat();
    let indefinite = [&[0x30, 0x80], &der[2..], &[0, 0]].concat();
    let mut unused_bits = der.clone();
    unused_bits[25] = 1;
    let three_fields = {
        let mut writer = Writer::default();
        writer.sequence(|spki| {
            spki.raw(&der[2..]);
            spki.null();
        });
        writer.finish()
    };
    for bytes in [trailing, long_length, indefinite, unused_bits, three_fields, vec![0x30; 5000]] {
        assert!(matches!(PublicKey::from_spki_der(&bytes), Err(PublicKeyError::Der(_))), "{bytes:02x?}");
    }
}

#[test]
fn refuses_parameters_that_do_not_belong_to_the_algorithm() {
    let no_null = [0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    let ed25519_null = [0x30, 7, 6, 3, 0x2b, 0x65, 0x70, 5, 0];
    let no_curve = [0x30, 9, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    let implicit_curve = [0x30, 11, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 5, 0];
    for (algorithm, name) in [
        (&no_null[..], "rsaEncryption"),
        (&ed25519_null, "Ed25519"),
        (&no_curve, "id-ecPublicKey"),
        (&implicit_curve, "id-ecPublicKey"),
    ] {
        let error = PublicKey::from_spki_der(&spki(algorithm, &[1; 32])).unwrap_err();
        assert!(
            matches!(error, PublicKeyError::Parameters { algorithm, .. } if algorithm == name),
            "{error}"
        );
    }
    let two_parameters = [&[0x30, 21], &spki::P256[2..], &[5, 0]].concat();
    let error = PublicKey::from_spki_der(&spki(&two_parameters, &[1; 32])).unwrap_err();
    assert!(matches!(error, PublicKeyError::Der(_)), "{error}");
}

#[test]
fn refuses_curves_and_algorithms_that_are_not_certified() {
    let curve = [0x30, 16, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 35];
    let error = PublicKey::from_spki_der(&spki(&curve, &[4; 133])).unwrap_err();
    assert_eq!(error, PublicKeyError::UnknownCurve("1.3.132.0.35".to_owned()));
    let explicit = [0x30, 11, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x30, 0];
    let error = PublicKey::from_spki_der(&spki(&explicit, &[4; 65])).unwrap_err();
    assert_eq!(error, PublicKeyError::ExplicitCurve);
    let x25519 = [0x30, 5, 6, 3, 0x2b, 0x65, 0x6e];
    let error = PublicKey::from_spki_der(&spki(&x25519, &[9; 32])).unwrap_err();
    assert!(error.to_string().contains("X25519, which cannot sign"), "{error}");
}

#[test]
fn refuses_points_that_are_not_on_the_curve() {
    for key in &valid_keys()[..2] {
        let algorithm = algorithm_identifier(key.algorithm());
        let point = key.key_bytes();
        let mut moved = point.to_vec();
        *moved.last_mut().unwrap() ^= 1;
        let not_reduced = [&[4][..], &vec![0xff; point.len() - 1]].concat();
        let origin = [&[4][..], &vec![0; point.len() - 1]].concat();
        for bytes in [moved, not_reduced, origin] {
            let error = PublicKey::from_spki_der(&spki(algorithm, &bytes)).unwrap_err();
            assert_eq!(error, PublicKeyError::OffCurve(key.algorithm()));
        }
        let error = PublicKey::from_spki_der(&spki(algorithm, &[0])).unwrap_err();
        assert_eq!(error, PublicKeyError::PointAtInfinity);
        for first in [2, 3, 5, 6, 7] {
            let bytes = [&[first], &point[1..]].concat();
            for bytes in [&bytes[..], &bytes[..=point.len() / 2]] {
                let error = PublicKey::from_spki_der(&spki(algorithm, bytes)).unwrap_err();
                assert_eq!(error, PublicKeyError::CompressedPoint);
            }
        }
        for bytes in [&[][..], &point[..64], &[point, &[0]].concat()] {
            let error = PublicKey::from_spki_der(&spki(algorithm, bytes)).unwrap_err();
            assert!(matches!(error, PublicKeyError::KeyLength { .. }), "{error}");
        }
        let error = PublicKey::from_spki_der(&spki(algorithm, &[&[9], &point[1..]].concat())).unwrap_err();
        assert_eq!(error, PublicKeyError::OffCurve(key.algorithm()));
    }
}

#[test]
fn a_point_of_one_curve_is_refused_on_the_other() {
    let keys = valid_keys();
    let error = PublicKey::from_spki_der(&spki(spki::P384, keys[0].key_bytes())).unwrap_err();
    assert_eq!(error, PublicKeyError::KeyLength { algorithm: KeyAlgorithm::P384, expected: 97, length: 65 });
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let _ = PublicKey::from_spki_der(&bytes);
        for algorithm in [spki::P256, spki::P384, spki::ED25519, spki::RSA] {
            let _ = PublicKey::from_spki_der(&spki(algorithm, &bytes));
        }
    }

    #[test]
    fn a_key_with_one_altered_bit_is_refused_or_is_another_key(
        place in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        for key in valid_keys() {
            let mut bytes = key.spki_der().to_vec();
            *place.get_mut(&mut bytes) ^= 1_u8 << bit;
            if let Ok(other) = PublicKey::from_spki_der(&bytes) {
                prop_assert_ne!(other.fingerprint(), key.fingerprint());
                prop_assert_eq!(other.spki_der(), bytes);
            }
        }
    }
}
