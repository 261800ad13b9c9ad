//! Reading DER strictly, without copying.
//!
//! What a stranger sends comes through here: lengths are definite and minimal, tags have one byte, nothing may
//! follow where nothing was expected. Depth is bounded by the structures that call it, size by its callers'
//! limits; every error names the byte at which reading stopped.

use chancery_types::Timestamp;

use crate::calendar::{self, TimeForm};
use crate::tag;

/// Why bytes are not the DER that was expected; `at` counts bytes from the beginning of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DerError {
    /// The input ends inside a value.
    #[error("byte {at}: the value ends after the input does")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// A length is indefinite, longer than needed, or beyond four bytes.
    #[error("byte {at}: the length is not the shortest definite form")]
    Length {
        /// Where.
        at: usize,
    },
    /// Another type than the expected one.
    #[error("byte {at}: expected tag {expected:02x}, found {found:02x}")]
    Tag {
        /// Where.
        at: usize,
        /// The identifier octet that should stand here.
        expected: u8,
        /// The one that does; 0 at the end of the input.
        found: u8,
    },
    /// Bytes follow the last value.
    #[error("byte {at}: nothing more was expected here")]
    Trailing {
        /// Where.
        at: usize,
    },
    /// The value is not a valid one of its type.
    #[error("byte {at}: not a valid {what}")]
    Value {
        /// Where.
        at: usize,
        /// What it should be.
        what: &'static str,
    },
    /// The input is larger than what we read of its kind.
    #[error("{got} bytes, at most {limit} are read")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes read at most.
        limit: usize,
    },
}

/// One value: identifier octet, content, and the whole with its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
    /// Where the whole begins in the outermost input.
    pub(crate) at: usize,
}

impl<'a> Value<'a> {
    /// Reads what is inside.
    pub(crate) fn reader(&self) -> Reader<'a> {
        Reader { rest: self.content, at: self.at + self.whole.len() - self.content.len() }
    }

    pub(crate) fn invalid(&self, what: &'static str) -> DerError {
        DerError::Value { at: self.at, what }
    }
}

/// A cursor over a run of DER values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input, at: 0 }
    }

    /// Reads an input that is exactly one value of this type.
    pub(crate) fn single(input: &'a [u8], expected: u8) -> Result<Value<'a>, DerError> {
        let mut reader = Self::new(input);
        let value = reader.expect(expected)?;
        reader.finish()?;
        Ok(value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes that were not read yet.
    #[cfg(test)]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next identifier octet, if anything is left.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next value, of any type.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, DerError> {
        let truncated = DerError::Truncated { at: self.at };
        let [tag, first, after @ ..] = self.rest else { return Err(truncated) };
        if tag & 0x1f == 0x1f {
            return Err(DerError::Value { at: self.at, what: "one-byte tag" });
        }
        let (length, header) = match *first {
            short @ 0..=0x7f => (usize::from(short), 2),
            long @ 0x81..=0x84 => {
                let count = usize::from(long & 0x7f);
                let bytes = after.get(..count).ok_or(truncated.clone())?;
                let length = bytes.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
                if bytes[0] == 0 || length < 128 {
                    return Err(DerError::Length { at: self.at });
                }
                (length, 2 + count)
            }
            _ => return Err(DerError::Length { at: self.at }),
        };
        let end = header.checked_add(length).ok_or(truncated.clone())?;
        let whole = self.rest.get(..end).ok_or(truncated)?;
        let value = Value { tag: *tag, content: &whole[header..], whole, at: self.at };
        self.rest = &self.rest[end..];
        self.at += end;
        Ok(value)
    }

    /// The next value, which must be of this type.
    pub(crate) fn expect(&mut self, expected: u8) -> Result<Value<'a>, DerError> {
        match self.peek() {
            Some(found) if found == expected => self.value(),
            found => Err(DerError::Tag { at: self.at, expected, found: found.unwrap_or(0) }),
        }
    }

    /// The next value if it is of this type.
    pub(crate) fn optional(&mut self, expected: u8) -> Result<Option<Value<'a>>, DerError> {
        if self.peek() == Some(expected) { self.value().map(Some) } else { Ok(None) }
    }

    /// A reader of the content of the next value, a SEQUENCE.
    pub(crate) fn sequence(&mut self) -> Result<Self, DerError> {
        Ok(self.expect(tag::SEQUENCE)?.reader())
    }

    /// Refuses what is left over.
    pub(crate) fn finish(self) -> Result<(), DerError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DerError::Trailing { at: self.at }) }
    }

    /// The content bytes of an OBJECT IDENTIFIER.
    pub(crate) fn oid(&mut self) -> Result<&'a [u8], DerError> {
        let value = self.expect(tag::OID)?;
        let last_ends = value.content.last().is_some_and(|byte| byte & 0x80 == 0);
        let mut starts = true;
        for byte in value.content {
            if starts && *byte == 0x80 {
                return Err(value.invalid("object identifier"));
            }
            starts = byte & 0x80 == 0;
        }
        if last_ends { Ok(value.content) } else { Err(value.invalid("object identifier")) }
    }

    /// The content bytes of an INTEGER in two's complement, minimal; a negative one passes.
    pub(crate) fn integer(&mut self) -> Result<&'a [u8], DerError> {
        let value = self.expect(tag::INTEGER)?;
        match value.content {
            [] | [0, 0..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => Err(value.invalid("integer")),
            content => Ok(content),
        }
    }

    /// A non-negative INTEGER below 2^32.
    pub(crate) fn small_integer(&mut self) -> Result<u32, DerError> {
        let at = self.at;
        let content = self.integer()?;
        if content[0] & 0x80 != 0 || content.len() > 5 || (content.len() == 5 && content[0] != 0) {
            return Err(DerError::Value { at, what: "small number" });
        }
        Ok(content.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    /// A BIT STRING of whole bytes.
    pub(crate) fn bit_string(&mut self) -> Result<&'a [u8], DerError> {
        let value = self.expect(tag::BIT_STRING)?;
        match value.content {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(value.invalid("bit string of whole bytes")),
        }
    }

    /// Reads a UTCTime or GeneralizedTime and says which it was.
    pub(crate) fn time(&mut self) -> Result<(Timestamp, TimeForm), DerError> {
        let value = self.value()?;
        let form = match value.tag {
            tag::UTC_TIME => TimeForm::UtcTime,
            tag::GENERALIZED_TIME => TimeForm::GeneralizedTime,
            _ => return Err(value.invalid("time")),
        };
        let moment = calendar::read(form, value.content).ok_or_else(|| value.invalid("time"))?;
        Ok((moment, form))
    }
}

/// A BOOLEAN's value: DER knows 00 and ff only.
pub(crate) fn boolean(value: &Value<'_>) -> Result<bool, DerError> {
    match value.content {
        [0] => Ok(false),
        [0xff] => Ok(true),
        _ => Err(value.invalid("boolean")),
    }
}

/// A named-bit list of at most 16 bits, bit 0 of the list in bit 0 of the result. Trailing zero bits pass: a
/// lint finds them.
pub(crate) fn named_bits(value: &Value<'_>) -> Result<u16, DerError> {
    let (unused, bytes) = match value.content {
        [unused @ 0..=7, bytes @ ..] if bytes.len() <= 2 && (*unused == 0 || !bytes.is_empty()) => {
            (*unused, bytes)
        }
        _ => return Err(value.invalid("list of named bits")),
    };
    let word = u16::from_be_bytes([bytes.first().copied().unwrap_or(0), bytes.get(1).copied().unwrap_or(0)]);
    if bytes.last().is_some_and(|last| last & ((1_u8 << unused) - 1) != 0) {
        return Err(value.invalid("list of named bits"));
    }
    Ok(word.reverse_bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::Writer;
    use proptest::prelude::*;

    fn walk(reader: &mut Reader<'_>, depth: usize) {
        while let Ok(value) = reader.value() {
            let _ = (boolean(&value), named_bits(&value));
            if depth > 0 {
                walk(&mut value.reader(), depth - 1);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            walk(&mut Reader::new(&input), 8);
            let mut reader = Reader::new(&input);
            let _ = (reader.oid(), reader.integer(), reader.small_integer(), reader.bit_string(), reader.time());
        }

        #[test]
        fn named_bits_round_trip(bits in any::<u16>()) {
            let mut writer = Writer::default();
            writer.named_bits(bits);
            let der = writer.finish();
            prop_assert_eq!(named_bits(&Reader::single(&der, tag::BIT_STRING).unwrap()), Ok(bits));
        }

        #[test]
        fn unsigned_round_trips(number in any::<u32>()) {
            let mut writer = Writer::default();
            writer.unsigned(&number.to_be_bytes());
            prop_assert_eq!(Reader::new(&writer.finish()).small_integer(), Ok(number));
        }
    }

    #[test]
    fn refuses_lengths_that_are_not_der() {
        for (input, error) in [
            (vec![0x30, 0x80, 0, 0], DerError::Length { at: 0 }),
            (vec![0x04, 0x81, 5, 1, 2, 3, 4, 5], DerError::Length { at: 0 }),
            ([vec![0x04, 0x82, 0, 200], vec![0; 200]].concat(), DerError::Length { at: 0 }),
            (vec![0x04, 0x85, 1, 0, 0, 0, 0], DerError::Length { at: 0 }),
            (vec![0x04, 0x84, 0xff, 0xff, 0xff, 0xff], DerError::Truncated { at: 0 }),
            (vec![0x04, 3, 1, 2], DerError::Truncated { at: 0 }),
            (vec![0x04], DerError::Truncated { at: 0 }),
            (vec![0x1f, 1, 0], DerError::Value { at: 0, what: "one-byte tag" }),
        ] {
            assert_eq!(Reader::new(&input).value().unwrap_err(), error, "{input:02x?}");
        }
    }

    #[test]
    fn errors_count_bytes_from_the_outermost_input() {
        let der = [0x30, 5, 0x30, 3, 0x02, 1, 5];
        let mut outer = Reader::new(&der).sequence().unwrap();
        let mut inner = outer.sequence().unwrap();
        assert_eq!(inner.oid(), Err(DerError::Tag { at: 4, expected: 6, found: 2 }));
        assert_eq!(inner.finish(), Err(DerError::Trailing { at: 4 }));
    }

    #[test]
    fn refuses_integers_that_are_not_minimal() {
        for content in [&[][..], &[0, 1], &[0xff, 0x80]] {
            let mut writer = Writer::default();
            writer.value(tag::INTEGER, content);
            assert!(Reader::new(&writer.finish()).integer().is_err());
        }
    }
}
