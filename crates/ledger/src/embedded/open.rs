//! Opening a ledger: lock, recover, check against what was published.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use chancery_entry::Entry;
use chancery_merkle::{Checkpoint, Frontier, NoteSigner, SignedNote, leaf_hash, root_at};
use chancery_types::{Digest, Random, RandomError};
use tokio::sync::mpsc;

use super::derived::{Derived, HashBatch, pack};
use super::index::{Index, IndexPosition};
use super::journal::{Disk, Journal, JournalError, JournalPosition, JournalReader, RealDisk, StoredBatch};
use super::memtable::{BatchView, Memtable};
use super::sequencer::Sequencer;
use super::signatures::SignatureLog;
use super::{EmbeddedLedger, Options, Shared, indexer};
use crate::Head;
use crate::model::ModelError;
use crate::model::apply::apply;

/// Commits that may wait in the queue before callers wait for a place.
const QUEUE: usize = 4096;
/// Changes that a replay gathers before it commits them.
const REPLAY_CHANGES: usize = 200_000;

/// Why a ledger was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "{path} is in use by another process{holder}; one directory serves one process: stop that one first"
    )]
    Locked {
        /// The lock file.
        path: String,
        /// Which process, where it is known.
        holder: String,
    },
    /// The directory has no ledger, or already has one where a new one was asked for.
    #[error("{path}: {what}")]
    Directory {
        /// The directory.
        path: String,
        /// What is wrong, and what to do.
        what: &'static str,
    },
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: String,
        /// Its words.
        error: io::Error,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] ModelError),
    /// An entry in the journal is not an entry.
    #[error(
        "entry {index} of the journal cannot be read: {error}; this program may be older than the journal"
    )]
    Entry {
        /// Its index.
        index: u64,
        /// Why.
        error: String,
    },
    /// The journal is older than what was published: it was restored from a backup, or lost its end.
    #[error(
        "the journal has {found} entries, but a checkpoint of {published} entries was published from here; \
         signing from this copy would fork the log. Restore a journal that has them, or, if they are lost for \
         good, start a new log and tell every relying party"
    )]
    BehindCheckpoint {
        /// Entries in the journal.
        found: u64,
        /// Entries in the published checkpoint.
        published: u64,
    },
    /// The journal holds other entries than what was published.
    #[error(
        "the first {size} entries hash to {found}, but {published} was published from here; the journal was \
         altered. Do not start from this copy: restore the journal from a backup or a mirror"
    )]
    NotPublished {
        /// Entries in the published checkpoint.
        size: u64,
        /// Root of the journal at that size.
        found: Digest,
        /// Root that was published.
        published: Digest,
    },
    /// The checkpoint file is not one of this log.
    #[error(
        "{path} is not a checkpoint of {origin}: {why}; restore it, or move it away if it is known to be damaged"
    )]
    Checkpoint {
        /// The file.
        path: String,
        /// The log's origin.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
    /// No randomness for the id of a new log.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl EmbeddedLedger {
    /// Makes an empty ledger in a directory that has none, and opens it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn create(
        directory: &Path,
        signer: Box<dyn NoteSigner + Send + Sync>,
        options: Options,
        random: &dyn Random,
    ) -> Result<Self, OpenError> {
        let mut log_id = [0; 16];
        random.fill(&mut log_id)?;
        let journal = directory.join("journal");
        for path in [directory, &journal, &directory.join("derived")] {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))?;
        }
        let lock = lock(directory)?;
        if fs::read_dir(&journal).map_err(io_error(&journal))?.next().is_some() {
            let what = "there is a ledger here already; open it, or choose another directory";
            return Err(OpenError::Directory { path: directory.display().to_string(), what });
        }
        drop(Journal::create(&journal, log_id, options.segment_bytes, Arc::new(RealDisk))?);
        open(directory, lock, signer, options, Arc::new(RealDisk), &mut |_, _| {})
    }

    /// Opens an existing ledger; replays what the index has not seen.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn open(
        directory: &Path,
        signer: Box<dyn NoteSigner + Send + Sync>,
        options: Options,
    ) -> Result<Self, OpenError> {
        Self::open_on(directory, signer, options, Arc::new(RealDisk))
    }

    pub(crate) fn open_on(
        directory: &Path,
        signer: Box<dyn NoteSigner + Send + Sync>,
        options: Options,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, OpenError> {
        exists(directory)?;
        let lock = lock(directory)?;
        open(directory, lock, signer, options, disk, &mut |_, _| {})
    }

    /// Throws the index and the derived files away and makes them anew from the journal.
    ///
    /// `progress` hears of entries done and, where it is known, entries in all.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn rebuild(
        directory: &Path,
        signer: Box<dyn NoteSigner + Send + Sync>,
        options: Options,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Self, OpenError> {
        exists(directory)?;
        let lock = lock(directory)?;
        let index = directory.join("index.redb");
        for path in [&index, &directory.join("derived")] {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(path)(error)),
                _ => {}
            }
        }
        open(directory, lock, signer, options, Arc::new(RealDisk), progress)
    }
}

fn exists(directory: &Path) -> Result<(), OpenError> {
    if directory.join("journal").is_dir() {
        return Ok(());
    }
    let what = "there is no ledger here; run `chancery init`, or name the directory that has one";
    Err(OpenError::Directory { path: directory.display().to_string(), what })
}

fn open(
    directory: &Path,
    lock: File,
    signer: Box<dyn NoteSigner + Send + Sync>,
    options: Options,
    disk: Arc<dyn Disk>,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<EmbeddedLedger, OpenError> {
    let (index, derived) = open_derived(directory, &options)?;
    let reached = index.position()?;
    let start = reached.map(|reached| reached.journal);
    let published = read_checkpoint(directory, signer.as_ref())?;
    let total = published.as_ref().map(Checkpoint::size);
    let mut frontier =
        Frontier::load(start.map_or(0, |start| start.size), &derived).map_err(|error| OpenError::Io {
            path: directory.join("derived").display().to_string(),
            error: io::Error::other(error.to_string()),
        })?;
    let memtable = Memtable::new(index, start.unwrap_or(JournalPosition::START));
    let mut failure = None;
    let journal_directory = directory.join("journal");
    let journal = Journal::open(&journal_directory, start, options.segment_bytes, disk, &mut |batch| {
        if let Err(error) = replay(&batch, &memtable, &derived, &mut frontier) {
            failure = Some(error);
            return Err(JournalError::Segment { path: String::new(), what: "replay stopped" });
        }
        progress(frontier.size(), total);
        Ok(())
    });
    let journal = match (journal, failure) {
        (_, Some(error)) => return Err(error),
        (journal, None) => journal?,
    };
    memtable.absorb(super::memtable::Layer::new(), journal.position());
    let head = Head { size: frontier.size(), root: frontier.root() };
    if let Some(published) = published {
        check_published(&published, head, &derived)?;
    }
    let noted = reached.map_or(0, |reached| reached.signatures);
    let path = directory.join("signatures.log");
    let signatures =
        SignatureLog::open(&path, noted, &mut |index, offset| derived.keep_signature(index, offset))
            .map_err(io_error(&path))?;
    let shared = Arc::new(Shared {
        directory: directory.to_owned(),
        options,
        memtable,
        derived,
        reader: JournalReader::new(&journal_directory),
        signatures,
        head: ArcSwap::from_pointee(head),
        signer,
        checkpoint: Mutex::new(None),
        halted: Mutex::new(None),
        syncs: std::sync::atomic::AtomicU64::new(0),
        wake: indexer::Wake::default(),
    });
    start_threads(shared, journal, frontier, lock).map_err(io_error(directory))
}

/// The index and the derived files, cut to the index's position; both from nothing when hashes are missing.
fn open_derived(directory: &Path, options: &Options) -> Result<(Index, Derived), OpenError> {
    let derived_directory = directory.join("derived");
    let failed = |error| io_error(&derived_directory)(error);
    DirBuilder::new().recursive(true).mode(0o700).create(&derived_directory).map_err(failed)?;
    let derived = Derived::open(&derived_directory).map_err(failed)?;
    let path = directory.join("index.redb");
    let index = Index::open(&path, options.cache_bytes)?;
    let size = index.position()?.map_or(0, |reached| reached.journal.size);
    if derived.truncate(size).map_err(failed)? {
        return Ok((index, derived));
    }
    tracing::warn!(size, "tree hashes are missing below the index's position: making both anew");
    drop(index);
    fs::remove_file(&path).map_err(io_error(&path))?;
    derived.truncate(0).map_err(failed)?;
    Ok((Index::open(&path, options.cache_bytes)?, derived))
}

fn start_threads(
    shared: Arc<Shared>,
    journal: Journal,
    frontier: Frontier,
    lock: File,
) -> io::Result<EmbeddedLedger> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let indexer = indexer::spawn(Arc::clone(&shared))?;
    let sequencer = Sequencer { shared: Arc::clone(&shared), journal, frontier };
    let sequencer =
        std::thread::Builder::new().name("ledger-sequencer".into()).spawn(move || sequencer.run(receiver))?;
    Ok(EmbeddedLedger {
        shared,
        requests: Mutex::new(Some(sender)),
        threads: Mutex::new(vec![sequencer, indexer]),
        _lock: lock,
    })
}

/// Brings a batch that the index has not seen into the layers, the hashes and the frontier.
fn replay(
    batch: &StoredBatch,
    memtable: &Memtable,
    derived: &Derived,
    frontier: &mut Frontier,
) -> Result<(), OpenError> {
    let mut view = BatchView::new(memtable);
    let mut hashes = HashBatch::default();
    let mut locations = Vec::with_capacity(batch.entries.len());
    let mut end = 0;
    for ((offset, bytes), index) in batch.entries.iter().zip(batch.first_index..) {
        let entry =
            Entry::decode(bytes).map_err(|error| OpenError::Entry { index, error: error.to_string() })?;
        let writes = apply(index, &entry, &view)?;
        view.add(writes);
        frontier.append(leaf_hash(bytes), &mut |level, index, hash| hashes.push(level, index, hash));
        locations.push(pack(batch.segment, *offset));
        end = offset + 2 + bytes.len() as u64;
    }
    derived
        .append(batch.first_index, &locations, &hashes)
        .map_err(|error| OpenError::Io { path: "derived".to_owned(), error })?;
    let journal = JournalPosition { size: frontier.size(), segment: batch.segment, offset: end };
    memtable.absorb(view.into_changes(), journal);
    if memtable.waiting() >= REPLAY_CHANGES {
        let (layer, journal) = memtable.take();
        let sync = derived.sync().map_err(|error| OpenError::Io { path: "derived".to_owned(), error });
        sync?;
        // Signatures are noted again from the beginning: their log is read once more after the replay.
        memtable.index().commit(&layer, IndexPosition { journal, signatures: 0 })?;
        memtable.committed();
    }
    Ok(())
}

/// What was published from this directory must still be true.
fn check_published(published: &Checkpoint, head: Head, derived: &Derived) -> Result<(), OpenError> {
    if published.size() > head.size {
        return Err(OpenError::BehindCheckpoint { found: head.size, published: published.size() });
    }
    let found = root_at(published.size(), derived).map_err(|error| OpenError::Io {
        path: "derived".to_owned(),
        error: io::Error::other(error.to_string()),
    })?;
    if found != published.root() {
        let size = published.size();
        return Err(OpenError::NotPublished { size, found, published: published.root() });
    }
    Ok(())
}

fn read_checkpoint(directory: &Path, signer: &dyn NoteSigner) -> Result<Option<Checkpoint>, OpenError> {
    let path = directory.join("checkpoint");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io_error(&path))?,
    };
    let problem = |why: String| OpenError::Checkpoint {
        path: path.display().to_string(),
        origin: signer.name().to_owned(),
        why,
    };
    let note: SignedNote = text.parse().map_err(|error| problem(format!("{error}")))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| problem(error.to_string()))?;
    if checkpoint.origin() != signer.name() {
        return Err(problem(format!("its origin is {:?}", checkpoint.origin())));
    }
    Ok(Some(checkpoint))
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    use std::io::{Read as _, Write as _};
    let path = directory.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error(&path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim().parse::<u32>().map(|pid| format!(" ({pid})")).unwrap_or_default();
            return Err(OpenError::Locked { path: path.display().to_string(), holder });
        }
        Err(error) => return Err(io_error(&path)(error.into())),
    }
    // For people: the lock itself is the kernel's.
    let note = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    note.map_err(io_error(&path))?;
    Ok(file)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    move |error| OpenError::Io { path: path.display().to_string(), error }
}
