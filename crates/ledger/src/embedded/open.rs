//! Making and opening a ledger.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use chancery_merkle::LogSigners;
use chancery_types::{Digest, Random, RandomError};
use tokio::sync::mpsc;

use super::disk::{Disk, RealDisk};
use super::journal::{Journal, JournalError, JournalReader};
use super::recover::{Recovered, Start, recover};
use super::sequencer::Sequencer;
use super::{EmbeddedLedger, Options, Shared, indexer};
use crate::model::ModelError;

/// Commits that may wait in the queue before callers wait for a place.
const QUEUE: usize = 4096;

/// Says that the log has ended here, and why.
const ENDED: &str = "ended";

/// Makes it durable that nothing more is recorded in a directory.
pub(super) fn end(directory: &Path, why: &str) -> io::Result<()> {
    let path = directory.join(ENDED);
    fs::write(&path, why)?;
    File::open(&path)?.sync_all()?;
    File::open(directory)?.sync_all()
}

/// Why the log has ended in a directory, if it has.
fn ended(directory: &Path) -> Result<Option<String>, OpenError> {
    let path = directory.join(ENDED);
    match fs::read_to_string(&path) {
        Ok(why) => Ok(Some(why)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::Io { path: path.display().to_string(), error }),
    }
}

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
    /// The log goes on elsewhere.
    #[error("{path}: the log has ended here: {why}")]
    Ended {
        /// The directory.
        path: String,
        /// Where it went.
        why: String,
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
    /// The journal is older than the index: it was restored from a backup, or lost its end.
    #[error(
        "the journal has {found} entries, but the index has seen {known}; the journal was restored from an \
         older copy, or lost its end. Restore a journal that has them, or, if they are lost for good, start a \
         new log and tell every relying party"
    )]
    BehindIndex {
        /// Entries in the journal.
        found: u64,
        /// Entries that the index has seen.
        known: u64,
    },
    /// The journal holds other entries than the index was made from.
    #[error(
        "the first {size} entries hash to {found}, but the index was made from entries that hash to {known}; \
         compare the journal with a published checkpoint or a mirror, and, if it is the right one, run \
         `chancery ledger rebuild`"
    )]
    NotIndexed {
        /// Entries that the index has seen.
        size: u64,
        /// Root of the journal at that size.
        found: Digest,
        /// Root that the index knows.
        known: Digest,
    },
    /// The index was made from the journal of another log.
    #[error(
        "{path} belongs to another log than the journal beside it; put the right journal back, or, if the \
         journal is the right one, run `chancery ledger rebuild`"
    )]
    ForeignIndex {
        /// The index.
        path: String,
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
        signers: Arc<LogSigners>,
        options: Options,
        random: &dyn Random,
    ) -> Result<Self, OpenError> {
        Self::create_on(&(Arc::new(RealDisk) as Arc<dyn Disk>), directory, signers, options, random)
    }

    pub(crate) fn create_on(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        signers: Arc<LogSigners>,
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
        is_unused(directory, &journal)?;
        Journal::create(&journal, log_id, options.segment_bytes, disk)?;
        for path in [Some(directory), directory.parent()].into_iter().flatten() {
            // The new names are as durable as what will stand under them.
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            disk.sync_directory(path).map_err(io_error(path))?;
        }
        open(disk, directory, lock, signers, options, Start::FromIndex, &mut |_, _| {})
    }

    /// Opens an existing ledger; replays what the index has not seen.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn open(directory: &Path, signers: Arc<LogSigners>, options: Options) -> Result<Self, OpenError> {
        Self::open_on(&(Arc::new(RealDisk) as Arc<dyn Disk>), directory, signers, options)
    }

    pub(crate) fn open_on(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        signers: Arc<LogSigners>,
        options: Options,
    ) -> Result<Self, OpenError> {
        exists(directory)?;
        let ended = ended(directory)?;
        if let Some(why) = ended.clone().filter(|_| !options.may_have_ended) {
            return Err(OpenError::Ended { path: directory.display().to_string(), why });
        }
        let lock = lock(directory)?;
        let ledger = open(disk, directory, lock, signers, options, Start::FromIndex, &mut |_, _| {})?;
        if let Some(why) = ended {
            ledger.shared.halt(format!("the log has ended here: {why}"));
        }
        Ok(ledger)
    }

    /// Throws the index and the derived files away and makes them anew from the journal, after the journal was
    /// read whole and found in order.
    ///
    /// `progress` hears of entries done and, where it is known, entries in all.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn rebuild(
        directory: &Path,
        signers: Arc<LogSigners>,
        options: Options,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Self, OpenError> {
        Self::rebuild_on(&(Arc::new(RealDisk) as Arc<dyn Disk>), directory, signers, options, progress)
    }

    pub(crate) fn rebuild_on(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        signers: Arc<LogSigners>,
        options: Options,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Self, OpenError> {
        exists(directory)?;
        let lock = lock(directory)?;
        open(disk, directory, lock, signers, options, Start::FromNothing, progress)
    }
}

fn open(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    lock: File,
    signers: Arc<LogSigners>,
    options: Options,
    start: Start,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<EmbeddedLedger, OpenError> {
    let recovered = recover(disk, directory, &signers, &options, start, progress)?;
    let Recovered { memtable, derived, signatures, journal, frontier, head, indexed, published } = recovered;
    let shared = Arc::new(Shared {
        disk: Arc::clone(disk),
        directory: directory.to_owned(),
        options,
        memtable,
        derived,
        reader: JournalReader::new(&directory.join("journal")),
        signatures,
        log_id: journal.log_id(),
        head: ArcSwap::from_pointee(head),
        signers,
        checkpoint: Mutex::default(),
        halted: Mutex::new(None),
        counters: Mutex::default(),
        index_is_full: std::sync::atomic::AtomicBool::new(false),
        syncs: std::sync::atomic::AtomicU64::new(0),
        standing_epoch: std::sync::atomic::AtomicU64::new(0),
        wake: indexer::Wake::default(),
        news: tokio::sync::broadcast::Sender::new(super::NEWS),
    });
    let started = (|| {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let indexer = indexer::spawn(Arc::clone(&shared), indexed, published)?;
        let sequencer = Sequencer::new(Arc::clone(&shared), journal, frontier);
        let sequencer = sequencer.spawn(receiver)?;
        Ok(EmbeddedLedger {
            shared: Arc::clone(&shared),
            requests: Mutex::new(Some(sender)),
            threads: Mutex::new(vec![sequencer, indexer]),
            turns: crate::Turns::default(),
            _lock: lock,
        })
    })();
    started.map_err(|error| {
        shared.wake.close();
        io_error(directory)(error)
    })
}

pub(super) fn exists(directory: &Path) -> Result<(), OpenError> {
    let journal = directory.join("journal");
    match fs::metadata(&journal) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&journal)(error)),
        _ => {
            let what = "there is no ledger here; run `chancery init`, or name the directory that has one";
            Err(OpenError::Directory { path: directory.display().to_string(), what })
        }
    }
}

/// That nothing of another ledger is there. What an interrupted creation left behind does not count.
pub(super) fn is_unused(directory: &Path, journal: &Path) -> Result<(), OpenError> {
    let refused = |what| Err(OpenError::Directory { path: directory.display().to_string(), what });
    for entry in fs::read_dir(journal).map_err(io_error(journal))? {
        let name = entry.map_err(io_error(journal))?.file_name();
        if name.to_string_lossy().ends_with(".journal") {
            return refused("there is a ledger here already; open it, or choose another directory");
        }
    }
    if ["checkpoint", "index.redb", "signatures.log"].iter().any(|name| directory.join(name).exists()) {
        return refused(
            "there are remains of a ledger here whose journal is gone; restore it, or choose another directory",
        );
    }
    Ok(())
}

/// Takes the directory for this process.
pub(super) fn lock(directory: &Path) -> Result<File, OpenError> {
    use std::io::{Read as _, Write as _};
    let path = directory.join("lock");
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = match opened {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            let what = "the directory cannot be written, and a ledger writes even to be read; mount it \
                        writable, or give it to the user that this process runs as";
            return Err(OpenError::Directory { path: directory.display().to_string(), what });
        }
        other => other.map_err(io_error(&path))?,
    };
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
    // For people: the lock itself is the kernel's. A full disk may leave it empty.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    move |error| OpenError::Io { path: path.display().to_string(), error }
}
