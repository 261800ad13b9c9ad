//! A key whose signatures are verified over and over: an issuer's own.
//!
//! Every signature that leaves is verified first. For P-256 most of that time goes into multiplying a point, which
//! ring must do from nothing each time because it sees each key for the first time. For a key that stays the same,
//! multiples can be made beforehand, and a verification becomes forty additions of points: half of the time. It is also a second opinion, since what ring signed is verified by other arithmetic. Nothing here is secret,
//! so nothing has to take constant time.
//!
//! The multiples cost a tenth of a second and 6 MB, hence are made on a thread of their own once a key has shown
//! that it is used; until then, and for all other algorithms, ring verifies.

mod multiples;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use p256::elliptic_curve::ops::Reduce;
use p256::elliptic_curve::point::AffineCoordinates as _;
use p256::elliptic_curve::{Field as _, PrimeField as _};
use p256::{AffinePoint, FieldBytes, Scalar};
use ring::digest::{SHA256, digest};

use crate::public_key::PublicKey;
use crate::reader::Reader;
use crate::signature::{SignatureError, VerificationAlgorithm};
use multiples::{Multiples, sum};

/// Verifications after which the multiples are worth their making.
const WORTHWHILE: u32 = 512;

/// A public key with what makes verifying faster.
#[derive(Debug)]
pub struct FrequentKey {
    key: PublicKey,
    uses: AtomicU32,
    multiples: Arc<OnceLock<Multiples>>,
}

impl FrequentKey {
    /// A key of which much is expected.
    #[must_use]
    pub fn new(key: PublicKey) -> Self {
        Self { key, uses: AtomicU32::new(0), multiples: Arc::default() }
    }

    /// Verifies `signature` over `message`, as [`PublicKey::verify`] does.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(
        &self,
        algorithm: impl Into<VerificationAlgorithm>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let algorithm = algorithm.into();
        if algorithm == VerificationAlgorithm::EcdsaSha256
            && let Some(point) = self.point()
        {
            if let Some(multiples) = self.multiples.get() {
                let stands = verify(multiples, message, signature).is_some();
                return if stands { Ok(()) } else { Err(SignatureError::Invalid) };
            }
            if self.uses.fetch_add(1, Ordering::Relaxed) == WORTHWHILE {
                self.prepare(point);
            }
        }
        self.key.verify(algorithm, message, signature)
    }

    /// The key as a point of P-256, if it is one.
    fn point(&self) -> Option<&[u8; 65]> {
        // 65 bytes that begin with 4 are an uncompressed point of P-256: the key was parsed as such.
        self.key.key_bytes().try_into().ok().filter(|bytes: &&[u8; 65]| bytes[0] == 4)
    }

    /// Starts to make the multiples. Without a thread for it ring goes on verifying.
    fn prepare(&self, point: &[u8; 65]) {
        let Ok(key) = p256::PublicKey::from_sec1_bytes(point) else { return };
        let multiples = Arc::clone(&self.multiples);
        let make = move || drop(multiples.set(Multiples::of(*key.as_affine())));
        drop(std::thread::Builder::new().name("key-multiples".into()).spawn(make));
    }
}

/// ECDSA with SHA-256 (FIPS 186-5, section 6.4.2): `None` unless the signature stands.
fn verify(key: &Multiples, message: &[u8], signature: &[u8]) -> Option<()> {
    let mut fields = Reader::new(signature);
    let mut parts = fields.sequence().ok()?;
    let (r, s) = (scalar(&mut parts)?, scalar(&mut parts)?);
    parts.finish().ok()?;
    fields.finish().ok()?;
    let hash = FieldBytes::try_from(digest(&SHA256, message).as_ref()).ok()?;
    let hash = <Scalar as Reduce<FieldBytes>>::reduce(&hash);
    let inverse = Option::<Scalar>::from(s.invert_vartime())?;
    let (of_generator, of_key) = (hash * inverse, r * inverse);
    let point = sum([(&of_generator, Multiples::of_generator()), (&of_key, key)]).to_affine();
    if point == AffinePoint::IDENTITY {
        return None;
    }
    (<Scalar as Reduce<FieldBytes>>::reduce(&point.x()) == r).then_some(())
}

/// A positive INTEGER below the order of the group.
fn scalar(parts: &mut Reader<'_>) -> Option<Scalar> {
    let bytes = match parts.integer().ok()? {
        [first, ..] if first & 0x80 != 0 => return None,
        [0, bytes @ ..] => bytes,
        bytes => bytes,
    };
    let mut whole = FieldBytes::default();
    let start = whole.len().checked_sub(bytes.len())?;
    whole[start..].copy_from_slice(bytes);
    Option::<Scalar>::from(Scalar::from_repr(whole)).filter(|scalar| !bool::from(scalar.is_zero()))
}

#[cfg(test)]
mod tests;
