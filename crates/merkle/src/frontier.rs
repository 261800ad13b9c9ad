//! The right edge of a growing tree: all that appending and computing the root need.

use chancery_types::Digest;

use crate::hash::{empty_root, node_hash};
use crate::proof::{BuildError, read_exactly};
use crate::reader::{HashReader, MAX_TREE_SIZE};

/// Why stored bytes are not a frontier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrontierError {
    /// The bytes end before the size.
    #[error("a stored frontier begins with its 8-byte size, there are {0} bytes; rebuild it from the hashes")]
    Short(usize),
    /// Not the number of hashes that a tree of this size has at its edge.
    #[error(
        "the frontier of {size} leaves takes {expected} bytes, there are {found}; rebuild it from the hashes"
    )]
    Length {
        /// Leaves that the bytes claim.
        size: u64,
        /// Bytes that such a frontier has.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// More leaves than a tree can have.
    #[error("a tree has at most {MAX_TREE_SIZE} leaves, the stored frontier claims {0}")]
    TooLarge(u64),
}

/// The roots of the perfect subtrees that a tree is made of, from the largest (left) to the smallest.
///
/// There is one for each bit that is set in the number of leaves, so at most 63 hashes. Appending costs one
/// inner hash on average.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

impl Frontier {
    /// The frontier of the empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the frontier of the tree of the first `size` leaves from stored hashes.
    ///
    /// # Errors
    /// [`BuildError`] when the hashes cannot be read or `size` is beyond [`MAX_TREE_SIZE`].
    pub fn load<R: HashReader>(size: u64, reader: &R) -> Result<Self, BuildError<R::Error>> {
        if size > MAX_TREE_SIZE {
            return Err(BuildError::TooLarge(size));
        }
        let mut peaks = Vec::with_capacity(size.count_ones() as usize);
        let mut start = 0_u64;
        let mut hashes = Vec::with_capacity(128);
        for height in (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1) {
            let (tile_level, inside) = (height / 8, height % 8);
            let level = u8::try_from(tile_level).expect("a height below 64 divided by 8");
            read_exactly(reader, level, start >> (8 * tile_level), 1 << inside, &mut hashes)?;
            peaks.push(fold(&mut hashes));
            start += 1 << height;
        }
        Ok(Self { size, peaks })
    }

    /// Adds a leaf by its hash (see [`crate::leaf_hash`]).
    ///
    /// `emit` is called with (tile level, index, hash) for the leaf itself at level 0 and for every subtree of
    /// 256^level leaves that the leaf completes: exactly what [`HashReader`] has to give back later.
    pub fn append(&mut self, leaf: Digest, emit: &mut impl FnMut(u8, u64, Digest)) {
        emit(0, self.size, leaf);
        let mut hash = leaf;
        for height in 1..=self.size.trailing_ones() {
            let left = self.peaks.pop().expect("there is a peak for every set bit of the size");
            hash = node_hash(&left, &hash);
            if height % 8 == 0 {
                let level = u8::try_from(height / 8).expect("a height of at most 64 divided by 8");
                emit(level, self.size >> height, hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree (RFC 6962 section 2.1).
    #[must_use]
    pub fn root(&self) -> Digest {
        let folded = self.peaks.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        folded.unwrap_or_else(empty_root)
    }

    /// The bytes to store: the size (8 bytes, big-endian), then the hashes from left to right.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + 32 * self.peaks.len());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        for peak in &self.peaks {
            bytes.extend_from_slice(peak.as_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote. The hashes themselves are not checked: compare [`Self::root`] with
    /// a signed checkpoint where that matters.
    ///
    /// # Errors
    /// [`FrontierError`] when the length does not fit the size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrontierError> {
        let (size, rest) = bytes.split_first_chunk::<8>().ok_or(FrontierError::Short(bytes.len()))?;
        let size = u64::from_be_bytes(*size);
        // Appending up to the limit would take longer than any machine lives, so `append` need not check.
        if size > MAX_TREE_SIZE {
            return Err(FrontierError::TooLarge(size));
        }
        let (hashes, remainder) = rest.as_chunks::<32>();
        let expected = size.count_ones() as usize;
        if hashes.len() != expected || !remainder.is_empty() {
            return Err(FrontierError::Length { size, expected: 8 + 32 * expected, found: bytes.len() });
        }
        Ok(Self { size, peaks: hashes.iter().copied().map(Digest::from_array).collect() })
    }
}

/// The root of a perfect subtree whose leaves these are; leaves the buffer empty.
pub(crate) fn fold(hashes: &mut Vec<Digest>) -> Digest {
    debug_assert!(hashes.len().is_power_of_two());
    let mut width = hashes.len();
    while width > 1 {
        width /= 2;
        for at in 0..width {
            hashes[at] = node_hash(&hashes[2 * at], &hashes[2 * at + 1]);
        }
    }
    let root = hashes[0];
    hashes.clear();
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;
    use crate::reader::MemoryHashes;

    fn grown(size: u64) -> (Frontier, MemoryHashes) {
        let (mut frontier, mut hashes) = (Frontier::new(), MemoryHashes::default());
        for index in 0..size {
            frontier
                .append(leaf_hash(&index.to_be_bytes()), &mut |level, at, hash| hashes.push(level, at, hash));
        }
        (frontier, hashes)
    }

    #[test]
    fn loading_from_hashes_gives_the_frontier_of_every_earlier_size() {
        let (_, hashes) = grown(70_000);
        for size in [0, 1, 2, 3, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 69_999, 70_000] {
            assert_eq!(Frontier::load(size, &hashes).unwrap(), grown(size).0, "size {size}");
        }
    }

    #[test]
    fn survives_its_bytes_and_goes_on_appending() {
        let (frontier, _) = grown(1_003);
        let mut copy = Frontier::from_bytes(&frontier.to_bytes()).unwrap();
        assert_eq!(copy, frontier);
        copy.append(leaf_hash(&1_003_u64.to_be_bytes()), &mut |_, _, _| {});
        assert_eq!(copy, grown(1_004).0);
    }

    #[test]
    fn refuses_bytes_of_the_wrong_length_or_size() {
        let bytes = grown(3).0.to_bytes();
        assert_eq!(Frontier::from_bytes(&bytes[..7]), Err(FrontierError::Short(7)));
        let short = FrontierError::Length { size: 3, expected: 72, found: 71 };
        assert_eq!(Frontier::from_bytes(&bytes[..71]), Err(short));
        let long = FrontierError::Length { size: 3, expected: 72, found: 104 };
        assert_eq!(Frontier::from_bytes(&[bytes.as_slice(), &[0; 32]].concat()), Err(long));
        let huge = [0xff_u8; 8 + 64 * 32];
        assert_eq!(Frontier::from_bytes(&huge), Err(FrontierError::TooLarge(u64::MAX)));
    }

    #[test]
    fn refuses_to_load_what_the_reader_does_not_have() {
        let (_, hashes) = grown(300);
        assert!(matches!(
            Frontier::load(301, &hashes),
            Err(BuildError::Missing { tile_level: 0, start: 300, expected: 1, found: 0 })
        ));
        assert!(matches!(Frontier::load(u64::MAX, &hashes), Err(BuildError::TooLarge(u64::MAX))));
    }
}
