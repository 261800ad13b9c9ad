//! Fermat's factoring method, for a few steps: it finds two primes that lie close together (CVE-2022-26320).

use p256::elliptic_curve::bigint::{NonZero, U64, U2048, U3072, U4096, Uint};

/// Steps taken, as public CAs do. With primes of n bits the method then finds differences up to about
/// 2^(n/2 + 5); from a sound generator such a difference has a probability near 2^(5 - n/2).
const STEPS: usize = 100;

/// Whether the modulus, big-endian with 2048, 3072 or 4096 bits, is the product of two such primes.
pub(super) fn are_close(modulus: &[u8]) -> bool {
    match modulus.len() {
        256 => search(&U2048::from_be_slice(modulus)),
        384 => search(&U3072::from_be_slice(modulus)),
        512 => search(&U4096::from_be_slice(modulus)),
        _ => false,
    }
}

/// Looks for a with a^2 - n = b^2, which means n = (a - b)(a + b), from the root of n upwards.
///
/// The arithmetic may wrap, where a^2 reaches the width of n; the difference is small and right all the same.
fn search<const LIMBS: usize>(modulus: &Uint<LIMBS>) -> bool {
    let root = modulus.floor_sqrt_vartime();
    if root.wrapping_mul(&root) == *modulus {
        return true;
    }
    let mut a = root.wrapping_add(&Uint::ONE);
    let mut difference = a.wrapping_mul(&a).wrapping_sub(modulus);
    for _ in 0..STEPS {
        if is_square(&difference) {
            return true;
        }
        // (a + 1)^2 = a^2 + a + (a + 1)
        let next = a.wrapping_add(&Uint::ONE);
        difference = difference.wrapping_add(&a).wrapping_add(&next);
        a = next;
    }
    false
}

/// The root is only taken of what is a square modulo 64, 63, 65 and 11: one number in 118.
fn is_square<const LIMBS: usize>(number: &Uint<LIMBS>) -> bool {
    let lowest = number.as_words()[0];
    if !SQUARES_MODULO_64[usize::from(lowest.to_le_bytes()[0] % 64)] {
        return false;
    }
    let remainder = number.rem_vartime(&MODULI).as_words()[0];
    let is_residue = |modulus| (0..modulus).any(|root| root * root % modulus == remainder % modulus);
    is_residue(63) && is_residue(65) && is_residue(11) && number.checked_sqrt_vartime().is_some()
}

/// 63 * 65 * 11: one division for the three.
const MODULI: NonZero<U64> = NonZero::<U64>::new_unwrap(U64::from_u32(63 * 65 * 11));

const SQUARES_MODULO_64: [bool; 64] = {
    let mut squares = [false; 64];
    let mut root = 0;
    while root < 64 {
        squares[root * root % 64] = true;
        root += 1;
    }
    squares
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The odd number with these bits that is `distance` away from 0xc5a7...: large, but not prime.
    fn factor(bytes: usize, distance: u64) -> U4096 {
        let base: Vec<u8> =
            (0..bytes).map(|index| 0xc5_u8.wrapping_mul(u8::try_from(index % 97 + 1).unwrap())).collect();
        let mut padded = vec![0; 512 - bytes];
        padded.extend(base);
        U4096::from_be_slice(&padded).wrapping_add(&U4096::from_u64(distance)) | U4096::ONE
    }

    fn modulus(bytes: usize, distance: u64) -> Vec<u8> {
        let product = factor(bytes / 2, 0).wrapping_mul(&factor(bytes / 2, distance));
        let words: Vec<u8> = product.as_words().iter().rev().flat_map(|word| word.to_be_bytes()).collect();
        words[512 - bytes..].to_vec()
    }

    #[test]
    fn finds_factors_that_are_equal_or_close() {
        for bytes in [256, 384, 512] {
            for distance in [0, 2, 1 << 20, u64::MAX - 1] {
                assert!(are_close(&modulus(bytes, distance)), "{bytes} {distance}");
            }
        }
    }

    #[test]
    fn finds_nothing_where_the_factors_are_apart() {
        for bytes in [256_usize, 384, 512] {
            let half = bytes / 2;
            // Half of the digits agree, the other half does not.
            let mut other = vec![0; 512 - half];
            other.extend((0..half).map(|index| if index > half / 8 { 0x5b } else { 0xc5 }));
            let product = factor(half, 0).wrapping_mul(&U4096::from_be_slice(&other));
            let words: Vec<u8> =
                product.as_words().iter().rev().flat_map(|word| word.to_be_bytes()).collect();
            assert!(!are_close(&words[512 - bytes..]), "{bytes}");
        }
    }

    #[test]
    fn squares_are_recognised() {
        let mut found = 0;
        for number in 0..10_000_u64 {
            found += usize::from(is_square(&U2048::from_u64(number)));
        }
        assert_eq!(found, 100);
    }
}
