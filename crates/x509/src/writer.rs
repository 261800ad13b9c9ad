//! Writing DER into one growing buffer.
//!
//! Everything this authority signs is written here: lengths are minimal, integers positive and minimal, named
//! bits without trailing zeros, times in the form RFC 5280 asks for. Nothing is written that was not asked for,
//! so DEFAULT values are left out by leaving out the call.

use chancery_types::Timestamp;

use crate::calendar::{self, TimeForm};
use crate::tag;

/// A buffer that grows by one DER value after another.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// Bytes that are DER already.
    pub(crate) fn raw(&mut self, der: &[u8]) {
        self.0.extend_from_slice(der);
    }

    /// One value with its tag and length.
    pub(crate) fn value(&mut self, tag: u8, content: &[u8]) {
        self.0.push(tag);
        let (length, used) = length_bytes(content.len());
        self.0.extend_from_slice(&length[..used]);
        self.0.extend_from_slice(content);
    }

    /// A value whose content is what `content` writes. The length is put in afterwards, which moves the content
    /// when it has 128 bytes or more: cheaper than computing every length twice.
    pub(crate) fn nested(&mut self, tag: u8, content: impl FnOnce(&mut Self)) {
        self.0.push(tag);
        self.0.push(0);
        let start = self.0.len();
        content(self);
        let (length, used) = length_bytes(self.0.len() - start);
        self.0[start - 1] = length[0];
        if used > 1 {
            self.0.splice(start..start, length[1..used].iter().copied());
        }
    }

    pub(crate) fn sequence(&mut self, content: impl FnOnce(&mut Self)) {
        self.nested(tag::SEQUENCE, content);
    }

    /// An OBJECT IDENTIFIER from its content bytes.
    pub(crate) fn oid(&mut self, content: &[u8]) {
        self.value(tag::OID, content);
    }

    pub(crate) fn null(&mut self) {
        self.value(tag::NULL, &[]);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.value(tag::BOOLEAN, &[if value { 0xff } else { 0 }]);
    }

    /// A non-negative INTEGER from big-endian bytes, with or without leading zeros.
    pub(crate) fn unsigned(&mut self, big_endian: &[u8]) {
        let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
        let digits = &big_endian[zeros..];
        let pad = digits.first().is_none_or(|byte| byte & 0x80 != 0);
        self.nested(tag::INTEGER, |writer| {
            if pad {
                writer.0.push(0);
            }
            writer.raw(digits);
        });
    }

    pub(crate) fn octet_string(&mut self, content: &[u8]) {
        self.value(tag::OCTET_STRING, content);
    }

    /// A BIT STRING of whole bytes.
    pub(crate) fn bit_string(&mut self, content: &[u8]) {
        self.nested(tag::BIT_STRING, |writer| {
            writer.0.push(0);
            writer.raw(content);
        });
    }

    /// A named-bit list, bit 0 of the list in bit 0 of `bits`; trailing zero bits are left out (X.690 11.2.2).
    pub(crate) fn named_bits(&mut self, bits: u16) {
        let reversed = bits.reverse_bits().to_be_bytes();
        let used = 16 - bits.leading_zeros();
        let bytes = usize::from(used > 0) + usize::from(used > 8);
        let unused = u8::try_from((8 - used % 8) % 8).expect("below 8");
        let content = [unused, reversed[0], reversed[1]];
        self.value(tag::BIT_STRING, &content[..=bytes]);
    }

    /// A time in the form of RFC 5280 section 4.1.2.5.
    pub(crate) fn time(&mut self, moment: Timestamp) {
        let digits = calendar::digits(moment);
        match TimeForm::required_for(moment) {
            TimeForm::UtcTime => self.value(tag::UTC_TIME, &digits[2..]),
            TimeForm::GeneralizedTime => self.value(tag::GENERALIZED_TIME, &digits),
        }
    }

    /// A GeneralizedTime whatever the year, as OCSP has it.
    pub(crate) fn generalized_time(&mut self, moment: Timestamp) {
        self.value(tag::GENERALIZED_TIME, &calendar::digits(moment));
    }
}

/// The minimal length encoding and how many of its bytes are used.
fn length_bytes(length: usize) -> ([u8; 9], usize) {
    let mut bytes = [0_u8; 9];
    let big_endian = (length as u64).to_be_bytes();
    if length < 128 {
        bytes[0] = big_endian[7];
        return (bytes, 1);
    }
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    let count = big_endian.len() - zeros;
    bytes[0] = 0x80 | u8::try_from(count).expect("at most 8");
    bytes[1..=count].copy_from_slice(&big_endian[zeros..]);
    (bytes, count + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        write(&mut writer);
        writer.finish()
    }

    #[test]
    fn lengths_are_minimal() {
        for (length, header) in [
            (0_usize, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (255, vec![4, 0x81, 255]),
            (256, vec![4, 0x82, 1, 0]),
            (70_000, vec![4, 0x83, 1, 0x11, 0x70]),
        ] {
            let flat = written(|writer| writer.octet_string(&vec![7; length]));
            assert_eq!(flat[..header.len()], header);
            assert_eq!(flat.len(), header.len() + length);
            let nested = written(|writer| writer.nested(4, |inner| inner.raw(&vec![7; length])));
            assert_eq!(nested, flat);
        }
    }

    #[test]
    fn integers_are_positive_and_minimal() {
        for (bytes, der) in [
            (vec![], vec![2, 1, 0]),
            (vec![0], vec![2, 1, 0]),
            (vec![0, 0, 1], vec![2, 1, 1]),
            (vec![0x80], vec![2, 2, 0, 0x80]),
            (vec![0, 0x7f, 0xff], vec![2, 2, 0x7f, 0xff]),
        ] {
            assert_eq!(written(|writer| writer.unsigned(&bytes)), der);
        }
    }

    #[test]
    fn named_bits_have_no_trailing_zeros() {
        for (bits, der) in [
            (0b0, vec![3, 1, 0]),
            (0b1, vec![3, 2, 7, 0x80]),
            (0b110_0000, vec![3, 2, 1, 0x06]),
            (0b1000_0000, vec![3, 2, 0, 0x01]),
            (0b1_0000_0001, vec![3, 3, 7, 0x80, 0x80]),
        ] {
            assert_eq!(written(|writer| writer.named_bits(bits)), der, "{bits:b}");
        }
    }
}
