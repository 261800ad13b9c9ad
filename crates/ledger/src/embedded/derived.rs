//! Files that follow from the journal: tree hashes by level, entry locations, signature locations.
//!
//! Each is an array of fixed-width records, so that a record is found by its index and a file is repaired by
//! cutting it to a length. They are synced only before the index commits past them, and rebuilt otherwise.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chancery_merkle::HashReader;
use chancery_types::Digest;

/// Tile levels that a tree can have: 256^8 leaves are more than 2^63.
const LEVELS: usize = 8;
const HASH: u64 = 32;
const LOCATION: u64 = 8;

/// An array of records on disk.
#[derive(Debug)]
struct Array {
    file: File,
    path: PathBuf,
}

impl Array {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        Ok(Self { file, path })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
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
pub(crate) struct NewHashes {
    start: u64,
    bytes: Vec<u8>,
}

/// The hashes that a batch completed, by level.
#[derive(Debug, Default)]
pub(crate) struct HashBatch([NewHashes; LEVELS]);

impl HashBatch {
    /// Takes one hash as a frontier emits it.
    pub(crate) fn push(&mut self, level: u8, index: u64, hash: Digest) {
        let level = &mut self.0[usize::from(level)];
        if level.bytes.is_empty() {
            level.start = index;
        }
        level.bytes.extend_from_slice(hash.as_bytes());
    }
}

impl Derived {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let hashes = (0..LEVELS)
            .map(|level| Array::open(directory.join(format!("hashes.{level}"))))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            hashes,
            entries: Array::open(directory.join("entries"))?,
            signatures: Array::open(directory.join("signatures"))?,
        })
    }

    /// Cuts everything to the log's first `size` entries. `false` when a file is shorter than that.
    pub(crate) fn truncate(&self, size: u64) -> io::Result<bool> {
        let mut complete = true;
        for (level, array) in self.hashes.iter().enumerate() {
            let length = HASH * (size >> (8 * level));
            complete &= array.length()? >= length;
            array.file.set_len(length)?;
        }
        complete &= self.entries.length()? >= LOCATION * size;
        self.entries.file.set_len(LOCATION * size)?;
        // Sparse where an entry has no signature, and shorter where the last ones have none.
        if self.signatures.length()? > LOCATION * size {
            self.signatures.file.set_len(LOCATION * size)?;
        }
        Ok(complete)
    }

    pub(crate) fn append(&self, first_index: u64, locations: &[u64], hashes: &HashBatch) -> io::Result<()> {
        let bytes: Vec<u8> = locations.iter().flat_map(|location| location.to_be_bytes()).collect();
        self.entries.file.write_all_at(&bytes, LOCATION * first_index)?;
        for (array, new) in self.hashes.iter().zip(&hashes.0) {
            if !new.bytes.is_empty() {
                array.file.write_all_at(&new.bytes, HASH * new.start)?;
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        for array in self.hashes.iter().chain([&self.entries, &self.signatures]) {
            rustix::fs::fdatasync(&array.file)
                .map_err(|error| io::Error::other(format!("{}: {error}", array.path.display())))?;
        }
        Ok(())
    }

    /// Segment and offset of an entry.
    pub(crate) fn entry_location(&self, index: u64) -> io::Result<(u32, u64)> {
        let mut bytes = [0; 8];
        self.entries.file.read_exact_at(&mut bytes, LOCATION * index)?;
        Ok(unpack(u64::from_be_bytes(bytes)))
    }

    /// Offset of an entry's signature in the signature log.
    pub(crate) fn signature_location(&self, index: u64) -> io::Result<Option<u64>> {
        let mut bytes = [0; 8];
        match self.signatures.file.read_exact_at(&mut bytes, LOCATION * index) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        Ok(u64::from_be_bytes(bytes).checked_sub(1))
    }

    pub(crate) fn keep_signature(&self, index: u64, offset: u64) -> io::Result<()> {
        self.signatures.file.write_all_at(&(offset + 1).to_be_bytes(), LOCATION * index)
    }
}

/// A segment number and an offset in one word: 24 and 40 bits.
pub(crate) fn pack(segment: u32, offset: u64) -> u64 {
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
        array.file.read_exact_at(&mut bytes, HASH * start)?;
        out.extend(bytes.chunks_exact(32).map(|chunk| {
            let mut hash = [0; 32];
            hash.copy_from_slice(chunk);
            Digest::from_array(hash)
        }));
        Ok(())
    }
}
