//! An export as a directory: the static layout of C2SP tlog-tiles, which other tools can audit too, and what it
//! does not cover.
//!
//! ```text
//! checkpoint                     the signed checkpoint
//! tile/<L>/<N>[.p/<W>]           hashes
//! tile/entries/<N>[.p/<W>]       entries
//! chancery.json                  the header of the JSON form; its checkpoint is empty, its lists are in crl/
//! signatures                     u64 index | u16 length | signature, big-endian, by rising index
//! crl/<any name>.der             the issuers' full revocation lists
//! ```

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use chancery_api::{EXPORT_VERSION, ExportHeader};
use chancery_merkle::{
    Checkpoint, Frontier, MAX_ENTRY_BYTES, SignedNote, Tile, TileKind, read_bundle, tiles_of,
};
use chancery_types::Digest;
use data_encoding::BASE64;

use super::finding::{Check, Finding};
use super::source::{ExportSource, MAX_HEADER_BYTES, RawEntry, SourceError};

/// An export in the static layout, read bundle by bundle.
pub struct Directory {
    root: PathBuf,
    header: ExportHeader,
    size: u64,
    next_bundle: u64,
    /// How many entries the bundles read so far should hold.
    reached: u64,
    entries: IntoIter<RawEntry>,
    signatures: Signatures,
    bytes: u64,
}

impl Directory {
    /// Reads the header, the checkpoint and the revocation lists of a directory.
    ///
    /// # Errors
    /// [`SourceError`] when one of the first two is missing or unreadable.
    pub fn open(root: &Path) -> Result<Self, SourceError> {
        let header = read_whole(root, HEADER)?;
        let unreadable = |error: serde_json::Error| named(HEADER, error);
        let mut header: ExportHeader = serde_json::from_slice(&header).map_err(unreadable)?;
        if header.chancery_export != EXPORT_VERSION {
            return Err(SourceError::Version { found: header.chancery_export });
        }
        let checkpoint = read_whole(root, CHECKPOINT)?;
        header.checkpoint = String::from_utf8(checkpoint).map_err(|error| named(CHECKPOINT, error))?;
        // How far to read; whether it is signed is checked by the auditor.
        let stated = header.checkpoint.parse::<SignedNote>().ok();
        let stated = stated.and_then(|note| Checkpoint::parse(note.text()).ok());
        let size = stated.map_or(header.size, |checkpoint| checkpoint.size());
        header.crls.extend(read_lists(root)?);
        Ok(Self {
            root: root.to_owned(),
            header,
            size,
            next_bundle: 0,
            reached: 0,
            entries: Vec::new().into_iter(),
            signatures: Signatures::open(root),
            bytes: 0,
        })
    }

    /// The entries of the next bundle; nothing past the last.
    fn read_next_bundle(&mut self) -> Option<Vec<RawEntry>> {
        let start = self.next_bundle.checked_mul(256).filter(|start| *start < self.size)?;
        let width = u16::try_from((self.size - start).min(256)).expect("at most 256");
        let (index, kind) = (self.next_bundle, TileKind::Entries);
        self.next_bundle += 1;
        self.reached = start + u64::from(width);
        let (tile, bytes) = match self.read_tile(kind, index, width) {
            Ok(read) => read,
            Err(detail) => {
                // A size that nobody has signed for may be anything: where the files end, so does the export.
                self.size = start;
                return Some(vec![RawEntry::Damaged {
                    detail: format!("{detail}; what follows was not read"),
                }]);
            }
        };
        self.bytes += bytes.len() as u64;
        let leaves = match read_bundle(&bytes, tile.width()) {
            Ok(leaves) => leaves,
            Err(error) => {
                let damaged = RawEntry::Damaged { detail: format!("{tile}: {error}") };
                return Some(vec![damaged; usize::from(width)]);
            }
        };
        let hashes = self.read_hashes(0, index, width).unwrap_or_default();
        let place = |(at, leaf): (u64, &&[u8])| {
            let hash = usize::try_from(at - start).ok().and_then(|place| hashes.get(place).copied());
            RawEntry::Leaf { index: at, leaf: leaf.to_vec(), hash, signature: self.signatures.take(at) }
        };
        Some((start..).zip(&leaves[..usize::from(width)]).map(place).collect())
    }

    /// A tile of at least this width: the partial one, or the full one that has replaced it.
    fn read_tile(&self, kind: TileKind, index: u64, width: u16) -> Result<(Tile, Vec<u8>), String> {
        let tile = |width| Tile::new(kind, index, width).expect("widths of 1 to 256 at levels below 8");
        let (exact, full) = (tile(width), tile(Tile::FULL_WIDTH));
        let mut result =
            read_limited(&self.root.join(exact.to_string()), MAX_TILE_BYTES).map(|bytes| (exact, bytes));
        if result.is_err() && exact != full {
            let instead = read_limited(&self.root.join(full.to_string()), MAX_TILE_BYTES);
            result = instead.map(|bytes| (full, bytes)).or(result);
        }
        result.map_err(|error| format!("{exact}: {error}"))
    }

    fn read_hashes(&self, level: u8, index: u64, width: u16) -> Result<Vec<Digest>, String> {
        let (tile, bytes) = self.read_tile(TileKind::Hashes(level), index, width)?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() != usize::from(tile.width()) || !rest.is_empty() {
            return Err(format!("{tile}: {} bytes where {} belong", bytes.len(), 32 * tile.width()));
        }
        Ok(hashes.iter().take(usize::from(width)).copied().map(Digest::from_array).collect())
    }

    /// Every hash above the leaves must be that of the full tile below it. The leaves' own are checked with them.
    fn check_hashes(&self, report: &mut impl FnMut(Finding)) {
        let mut damaged = |detail: String| report(Finding::new(Check::ExportDamaged, detail));
        for level in 0..8_u8 {
            for tile in tiles_of(TileKind::Hashes(level), self.reached) {
                let hashes = match self.read_hashes(level, tile.index(), tile.width()) {
                    Ok(hashes) => hashes,
                    Err(detail) => {
                        damaged(detail);
                        continue;
                    }
                };
                let Some(below) = level.checked_sub(1) else { continue };
                for (index, hash) in (tile.index() * 256..).zip(hashes) {
                    // An unreadable tile below was reported at its own level.
                    let Ok(leaves) = self.read_hashes(below, index, Tile::FULL_WIDTH) else { continue };
                    if root_of(&leaves) != hash {
                        let place = index % 256;
                        damaged(format!("{tile}: hash {place} is not that of tile {below}/{index}"));
                    }
                }
            }
        }
    }
}

impl ExportSource for Directory {
    fn header(&self) -> &ExportHeader {
        &self.header
    }

    fn next_entry(&mut self) -> Result<Option<RawEntry>, SourceError> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Ok(Some(entry));
            }
            match self.read_next_bundle() {
                Some(entries) => self.entries = entries.into_iter(),
                None => return Ok(None),
            }
        }
    }

    fn findings(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.check_hashes(&mut |finding| findings.push(finding));
        let signatures = self.signatures.problem.take().or_else(|| self.signatures.rest());
        findings.extend(signatures.map(|detail| Finding::new(Check::ExportDamaged, detail)));
        findings
    }

    fn bytes_read(&self) -> u64 {
        self.bytes
    }
}

/// The file of signatures, read along with the entries.
struct Signatures {
    reader: Option<BufReader<File>>,
    next: Option<(u64, Vec<u8>)>,
    last: Option<u64>,
    problem: Option<String>,
}

impl Signatures {
    fn open(root: &Path) -> Self {
        let (reader, problem) = match File::open(root.join(SIGNATURES)) {
            Ok(file) => (Some(BufReader::new(file)), None),
            Err(error) => (None, Some(format!("{SIGNATURES}: {error}"))),
        };
        Self { reader, next: None, last: None, problem }
    }

    /// The signature of this entry, if there is one. Indexes are asked for in their order.
    fn take(&mut self, index: u64) -> Option<Vec<u8>> {
        if self.next.is_none() {
            self.next = self.read_next();
        }
        let (_, signature) = self.next.take_if(|(found, _)| *found == index)?;
        Some(signature)
    }

    /// What is left when all entries are through.
    fn rest(&mut self) -> Option<String> {
        let next = self.next.take().or_else(|| self.read_next());
        next.map(|(index, _)| {
            format!("{SIGNATURES}: one for entry {index}, which is not there or was passed")
        })
        .or_else(|| self.problem.take())
    }

    fn read_next(&mut self) -> Option<(u64, Vec<u8>)> {
        let record = self.reader.as_mut().map(read_signature)?;
        let problem = match record {
            Ok(None) => {
                self.reader = None;
                return None;
            }
            Ok(Some((index, signature))) if self.last < Some(index) => {
                self.last = Some(index);
                return Some((index, signature));
            }
            Ok(Some((index, _))) => format!("{SIGNATURES}: entry {index} after entry {:?}", self.last),
            Err(error) => format!("{SIGNATURES}: {error} after entry {:?}", self.last),
        };
        self.reader = None;
        self.problem = Some(problem);
        None
    }
}

fn read_signature(reader: &mut BufReader<File>) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut head = [0_u8; 10];
    if reader.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut head[1..])?;
    let [a, b, c, d, e, f, g, h, high, low] = head;
    let mut signature = vec![0; usize::from(u16::from_be_bytes([high, low]))];
    reader.read_exact(&mut signature)?;
    Ok(Some((u64::from_be_bytes([a, b, c, d, e, f, g, h]), signature)))
}

fn root_of(leaves: &[Digest]) -> Digest {
    let mut frontier = Frontier::new();
    leaves.iter().for_each(|leaf| frontier.append(*leaf, &mut |_, _, _| {}));
    frontier.root()
}

/// The revocation lists, in base64 as the JSON form has them.
fn read_lists(root: &Path) -> Result<Vec<String>, SourceError> {
    let mut paths = match fs::read_dir(root.join(LISTS)) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "der"));
    paths.sort();
    let encode = |path: &PathBuf| Ok(BASE64.encode(&read_limited(path, MAX_HEADER_BYTES)?));
    paths.iter().map(encode).collect()
}

fn read_whole(root: &Path, name: &str) -> Result<Vec<u8>, SourceError> {
    read_limited(&root.join(name), MAX_HEADER_BYTES).map_err(|error| named(name, error))
}

fn read_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        let error = format!("more than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
    }
    Ok(bytes)
}

fn named(path: &str, error: impl ToString) -> SourceError {
    SourceError::File { path: path.to_owned(), error: error.to_string() }
}

pub(crate) const HEADER: &str = "chancery.json";
pub(crate) const CHECKPOINT: &str = "checkpoint";
pub(crate) const SIGNATURES: &str = "signatures";
pub(crate) const LISTS: &str = "crl";
/// A bundle of 256 entries of the largest size; tiles of hashes are smaller.
const MAX_TILE_BYTES: usize = 256 * (MAX_ENTRY_BYTES + 2);
