//! Reading and writing the fields of an entry.

use chancery_types::{
    AssuranceLevel, CrlShard, Digest, EvidenceKind, Generation, IssuerEpoch, LineageId, RevocationReason,
    SerialNumber, SpiffeId, Timestamp, TokenId,
};
use data_encoding::BASE64;
use serde::{Serialize, Serializer};

use crate::MAX_ENTRY;

/// Why bytes are not an entry. Offsets count from the entry's first byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("the entry ends at byte {length}, inside field {field} that begins at byte {offset}")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Where it begins.
        offset: usize,
        /// Bytes given.
        length: usize,
    },
    /// A field's value is not one that we write.
    #[error("field {field} at byte {offset} has a value that is not allowed: {why}")]
    Value {
        /// The field.
        field: &'static str,
        /// Where it begins.
        offset: usize,
        /// What is wrong.
        why: String,
    },
    /// Bytes follow the last field.
    #[error("{extra} bytes follow the entry's last field at byte {offset}")]
    Trailing {
        /// Where the entry ends.
        offset: usize,
        /// How many bytes follow.
        extra: usize,
    },
    /// A type that this program does not know.
    #[error("entry type {0} is unknown; read this log with a newer program")]
    Type(u16),
    /// A version that this program does not know.
    #[error(
        "entry type {type_number} has version {version}, this program reads {known}; use a newer program"
    )]
    Version {
        /// The type.
        type_number: u16,
        /// The version found.
        version: u8,
        /// The version known.
        known: u8,
    },
}

/// Bytes that show as base64 in a JSON view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

/// Appends fields; remembers whether one of them did not fit.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    overlong: Option<usize>,
}

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), overlong: None }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn counted(&mut self, bytes: &[u8]) {
        match u16::try_from(bytes.len()) {
            Ok(length) => {
                self.u16(length);
                self.raw(bytes);
            }
            Err(_) => self.overlong = Some(bytes.len()),
        }
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>, usize> {
        match self.overlong {
            Some(length) => Err(length),
            None if self.bytes.len() > MAX_ENTRY => Err(self.bytes.len()),
            None => Ok(self.bytes),
        }
    }
}

/// Takes fields off the front.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(crate) fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let end = self.offset.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(DecodeError::Truncated { field, offset: self.offset, length: self.bytes.len() });
        };
        let taken = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_be_bytes)
    }

    pub(crate) fn counted(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.u16(field)?;
        self.take(usize::from(length), field)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let offset = self.offset;
        let bytes = self.counted(field)?;
        std::str::from_utf8(bytes).map_err(|error| DecodeError::Value {
            field,
            offset,
            why: error.to_string(),
        })
    }

    pub(crate) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, DecodeError> {
        let offset = self.offset;
        let text = self.text(field)?;
        parse(text).map_err(|error| DecodeError::Value { field, offset, why: error.to_string() })
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        let extra = self.bytes.len() - self.offset;
        if extra == 0 { Ok(()) } else { Err(DecodeError::Trailing { offset: self.offset, extra }) }
    }
}

/// A value that has one canonical form in an entry.
pub(crate) trait Field: Sized {
    fn write(&self, writer: &mut Writer);
    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError>;
}

macro_rules! integer_field {
    ($type:ty) => {
        impl Field for $type {
            fn write(&self, writer: &mut Writer) {
                writer.raw(&self.to_be_bytes());
            }

            fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
                reader.array(field).map(<$type>::from_be_bytes)
            }
        }
    };
}

integer_field!(u8);
integer_field!(u16);
integer_field!(u32);
integer_field!(u64);

/// Fields that are another field inside a newtype.
macro_rules! wrapped_field {
    ($type:ty, $inner:ty, $unwrap:expr, $wrap:expr) => {
        impl Field for $type {
            fn write(&self, writer: &mut Writer) {
                let unwrap: fn(&$type) -> $inner = $unwrap;
                unwrap(self).write(writer);
            }

            fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
                let offset = reader.offset;
                let inner = <$inner>::read(reader, field)?;
                let wrap: fn($inner) -> Result<$type, String> = $wrap;
                wrap(inner).map_err(|why| DecodeError::Value { field, offset, why })
            }
        }
    };
}

wrapped_field!(IssuerEpoch, u16, |epoch| epoch.0, |number| Ok(Self(number)));
wrapped_field!(Generation, u32, |generation| generation.0, |number| Ok(Self(number)));
wrapped_field!(Timestamp, u64, |time| u64::try_from(time.millis()).unwrap_or(0), |millis| i64::try_from(
    millis
)
.map(Self::from_millis)
.map_err(|_| "a time past the year 292 million".to_owned()));
wrapped_field!(RevocationReason, u8, |reason| reason.code(), |code| Self::from_code(code)
    .map_err(|error| error.to_string()));
wrapped_field!(AssuranceLevel, u8, |level| level.number(), |number| Self::from_number(number)
    .ok_or_else(|| format!("{number} is not an assurance level")));

/// Fields of fixed length.
macro_rules! array_field {
    ($type:ty, $length:expr, $from:expr) => {
        impl Field for $type {
            fn write(&self, writer: &mut Writer) {
                writer.raw(self.as_bytes());
            }

            fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
                let offset = reader.offset;
                let from: fn([u8; $length]) -> Result<$type, String> = $from;
                from(reader.array(field)?).map_err(|why| DecodeError::Value { field, offset, why })
            }
        }
    };
}

array_field!(Digest, 32, |bytes| Ok(Self::from_array(bytes)));
array_field!(LineageId, 16, |bytes| Ok(Self::from_array(bytes)));
array_field!(TokenId, 16, |bytes| Ok(Self::from_array(bytes)));
array_field!(SerialNumber, 17, |bytes| Self::from_bytes(&bytes).map_err(|error| error.to_string()));

impl Field for CrlShard {
    fn write(&self, writer: &mut Writer) {
        self.of().write(writer);
        self.number().write(writer);
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let offset = reader.offset;
        let of = u16::read(reader, field)?;
        let number = u16::read(reader, field)?;
        Self::new(number, of).map_err(|error| DecodeError::Value { field, offset, why: error.to_string() })
    }
}

impl Field for String {
    fn write(&self, writer: &mut Writer) {
        writer.counted(self.as_bytes());
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.text(field).map(str::to_owned)
    }
}

impl Field for Blob {
    fn write(&self, writer: &mut Writer) {
        writer.counted(&self.0);
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.counted(field).map(|bytes| Self(bytes.to_vec()))
    }
}

impl Field for SpiffeId {
    fn write(&self, writer: &mut Writer) {
        writer.counted(self.as_str().as_bytes());
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.parsed(field, |text| {
            let id = SpiffeId::parse(text).map_err(|error| error.to_string())?;
            if id.as_str() == text { Ok(id) } else { Err("not in normal form".to_owned()) }
        })
    }
}

impl Field for EvidenceKind {
    fn write(&self, writer: &mut Writer) {
        writer.counted(self.as_str().as_bytes());
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.parsed(field, str::parse)
    }
}

impl<T: Field> Field for Vec<T> {
    fn write(&self, writer: &mut Writer) {
        match u16::try_from(self.len()) {
            Ok(count) => {
                writer.u16(count);
                self.iter().for_each(|value| value.write(writer));
            }
            Err(_) => writer.overlong = Some(self.len()),
        }
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let count = reader.u16(field)?;
        (0..count).map(|_| T::read(reader, field)).collect()
    }
}

impl<T: Field> Field for Option<T> {
    fn write(&self, writer: &mut Writer) {
        match self {
            None => writer.u8(0),
            Some(value) => {
                writer.u8(1);
                value.write(writer);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let offset = reader.offset;
        match reader.u8(field)? {
            0 => Ok(None),
            1 => T::read(reader, field).map(Some),
            other => Err(DecodeError::Value { field, offset, why: format!("{other} where 0 or 1 stands") }),
        }
    }
}

impl<T: Field> Field for Box<T> {
    fn write(&self, writer: &mut Writer) {
        self.as_ref().write(writer);
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        T::read(reader, field).map(Box::new)
    }
}
