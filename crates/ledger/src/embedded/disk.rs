//! The file operations whose failure matters.
//!
//! Everything that the ledger writes goes through a [`Disk`], the engine of the index included, so that tests
//! can make each single operation fail, run out of room, stop half-way, or be forgotten by a power cut. Reads
//! do not: what was written is checked when it is read, wherever it comes from.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Whether a file may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It must be.
    Existing,
    /// It is made where it is missing.
    Create,
    /// It is made empty.
    Anew,
}

/// The writing half of a file system. The defaults are the real one.
pub(crate) trait Disk: Send + Sync + Debug {
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path, how: How) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        options.create(how != How::Existing).truncate(how == How::Anew).open(path)
    }

    /// Makes room for `from .. to`; with `grow` the file becomes so long.
    fn allocate(&self, _: &Path, file: &File, from: u64, to: u64, grow: bool) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        let flags = if grow { FallocateFlags::empty() } else { FallocateFlags::KEEP_SIZE };
        match fallocate(file, flags, from, to - from) {
            // A file system without allocation: the length alone, room is found while writing.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) if grow => file.set_len(to),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            other => other.map_err(io::Error::from),
        }
    }

    /// Writes all of this at an offset.
    fn write(&self, _: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Cuts or extends.
    fn set_length(&self, _: &Path, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    /// Makes what was written, and the length, durable.
    fn sync(&self, _: &Path, file: &File) -> io::Result<()> {
        rustix::fs::fdatasync(file).map_err(io::Error::from)
    }

    /// Puts a file in another's place.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// The real one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {}

/// A file that is written through a [`Disk`].
#[derive(Debug, Clone)]
pub(crate) struct DiskFile {
    disk: Arc<dyn Disk>,
    path: Arc<Path>,
    file: Arc<File>,
}

impl DiskFile {
    pub(crate) fn open(disk: &Arc<dyn Disk>, path: &Path, how: How) -> io::Result<Self> {
        let file = disk.open(path, how).map_err(|error| named(path, &error))?;
        Ok(Self { disk: Arc::clone(disk), path: path.into(), file: Arc::new(file) })
    }

    /// The same file under the name that it was given since.
    pub(crate) fn renamed(self, path: &Path) -> Self {
        Self { path: path.into(), ..self }
    }

    pub(crate) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|error| named(&self.path, &error))?.len())
    }

    pub(crate) fn read_exact(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Reads until the buffer is full or the file ends; returns how much it was.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_up_to(&self.file, buffer, offset)
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.write(&self.path, &self.file, bytes, offset).map_err(|error| named(&self.path, &error))
    }

    pub(crate) fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.set_length(&self.path, &self.file, length).map_err(|error| named(&self.path, &error))
    }

    /// Makes the file at least so long, with room for all of it.
    pub(crate) fn allocate(&self, length: u64) -> io::Result<()> {
        let allocated = self.disk.allocate(&self.path, &self.file, 0, length, true);
        allocated.map_err(|error| named(&self.path, &error))
    }

    /// Makes room behind the end without moving it.
    pub(crate) fn reserve(&self, from: u64, to: u64) -> io::Result<()> {
        let reserved = self.disk.allocate(&self.path, &self.file, from, to, false);
        reserved.map_err(|error| named(&self.path, &error))
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.sync(&self.path, &self.file).map_err(|error| named(&self.path, &error))
    }
}

/// Reads until the buffer is full or the file ends; returns how much it was.
pub(crate) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whether an error says that there is no room left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An error of the same kind that says which file it is about.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
