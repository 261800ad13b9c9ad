//! Where the hashes of a stored tree come from.

use std::convert::Infallible;

use chancery_types::Digest;

/// The largest tree: what a reader that keeps sizes as signed 64-bit integers still understands.
pub const MAX_TREE_SIZE: u64 = i64::MAX as u64;

/// Gives back the hashes that [`crate::Frontier::append`] emitted.
///
/// Of a tree of `size` leaves exactly the hashes with `index < size >> (8 * tile_level)` exist at a tile
/// level: leaf hashes at level 0, hashes of complete subtrees of 256 leaves at level 1, of 65,536 at level 2.
/// Level 8 and above never hold anything, because a tree has fewer than 2^63 leaves.
pub trait HashReader {
    /// What can go wrong when reading.
    type Error;

    /// Appends `count` consecutive hashes of a tile level, from index `start`, to `out`.
    ///
    /// A call never crosses a tile: `start / 256 == (start + count - 1) / 256`, and `count` is at least 1.
    ///
    /// # Errors
    /// When a hash is missing or cannot be read. Fewer or more hashes than asked for are noticed by the
    /// caller, wrong ones lead to proofs that do not verify.
    fn read(
        &self,
        tile_level: u8,
        start: u64,
        count: usize,
        out: &mut Vec<Digest>,
    ) -> Result<(), Self::Error>;
}

impl<R: HashReader + ?Sized> HashReader for &R {
    type Error = R::Error;

    fn read(
        &self,
        tile_level: u8,
        start: u64,
        count: usize,
        out: &mut Vec<Digest>,
    ) -> Result<(), Self::Error> {
        (**self).read(tile_level, start, count, out)
    }
}

/// The hashes of a small tree in memory (33 bytes per leaf), for tools and tests.
#[derive(Debug, Clone, Default)]
pub struct MemoryHashes {
    levels: Vec<Vec<Digest>>,
}

impl MemoryHashes {
    /// Keeps a hash that a [`crate::Frontier`] emitted.
    ///
    /// # Panics
    /// When hashes of one level do not come in their order, which a frontier never does.
    pub fn push(&mut self, tile_level: u8, index: u64, hash: Digest) {
        let level = usize::from(tile_level);
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        assert_eq!(self.levels[level].len() as u64, index, "a level's hashes are pushed in order");
        self.levels[level].push(hash);
    }
}

impl HashReader for MemoryHashes {
    type Error = Infallible;

    fn read(
        &self,
        tile_level: u8,
        start: u64,
        count: usize,
        out: &mut Vec<Digest>,
    ) -> Result<(), Infallible> {
        let level = self.levels.get(usize::from(tile_level)).map_or(&[] as &[Digest], Vec::as_slice);
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let end = start.saturating_add(count).min(level.len());
        out.extend_from_slice(level.get(start..end).unwrap_or_default());
        Ok(())
    }
}
