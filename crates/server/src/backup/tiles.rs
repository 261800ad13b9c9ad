//! Entries and tree hashes as tiles, while a log goes by from its beginning to a size that is known.

use std::io;

use chancery_merkle::{Tile, TileKind, push_entry};
use chancery_types::Digest;

/// Gathers tiles and hands over each as soon as it is full.
pub(super) struct Tiles<'a> {
    entries: Vec<u8>,
    count: u64,
    /// What is gathered of each level's last tile, and how many hashes the level has.
    levels: Vec<(Vec<u8>, u64)>,
    keep: &'a mut dyn FnMut(&str, &[u8]) -> io::Result<()>,
    /// What went wrong where it could not be said.
    failed: Option<io::Error>,
}

impl<'a> Tiles<'a> {
    pub(super) fn new(keep: &'a mut dyn FnMut(&str, &[u8]) -> io::Result<()>) -> Self {
        Self { entries: Vec::new(), count: 0, levels: Vec::new(), keep, failed: None }
    }

    /// The next entry.
    pub(super) fn entry(&mut self, bytes: &[u8]) -> io::Result<()> {
        push_entry(&mut self.entries, bytes).map_err(io::Error::other)?;
        self.count += 1;
        if self.count.is_multiple_of(FULL) {
            let entries = std::mem::take(&mut self.entries);
            self.put(TileKind::Entries, self.count, &entries)?;
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// The next hash of a level.
    pub(super) fn hash(&mut self, level: u8, hash: &Digest) {
        let at = usize::from(level);
        if self.levels.len() <= at {
            self.levels.resize(at + 1, (Vec::new(), 0));
        }
        let (bytes, count) = &mut self.levels[at];
        bytes.extend_from_slice(hash.as_bytes());
        *count += 1;
        if count.is_multiple_of(FULL) {
            let (bytes, count) = (std::mem::take(bytes), *count);
            if let Err(error) = self.put(TileKind::Hashes(level), count, &bytes) {
                self.failed = Some(error);
            }
        }
    }

    /// The tiles that are not full.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let entries = std::mem::take(&mut self.entries);
        if !entries.is_empty() {
            self.put(TileKind::Entries, self.count, &entries)?;
        }
        for (level, (bytes, count)) in std::mem::take(&mut self.levels).into_iter().enumerate() {
            let level = u8::try_from(level).map_err(io::Error::other)?;
            if !bytes.is_empty() {
                self.put(TileKind::Hashes(level), count, &bytes)?;
            }
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Hands over the tile that ends with this many entries or hashes.
    fn put(&mut self, kind: TileKind, count: u64, bytes: &[u8]) -> io::Result<()> {
        let index = (count - 1) / FULL;
        let width = u16::try_from(count - index * FULL).map_err(io::Error::other)?;
        let tile = Tile::new(kind, index, width).ok_or_else(|| io::Error::other("the log is too long"))?;
        (self.keep)(&tile.to_string(), bytes)
    }
}

const FULL: u64 = Tile::FULL_WIDTH as u64;
