//! The checkpoint file: what was published from this directory, and must stay true.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_merkle::{Checkpoint, LogSigner, LogSigners, NoteError, NoteVerifier, SignedNote, root_at};
use chancery_types::Digest;
use data_encoding::HEXLOWER;

use super::OpenError;
use super::derived::Derived;
use super::disk::{Disk, DiskFile, How};
use super::open::io_error;
use crate::Head;

/// Where the next one is gathered by who has the directory alone.
pub(crate) const GATHERED: &str = "checkpoint.new";
/// For how long nobody works on what lies in the place of a next one: writing takes moments.
pub(super) const LEFT_ALONE: Duration = Duration::from_secs(60);

/// How long somebody else may look and write.
const LONGEST_TURN: Duration = Duration::from_millis(500);
/// How often is looked whether they are done.
const TRIES: u32 = 250;

/// Where it is gathered by one of several processes on one directory.
pub(crate) fn gathered_by(process: &[u8]) -> String {
    format!("checkpoint.{}.new", HEXLOWER.encode(process))
}

/// Replaces the checkpoint file, durably and whole; gathered in a file of this name, which nobody else may write.
pub(crate) fn write(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    gathered: &str,
    note: &SignedNote,
) -> io::Result<()> {
    let temporary = directory.join(gathered);
    let file = DiskFile::open(disk, &temporary, How::Anew)?;
    file.write(note.to_string().as_bytes(), 0)?;
    file.sync()?;
    disk.rename(&temporary, &directory.join("checkpoint"))?;
    disk.sync_directory(directory)
}

/// The same, unless one of as many entries is there: of the processes on a directory one looks and writes at a time, so that
/// nobody's checkpoint is followed by a smaller one.
pub(crate) fn advance(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    gathered: &str,
    (size, note): (u64, &SignedNote),
) -> Result<(), OpenError> {
    let _turn = turn(directory);
    let found = Published::read(directory)?;
    if found.is_none_or(|found| found.head.size < size) {
        write(disk, directory, gathered, note).map_err(io_error(directory))?;
    }
    Ok(())
}

/// Waits for the others, but not for one that hangs, nor where the file system knows no locks: what is written then is
/// whole too, and put right by the next one.
fn turn(directory: &Path) -> Option<fs::File> {
    let file = fs::File::open(directory).ok()?;
    for _ in 0..TRIES {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LONGEST_TURN / TRIES),
            Ok(()) => return Some(file),
            Err(_) => return None,
        }
    }
    None
}

/// Removes what processes have left that died while they wrote. By the times of the file system alone: what is older by
/// far than the checkpoint in place is nobody's.
pub(crate) fn tidy(directory: &Path) -> io::Result<()> {
    let Ok(published) = fs::metadata(directory.join("checkpoint")).and_then(|file| file.modified()) else {
        return Ok(());
    };
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_next =
            name.to_str().is_some_and(|name| name.starts_with("checkpoint.") && name.ends_with(".new"));
        // Another process may have removed or renamed it meanwhile.
        let Some(modified) = entry.metadata().ok().filter(|_| is_next).and_then(|file| file.modified().ok())
        else {
            continue;
        };
        if published.duration_since(modified).is_ok_and(|older| older > LEFT_ALONE) {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Signs a checkpoint of this head.
pub(crate) fn sign(head: &Head, signers: &LogSigners) -> Result<SignedNote, String> {
    let checkpoint =
        Checkpoint::new(signers.origin(), head.size, head.root).map_err(|error| error.to_string())?;
    signers.sign(&checkpoint.text()).map_err(|error| error.to_string())
}

/// The last checkpoint that was given out: it is signed anew when the log has grown, or other keys sign.
#[derive(Default)]
pub(crate) struct Latest(Option<(u64, Arc<[LogSigner]>, SignedNote)>);

impl Latest {
    /// The checkpoint of this head, and its size.
    pub(crate) fn of(&mut self, head: &Head, signers: &LogSigners) -> Result<(u64, SignedNote), String> {
        let in_force = signers.in_force();
        if let Some((size, signed_by, note)) = &self.0
            && *size == head.size
            && Arc::ptr_eq(signed_by, &in_force)
        {
            return Ok((*size, note.clone()));
        }
        let note = sign(head, signers)?;
        self.0 = Some((head.size, in_force, note.clone()));
        Ok((head.size, note))
    }
}

/// A checkpoint as it was published.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) head: Head,
    path: PathBuf,
    origin: String,
    pub(crate) note: SignedNote,
}

impl Published {
    /// Reads the checkpoint file; `None` where nothing was published yet.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, OpenError> {
        let path = directory.join("checkpoint");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io_error(&path))?,
        };
        let problem = |why: String| damaged(&path, "this log", why);
        let text = String::from_utf8(text).map_err(|error| problem(error.to_string()))?;
        let note: SignedNote = text.parse().map_err(|error| problem(format!("{error}")))?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(|error| problem(error.to_string()))?;
        let head = Head { size: checkpoint.size(), root: checkpoint.root() };
        Ok(Some(Self { head, path, origin: checkpoint.origin().to_owned(), note }))
    }

    /// That it is of this log, signed by a key that is at hand. Those that signed it sign on, until the log says more.
    pub(crate) fn resume(&self, signers: &LogSigners) -> Result<(), OpenError> {
        let problem = |why| damaged(&self.path, signers.origin(), why);
        if self.origin != signers.origin() {
            return Err(problem(format!("it is one of {}", self.origin)));
        }
        signers.resume(&self.note).map_err(|error| match error {
            NoteError::Unsigned { .. } => problem("no key that this process has signed it".to_owned()),
            error => problem(error.to_string()),
        })
    }

    /// Whether one of these keys has signed it.
    pub(crate) fn is_signed_by(&self, keys: &[NoteVerifier]) -> Result<bool, OpenError> {
        match self.note.verify(keys) {
            Ok(_) => Ok(true),
            Err(NoteError::Unsigned { .. }) => Ok(false),
            Err(error) => Err(damaged(&self.path, &self.origin, error.to_string())),
        }
    }
}

fn damaged(path: &Path, origin: &str, why: String) -> OpenError {
    OpenError::Checkpoint { path: path.display().to_string(), origin: origin.to_owned(), why }
}

/// What was published, or committed to in the index, must be the beginning of what the journal holds.
pub(crate) fn check(promised: &Head, head: &Head, derived: &Derived) -> Result<(), OpenError> {
    if promised.size > head.size {
        return Err(OpenError::BehindCheckpoint { found: head.size, published: promised.size });
    }
    let found: Digest = root_at(promised.size, derived).map_err(|error| OpenError::Io {
        path: "derived".to_owned(),
        error: io::Error::other(error.to_string()),
    })?;
    if found != promised.root {
        return Err(OpenError::NotPublished { size: promised.size, found, published: promised.root });
    }
    Ok(())
}
