//! From the JSON form of an export to the directory that other tools for transparency logs understand.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use chancery_api::ExportHeader;
use chancery_merkle::{EntryTooLong, Frontier, Tile, TileKind, push_entry};
use chancery_types::Digest;
use data_encoding::BASE64;

use super::directory::{CHECKPOINT, HEADER, LISTS, SIGNATURES};
use super::source::{ExportSource, ExportedEntry, SourceError};

/// Why an export cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Writing failed.
    #[error("the directory cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The export cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The export is damaged: what is unpacked has to be whole.
    #[error("entry {index} of the export is damaged: {detail}; audit the export before unpacking it")]
    Damaged {
        /// Where.
        index: u64,
        /// How.
        detail: String,
    },
    /// The export is a selection, which has no tree.
    #[error("a selection cannot be unpacked; export the whole log")]
    Selection,
    /// An entry that no bundle can hold.
    #[error(transparent)]
    TooLong(#[from] EntryTooLong),
}

/// Writes an export into a new directory. Nothing is judged on the way: audit the result.
///
/// # Errors
/// [`UnpackError`]; the directory is then incomplete and should be removed.
pub fn unpack(source: &mut dyn ExportSource, root: &Path) -> Result<(), UnpackError> {
    if source.header().selection.is_some() {
        return Err(UnpackError::Selection);
    }
    fs::create_dir(root)?;
    let mut unpacking = Unpacking {
        root,
        frontier: Frontier::new(),
        levels: BTreeMap::new(),
        bundle: Vec::new(),
        signatures: BufWriter::new(File::create_new(root.join(SIGNATURES))?),
    };
    while let Some(raw) = source.next_entry()? {
        let index = unpacking.frontier.size();
        let entry = ExportedEntry::parse(&raw).map_err(|detail| UnpackError::Damaged { index, detail })?;
        if entry.index != index {
            return Err(UnpackError::Damaged {
                index,
                detail: format!("index {} stands there", entry.index),
            });
        }
        unpacking.take(&entry)?;
    }
    unpacking.finish(source.header())
}

struct Unpacking<'a> {
    root: &'a Path,
    frontier: Frontier,
    /// Per tile level, the hashes of the tile that is being filled.
    levels: BTreeMap<u8, Vec<Digest>>,
    bundle: Vec<u8>,
    signatures: BufWriter<File>,
}

impl Unpacking<'_> {
    fn take(&mut self, entry: &ExportedEntry) -> Result<(), UnpackError> {
        push_entry(&mut self.bundle, &entry.leaf)?;
        if let Some(signature) = &entry.signature {
            let length = u16::try_from(signature.len()).map_err(|_| EntryTooLong(signature.len()))?;
            self.signatures.write_all(&entry.index.to_be_bytes())?;
            self.signatures.write_all(&length.to_be_bytes())?;
            self.signatures.write_all(signature)?;
        }
        let mut emitted = Vec::new();
        self.frontier.append(entry.leaf_hash, &mut |level, index, hash| emitted.push((level, index, hash)));
        for (level, index, hash) in emitted {
            let hashes = self.levels.entry(level).or_default();
            hashes.push(hash);
            if hashes.len() == usize::from(Tile::FULL_WIDTH) {
                let full = std::mem::take(hashes);
                write_hashes(self.root, level, index / 256, &full)?;
            }
        }
        if entry.index % 256 == 255 {
            let bundle = std::mem::take(&mut self.bundle);
            write_tile(self.root, TileKind::Entries, entry.index / 256, Tile::FULL_WIDTH, &bundle)?;
        }
        Ok(())
    }

    fn finish(mut self, header: &ExportHeader) -> Result<(), UnpackError> {
        self.signatures.flush()?;
        let size = self.frontier.size();
        for (level, hashes) in &self.levels {
            let index = size >> (8 * (u32::from(*level) + 1));
            write_hashes(self.root, *level, index, hashes)?;
        }
        let width = u16::try_from(size % 256).expect("below 256");
        if width > 0 {
            write_tile(self.root, TileKind::Entries, size / 256, width, &self.bundle)?;
        }
        if !header.crls.is_empty() {
            fs::create_dir(self.root.join(LISTS))?;
        }
        for (position, list) in header.crls.iter().enumerate() {
            let der = BASE64.decode(list.as_bytes());
            let der = der.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            fs::write(self.root.join(LISTS).join(format!("{position:05}.der")), der)?;
        }
        let rest = ExportHeader { checkpoint: String::new(), crls: Vec::new(), ..header.clone() };
        let rest = serde_json::to_vec(&rest).expect("a header has a JSON form");
        fs::write(self.root.join(HEADER), rest)?;
        // Last, so that a directory with a checkpoint is whole.
        fs::write(self.root.join(CHECKPOINT), &header.checkpoint)?;
        Ok(())
    }
}

fn write_hashes(root: &Path, level: u8, index: u64, hashes: &[Digest]) -> io::Result<()> {
    let Ok(width @ 1..) = u16::try_from(hashes.len()) else { return Ok(()) };
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
    write_tile(root, TileKind::Hashes(level), index, width, &bytes)
}

fn write_tile(root: &Path, kind: TileKind, index: u64, width: u16, bytes: &[u8]) -> io::Result<()> {
    let tile = Tile::new(kind, index, width).expect("widths of 1 to 256 at levels below 8");
    let path = root.join(tile.to_string());
    fs::create_dir_all(path.parent().expect("a tile's path has folders"))?;
    fs::write(path, bytes)
}
