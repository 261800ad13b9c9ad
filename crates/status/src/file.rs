//! Files that are replaced whole and read by mapping them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;

/// Maps a file into memory. Pages are read as they are looked at, and shared with every process that maps it.
///
/// Whoever writes the file must rename a new one into its place, as [`replace_file`] does, and never write into it or
/// cut it off: a reader of pages that are gone is killed by the kernel.
///
/// # Errors
/// That of the system.
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    #[expect(unsafe_code, reason = "a mapped file is only as constant as its writers are; ours rename")]
    // SAFETY: the file is replaced by renaming, never written to or cut off, so the bytes stay what they are for as
    // long as the mapping lives. Who may write to the directory regardless is trusted with the process anyway.
    let map = unsafe { memmap2::Mmap::map(&file) }?;
    Ok(Bytes::from_owner(map))
}

/// Replaces a file, durably and whole: readers, also after a crash, see the old bytes or the new ones.
///
/// One writer at a time: the new bytes are gathered beside the file, under its name and `.new`.
///
/// # Errors
/// That of the system; the old file is in place then.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // What a crash left there is taken away rather than written to: somebody may have linked or mapped it.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) if directory != Path::new("") => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
