use std::time::{Duration, Instant};

use chancery_types::{KeyAlgorithm, SignatureAlgorithm};

use super::*;
use crate::SubjectKey;

const ECDSA: SignatureAlgorithm = SignatureAlgorithm::EcdsaSha256;

fn with_multiples(key: &SubjectKey) -> FrequentKey {
    let frequent = FrequentKey::new(key.public_key().clone());
    let point = p256::PublicKey::from_sec1_bytes(key.public_key().key_bytes()).unwrap();
    frequent.multiples.set(Multiples::of(*point.as_affine())).unwrap();
    frequent
}

#[test]
fn agrees_with_ring_on_signatures_and_on_what_is_none() {
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let frequent = with_multiples(&key);
    for round in 0..200_u32 {
        let message = round.to_be_bytes();
        let signature = key.sign(&message).unwrap();
        assert_eq!(frequent.verify(ECDSA, &message, &signature), Ok(()));
        let wrong = frequent.verify(ECDSA, b"another message", &signature);
        assert_eq!(wrong, Err(SignatureError::Invalid));
    }
    let signature = key.sign(b"message").unwrap();
    for place in 0..signature.len() {
        for bit in 0..8 {
            let mut altered = signature.clone();
            altered[place] ^= 1 << bit;
            let ring = key.public_key().verify(ECDSA, b"message", &altered);
            assert_eq!(frequent.verify(ECDSA, b"message", &altered), ring, "byte {place}, bit {bit}");
        }
        assert!(frequent.verify(ECDSA, b"message", &signature[..place]).is_err());
    }
    let longer = [signature.as_slice(), &[0]].concat();
    assert!(frequent.verify(ECDSA, b"message", &longer).is_err());
}

#[test]
fn refuses_signatures_out_of_range() {
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let frequent = with_multiples(&key);
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order = data_encoding::HEXLOWER.decode(order.as_bytes()).unwrap();
    let integer = |bytes: &[u8]| {
        let padded = if bytes[0] & 0x80 == 0 { bytes.to_vec() } else { [&[0], bytes].concat() };
        [vec![2, u8::try_from(padded.len()).unwrap()], padded].concat()
    };
    for (r, s) in [(&[0][..], &[1][..]), (&[1], &[0]), (&order, &[1]), (&[1], &order)] {
        let body = [integer(r), integer(s)].concat();
        let signature = [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat();
        let ring = key.public_key().verify(ECDSA, b"message", &signature);
        assert_eq!(ring, Err(SignatureError::Invalid));
        assert_eq!(frequent.verify(ECDSA, b"message", &signature), ring);
    }
    let negative = [0x30, 6, 2, 1, 0xff, 2, 1, 1];
    assert_eq!(frequent.verify(ECDSA, b"message", &negative), Err(SignatureError::Invalid));
}

#[test]
fn refuses_a_sum_at_infinity() {
    // The key is the generator: with r = -hash the two products cancel out.
    let frequent = FrequentKey::new(SubjectKey::generate(KeyAlgorithm::P256).unwrap().public_key().clone());
    frequent.multiples.set(Multiples::of(AffinePoint::GENERATOR)).unwrap();
    let hash = FieldBytes::try_from(digest(&SHA256, b"message").as_ref()).unwrap();
    let r = (-<Scalar as Reduce<FieldBytes>>::reduce(&hash)).to_repr();
    let padded = if r[0] & 0x80 == 0 { r.to_vec() } else { [&[0], r.as_slice()].concat() };
    let body = [vec![2, u8::try_from(padded.len()).unwrap()], padded, vec![2, 1, 1]].concat();
    let signature = [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat();
    assert_eq!(frequent.verify(ECDSA, b"message", &signature), Err(SignatureError::Invalid));
}

#[test]
fn makes_its_multiples_once_it_is_used() {
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let frequent = FrequentKey::new(key.public_key().clone());
    let signature = key.sign(b"message").unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while frequent.multiples.get().is_none() {
        assert_eq!(frequent.verify(ECDSA, b"message", &signature), Ok(()));
        assert!(Instant::now() < deadline, "no multiples after a minute");
    }
    assert!(frequent.uses.load(Ordering::Relaxed) > WORTHWHILE);
    assert_eq!(frequent.verify(ECDSA, b"message", &signature), Ok(()));
}

#[test]
fn leaves_other_algorithms_to_ring() {
    for algorithm in [KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
        let key = SubjectKey::generate(algorithm).unwrap();
        let frequent = FrequentKey::new(key.public_key().clone());
        let signature = key.sign(b"message").unwrap();
        assert_eq!(frequent.verify(key.signature_algorithm(), b"message", &signature), Ok(()));
        assert_eq!(
            frequent.verify(key.signature_algorithm(), b"other", &signature),
            Err(SignatureError::Invalid)
        );
    }
}
