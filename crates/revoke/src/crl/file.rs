//! Lists on disk: replaced whole, durably, and never by an older one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use chancery_x509::crl::CrlView;

/// What tells whether a file is still the one that was put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl Stamp {
    /// That of a file; nothing if there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { inode: found.ino(), modified: (found.mtime(), found.mtime_nsec()), length: found.len() })
    }
}

/// The number of the list in a file; nothing if it is none.
pub(super) fn number_in(path: &Path) -> Option<u64> {
    CrlView::from_der(&fs::read(path).ok()?).ok()?.number_u64()
}

/// Replaces a file: readers see the old list or the new one, also after a power cut once the directory is synced.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: what is left is overwritten by the next attempt.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes renames in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
