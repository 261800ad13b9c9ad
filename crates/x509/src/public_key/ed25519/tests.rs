use super::*;
use crate::SubjectKey;

fn encode(y: &U256, sign: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&y.to_be_bytes());
    bytes.reverse();
    bytes[31] |= sign << 7;
    bytes
}

fn error(bytes: &[u8]) -> PublicKeyError {
    check(bytes).unwrap_err()
}

#[test]
fn accepts_generated_keys() {
    for _ in 0..16 {
        let key = SubjectKey::generate(KeyAlgorithm::Ed25519).unwrap();
        assert_eq!(check(key.public_key().key_bytes()), Ok(KeyAlgorithm::Ed25519));
    }
}

#[test]
fn refuses_the_eight_points_of_small_order_with_either_sign() {
    let mut encodings = 0;
    for y in &SMALL_ORDER_Y {
        for sign in [0, 1] {
            assert_eq!(error(&encode(y, sign)), PublicKeyError::SmallOrder);
            encodings += 1;
        }
    }
    // Eight points; the neutral one and that of order 2 have x = 0, whose sign bit adds an encoding each.
    assert_eq!(encodings, 10);
}

/// Of order 8 are the points whose double has order 4, that is y = 0: x^2 + y^2 = 0. With the curve equation
/// -x^2 + y^2 = 1 + d*x^2*y^2 this is d*y^4 + 2*y^2 - 1 = 0.
#[test]
fn the_listed_coordinates_have_small_order() {
    let [zero, one, minus_one, first, second] = SMALL_ORDER_Y.map(|y| Field::new(&y));
    assert_eq!(zero, Field::ZERO);
    assert_eq!(one, Field::ONE);
    assert_eq!(minus_one + Field::ONE, Field::ZERO);
    assert_eq!(first + second, Field::ZERO);
    let square = first.square();
    assert_eq!(Field::new(&D) * square.square() + square + square, Field::ONE);
    // d = -121665/121666
    let numerator = Field::new(&U256::from_u32(121_665));
    let denominator = Field::new(&U256::from_u32(121_666));
    assert_eq!(Field::new(&D) * denominator + numerator, Field::ZERO);
}

#[test]
fn refuses_coordinates_that_are_not_reduced() {
    let modulus = *Field::MODULUS.as_ref();
    for above in 0..19_u32 {
        let y = modulus.wrapping_add(&U256::from_u32(above));
        for sign in [0, 1] {
            assert_eq!(error(&encode(&y, sign)), PublicKeyError::NonCanonicalPoint);
        }
    }
}

#[test]
fn refuses_points_off_the_curve_where_ring_does() {
    use ring::signature::{ED25519, UnparsedPublicKey};
    let key = SubjectKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let signature = key.sign(b"message").unwrap();
    let (mut on, mut off) = (0, 0);
    for number in 2..200_u32 {
        let bytes = encode(&U256::from_u32(number), 0);
        match check(&bytes) {
            Ok(_) => on += 1,
            Err(error) => {
                assert_eq!(error, PublicKeyError::OffCurve(KeyAlgorithm::Ed25519));
                off += 1;
                assert!(UnparsedPublicKey::new(&ED25519, bytes).verify(b"message", &signature).is_err());
            }
        }
    }
    assert!(on > 60 && off > 60, "{on} {off}");
    // y = 2 is the smallest example of a coordinate without x (RFC 8032 section 7.1 has none).
    assert!(check(&encode(&U256::from_u32(2), 0)).is_err());
}

/// Euler's criterion, another way to the same answer.
#[test]
fn squares_are_those_of_eulers_criterion() {
    let exponent = Field::MODULUS.as_ref().shr_vartime(1);
    for number in 2..500_u32 {
        let y = Field::new(&U256::from_u32(number).wrapping_mul(&SMALL_ORDER_Y[3]));
        let square = y.square();
        let product = (square - Field::ONE) * (Field::new(&D) * square + Field::ONE);
        assert_eq!(has_x(&y), product.pow_vartime(&exponent) == Field::ONE, "{number}");
    }
}

#[test]
fn refuses_keys_of_another_length() {
    for length in [0, 31, 33, 57] {
        assert_eq!(
            error(&vec![3; length]),
            PublicKeyError::KeyLength { algorithm: KeyAlgorithm::Ed25519, expected: 32, length }
        );
    }
}
