//! Bringing a ledger from what is on the disk to where it can go on.
//!
//! The journal is the truth. The index says how far it has come, and, as the checkpoint file does, what the
//! journal must at least hold; what the journal has beyond that is replayed. Where index or derived files do
//! not fit the journal they are made anew, but only after the journal was read whole and found to keep every
//! promise: until then they are the evidence of what is missing.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chancery_entry::Entry;
use chancery_merkle::{Frontier, LogSigners, leaf_hash};
use chancery_types::Digest;

use super::checkpoint::{self, Published};
use super::derived::{Additions, Derived};
use super::disk::Disk;
use super::index::{Index, IndexError, IndexPosition};
use super::journal::{Journal, JournalPosition, JournalReader, LogId, StoredBatch, Tail, scan, segments};
use super::memtable::{Memtable, Reached};
use super::open::io_error;
use super::signatures::SignatureLog;
use super::{OpenError, Options};
use crate::Head;
use crate::model::apply::apply;
use crate::model::batch_view::BatchView;
use crate::model::{Changes, ModelError};

/// Changes that a replay gathers before it commits them.
const REPLAY_CHANGES: usize = 1_000_000;
/// Changes that it gathers at most where there is no room to commit them.
const MOST_CHANGES: usize = 4 * REPLAY_CHANGES;

/// Where the replay begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Where the index has got to.
    FromIndex,
    /// At the first entry, with a new index and new derived files.
    FromNothing,
}

/// Everything that an open ledger needs.
pub(crate) struct Recovered {
    pub(crate) memtable: Memtable,
    pub(crate) derived: Derived,
    pub(crate) signatures: SignatureLog,
    pub(crate) journal: Journal,
    pub(crate) frontier: Frontier,
    pub(crate) head: Head,
    /// Entries that the index has.
    pub(crate) indexed: u64,
    /// Entries in the checkpoint file.
    pub(crate) published: u64,
}

pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    signers: &LogSigners,
    options: &Options,
    start: Start,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Recovered, OpenError> {
    let published = Published::read(directory)?;
    if let Some(published) = &published {
        published.resume(signers)?;
    }
    let promised = published.as_ref().map(|published| published.head);
    let mut recovery = Recovery::open(disk, directory, options, start, promised)?;
    let journal = recovery.replay(promised, progress)?;
    let head = Head { size: recovery.frontier.size(), root: recovery.frontier.root() };
    recovery.memtable.absorb(Changes::default(), Reached { journal: journal.position(), root: head.root });
    if let Some(published) = &published {
        checkpoint::check(&published.head, &head, &recovery.derived)?;
    }
    let Recovery { memtable, derived, frontier, start, paths, .. } = recovery;
    let has_places = derived.has_signatures().map_err(io_error(&paths.derived))?;
    let noted = start.as_ref().filter(|_| has_places).map_or(0, |start| start.signatures);
    let signatures = SignatureLog::open(disk, &paths.signatures, noted, &mut |record| {
        // Behind the head there is nothing to sign; a number there is damage.
        if record.index < head.size { derived.keep_signature(record.index, record.offset) } else { Ok(()) }
    });
    let signatures = signatures.map_err(io_error(&paths.signatures))?;
    // Files that were made now keep their names through a power cut.
    for made_in in [directory, &paths.derived] {
        disk.sync_directory(made_in).map_err(io_error(made_in))?;
    }
    Ok(Recovered {
        signatures,
        memtable,
        derived,
        journal,
        frontier,
        head,
        indexed: start.map_or(0, |start| start.journal.size),
        published: promised.map_or(0, |head| head.size),
    })
}

/// The files of a ledger.
pub(crate) struct Paths {
    pub(crate) journal: PathBuf,
    pub(crate) derived: PathBuf,
    pub(crate) index: PathBuf,
    pub(crate) signatures: PathBuf,
}

impl Paths {
    pub(crate) fn of(directory: &Path) -> Self {
        Self {
            journal: directory.join("journal"),
            derived: directory.join("derived"),
            index: directory.join("index.redb"),
            signatures: directory.join("signatures.log"),
        }
    }
}

struct Recovery {
    disk: Arc<dyn Disk>,
    paths: Paths,
    segment_bytes: u64,
    log_id: LogId,
    memtable: Memtable,
    derived: Derived,
    frontier: Frontier,
    /// What index and derived files had reached; nothing when they begin anew.
    start: Option<IndexPosition>,
}

impl Recovery {
    fn open(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        options: &Options,
        start: Start,
        promised: Option<Head>,
    ) -> Result<Self, OpenError> {
        let paths = Paths::of(directory);
        let log_id = segments(&paths.journal)?[0].log_id;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&paths.derived);
        made.map_err(io_error(&paths.derived))?;
        let derived = Derived::open(disk, &paths.derived).map_err(io_error(&paths.derived))?;
        let (index, known) = open_index(disk, &paths, options)?;
        let foreign = known.is_some_and(|known| known.log_id != log_id);
        if foreign && start == Start::FromIndex {
            return Err(OpenError::ForeignIndex { path: paths.index.display().to_string() });
        }
        let known = known.filter(|_| !foreign);
        let anchored = match (start, &known) {
            (Start::FromIndex, Some(known)) => anchor(known, &paths, &derived),
            _ => None,
        };
        let (index, frontier, reached) = match anchored {
            Some(frontier) => (index, frontier, known),
            None if start == Start::FromIndex && known.is_none() => (index, Frontier::new(), None),
            None => {
                tracing::warn!("making index and derived files anew from the journal");
                let known = known.map(|known| Head { size: known.journal.size, root: known.root });
                survey(&paths, promised, known, start)?;
                drop(index);
                disk.remove(&paths.index).map_err(io_error(&paths.index))?;
                let index = Index::open(disk, &paths.index, options.cache_bytes);
                (index.map_err(index_error(&paths.index))?, Frontier::new(), None)
            }
        };
        if reached.is_none() {
            derived.cut(0).map_err(io_error(&paths.derived))?;
        }
        let journal = reached.map_or(JournalPosition::START, |reached| reached.journal);
        let memtable = Memtable::new(index, Reached { journal, root: frontier.root() })?;
        let (disk, segment_bytes) = (Arc::clone(disk), options.segment_bytes);
        Ok(Self { disk, paths, segment_bytes, log_id, memtable, derived, frontier, start: reached })
    }

    /// Brings everything that the index has not seen into the layers, the hashes and the frontier.
    fn replay(
        &mut self,
        promised: Option<Head>,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Journal, OpenError> {
        let promised = promised.map(|head| head.size);
        let disk = Arc::clone(&self.disk);
        let directory = self.paths.journal.clone();
        let start = self.start.map_or(JournalPosition::START, |start| start.journal);
        let admit = |tail: &Tail| match promised.filter(|published| *published > tail.position.size) {
            Some(published) => Err(OpenError::BehindCheckpoint { found: tail.position.size, published }),
            None => Ok(()),
        };
        Journal::open(&directory, start, self.segment_bytes, &disk, &admit, &mut |batch| {
            self.replay_batch(&batch)?;
            progress(self.frontier.size(), promised);
            Ok(())
        })
    }

    fn replay_batch(&mut self, batch: &StoredBatch) -> Result<(), OpenError> {
        let mut view = BatchView::new(&self.memtable);
        for ((_, bytes), index) in batch.entries().zip(batch.first_index..) {
            let unreadable = |error: String| OpenError::Entry { index, error };
            let entry = Entry::decode(bytes).map_err(|error| unreadable(error.to_string()))?;
            let changes = apply(index, &entry, &view).map_err(|error| match error {
                ModelError::Malformed { .. } => unreadable(error.to_string()),
                ModelError::Engine(_) => error.into(),
            })?;
            view.add(changes);
        }
        let changes = view.into_changes();
        let additions = Additions::of(batch, &mut self.frontier);
        self.derived.append(&additions).map_err(io_error(&self.paths.derived))?;
        self.memtable.absorb(changes, Reached { journal: batch.end(), root: self.frontier.root() });
        if self.memtable.waiting() >= REPLAY_CHANGES { self.commit() } else { Ok(()) }
    }

    /// Commits what was replayed so far, so that memory stays bounded and a crash need not begin again.
    fn commit(&self) -> Result<(), OpenError> {
        let (layer, reached) = self.memtable.take();
        self.derived.sync().map_err(io_error(&self.paths.derived))?;
        let position = IndexPosition {
            log_id: self.log_id,
            journal: reached.journal,
            root: reached.root,
            // Signatures are noted after the replay, from where they had been noted before it.
            signatures: self.start.as_ref().map_or(0, |start| start.signatures),
        };
        match self.memtable.index().commit(&layer, &position) {
            Ok(()) => self.memtable.committed(),
            Err(IndexError::Full(error)) if layer.len() < MOST_CHANGES => {
                tracing::warn!(%error, "the replayed entries stay in memory for now");
            }
            Err(error) => return Err(index_error(&self.paths.index)(error)),
        }
        Ok(())
    }
}

/// The index and its position. A damaged one is replaced by an empty one: it follows from the journal.
fn open_index(
    disk: &Arc<dyn Disk>,
    paths: &Paths,
    options: &Options,
) -> Result<(Index, Option<IndexPosition>), OpenError> {
    let failed = index_error(&paths.index);
    let opened = Index::open(disk, &paths.index, options.cache_bytes);
    let error = match opened {
        Ok(index) => match index.position() {
            Ok(position) => return Ok((index, position)),
            Err(error) => error.to_string(),
        },
        Err(IndexError::Damaged(error)) => error,
        Err(error) => return Err(failed(error)),
    };
    tracing::warn!(%error, "the index cannot be used: making a new one");
    disk.remove(&paths.index).map_err(io_error(&paths.index))?;
    Ok((Index::open(disk, &paths.index, options.cache_bytes).map_err(failed)?, None))
}

/// The frontier at the index's position, if derived files and journal fit that position.
fn anchor(known: &IndexPosition, paths: &Paths, derived: &Derived) -> Option<Frontier> {
    let size = known.journal.size;
    let problem = |what: &str| {
        tracing::warn!(size, "{what}");
        None
    };
    if !derived.covers(size).ok()? {
        return problem("tree hashes or locations are missing");
    }
    let frontier = Frontier::load(size, derived).ok()?;
    if frontier.root() != known.root {
        return problem("the stored tree hashes give another root than the index knows");
    }
    if size == 0 {
        return Some(frontier);
    }
    let last = || {
        let (segment, offset) = derived.entry_location(size - 1)?;
        let entry = JournalReader::new(&paths.journal).entry(segment, offset)?;
        let end = offset + 2 + entry.len() as u64;
        // The position is right behind the entry, or at the beginning of a later segment.
        let follows = segment < known.journal.segment
            || (segment == known.journal.segment && end == known.journal.offset);
        std::io::Result::Ok(follows && leaf_hash(&entry) == derived.leaf(size - 1)?)
    };
    match last() {
        Ok(true) => Some(frontier),
        Ok(false) => problem("the last entry that the index knows is not where it should be in the journal"),
        Err(error) => {
            tracing::warn!(size, %error, "the last entry that the index knows cannot be read");
            None
        }
    }
}

/// Reads the journal whole and makes sure that it keeps what was promised of it, before anything is thrown away.
fn survey(
    paths: &Paths,
    published: Option<Head>,
    indexed: Option<Head>,
    start: Start,
) -> Result<(), OpenError> {
    let mut frontier = Frontier::new();
    let wanted: Vec<u64> = [published, indexed].iter().flatten().map(|head| head.size).collect();
    let mut roots: Vec<(u64, Digest)> = vec![(0, frontier.root())];
    scan(&paths.journal, JournalPosition::START, &mut |batch: StoredBatch| {
        for ((_, bytes), index) in batch.entries().zip(batch.first_index..) {
            Entry::decode(bytes).map_err(|error| OpenError::Entry { index, error: error.to_string() })?;
            frontier.append(leaf_hash(bytes), &mut |_, _, _| {});
            if wanted.contains(&frontier.size()) {
                roots.push((frontier.size(), frontier.root()));
            }
        }
        Ok::<_, OpenError>(())
    })?;
    let found = frontier.size();
    let root_at = |size| roots.iter().find(|(at, _)| *at == size).map(|(_, root)| *root);
    if let Some(Head { size, root }) = published {
        match root_at(size) {
            None => return Err(OpenError::BehindCheckpoint { found, published: size }),
            Some(found) if found != root => {
                return Err(OpenError::NotPublished { size, found, published: root });
            }
            Some(_) => {}
        }
    }
    if let Some(Head { size, root }) = indexed {
        match root_at(size) {
            None => return Err(OpenError::BehindIndex { found, known: size }),
            Some(found) if found != root && start == Start::FromIndex => {
                return Err(OpenError::NotIndexed { size, found, known: root });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

pub(crate) fn index_error(path: &Path) -> impl Fn(IndexError) -> OpenError {
    let path = path.display().to_string();
    move |error| {
        let kind = match error {
            IndexError::Full(_) => std::io::ErrorKind::StorageFull,
            IndexError::Broken(_) | IndexError::Damaged(_) => std::io::ErrorKind::Other,
        };
        OpenError::Io { path: path.clone(), error: std::io::Error::new(kind, error.to_string()) }
    }
}
