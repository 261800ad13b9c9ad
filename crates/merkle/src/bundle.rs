//! Entry bundles: up to 256 entries, each behind its length as two big-endian bytes (C2SP tlog-tiles).

/// The largest entry that a bundle can hold, in bytes.
pub const MAX_ENTRY_BYTES: usize = u16::MAX as usize;

/// An entry does not fit a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry has at most {MAX_ENTRY_BYTES} bytes, this one has {0}")]
pub struct EntryTooLong(pub usize);

/// Bytes are not the bundle that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The bytes end within an entry.
    #[error("the bundle ends within its entry {entry}, at byte {offset}; fetch it again")]
    Truncated {
        /// Entry of the bundle, from 0.
        entry: usize,
        /// Where that entry begins.
        offset: usize,
    },
    /// Another number of entries than the tile's width.
    #[error("the bundle should hold {expected} entries, it holds {found}; fetch it again")]
    Width {
        /// The width in the tile's path.
        expected: usize,
        /// Entries that there are (counting stops one above the expected).
        found: usize,
    },
}

/// Adds an entry to the end of a bundle.
///
/// # Errors
/// [`EntryTooLong`] beyond [`MAX_ENTRY_BYTES`]; the bundle is unchanged then.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), EntryTooLong> {
    let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong(entry.len()))?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle that must hold exactly `width` of them.
///
/// # Errors
/// [`BundleError`] when the bytes end early or hold more or fewer entries.
pub fn read_bundle(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, BundleError> {
    let expected = usize::from(width);
    let entries = BundleReader::new(bytes).take(expected + 1).collect::<Result<Vec<_>, _>>()?;
    let found = entries.len();
    if found == expected { Ok(entries) } else { Err(BundleError::Width { expected, found }) }
}

/// Walks through a bundle without knowing its width.
#[derive(Debug, Clone)]
pub struct BundleReader<'a> {
    bytes: &'a [u8],
    offset: usize,
    entry: usize,
}

impl<'a> BundleReader<'a> {
    /// A reader of these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, entry: 0 }
    }

    fn take_entry(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.bytes[self.offset..].split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let entry = rest.get(..length)?;
        self.offset += 2 + length;
        self.entry += 1;
        Some(entry)
    }
}

impl<'a> Iterator for BundleReader<'a> {
    type Item = Result<&'a [u8], BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset == self.bytes.len() {
            return None;
        }
        let (entry, offset) = (self.entry, self.offset);
        let taken = self.take_entry().ok_or(BundleError::Truncated { entry, offset });
        if taken.is_err() {
            self.offset = self.bytes.len();
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(entries: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in entries {
            push_entry(&mut bytes, entry).unwrap();
        }
        bytes
    }

    #[test]
    fn is_the_published_layout() {
        assert_eq!(bundle(&[b"ab", b"", b"c"]), b"\x00\x02ab\x00\x00\x00\x01c");
        let longest = vec![7; MAX_ENTRY_BYTES];
        assert_eq!(read_bundle(&bundle(&[&longest, b"x"]), 2).unwrap(), [longest.as_slice(), b"x"]);
    }

    #[test]
    fn refuses_an_entry_that_does_not_fit() {
        let mut bytes = bundle(&[b"first"]);
        assert_eq!(push_entry(&mut bytes, &vec![0; 65_536]), Err(EntryTooLong(65_536)));
        assert_eq!(bytes, bundle(&[b"first"]));
    }

    #[test]
    fn refuses_truncated_and_wrongly_counted_bundles() {
        let bytes = bundle(&[b"ab", b"cde"]);
        for cut in 1..bytes.len() {
            let expected = match cut {
                1..4 => BundleError::Truncated { entry: 0, offset: 0 },
                4 => BundleError::Width { expected: 2, found: 1 },
                _ => BundleError::Truncated { entry: 1, offset: 4 },
            };
            assert_eq!(read_bundle(&bytes[..cut], 2), Err(expected), "cut at {cut}");
        }
        assert_eq!(read_bundle(&bytes, 1), Err(BundleError::Width { expected: 1, found: 2 }));
        assert_eq!(read_bundle(&bytes, 3), Err(BundleError::Width { expected: 3, found: 2 }));
        assert_eq!(BundleReader::new(b"\xff").collect::<Vec<_>>().len(), 1);
    }
}
