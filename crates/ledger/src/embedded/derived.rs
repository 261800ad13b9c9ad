//! Files that follow from the journal: tree hashes by level, entry locations, signature locations.
//!
//! Each is an array of fixed-width records, so that a record is found by its index and a file is repaired by
//! cutting it to a length. They are synced only before the index commits past them, and rebuilt otherwise.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chancery_merkle::{Frontier, HashReader, leaf_hash};
use chancery_types::Digest;

use super::disk::{Disk, DiskFile, How};
use super::journal::StoredBatch;

/// Tile levels that a tree can have: 256^8 leaves are more than 2^63.
const LEVELS: usize = 8;
const HASH: u64 = 32;
const LOCATION: u64 = 8;

/// An array of records on disk.
#[derive(Debug)]
struct Array {
    file: DiskFile,
    /// Bytes for which there is room.
    reserved: AtomicU64,
}

impl Array {
    fn open(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        let file = DiskFile::open(disk, path, How::Create)?;
        let reserved = AtomicU64::new(file.length()?);
        Ok(Self { file, reserved })
    }

    /// The first record from `start` on that is not the expected one, of those below `limit`.
    fn differs(&self, width: u64, start: u64, expected: &[u8], limit: u64) -> io::Result<Option<u64>> {
        let width_in_memory = usize::try_from(width).expect("a few bytes");
        let records = (expected.len() / width_in_memory) as u64;
        let count =
            usize::try_from(limit.saturating_sub(start).min(records)).expect("at most as many as given");
        let expected = &expected[..count * width_in_memory];
        let mut found = vec![0; expected.len()];
        let filled = self.file.read(&mut found, width * start)?;
        let pairs = found[..filled].chunks(width_in_memory).zip(expected.chunks(width_in_memory));
        let same = pairs.take_while(|(found, expected)| found == expected).count();
        Ok((same < count).then(|| start + same as u64))
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        if self.file.length()? != length {
            self.file.set_length(length)?;
        }
        self.reserved.store(length, Ordering::Relaxed);
        Ok(())
    }

    /// Makes room up to here, and a step further.
    fn reserve(&self, end: u64) -> io::Result<()> {
        let reserved = self.reserved.load(Ordering::Relaxed);
        if end > reserved {
            // A quarter of a megabyte, or a sixteenth of the file: rarely, and without taking much.
            let ahead = end + (end / 16).clamp(4 << 10, 256 << 10);
            self.file.reserve(reserved, ahead)?;
            self.reserved.store(ahead, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A derived file that does not follow from the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) file: String,
    /// The first entry that it is wrong for.
    pub(crate) index: u64,
}

/// All derived files of a ledger.
#[derive(Debug)]
pub(crate) struct Derived {
    hashes: Vec<Array>,
    entries: Array,
    signatures: Array,
}

/// Hashes of one level that a batch completed, in order.
#[derive(Debug, Default)]
struct NewHashes {
    start: u64,
    bytes: Vec<u8>,
}

/// What a batch adds to the derived files.
#[derive(Debug)]
pub(crate) struct Additions {
    first_index: u64,
    locations: Vec<u8>,
    hashes: [NewHashes; LEVELS],
}

impl Additions {
    pub(crate) fn new(first_index: u64) -> Self {
        Self { first_index, locations: Vec::new(), hashes: Default::default() }
    }

    /// Takes an entry that stands here in the journal, and has this leaf hash.
    pub(crate) fn add(&mut self, frontier: &mut Frontier, leaf: Digest, segment: u32, offset: u64) {
        self.locations.extend_from_slice(&pack(segment, offset).to_be_bytes());
        frontier.append(leaf, &mut |level, index, hash| {
            let level = &mut self.hashes[usize::from(level)];
            if level.bytes.is_empty() {
                level.start = index;
            }
            level.bytes.extend_from_slice(hash.as_bytes());
        });
    }

    /// What a whole stored batch adds.
    pub(crate) fn of(batch: &StoredBatch, frontier: &mut Frontier) -> Self {
        let mut additions = Self::new(batch.first_index);
        for (offset, entry) in batch.entries() {
            additions.add(frontier, leaf_hash(entry), batch.segment, offset);
        }
        additions
    }
}

impl Derived {
    pub(crate) fn open(disk: &Arc<dyn Disk>, directory: &Path) -> io::Result<Self> {
        let hashes = (0..LEVELS)
            .map(|level| Array::open(disk, &directory.join(format!("hashes.{level}"))))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            hashes,
            entries: Array::open(disk, &directory.join("entries"))?,
            signatures: Array::open(disk, &directory.join("signatures"))?,
        })
    }

    /// Whether everything of the log's first `size` entries can be there.
    pub(crate) fn covers(&self, size: u64) -> io::Result<bool> {
        let mut covers = self.entries.file.length()? >= LOCATION * size;
        for (level, array) in self.hashes.iter().enumerate() {
            covers &= array.file.length()? >= HASH * (size >> (8 * level));
        }
        Ok(covers)
    }

    /// Cuts everything to the log's first `size` entries.
    pub(crate) fn cut(&self, size: u64) -> io::Result<()> {
        for (level, array) in self.hashes.iter().enumerate() {
            array.cut(HASH * (size >> (8 * level)))?;
        }
        self.entries.cut(LOCATION * size)?;
        // Sparse where an entry has no signature, and shorter where the last ones have none.
        if self.signatures.file.length()? > LOCATION * size {
            self.signatures.cut(LOCATION * size)?;
        }
        Ok(())
    }

    /// Makes room for the next entries, so that a full disk shows before they are in the journal.
    pub(crate) fn reserve(&self, size: u64) -> io::Result<()> {
        self.entries.reserve(LOCATION * size)?;
        for (level, array) in self.hashes.iter().enumerate() {
            array.reserve(HASH * (size >> (8 * level)))?;
        }
        Ok(())
    }

    pub(crate) fn append(&self, additions: &Additions) -> io::Result<()> {
        self.entries.file.write(&additions.locations, LOCATION * additions.first_index)?;
        for (array, new) in self.hashes.iter().zip(&additions.hashes) {
            if !new.bytes.is_empty() {
                array.file.write(&new.bytes, HASH * new.start)?;
            }
        }
        Ok(())
    }

    /// Where the files differ from what follows from the journal, looking at the log's first `size` entries only.
    pub(crate) fn difference(&self, expected: &Additions, size: u64) -> io::Result<Option<Difference>> {
        let wrong = |file: String, place: u64, per_record: u64| {
            Ok(Some(Difference { file, index: place * per_record }))
        };
        let first = expected.first_index;
        if let Some(at) = self.entries.differs(LOCATION, first, &expected.locations, size)? {
            return wrong("derived/entries".to_owned(), at, 1);
        }
        for (level, (array, new)) in self.hashes.iter().zip(&expected.hashes).enumerate() {
            let complete = size >> (8 * level);
            if let Some(at) = array.differs(HASH, new.start, &new.bytes, complete)? {
                return wrong(format!("derived/hashes.{level}"), at, 1 << (8 * level));
            }
        }
        Ok(None)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.hashes.iter().chain([&self.entries, &self.signatures]).try_for_each(|array| array.file.sync())
    }

    /// Segment and offset of an entry.
    pub(crate) fn entry_location(&self, index: u64) -> io::Result<(u32, u64)> {
        let mut bytes = [0; 8];
        self.entries.file.read_exact(&mut bytes, LOCATION * index)?;
        Ok(unpack(u64::from_be_bytes(bytes)))
    }

    /// The leaf hash of an entry.
    pub(crate) fn leaf(&self, index: u64) -> io::Result<Digest> {
        let mut hash = [0; 32];
        self.hashes[0].file.read_exact(&mut hash, HASH * index)?;
        Ok(Digest::from_array(hash))
    }

    /// Offset of an entry's signature in the signature log.
    pub(crate) fn signature_location(&self, index: u64) -> io::Result<Option<u64>> {
        let mut bytes = [0; 8];
        match self.signatures.file.read_exact(&mut bytes, LOCATION * index) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        Ok(u64::from_be_bytes(bytes).checked_sub(1))
    }

    /// Whether any signature's place is known: if none is, the file may be a new one.
    pub(crate) fn has_signatures(&self) -> io::Result<bool> {
        Ok(self.signatures.file.length()? > 0)
    }

    /// Notes where an entry's signature is; `index` lies in the log.
    pub(crate) fn keep_signature(&self, index: u64, offset: u64) -> io::Result<()> {
        self.signatures.file.write(&(offset + 1).to_be_bytes(), LOCATION * index)
    }
}

/// A segment number and an offset in one word: 24 and 40 bits.
fn pack(segment: u32, offset: u64) -> u64 {
    u64::from(segment) << 40 | offset
}

fn unpack(location: u64) -> (u32, u64) {
    let segment = u32::try_from(location >> 40).expect("24 bits are left");
    (segment, location & ((1 << 40) - 1))
}

impl HashReader for Derived {
    type Error = io::Error;

    fn read(&self, tile_level: u8, start: u64, count: usize, out: &mut Vec<Digest>) -> io::Result<()> {
        let array = self.hashes.get(usize::from(tile_level)).ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0_u8; count * 32];
        array.file.read_exact(&mut bytes, HASH * start)?;
        let (hashes, _) = bytes.as_chunks::<32>();
        out.extend(hashes.iter().copied().map(Digest::from_array));
        Ok(())
    }
}
