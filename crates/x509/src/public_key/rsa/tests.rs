use p256::elliptic_curve::bigint::modular::{FixedMontyForm, FixedMontyParams};
use p256::elliptic_curve::bigint::{NonZero, Odd, U1024, U2048};
use proptest::prelude::*;

use super::*;
use crate::writer::Writer;

fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.sequence(|key| {
        key.unsigned(modulus);
        key.unsigned(exponent);
    });
    writer.finish()
}

const F4: [u8; 3] = [1, 0, 1];

/// A modulus from OpenSSL.
fn sound_modulus() -> Vec<u8> {
    let request = include_bytes!("../../../tests/fixtures/requests/rsa2048.pem");
    let request = crate::CertificateRequest::from_pem_or_der(request).unwrap();
    request.public_key().rsa_modulus().unwrap().to_vec()
}

fn judge(modulus: &[u8], exponent: &[u8]) -> Result<KeyAlgorithm, PublicKeyError> {
    check(&rsa_public_key(modulus, exponent))
}

#[test]
fn accepts_a_sound_key() {
    assert_eq!(judge(&sound_modulus(), &F4), Ok(KeyAlgorithm::Rsa2048));
    assert_eq!(judge(&sound_modulus(), &[1, 0xff, 0xff, 0xff, 0xff]), Ok(KeyAlgorithm::Rsa2048));
}

#[test]
fn refuses_sizes_other_than_the_three() {
    for (bits, leading) in
        [(0, 0), (8, 0xff), (1024, 0xff), (2047, 0x7f), (2040, 0xff), (2049, 1), (4104, 0xff), (8192, 0x80)]
    {
        let mut modulus = vec![0xff; usize::div_ceil(bits, 8)];
        if let Some(first) = modulus.first_mut() {
            *first = leading;
        }
        assert_eq!(judge(&modulus, &F4), Err(PublicKeyError::RsaSize { bits }), "{bits}");
    }
}

#[test]
fn refuses_exponents_outside_the_window() {
    for (exponent, shown) in [
        (&[][..], "0"),
        (&[1], "1"),
        (&[3], "3"),
        (&[0xff, 0xff], "65535"),
        (&[1, 0, 0], "65536"),
        (&[1, 0, 2], "65538"),
        (&[2, 0, 0, 0, 1], "8589934593"),
        (&[0xff; 8], "18446744073709551615"),
        (&[0x80, 0, 0, 0, 0, 0, 0, 0, 1], "a number of 9 bytes"),
    ] {
        assert_eq!(judge(&sound_modulus(), exponent), Err(PublicKeyError::RsaExponent(shown.to_owned())));
    }
}

#[test]
fn refuses_an_even_modulus_and_one_with_a_small_factor() {
    let mut even = sound_modulus();
    *even.last_mut().unwrap() ^= 1;
    assert_eq!(judge(&even, &F4), Err(PublicKeyError::RsaSmallFactor(2)));
    for prime in PRIMES {
        // A number of 2048 bits that is a multiple of this prime; smaller ones may divide it too.
        let modulus = U2048::from_be_slice(&sound_modulus());
        let divisor = NonZero::new(U2048::from_u32(u32::from(prime))).unwrap();
        let multiple = modulus.wrapping_sub(&modulus.rem_vartime(&divisor));
        let multiple =
            if bool::from(multiple.is_odd()) { multiple } else { multiple.wrapping_sub(divisor.as_ref()) };
        match judge(&bytes(&multiple), &F4) {
            Err(PublicKeyError::RsaSmallFactor(found)) => assert!(found <= prime && found > 2),
            other => panic!("{prime}: {other:?}"),
        }
    }
}

#[test]
fn refuses_close_primes() {
    // 2^1024 - 105 is prime; its square and its product with the next candidate are found at once.
    let p = U1024::MAX.wrapping_sub(&U1024::from_u32(104));
    let q = p.wrapping_sub(&U1024::from_u32(1_000_000));
    for q in [p, q] {
        let modulus: U2048 = p.concatenating_mul(&q);
        match judge(&bytes(&modulus), &F4) {
            Err(PublicKeyError::RsaClosePrimes | PublicKeyError::RsaSmallFactor(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let modulus: U2048 = p.concatenating_mul(&p);
    assert_eq!(judge(&bytes(&modulus), &F4), Err(PublicKeyError::RsaClosePrimes));
}

#[test]
fn refuses_what_is_not_an_rsa_public_key() {
    let modulus = sound_modulus();
    let good = rsa_public_key(&modulus, &F4);
    let mut negative = good.clone();
    negative[4..9].copy_from_slice(&[2, 0x82, 1, 1, 0x80]);
    let trailing = [&good[..], &[5, 0]].concat();
    let mut writer = Writer::default();
    writer.sequence(|key| key.unsigned(&modulus));
    let one_number = writer.finish();
    let mut writer = Writer::default();
    writer.sequence(|key| {
        key.unsigned(&modulus);
        key.value(tag::INTEGER, &[0, 1, 0, 1]);
    });
    let padded = writer.finish();
    for der in [negative, trailing, one_number, padded, modulus, Vec::new()] {
        assert!(matches!(check(&der), Err(PublicKeyError::RsaDer(_))), "{der:02x?}");
    }
}

#[test]
fn residues_are_those_of_long_division() {
    let modulus = U2048::from_be_slice(&sound_modulus());
    for (prime, residue) in PRIMES.iter().zip(residues(&sound_modulus())) {
        let divisor = NonZero::new(U2048::from_u32(u32::from(*prime))).unwrap();
        assert_eq!(modulus.rem_vartime(&divisor), U2048::from_u32(u32::from(residue)));
    }
}

/// Makes keys as the faulty library does: p = k*M + (65537^a mod M) with M the product of the first 126 primes
/// (the published parameters for 2048 bits), both factors probably prime.
#[test]
fn refuses_a_modulus_made_in_the_way_of_roca() {
    let primorial = std::iter::once(2)
        .chain(PRIMES)
        .take(126)
        .fold(U1024::ONE, |product, prime| product.wrapping_mul(&U1024::from_u32(u32::from(prime))));
    assert_eq!(primorial.bits_vartime(), 971);
    let mut state = 2017;
    let p = roca_prime(&primorial, &mut state);
    let q = roca_prime(&primorial, &mut state);
    assert_ne!(p, q);
    let modulus: U2048 = p.concatenating_mul(&q);
    assert_eq!(judge(&bytes(&modulus), &F4), Err(PublicKeyError::RsaRoca));

    // One more or less in the multiplier changes the modulus by a multiple of M: the fingerprint stays. Any
    // other change takes it away.
    let moved = modulus.wrapping_add(&U2048::from_u32(2));
    assert_ne!(judge(&bytes(&moved), &F4), Err(PublicKeyError::RsaRoca));
}

#[test]
fn logarithms_that_contradict_each_other_are_not_the_fingerprint() {
    let power = |exponent: u32| {
        let mut residues = [1; PRIMES.len()];
        for (residue, prime) in residues.iter_mut().zip(PRIMES) {
            let prime = u32::from(prime);
            let value = (0..exponent).fold(1, |value, _| value * (65_537 % prime) % prime);
            *residue = u16::try_from(value).unwrap();
        }
        residues
    };
    for exponent in [0, 1, 2, 12_345] {
        assert!(has_roca_fingerprint(&power(exponent)), "{exponent}");
    }
    // Each residue is a power of 65537, but the exponents are even for one prime and odd for the others.
    let mut mixed = power(1);
    mixed[0] = power(2)[0];
    assert!(!has_roca_fingerprint(&mixed));
    // Not a power at all: 65537 generates a proper subgroup modulo 11 ({1, 10}).
    let mut outside = power(1);
    outside[3] = 2;
    assert!(!has_roca_fingerprint(&outside));
}

/// The order of 65537 modulo the product of the 38 primes is the one that the published detectors carry.
#[test]
fn the_order_of_the_generator_is_the_published_one() {
    let order = PRIMES[..ROCA_PRIMES].iter().fold(1_u64, |order, prime| {
        let (_, local) = logarithm(1, *prime).unwrap();
        let shared =
            u64::from(greatest_common_divisor(local, u16::try_from(order % u64::from(local)).unwrap()));
        order / shared * u64::from(local)
    });
    assert_eq!(order, 2_454_106_387_091_158_800);
}

proptest! {
    #[test]
    fn random_moduli_do_not_have_the_fingerprint(modulus in proptest::collection::vec(any::<u8>(), 256)) {
        prop_assert!(!has_roca_fingerprint(&residues(&modulus)));
    }
}

fn roca_prime(primorial: &U1024, state: &mut u64) -> U1024 {
    let divisor = NonZero::new(*primorial).unwrap();
    // The two highest bits are set, so that the product of two has 2048 bits.
    let lowest_multiplier =
        U1024::from_u8(3).shl_vartime(1022).wrapping_div_vartime(&divisor).wrapping_add(&U1024::ONE);
    let generator = U1024::from_u32(65_537);
    for _ in 0..10_000 {
        let exponent = random(state) % 2000;
        let remainder =
            (0..exponent).fold(U1024::ONE, |power, _| power.mul_mod_vartime(&generator, &divisor));
        let multiplier = lowest_multiplier.wrapping_add(&U1024::from_u64(random(state) >> 14));
        let candidate = multiplier.wrapping_mul(primorial).wrapping_add(&remainder);
        if bool::from(candidate.is_odd()) && is_probable_prime(&candidate) {
            return candidate;
        }
    }
    panic!("one candidate in sixty is prime");
}

/// Fermat's test to the base 2.
fn is_probable_prime(candidate: &U1024) -> bool {
    let parameters = FixedMontyParams::new_vartime(Odd::new(*candidate).unwrap());
    let two = FixedMontyForm::new(&U1024::from_u8(2), &parameters);
    two.pow_vartime(&candidate.wrapping_sub(&U1024::ONE)) == FixedMontyForm::one(&parameters)
}

/// SplitMix64: the same keys in every run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn bytes(number: &U2048) -> Vec<u8> {
    number.as_words().iter().rev().flat_map(|word| word.to_be_bytes()).collect()
}
