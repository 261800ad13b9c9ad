//! Faults of an Ed25519 public key: encodings outside RFC 8032 section 5.1.3 and points of small order.

use chancery_types::KeyAlgorithm;
use p256::elliptic_curve::bigint::modular::ConstMontyForm;
use p256::elliptic_curve::bigint::{JacobiSymbol, U256, const_monty_params};

use super::PublicKeyError;

/// Judges the 32 bytes of an encoded point.
///
/// What is left undecided: whether the point lies in the subgroup of prime order. A point that is off it by a
/// small component has a large order, and its signatures bind to the message as any other's do.
pub(super) fn check(key: &[u8]) -> Result<KeyAlgorithm, PublicKeyError> {
    let algorithm = KeyAlgorithm::Ed25519;
    let point: [u8; 32] = key.try_into().map_err(|_| PublicKeyError::KeyLength {
        algorithm,
        expected: 32,
        length: key.len(),
    })?;
    let mut y = point;
    y[31] &= 0x7f;
    let y = U256::from_le_slice(&y);
    if y >= *Field::MODULUS.as_ref() {
        return Err(PublicKeyError::NonCanonicalPoint);
    }
    if SMALL_ORDER_Y.contains(&y) {
        return Err(PublicKeyError::SmallOrder);
    }
    if !has_x(&Field::new(&y)) {
        return Err(PublicKeyError::OffCurve(algorithm));
    }
    Ok(algorithm)
}

/// Whether x^2 = (y^2 - 1) / (d*y^2 + 1) has a solution. The quotient is a square exactly if the product of
/// the two is, and the Legendre symbol says so; y = 1 and y = -1, where it is zero, are of small order.
fn has_x(y: &Field) -> bool {
    let square = y.square();
    let product = (square - Field::ONE) * (Field::new(&D) * square + Field::ONE);
    product.jacobi_symbol_vartime() == JacobiSymbol::One
}

const_monty_params!(
    Modulus,
    U256,
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed",
    "2^255 - 19"
);
type Field = ConstMontyForm<Modulus, { U256::LIMBS }>;

/// The curve's constant -121665/121666 (RFC 8032 section 5.1).
const D: U256 = U256::from_be_hex("52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3");
/// The y coordinates of the eight points whose order divides eight; with either sign of x these are all their
/// canonical encodings and the two of a zero x with its sign bit set.
const SMALL_ORDER_Y: [U256; 5] = [
    // order 4
    U256::ZERO,
    // order 1
    U256::ONE,
    // order 2: p - 1
    U256::from_be_hex("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffec"),
    // order 8: the roots of d*y^4 + 2*y^2 - 1
    U256::from_be_hex("05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826"),
    U256::from_be_hex("7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7"),
];

#[cfg(test)]
mod tests;
