//! Old segments of the journal moved to another file system, and read from there as before.
//!
//! A segment that is full never changes. Its copy is synced and compared before a symbolic link takes its place, in one
//! step: a server that runs meanwhile reads on from the file that it has open, and whoever opens it later follows
//! the link. So whatever reads the log (checks, rebuilding, exports, backups) reads archive and journal as one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::Path;

use super::OpenError;
use super::checkpoint::Published;
use super::journal::{segment_path, segments};
use super::open::{exists, io_error};
use super::recover::Paths;

/// The last segment is written to, and the one before it may be, once more, after a crash.
const LIVE: usize = 2;

/// What an archiving did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Archived {
    /// Segments that were moved.
    pub moved: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments in the archive now.
    pub archived: u64,
    /// Segments that stay in the journal.
    pub live: u64,
    /// Entries in the archive.
    pub entries: u64,
}

/// Moves every segment but the last `keep` to a directory, `keep` at least two. The ledger may be in use. `progress`
/// hears of segments done and in all.
///
/// # Errors
/// [`OpenError`]; what was moved until then is right, and every other segment is where it was.
pub fn archive(
    directory: &Path,
    archive: &Path,
    keep: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Archived, OpenError> {
    exists(directory)?;
    let journal = Paths::of(directory).journal;
    let headers = segments(&journal)?;
    let archive = std::path::absolute(archive).map_err(io_error(archive))?;
    DirBuilder::new().recursive(true).mode(0o700).create(&archive).map_err(io_error(&archive))?;
    let published = Published::read(directory)?.map_or(0, |published| published.head.size);
    let most = headers.len().saturating_sub(keep.max(LIVE));
    // What no checkpoint covers yet is still being settled.
    let settled = headers.iter().skip(1).take(most).take_while(|next| next.first_index <= published).count();
    let is_linked =
        |number| fs::symlink_metadata(segment_path(&journal, number)).is_ok_and(|found| found.is_symlink());
    let linked = headers.iter().take_while(|header| is_linked(header.number)).count();
    let settled = settled.max(linked);
    let mut done = Archived { live: (headers.len() - settled) as u64, ..Archived::default() };
    for (header, next) in headers.iter().zip(headers.iter().skip(1)).take(settled) {
        let path = segment_path(&journal, header.number);
        if !is_linked(header.number) {
            done.bytes += move_segment(&path, &segment_path(&archive, header.number), &journal)?;
            done.moved += 1;
        }
        done.archived += 1;
        done.entries = next.first_index;
        progress(done.archived, settled as u64);
    }
    Ok(done)
}

/// Copies, compares, links; the bytes that are free now.
fn move_segment(path: &Path, target: &Path, journal: &Path) -> Result<u64, OpenError> {
    if target.exists() && !is_same(path, target).map_err(io_error(target))? {
        let what = "a segment of another log lies there; choose an archive directory of this log's own";
        return Err(OpenError::Directory { path: target.display().to_string(), what });
    }
    let bytes = copy(path, target).map_err(io_error(target))?;
    if !is_same(path, target).map_err(io_error(target))? {
        let what = "the copy is not what was written; look after that disk";
        return Err(OpenError::Directory { path: target.display().to_string(), what });
    }
    let link = path.with_extension("link");
    let linked = (|| {
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link)?;
        }
        symlink(target, &link)?;
        fs::rename(&link, path)?;
        File::open(journal)?.sync_all()
    })();
    linked.map_err(io_error(path))?;
    Ok(bytes)
}

/// A durable copy under its final name.
fn copy(path: &Path, target: &Path) -> io::Result<u64> {
    let temporary = target.with_extension("new");
    let mut source = File::open(path)?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let copied = io::copy(&mut source, &mut file).and_then(|bytes| {
        file.flush()?;
        file.sync_all()?;
        fs::rename(&temporary, target)?;
        File::open(target.parent().unwrap_or(Path::new("/")))?.sync_all()?;
        Ok(bytes)
    });
    if copied.is_err() {
        // Half a copy is of no use; if it stays, the next attempt overwrites it.
        let _ = fs::remove_file(&temporary);
    }
    copied
}

fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            return Ok(false);
        }
    }
}
