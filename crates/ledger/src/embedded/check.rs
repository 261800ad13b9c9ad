//! Checking a whole ledger directory while nobody has it open.
//!
//! Everything that follows from the journal is computed again and compared: each tree hash, each location, each
//! key of the read model. What is checked is not changed; a scratch index beside the real one is removed at the
//! end.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chancery_entry::{Body, Entry, KeyPurpose};
use chancery_merkle::{Frontier, NoteVerifier, RecordedKey, leaf_hash};
use chancery_types::Digest;

use super::checkpoint::Published;
use super::derived::{Additions, Derived, Difference};
use super::disk::{Disk, DiskFile, How, RealDisk};
use super::index::{Index, IndexPosition};
use super::journal::{JournalError, JournalPosition, StoredBatch, scan, segments};
use super::memtable::{Memtable, Reached};
use super::open::{exists, io_error, lock};
use super::recover::{Paths, index_error};
use super::{EmbeddedLedger, OpenError, signatures};
use crate::model::apply::apply;
use crate::model::batch_view::BatchView;
use crate::model::{ModelError, View};

/// What a ledger holds that is in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Entries in the journal, all of which could be read.
    pub entries: u64,
    /// The root over them.
    pub root: Digest,
    /// Batches in which they were written.
    pub batches: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of a torn last batch that the next start will cut off: not an error.
    pub torn_bytes: u64,
    /// Entries up to which index and derived files were compared; what is behind is replayed at the next start.
    pub indexed: u64,
    /// Entries in the checkpoint that was published last, which the journal keeps.
    pub published: Option<u64>,
    /// Whether that checkpoint's signature was checked with the key that the first entry names.
    pub published_is_signed: bool,
    /// Issuance entries.
    pub issuances: u64,
    /// Those of them whose signature is kept.
    pub signatures: u64,
}

/// Why a ledger is not in order.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It could not be read, or the journal or the checkpoint is not in order.
    #[error(transparent)]
    Ledger(#[from] OpenError),
    /// A derived file does not follow from the journal.
    #[error("{file} is wrong for entry {index}; run `chancery ledger rebuild`")]
    Derived {
        /// Which file.
        file: String,
        /// The first entry for which it is wrong.
        index: u64,
    },
    /// The index does not follow from the journal.
    #[error("the index is wrong in table {table:?}, key {key}: {what}; run `chancery ledger rebuild`")]
    Index {
        /// The letter of the table.
        table: char,
        /// The rest of the key, hexadecimal.
        key: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The index says that it has reached a place where the journal has no end of a batch.
    #[error(
        "the index claims {known} entries up to a place where the journal has another number; compare the \
         journal with a published checkpoint or a mirror, and, if it is the right one, run `chancery ledger \
         rebuild`"
    )]
    IndexPosition {
        /// Entries that it claims.
        known: u64,
    },
    /// The checkpoint is not signed by the key that the log's first entry names.
    #[error("the checkpoint file is not signed by the key that the log's first entry names; restore it")]
    Unsigned,
    /// The signature log is damaged.
    #[error(
        "signatures.log is wrong at byte {offset}: {what}; the certificates concerned can be signed again"
    )]
    Signatures {
        /// Where.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl From<JournalError> for CheckError {
    fn from(error: JournalError) -> Self {
        Self::Ledger(error.into())
    }
}

impl From<ModelError> for CheckError {
    fn from(error: ModelError) -> Self {
        Self::Ledger(error.into())
    }
}

impl EmbeddedLedger {
    /// Checks everything in a ledger's directory, which no process may have open, without changing it.
    ///
    /// Needs as much room as the index has, for a scratch copy. `progress` hears of entries done and, where it
    /// is known, entries in all.
    ///
    /// # Errors
    /// [`CheckError`] names the first thing that is wrong, and what to do.
    pub fn check_everything(
        directory: &Path,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<CheckReport, CheckError> {
        exists(directory)?;
        let _lock = lock(directory)?;
        let paths = Paths::of(directory);
        let published = Published::read(directory)?;
        let mut check = Check::open(directory, &paths, published)?;
        let total = check.published.as_ref().map(|published| published.head.size);
        let tail = scan(&paths.journal, JournalPosition::START, &mut |batch| {
            check.batch(&batch)?;
            progress(check.frontier.size(), total);
            Ok::<_, CheckError>(())
        })?;
        check.finish(&paths, tail.torn_until.map_or(0, |until| until - tail.position.offset))
    }
}

struct Check {
    report: CheckReport,
    published: Option<Published>,
    /// The keys of the log, if it begins as logs of this authority do.
    log_keys: Vec<NoteVerifier>,
    /// The root at the published size.
    published_root: Option<Digest>,
    derived: Option<Derived>,
    index: Option<(Index, IndexPosition)>,
    frontier: Frontier,
    scratch: Memtable,
    scratch_file: Scratch,
    issuances: Bits,
}

impl Check {
    fn open(directory: &Path, paths: &Paths, published: Option<Published>) -> Result<Self, CheckError> {
        let segments = segments(&paths.journal)?;
        let log_id = segments[0].log_id;
        let untouched: Arc<dyn Disk> = Arc::new(Untouched);
        let index = match paths.index.exists() {
            false => None,
            true => {
                let index = Index::open_to_read(&untouched, &paths.index, SCRATCH_CACHE);
                let index = index.map_err(index_error(&paths.index))?;
                index.position()?.map(|position| (index, position))
            }
        };
        let derived = match &index {
            // Without an index they are made anew, whatever they hold.
            None => None,
            Some((_, position)) if position.log_id != log_id => {
                return Err(OpenError::ForeignIndex { path: paths.index.display().to_string() }.into());
            }
            Some(_) => {
                let derived = Derived::open(&untouched, &paths.derived);
                Some(derived.map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => CheckError::Derived { file: error.to_string(), index: 0 },
                    _ => io_error(&paths.derived)(error).into(),
                })?)
            }
        };
        let scratch_file = Scratch::new(directory);
        let real: Arc<dyn Disk> = Arc::new(RealDisk);
        let scratch = Index::open(&real, &scratch_file.0, SCRATCH_CACHE);
        let scratch = scratch.map_err(index_error(&scratch_file.0))?;
        let frontier = Frontier::new();
        let reached = Reached { journal: JournalPosition::START, root: frontier.root() };
        let mut check = Self {
            report: CheckReport {
                entries: 0,
                root: frontier.root(),
                batches: 0,
                segments: segments.len() as u64,
                torn_bytes: 0,
                indexed: 0,
                published: None,
                published_is_signed: false,
                issuances: 0,
                signatures: 0,
            },
            published,
            log_keys: Vec::new(),
            published_root: None,
            derived,
            index,
            frontier,
            scratch: Memtable::new(scratch, reached)?,
            scratch_file,
            issuances: Bits::default(),
        };
        check.reached(JournalPosition::START)?;
        Ok(check)
    }

    fn batch(&mut self, batch: &StoredBatch) -> Result<(), CheckError> {
        let mut view = BatchView::new(&self.scratch);
        for ((_, bytes), index) in batch.entries().zip(batch.first_index..) {
            let failed = |error: String| OpenError::Entry { index, error };
            let entry = Entry::decode(bytes).map_err(|error| failed(error.to_string()))?;
            view.add(apply(index, &entry, &view).map_err(|error| failed(error.to_string()))?);
            if matches!(entry.body, Body::Issuance(_)) {
                self.report.issuances += 1;
                self.issuances.set(index);
            }
            note_log_key(&mut self.log_keys, &entry.body);
        }
        let changes = view.into_changes();
        self.note_published_root(batch);
        let additions = Additions::of(batch, &mut self.frontier);
        if let (Some(derived), Some((_, position))) = (&self.derived, &self.index) {
            let difference = derived.difference(&additions, position.journal.size);
            if let Some(Difference { file, index }) = difference.map_err(io_error(Path::new("derived")))? {
                return Err(CheckError::Derived { file, index });
            }
        }
        self.scratch.absorb(changes, Reached { journal: batch.end(), root: self.frontier.root() });
        if self.scratch.waiting() >= SCRATCH_CHANGES {
            self.flush()?;
        }
        self.report.batches += 1;
        self.report.entries = self.frontier.size();
        self.reached(batch.end())
    }

    /// The published size may lie inside a batch.
    fn note_published_root(&mut self, batch: &StoredBatch) {
        let Some(published) = &self.published else { return };
        let (wanted, start) = (published.head.size, self.frontier.size());
        if wanted > start && wanted <= batch.end().size {
            let mut frontier = self.frontier.clone();
            for ((_, bytes), _) in batch.entries().zip(start..wanted) {
                frontier.append(leaf_hash(bytes), &mut |_, _, _| {});
            }
            self.published_root = Some(frontier.root());
        }
    }

    /// Compares the index where it has got to.
    fn reached(&mut self, position: JournalPosition) -> Result<(), CheckError> {
        let Some((index, known)) = &self.index else { return Ok(()) };
        let at_boundary = known.journal.size == position.size;
        if !at_boundary || self.report.indexed == position.size && position.size > 0 {
            return Ok(());
        }
        let same_place = known.journal.segment > position.segment || known.journal == position;
        if !same_place || known.root != self.frontier.root() {
            return Err(CheckError::IndexPosition { known: known.journal.size });
        }
        compare(index, &self.scratch)?;
        self.report.indexed = position.size;
        Ok(())
    }

    fn flush(&self) -> Result<(), CheckError> {
        let (layer, reached) = self.scratch.take();
        let position =
            IndexPosition { log_id: [0; 16], journal: reached.journal, root: reached.root, signatures: 0 };
        let committed = self.scratch.index().commit(&layer, &position);
        committed.map_err(index_error(&self.scratch_file.0))?;
        self.scratch.committed();
        Ok(())
    }

    fn finish(mut self, paths: &Paths, torn_bytes: u64) -> Result<CheckReport, CheckError> {
        self.report.torn_bytes = torn_bytes;
        self.report.root = self.frontier.root();
        let found = self.report.entries;
        if let Some((_, known)) = &self.index {
            if known.journal.size > found {
                return Err(OpenError::BehindIndex { found, known: known.journal.size }.into());
            }
            if known.journal.size != self.report.indexed {
                return Err(CheckError::IndexPosition { known: known.journal.size });
            }
        }
        if let Some(published) = &self.published {
            let (size, root) = (published.head.size, published.head.root);
            if size > found {
                return Err(OpenError::BehindCheckpoint { found, published: size }.into());
            }
            let computed = self.published_root.unwrap_or_else(|| Frontier::new().root());
            if computed != root {
                return Err(OpenError::NotPublished { size, found: computed, published: root }.into());
            }
            self.report.published_is_signed = published.is_signed_by(&self.log_keys)?;
            if !self.report.published_is_signed && !self.log_keys.is_empty() {
                return Err(CheckError::Unsigned);
            }
            self.report.published = Some(size);
        }
        self.signatures(paths)?;
        Ok(self.report.clone())
    }

    /// Every record is whole and of an issuance, and found by its entry as far as the index has noted it.
    fn signatures(&mut self, paths: &Paths) -> Result<(), CheckError> {
        if !paths.signatures.exists() {
            return Ok(());
        }
        let untouched: Arc<dyn Disk> = Arc::new(Untouched);
        let failed = || io_error(&paths.signatures);
        let file = DiskFile::open(&untouched, &paths.signatures, How::Existing).map_err(failed())?;
        let length = file.length().map_err(failed())?;
        let noted = self.index.as_ref().map_or(0, |(_, position)| position.signatures);
        let (mut signed, mut wrong) = (Bits::default(), None);
        let whole = signatures::read(&file, 0, length, &mut |record| {
            if !self.issuances.get(record.index) {
                wrong.get_or_insert((record.offset, "it belongs to no issuance"));
            }
            signed.set(record.index);
            if let Some(derived) = self.derived.as_ref().filter(|_| record.offset < noted) {
                let known = derived.signature_location(record.index)?;
                if known.is_none_or(|offset| offset < record.offset) {
                    wrong.get_or_insert((record.offset, "derived/signatures does not know it"));
                }
            }
            Ok(())
        });
        let whole = whole.map_err(failed())?;
        if let Some((offset, what)) = wrong {
            return Err(CheckError::Signatures { offset, what });
        }
        // Behind what is durable a power cut may have left gaps; the next start fills them.
        if let Some((offset, _)) = whole.gaps.first().filter(|(offset, _)| *offset < noted) {
            let what = "no whole record begins here, but one follows";
            return Err(CheckError::Signatures { offset: *offset, what });
        }
        self.report.signatures = signed.count();
        Ok(())
    }
}

/// Both views hold the same keys and values.
fn compare(index: &dyn View, expected: &dyn View) -> Result<(), CheckError> {
    let mut from = Vec::new();
    loop {
        let (found, wanted) = (index.scan(&from, &END, CHUNK)?, expected.scan(&from, &END, CHUNK)?);
        let differs = found.iter().zip(&wanted).find(|(found, wanted)| found != wanted);
        let wrong = |key: &[u8], what| {
            let (table, key) =
                key.split_first().map_or(('?', &[][..]), |(table, key)| (char::from(*table), key));
            let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
            Err(CheckError::Index { table, key, what })
        };
        if let Some(((found, _), (wanted, _))) = differs {
            return match found.cmp(wanted) {
                std::cmp::Ordering::Less => wrong(found, "it should not be there"),
                std::cmp::Ordering::Greater => wrong(wanted, "it is missing"),
                std::cmp::Ordering::Equal => wrong(found, "its value is wrong"),
            };
        }
        if let Some((key, _)) = found.get(wanted.len()) {
            return wrong(key, "it should not be there");
        }
        if let Some((key, _)) = wanted.get(found.len()) {
            return wrong(key, "it is missing");
        }
        let Some((last, _)) = found.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
    }
}

/// Behind every key: tables are letters.
const END: [u8; 1] = [u8::MAX];
const CHUNK: usize = 4096;
const SCRATCH_CACHE: usize = 64 << 20;
const SCRATCH_CHANGES: usize = 400_000;

/// Nothing is written through it: the index believes that its file has failed, and works in memory.
#[derive(Debug)]
struct Untouched;

impl Disk for Untouched {
    fn open(&self, path: &Path, _: How) -> io::Result<File> {
        File::open(path)
    }

    fn allocate(&self, _: &Path, _: &File, _: u64, _: u64, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write(&self, _: &Path, _: &File, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_length(&self, _: &Path, _: &File, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self, _: &Path, _: &File) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// The scratch index, removed when the check ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(directory: &Path) -> Self {
        let scratch = Self(directory.join("check.redb"));
        scratch.remove();
        scratch
    }

    fn remove(&self) {
        // What an earlier, interrupted check left is overwritten by nothing: it has to go.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A set of entry indexes.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, index: u64) {
        let Ok(word) = usize::try_from(index / 64) else { return };
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % 64);
    }

    fn get(&self, index: u64) -> bool {
        let word = usize::try_from(index / 64).ok().and_then(|word| self.0.get(word));
        word.is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// The keys that may have signed the published checkpoint.
fn note_log_key(keys: &mut Vec<NoteVerifier>, body: &Body) {
    match body {
        Body::Genesis(genesis) => keys.extend(genesis.verifier_key.parse::<NoteVerifier>()),
        Body::KeyChanged(change) if change.purpose == KeyPurpose::Log => {
            let Some(origin) = keys.first().map(NoteVerifier::name) else { return };
            let recorded = RecordedKey::parse(origin, &change.content.0);
            keys.extend(recorded.map(|recorded| recorded.key));
        }
        _ => {}
    }
}
