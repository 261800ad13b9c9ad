//! A directory read beside the process that has it open, and a log laid into an empty one: backup and restore.
//!
//! The journal only grows, and what a checkpoint covers was whole before it was signed. So whoever knows a checkpoint
//! can read the log up to there without a lock and without asking; that it is the right log, its root tells.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use chancery_merkle::SignedNote;
use chancery_types::Random;

use super::checkpoint::{self, Published};
use super::disk::{Disk, DiskFile, How, RealDisk};
use super::journal::{AppendError, Journal, JournalError, JournalPosition, StoredBatch, scan};
use super::open::{io_error, is_unused, lock};
use super::recover::Paths;
use super::signatures::{self, SignatureLog};
use super::{OpenError, Options};

/// The checkpoint that was last published from a directory and synced; nothing before the first.
///
/// # Errors
/// [`OpenError`] when the file cannot be read or is no checkpoint.
pub fn published_checkpoint(directory: &Path) -> Result<Option<SignedNote>, OpenError> {
    Ok(Published::read(directory)?.map(|published| published.note))
}

/// Hands the first `size` entries of a directory to `visit`, in order. The ledger may be in use.
///
/// # Errors
/// Those of `visit`; [`OpenError`] when the journal is damaged or holds fewer.
pub fn read_log<E: From<OpenError>>(
    directory: &Path,
    size: u64,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    enum Stop<E> {
        Reached,
        Journal(JournalError),
        Visitor(E),
    }
    impl<E> From<JournalError> for Stop<E> {
        fn from(error: JournalError) -> Self {
            Self::Journal(error)
        }
    }
    let mut found = 0;
    if size == 0 {
        return Ok(());
    }
    let scanned = scan(&Paths::of(directory).journal, JournalPosition::START, &mut |batch: StoredBatch| {
        for (_, entry) in batch.entries() {
            visit(entry).map_err(Stop::Visitor)?;
            found += 1;
            if found == size {
                return Err(Stop::Reached);
            }
        }
        Ok(())
    });
    match scanned {
        Err(Stop::Reached) => Ok(()),
        Err(Stop::Visitor(error)) => Err(error),
        Err(Stop::Journal(error)) => Err(OpenError::from(error).into()),
        Ok(_) => Err(OpenError::BehindCheckpoint { found, published: size }.into()),
    }
}

/// The signatures kept beside the first entries of a log, by rising index.
///
/// Knows the place of each, which takes 24 bytes of memory for every certificate.
#[derive(Debug)]
pub struct KeptSignatures {
    file: Option<DiskFile>,
    /// Index, place and length.
    places: Vec<(u64, u64, u16)>,
}

impl KeptSignatures {
    /// Finds those of the first `size` entries. The ledger may be in use: what is written meanwhile may be missing.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn find(directory: &Path, size: u64) -> Result<Self, OpenError> {
        let path = Paths::of(directory).signatures;
        let disk: Arc<dyn Disk> = Arc::new(ReadOnly);
        let file = match DiskFile::open(&disk, &path, How::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { file: None, places: Vec::new() });
            }
            other => other.map_err(io_error(&path))?,
        };
        let mut places = Vec::new();
        let length = file.length().map_err(io_error(&path))?;
        let read = signatures::read(&file, 0, length, &mut |record| {
            if record.index < size {
                // A record holds no more.
                let length = u16::try_from(record.signature.len()).unwrap_or(u16::MAX);
                places.push((record.index, record.offset, length));
            }
            Ok(())
        });
        read.map_err(io_error(&path))?;
        // Of two for one entry the later counts.
        places.sort_unstable_by_key(|(index, offset, _)| (*index, std::cmp::Reverse(*offset)));
        places.dedup_by_key(|(index, ..)| *index);
        Ok(Self { file: Some(file), places })
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.places.len() as u64
    }

    /// The bytes of all of them together, without anything around them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.places.iter().map(|(.., length)| u64::from(*length)).sum()
    }

    /// Hands each with its entry's index to `visit`.
    ///
    /// # Errors
    /// Those of `visit`; [`OpenError::Io`].
    pub fn each<E: From<OpenError>>(
        &self,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(file) = &self.file else { return Ok(()) };
        let failed = |error| OpenError::Io { path: "signatures.log".to_owned(), error };
        for (index, offset, _) in &self.places {
            let found = signatures::at(file, *index, *offset).map_err(failed)?;
            let found = found.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
            visit(*index, &found)?;
        }
        Ok(())
    }
}

/// A log that is laid into an empty directory: the journal, the signatures, and what was published of it. Index and
/// derived files are made when it is opened.
#[derive(Debug)]
pub struct LogWriter {
    directory: std::path::PathBuf,
    disk: Arc<dyn Disk>,
    journal: Journal,
    signatures: SignatureLog,
    _lock: File,
}

impl LogWriter {
    /// Begins a log in a directory that has none.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn create(directory: &Path, random: &dyn Random) -> Result<Self, OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let paths = Paths::of(directory);
        for path in [directory, &paths.journal] {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))?;
        }
        let lock = lock(directory)?;
        is_unused(directory, &paths.journal)?;
        let mut log_id = [0; 16];
        random.fill(&mut log_id)?;
        let segment_bytes = Options::default().segment_bytes;
        Journal::create(&paths.journal, log_id, segment_bytes, &disk)?;
        let journal = Journal::open::<OpenError>(
            &paths.journal,
            JournalPosition::START,
            segment_bytes,
            &disk,
            &|_| Ok(()),
            &mut |_| Ok(()),
        )?;
        let signatures = SignatureLog::open(&disk, &paths.signatures, 0, &mut |_| Ok(()));
        let signatures = signatures.map_err(io_error(&paths.signatures))?;
        Ok(Self { directory: directory.to_owned(), disk, journal, signatures, _lock: lock })
    }

    /// Appends entries, a few megabytes at most, and makes them durable.
    ///
    /// # Errors
    /// [`OpenError::Io`]: the directory is then of no use.
    pub fn append(&mut self, entries: &[&[u8]]) -> Result<(), OpenError> {
        let failed =
            |error| OpenError::Io { path: self.directory.join("journal").display().to_string(), error };
        match self.journal.append(entries) {
            Ok(_) => Ok(()),
            Err(AppendError::Full) => Err(failed(io::ErrorKind::StorageFull.into())),
            Err(AppendError::Fatal(reason)) => Err(failed(io::Error::other(reason))),
        }
    }

    /// Keeps signatures beside the entries with these indexes.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn sign(&self, signatures: &[(u64, Vec<u8>)]) -> Result<(), OpenError> {
        let signatures = signatures.iter().map(|(index, signature)| (*index, signature.as_slice()));
        let appended = self.signatures.append(signatures, &mut |_, _| Ok(()));
        appended.map_err(|error| OpenError::Io { path: "signatures.log".to_owned(), error })
    }

    /// Notes what was published of this log, so that it is never opened with less.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn finish(self, published: &SignedNote) -> Result<(), OpenError> {
        let failed = |error| OpenError::Io { path: self.directory.display().to_string(), error };
        self.signatures.sync().map_err(failed)?;
        checkpoint::write(&self.disk, &self.directory, checkpoint::GATHERED, published).map_err(failed)
    }
}

/// Opens what is there for reading.
#[derive(Debug)]
struct ReadOnly;

impl Disk for ReadOnly {
    fn open(&self, path: &Path, _: How) -> io::Result<File> {
        File::open(path)
    }
}
