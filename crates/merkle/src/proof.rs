//! Making proofs from stored hashes.

use std::collections::HashMap;

use chancery_types::Digest;

use crate::frontier::Frontier;
use crate::hash::node_hash;
use crate::reader::{HashReader, MAX_TREE_SIZE};

/// Why a proof or a root could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError<E> {
    /// The index is not in the tree.
    #[error("entry {index} is not in a tree of {size} entries")]
    NoSuchEntry {
        /// Asked for.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// Consistency runs from a smaller to a larger tree.
    #[error("the older tree has {old} entries, more than the {new} of the newer; exchange them")]
    Backwards {
        /// Leaves of the older tree.
        old: u64,
        /// Leaves of the newer tree.
        new: u64,
    },
    /// More leaves than a tree can have.
    #[error("a tree has at most {MAX_TREE_SIZE} leaves, {0} were asked for")]
    TooLarge(u64),
    /// The reader gave another number of hashes than it was asked for.
    #[error("level {tile_level} should hold {expected} hashes from index {start}, the store gave {found}")]
    Missing {
        /// Tile level.
        tile_level: u8,
        /// First index.
        start: u64,
        /// Hashes asked for.
        expected: usize,
        /// Hashes received.
        found: usize,
    },
    /// The reader failed.
    #[error("the stored hashes of the tree could not be read")]
    Reader(#[source] E),
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
/// [`BuildError`] when hashes are missing or unreadable.
pub fn root_at<R: HashReader>(size: u64, reader: &R) -> Result<Digest, BuildError<R::Error>> {
    Frontier::load(size, reader).map(|frontier| frontier.root())
}

/// The audit path of leaf `index` in the tree of `size` leaves, from the leaf's sibling upwards (RFC 6962
/// section 2.1.1). For many proofs in one tree keep a [`ProofBuilder`].
///
/// # Errors
/// [`BuildError`] when there is no such leaf, or hashes are missing or unreadable.
pub fn inclusion_proof<R: HashReader>(
    index: u64,
    size: u64,
    reader: &R,
) -> Result<Vec<Digest>, BuildError<R::Error>> {
    ProofBuilder::new(size, reader)?.inclusion(index)
}

/// The proof that the tree of `old` leaves is a prefix of the tree of `new` leaves (RFC 6962 section 2.1.2);
/// empty when `old` is 0 or equals `new`.
///
/// # Errors
/// [`BuildError`] when `old` is larger than `new`, or hashes are missing or unreadable.
pub fn consistency_proof<R: HashReader>(
    old: u64,
    new: u64,
    reader: &R,
) -> Result<Vec<Digest>, BuildError<R::Error>> {
    ProofBuilder::new(new, reader)?.consistency(old)
}

/// Makes proofs in the tree of one size, remembering the inner nodes of the tiles it has read.
///
/// A lone proof hashes every tile on its path once (up to 255 hashes each); the other 255 leaves of the same
/// tile then cost no hashing below the right edge. So the receipts of a batch, which are neighbours, should
/// come from one builder.
#[derive(Debug)]
pub struct ProofBuilder<R> {
    size: u64,
    reader: R,
    tiles: HashMap<(u32, u64), Vec<Vec<Digest>>>,
}

impl<R: HashReader> ProofBuilder<R> {
    /// A builder for the tree of the first `size` leaves.
    ///
    /// # Errors
    /// [`BuildError::TooLarge`] beyond [`MAX_TREE_SIZE`].
    pub fn new(size: u64, reader: R) -> Result<Self, BuildError<R::Error>> {
        if size > MAX_TREE_SIZE {
            return Err(BuildError::TooLarge(size));
        }
        Ok(Self { size, reader, tiles: HashMap::new() })
    }

    /// See [`inclusion_proof`].
    ///
    /// # Errors
    /// [`BuildError`] when there is no such leaf, or hashes are missing or unreadable.
    pub fn inclusion(&mut self, index: u64) -> Result<Vec<Digest>, BuildError<R::Error>> {
        let size = self.size;
        if index >= size {
            return Err(BuildError::NoSuchEntry { index, size });
        }
        let mut path = Vec::with_capacity(40);
        let (mut low, mut high) = (0, size);
        while high - low > 1 {
            let middle = low + split(high - low);
            if index < middle {
                path.push(self.range(middle, high)?);
                high = middle;
            } else {
                path.push(self.range(low, middle)?);
                low = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// See [`consistency_proof`].
    ///
    /// # Errors
    /// [`BuildError`] when `old` is larger than the tree, or hashes are missing or unreadable.
    pub fn consistency(&mut self, old: u64) -> Result<Vec<Digest>, BuildError<R::Error>> {
        let size = self.size;
        if old > size {
            return Err(BuildError::Backwards { old, new: size });
        }
        if old == 0 || old == size {
            return Ok(Vec::new());
        }
        let mut path = Vec::with_capacity(40);
        let (mut low, mut high) = (0, size);
        while high != old {
            let middle = low + split(high - low);
            if old <= middle {
                path.push(self.range(middle, high)?);
                high = middle;
            } else {
                path.push(self.range(low, middle)?);
                low = middle;
            }
        }
        // The verifier knows the old root; it needs this subtree only where that is not the whole old tree.
        if low > 0 {
            path.push(self.range(low, high)?);
        }
        path.reverse();
        Ok(path)
    }

    /// The root of the leaves `low..high`, a node of the tree: perfect, or reaching to the right edge.
    fn range(&mut self, low: u64, high: u64) -> Result<Digest, BuildError<R::Error>> {
        let mut peaks = Vec::new();
        let mut start = low;
        while start < high {
            let height = (high - start).ilog2();
            peaks.push(self.node(height, start >> height)?);
            start += 1 << height;
        }
        let root = peaks.into_iter().rev().reduce(|right, left| node_hash(&left, &right));
        Ok(root.expect("a node of the tree has at least one leaf"))
    }

    /// The root of a perfect subtree of 2^height leaves.
    fn node(&mut self, height: u32, index: u64) -> Result<Digest, BuildError<R::Error>> {
        let (tile_level, inside) = (height / 8, height % 8);
        let tile = index >> (8 - inside);
        let within = index & ((1 << (8 - inside)) - 1);
        if !self.tiles.contains_key(&(tile_level, tile)) {
            let nodes = self.load(tile_level, tile)?;
            if self.tiles.len() >= MAX_REMEMBERED_TILES {
                self.tiles.clear();
            }
            self.tiles.insert((tile_level, tile), nodes);
        }
        let within = usize::try_from(within).expect("below 256");
        Ok(self.tiles[&(tile_level, tile)][inside as usize][within])
    }

    /// All complete inner nodes of a tile, lowest first.
    fn load(&self, tile_level: u32, tile: u64) -> Result<Vec<Vec<Digest>>, BuildError<R::Error>> {
        let level = u8::try_from(tile_level).expect("a height below 64 divided by 8");
        let available = (self.size >> (8 * tile_level)) - tile * 256;
        let width = usize::try_from(available.min(256)).expect("at most 256");
        let mut hashes = Vec::with_capacity(width);
        read_exactly(&self.reader, level, tile * 256, width, &mut hashes)?;
        let mut nodes = Vec::with_capacity(8);
        while nodes.len() < 7 {
            let (pairs, _) = hashes.as_chunks::<2>();
            let above = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
            nodes.push(std::mem::replace(&mut hashes, above));
        }
        nodes.push(hashes);
        Ok(nodes)
    }
}

/// Reads into an empty buffer and insists on the count.
pub(crate) fn read_exactly<R: HashReader>(
    reader: &R,
    tile_level: u8,
    start: u64,
    expected: usize,
    out: &mut Vec<Digest>,
) -> Result<(), BuildError<R::Error>> {
    out.clear();
    reader.read(tile_level, start, expected, out).map_err(BuildError::Reader)?;
    let found = out.len();
    if found == expected { Ok(()) } else { Err(BuildError::Missing { tile_level, start, expected, found }) }
}

/// The largest power of two smaller than `count` (RFC 6962 section 2.1); `count` is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// 16 KiB each; a builder stays below 4 MiB.
const MAX_REMEMBERED_TILES: usize = 256;
