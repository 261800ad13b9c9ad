//! The outer shape of a subjectPublicKeyInfo (RFC 5280 section 4.1.2.7), taken apart and not yet judged.
//!
//! [`PublicKey`](crate::PublicKey) judges; `signature` only needs to know which verifier the bits are for.

use crate::reader::{DerError, Reader, Value};
use crate::tag;

/// Longest subjectPublicKeyInfo that is looked at, in bytes: RSA with 16384 bits has 2,086.
pub(crate) const MAX_SPKI: usize = 4096;

/// SEQUENCE { id-ecPublicKey, secp256r1 } (RFC 5480).
pub(crate) const P256: &[u8] =
    &[0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// SEQUENCE { id-ecPublicKey, secp384r1 } (RFC 5480).
pub(crate) const P384: &[u8] =
    &[0x30, 16, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 34];
/// SEQUENCE { id-Ed25519 } (RFC 8410: the parameters are absent).
pub(crate) const ED25519: &[u8] = &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
/// SEQUENCE { rsaEncryption, NULL } (RFC 3279 section 2.3.1: the NULL is there).
pub(crate) const RSA: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];

/// The two fields of a subjectPublicKeyInfo, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spki<'a> {
    /// The whole AlgorithmIdentifier with its tag and length.
    pub(crate) algorithm: &'a [u8],
    /// The content of the BIT STRING without its count of unused bits, which is zero.
    pub(crate) key: &'a [u8],
}

impl<'a> Spki<'a> {
    /// Reads strict DER with nothing after it.
    ///
    /// # Errors
    /// [`DerError`]: not DER, trailing data, too long, or unused bits in the key.
    pub(crate) fn read(der: &'a [u8]) -> Result<Self, DerError> {
        if der.len() > MAX_SPKI {
            return Err(DerError::TooLong { got: der.len(), limit: MAX_SPKI });
        }
        let mut fields = Reader::single(der, tag::SEQUENCE)?.reader();
        let algorithm = fields.expect(tag::SEQUENCE)?.whole;
        let key = fields.bit_string()?;
        fields.finish()?;
        Ok(Self { algorithm, key })
    }

    /// The object identifier of the algorithm, by its content bytes, and the parameters.
    ///
    /// # Errors
    /// [`DerError`] when the AlgorithmIdentifier is none.
    pub(crate) fn algorithm_parts(&self) -> Result<(&'a [u8], Option<Value<'a>>), DerError> {
        let mut fields = Reader::single(self.algorithm, tag::SEQUENCE)?.reader();
        let oid = fields.oid()?;
        let parameters = if fields.is_empty() { None } else { Some(fields.value()?) };
        fields.finish()?;
        Ok((oid, parameters))
    }
}
