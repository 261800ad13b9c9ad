//! Unambiguous byte strings for hashing and signing: a label, then fields, each behind its length.
//!
//! Form: for the label and for each field, a 32-bit big-endian length and the bytes. Two different sequences
//! of fields therefore never give the same bytes, and a signature under one label is none under another.

use chancery_types::Digest;

/// A byte string under construction.
#[derive(Debug)]
pub(crate) struct Transcript(Vec<u8>);

impl Transcript {
    /// Begins with the label that separates this use from all others.
    pub(crate) fn new(label: &'static str) -> Self {
        Self(Vec::with_capacity(256)).field(label.as_bytes())
    }

    /// Appends one field.
    pub(crate) fn field(mut self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).expect("fields are limited to far below 4 GiB before this");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// SHA-256 of the whole.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// The whole.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_fields_changes_the_bytes() {
        let left = Transcript::new("t").field(b"ab").field(b"c").into_bytes();
        let right = Transcript::new("t").field(b"a").field(b"bc").into_bytes();
        assert_ne!(left, right);
        assert_eq!(left, b"\0\0\0\x01t\0\0\0\x02ab\0\0\0\x01c");
    }
}
