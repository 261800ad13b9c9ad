use super::*;

const MADE: [KeyAlgorithm; 3] = [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519];
const RSA_2048: &[u8] = include_bytes!("../../tests/fixtures/keys/rsa2048.pem");
const RSA_1024: &[u8] = include_bytes!("../../tests/fixtures/keys/rsa1024.pem");

#[test]
fn keys_survive_their_file_and_sign_for_their_public_half() {
    let mut keys: Vec<_> =
        MADE.into_iter().map(|algorithm| SubjectKey::generate(algorithm).unwrap()).collect();
    assert_eq!(keys.iter().map(|key| key.public_key().algorithm()).collect::<Vec<_>>(), MADE);
    keys.push(SubjectKey::from_pkcs8_pem(RSA_2048).unwrap());
    for key in keys {
        let again = SubjectKey::from_pkcs8_pem(key.to_pkcs8_pem().as_bytes()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(again.pkcs8_der(), key.pkcs8_der());
        let signature = again.sign(b"message").unwrap();
        key.public_key().verify(key.signature_algorithm(), b"message", &signature).unwrap();
    }
}

#[test]
fn two_keys_are_never_the_same() {
    for algorithm in MADE {
        let [first, second] = [(); 2].map(|()| SubjectKey::generate(algorithm).unwrap());
        assert_ne!(first.public_key(), second.public_key());
    }
}

#[test]
fn does_not_make_rsa_keys_and_says_what_does() {
    let error = SubjectKey::generate(KeyAlgorithm::Rsa3072).unwrap_err();
    assert!(error.to_string().contains("openssl genpkey -algorithm RSA"), "{error}");
}

#[test]
fn refuses_keys_that_no_certificate_would_be_given_for() {
    let error = SubjectKey::from_pkcs8_pem(RSA_1024).unwrap_err();
    assert!(matches!(error, SubjectKeyError::Refused(_)), "{error}");
}

#[test]
fn refuses_a_key_whose_halves_do_not_belong_together() {
    let [first, second] = [(); 2].map(|()| SubjectKey::generate(KeyAlgorithm::P256).unwrap());
    let point = second.public_key().key_bytes();
    let mut mixed = first.pkcs8_der().to_vec();
    let place = mixed.len() - point.len();
    mixed[place..].copy_from_slice(point);
    let error = SubjectKey::from_pkcs8_der(Zeroizing::new(mixed)).unwrap_err();
    assert!(matches!(error, SubjectKeyError::Refused(_)), "{error}");
}

#[test]
fn refuses_what_is_not_pkcs8() {
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    for length in 0..key.pkcs8_der().len() {
        assert!(SubjectKey::from_pkcs8_der(Zeroizing::new(key.pkcs8_der()[..length].to_vec())).is_err());
    }
    let public = pem::write_pem("PUBLIC KEY", key.public_key().spki_der());
    let error = SubjectKey::from_pkcs8_pem(public.as_bytes()).unwrap_err();
    assert!(matches!(error, SubjectKeyError::Pem(PemError::Label { .. })), "{error}");
    let old = pem::write_pem("EC PRIVATE KEY", &[0x30, 0]);
    let error = SubjectKey::from_pkcs8_pem(old.as_bytes()).unwrap_err();
    assert_eq!(error, SubjectKeyError::Format { found: "EC PRIVATE KEY".to_owned() });
    let mut unknown = ed25519_pkcs8(&[7; 32]);
    unknown[11] = 0x6e; // X25519
    assert_eq!(SubjectKey::from_pkcs8_der(unknown).unwrap_err(), SubjectKeyError::Algorithm);
}

/// RFC 8410 section 10.3.
#[test]
fn reads_the_key_of_rfc_8410() {
    let text = "-----BEGIN PRIVATE KEY-----\n\
                MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                -----END PRIVATE KEY-----\n";
    let key = SubjectKey::from_pkcs8_pem(text.as_bytes()).unwrap();
    let public = data_encoding::BASE64
        .decode(b"MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=")
        .unwrap();
    assert_eq!(key.public_key().spki_der(), public);
    assert_eq!(key.to_pkcs8_pem().as_str(), text);
}

#[test]
fn does_not_print_the_private_half() {
    let key = SubjectKey::generate(KeyAlgorithm::Ed25519).unwrap();
    assert_eq!(format!("{key:?}"), format!("SubjectKey({:?})", key.public_key()));
}
