//! Faults of an RSA public key that can be seen without the private half.

use chancery_types::KeyAlgorithm;

use super::{PublicKeyError, close_primes};
use crate::reader::{DerError, Reader};
use crate::tag;

/// Judges a DER RSAPublicKey (RFC 8017 appendix A.1.1).
pub(super) fn check(der: &[u8]) -> Result<KeyAlgorithm, PublicKeyError> {
    let (modulus, exponent) = read(der).map_err(PublicKeyError::RsaDer)?;
    let algorithm = check_size(modulus)?;
    check_exponent(exponent)?;
    if modulus.last().is_some_and(|byte| byte % 2 == 0) {
        return Err(PublicKeyError::RsaSmallFactor(2));
    }
    let residues = residues(modulus);
    if let Some(index) = residues.iter().position(|residue| *residue == 0) {
        return Err(PublicKeyError::RsaSmallFactor(PRIMES[index]));
    }
    if has_roca_fingerprint(&residues) {
        return Err(PublicKeyError::RsaRoca);
    }
    if close_primes::are_close(modulus) {
        return Err(PublicKeyError::RsaClosePrimes);
    }
    Ok(algorithm)
}

/// Modulus and exponent, big-endian without leading zeros; a negative one is refused.
pub(super) fn read<'a>(der: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), DerError> {
    let sequence = Reader::single(der, tag::SEQUENCE)?;
    let mut fields = sequence.reader();
    let modulus = fields.integer()?;
    let exponent = fields.integer()?;
    fields.finish()?;
    let positive = |number: &'a [u8]| match number {
        [0x80..=0xff, ..] => Err(sequence.invalid("RSAPublicKey with positive numbers")),
        [0, digits @ ..] if !digits.is_empty() => Ok(digits),
        digits => Ok(digits),
    };
    Ok((positive(modulus)?, positive(exponent)?))
}

fn check_size(modulus: &[u8]) -> Result<KeyAlgorithm, PublicKeyError> {
    let leading_zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    match (modulus.len() * 8).saturating_sub(leading_zeros) {
        2048 => Ok(KeyAlgorithm::Rsa2048),
        3072 => Ok(KeyAlgorithm::Rsa3072),
        4096 => Ok(KeyAlgorithm::Rsa4096),
        bits => Err(PublicKeyError::RsaSize { bits }),
    }
}

/// FIPS 186-5 section A.1.1 wants an odd e with 2^16 < e < 2^256. The ceiling here is lower, because ring
/// stops at 33 bits (and others at 31 or 32): a larger one could never prove possession.
fn check_exponent(exponent: &[u8]) -> Result<(), PublicKeyError> {
    let value = (exponent.len() <= 8)
        .then(|| exponent.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)));
    match value {
        Some(value) if value % 2 == 1 && (65_537..1 << 33).contains(&value) => Ok(()),
        Some(value) => Err(PublicKeyError::RsaExponent(value.to_string())),
        None => Err(PublicKeyError::RsaExponent(format!("a number of {} bytes", exponent.len()))),
    }
}

/// The modulus modulo each of [`PRIMES`]. Primes are taken together while their product stays below 2^32, so
/// that the long division runs once for several.
fn residues(modulus: &[u8]) -> [u16; PRIMES.len()] {
    let mut residues = [0; PRIMES.len()];
    let mut start = 0;
    while start < PRIMES.len() {
        let mut product = 1_u64;
        let mut end = start;
        while end < PRIMES.len() && product * u64::from(PRIMES[end]) < 1 << 32 {
            product *= u64::from(PRIMES[end]);
            end += 1;
        }
        let remainder = modulus.rchunks(4).rev().fold(0_u64, |remainder, limb| {
            let limb = limb.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            (remainder << 32 | limb) % product
        });
        for index in start..end {
            residues[index] =
                u16::try_from(remainder % u64::from(PRIMES[index])).expect("less than a prime below 752");
        }
        start = end;
    }
    residues
}

/// The fingerprint of CVE-2017-15361 (Nemec, Sys, Svenda, Klinec, Matyas: The Return of Coppersmith's Attack,
/// CCS 2017, section 2): the faulty library makes primes p = k*M + (65537^a mod M) where M is the product of
/// the first primes, at least of those up to 167. So the modulus is a power of 65537 modulo M.
///
/// That is decided exactly: a logarithm must exist modulo each prime, and the logarithms must agree with one
/// another where the orders of 65537 share a factor (then the Chinese remainder theorem gives one for M). A
/// sound modulus passes by chance once in about 2^154.
fn has_roca_fingerprint(residues: &[u16; PRIMES.len()]) -> bool {
    let mut logarithms = [(0, 1); ROCA_PRIMES];
    for (index, entry) in logarithms.iter_mut().enumerate() {
        match logarithm(residues[index], PRIMES[index]) {
            Some(found) => *entry = found,
            None => return false,
        }
    }
    logarithms.iter().enumerate().all(|(index, (exponent, order))| {
        logarithms[..index].iter().all(|(other_exponent, other_order)| {
            let shared = greatest_common_divisor(*order, *other_order);
            exponent % shared == other_exponent % shared
        })
    })
}

/// The exponent a with 65537^a = residue modulo the prime, and the order of 65537 there.
fn logarithm(residue: u16, prime: u16) -> Option<(u16, u16)> {
    let generator = 65_537 % u32::from(prime);
    let mut power = 1;
    let mut found = None;
    for exponent in 0..prime {
        if power == u32::from(residue) && found.is_none() {
            found = Some(exponent);
        }
        power = power * generator % u32::from(prime);
        if power == 1 {
            return found.map(|found| (found, exponent + 1));
        }
    }
    None
}

fn greatest_common_divisor(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// How many of [`PRIMES`] divide M for every key size of the faulty library: those from 3 to 167.
const ROCA_PRIMES: usize = 38;

/// The odd primes below 752: the same trial division that public CAs do.
const PRIMES: [u16; 132] = {
    let mut primes = [0; 132];
    let mut count = 0;
    let mut candidate = 3_u16;
    while candidate < 752 {
        let mut divisor = 3;
        while divisor * divisor <= candidate && !candidate.is_multiple_of(divisor) {
            divisor += 2;
        }
        if divisor * divisor > candidate {
            primes[count] = candidate;
            count += 1;
        }
        candidate += 2;
    }
    assert!(count == primes.len() && primes[ROCA_PRIMES - 1] == 167);
    primes
};

#[cfg(test)]
mod tests;
