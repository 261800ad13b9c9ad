//! Multiples of one point, made beforehand.

use std::sync::OnceLock;

use p256::elliptic_curve::group::Curve as _;
use p256::elliptic_curve::{Group as _, PrimeField as _};
use p256::{AffinePoint, ProjectivePoint, Scalar};

/// Bits of a scalar that one addition takes care of.
const WIDTH: usize = 13;
/// Additions for a scalar of 256 bits and the carry out of the last digit.
const DIGITS: usize = 256 / WIDTH + 1;
/// Multiples kept for each digit: digits have signs, and a point is negated for nothing.
const KEPT: usize = 1 << (WIDTH - 1);

/// `d * 2^(12 * i) * P` for each digit place `i` and each `d` from 1 to 4096.
pub(super) struct Multiples(Vec<AffinePoint>);

impl std::fmt::Debug for Multiples {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Multiples")
    }
}

impl Multiples {
    /// Of this point.
    pub(super) fn of(point: AffinePoint) -> Self {
        let mut bases = Vec::with_capacity(DIGITS);
        let mut base = ProjectivePoint::from(point);
        for _ in 0..DIGITS {
            bases.push(base);
            for _ in 0..WIDTH {
                base = base.double();
            }
        }
        let mut multiples = Vec::with_capacity(DIGITS * KEPT);
        for base in normalize(&bases) {
            let mut multiple = ProjectivePoint::from(base);
            for _ in 0..KEPT {
                multiples.push(multiple);
                multiple += base;
            }
        }
        Self(normalize(&multiples))
    }

    /// Of the group's generator: the same for every key.
    pub(super) fn of_generator() -> &'static Self {
        static GENERATOR: OnceLock<Multiples> = OnceLock::new();
        GENERATOR.get_or_init(|| Self::of(AffinePoint::GENERATOR))
    }

    /// The points that add up to `scalar` times the point.
    fn summands(&self, scalar: &Scalar) -> impl Iterator<Item = AffinePoint> {
        digits(scalar).into_iter().zip(self.0.chunks_exact(KEPT)).filter_map(|(digit, multiples)| {
            let size = usize::from(digit.unsigned_abs());
            let multiple = *multiples.get(size.checked_sub(1)?)?;
            Some(if digit < 0 { -multiple } else { multiple })
        })
    }
}

/// The sum of a multiple of one point and a multiple of another.
///
/// All that is added is fetched first: the tables are larger than the fastest caches, and so the processor waits for
/// many places at once and not for one after the other.
pub(super) fn sum(terms: [(&Scalar, &Multiples); 2]) -> ProjectivePoint {
    let mut summands = Vec::with_capacity(2 * DIGITS);
    for (scalar, multiples) in terms {
        summands.extend(multiples.summands(scalar));
    }
    summands.iter().fold(ProjectivePoint::IDENTITY, |sum, point| sum + point)
}

/// The scalar in digits between -4095 and 4096, the lowest first.
fn digits(scalar: &Scalar) -> [i16; DIGITS] {
    let bytes = scalar.to_repr();
    let mut digits = [0; DIGITS];
    let mut carry = 0;
    for (place, digit) in digits.iter_mut().enumerate() {
        // Three bytes hold thirteen bits wherever they begin.
        let low = place * WIDTH / 8;
        let byte = |index: usize| bytes.len().checked_sub(1 + index).map_or(0, |at| i32::from(bytes[at]));
        let window = byte(low) | byte(low + 1) << 8 | byte(low + 2) << 16;
        let mut value = ((window >> (place * WIDTH % 8)) & 0x1fff) + carry;
        carry = i32::from(value > 4096);
        value -= carry << WIDTH;
        *digit = i16::try_from(value).expect("between -4095 and 4096");
    }
    digits
}

fn normalize(points: &[ProjectivePoint]) -> Vec<AffinePoint> {
    let mut affine = vec![AffinePoint::IDENTITY; points.len()];
    ProjectivePoint::batch_normalize(points, &mut affine);
    affine
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn multiplies_as_the_curve_does() {
        let edge = [
            Scalar::ONE,
            -Scalar::ONE,
            Scalar::from(4096_u64),
            Scalar::from(4097_u64),
            Scalar::from(8192_u64),
        ];
        let mut power = Scalar::ONE;
        let powers = std::iter::repeat_with(|| {
            power = power.double();
            power
        });
        let mut random = Scalar::from(0x9e37_79b9_7f4a_7c15_u64);
        let randoms = std::iter::repeat_with(|| {
            random = random.square() + Scalar::from(7_u64);
            random
        });
        let key = (ProjectivePoint::GENERATOR * Scalar::from(424_242_u64)).to_affine();
        let multiples = Multiples::of(key);
        for scalar in edge.into_iter().chain(powers.take(256)).chain(randoms.take(200)) {
            let expected = ProjectivePoint::from(key) * scalar;
            let generator = Multiples::of_generator();
            assert_eq!(sum([(&scalar, &multiples), (&Scalar::ZERO, generator)]), expected, "{scalar:?}");
            let both = sum([(&scalar, &multiples), (&scalar, generator)]);
            assert_eq!(both, expected + ProjectivePoint::GENERATOR * scalar, "{scalar:?}");
        }
    }
}
