//! Files: read within limits, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use zeroize::Zeroizing;

/// Bytes of a PEM file that are read.
pub(crate) const MAX_PEM: u64 = 1 << 20;
/// For what everybody may read.
pub(crate) const PUBLIC: u32 = 0o644;
/// For keys, and for what leads to them.
pub(crate) const SECRET: u32 = 0o600;

/// Reads a file of at most `limit` bytes; `-` is standard input.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    read_secret(path, limit).map(|mut bytes| std::mem::take(&mut *bytes))
}

/// The same for a secret, which is wiped when it is dropped.
pub(crate) fn read_secret(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
    };
    let length = read.with_context(|| format!("cannot read {}", path.display()))?;
    if length as u64 > limit {
        bail!("{} is larger than {limit} bytes; is it the right file?", path.display());
    }
    Ok(bytes)
}

/// Reads a text.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?).with_context(|| format!("{} is not text", path.display()))
}

/// Reads the first line of a file: a token, a passphrase.
pub(crate) fn read_secret_line(path: &Path) -> Result<Zeroizing<String>> {
    let bytes = read_secret(path, 64 * 1024)?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is not text", path.display()))?;
    let line = text.lines().next().unwrap_or_default().trim_end_matches('\r');
    if line.is_empty() {
        bail!("{} is empty; the secret stands in its first line", path.display());
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Writes a file durably: beside it, synced, renamed over it, the directory synced. A reader sees the old content
/// or the new, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let staged = Staged::write(path, bytes, mode)?;
    staged.put_in_place()
}

/// A file that is written and not yet in place; removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Staged {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    placed: bool,
}

impl Staged {
    /// Begins a file beside its target.
    pub(crate) fn begin(target: &Path, mode: u32) -> Result<Self> {
        let name = target.file_name().with_context(|| format!("{} is not a file name", target.display()))?;
        let mut temporary = name.to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = target.with_file_name(temporary);
        let file = OpenOptions::new()
            .write(true)
            .read(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .with_context(|| format!("cannot write {}", temporary.display()))?;
        Ok(Self { file, temporary, target: target.to_owned(), placed: false })
    }

    fn write(target: &Path, bytes: &[u8], mode: u32) -> Result<Self> {
        let mut staged = Self::begin(target, mode)?;
        staged.file().write_all(bytes).with_context(|| format!("cannot write {}", target.display()))?;
        Ok(staged)
    }

    /// The file, to write to.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Syncs it and renames it over its target.
    pub(crate) fn put_in_place(mut self) -> Result<()> {
        let target = self.target.clone();
        self.file.sync_all().with_context(|| format!("cannot sync {}", target.display()))?;
        fs::rename(&self.temporary, &target).with_context(|| format!("cannot write {}", target.display()))?;
        self.placed = true;
        sync_directory(&target)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed is found by its name.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes renames and removals in a file's directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("cannot sync {}", directory.display()))
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What to say about a key that others can read; nothing when they cannot.
pub(crate) fn exposure(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode() & 0o777;
    (mode & 0o077 != 0)
        .then(|| format!("{} can be read by others (mode {mode:o}); `chmod 600` it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn replaces_whole_files_with_the_mode_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tls.key");
        replace(&path, b"one", SECRET).unwrap();
        replace(&path, b"two", SECRET).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_is_given_up_leaves_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        replace(&path, b"old", PUBLIC).unwrap();
        let mut staged = Staged::begin(&path, PUBLIC).unwrap();
        staged.file().write_all(b"half").unwrap();
        drop(staged);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn refuses_what_is_too_large_or_not_there_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        assert!(read(&path, 3).unwrap_err().to_string().contains("cannot read"));
        fs::write(&path, b"four").unwrap();
        assert!(read(&path, 3).unwrap_err().to_string().contains("larger than 3 bytes"));
        assert_eq!(read(&path, 4).unwrap(), b"four");
    }

    #[test]
    fn a_secret_is_the_first_line_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "s3cret\r\nrest").unwrap();
        assert_eq!(&**read_secret_line(&path).unwrap(), "s3cret");
        fs::write(&path, "\n").unwrap();
        assert!(read_secret_line(&path).is_err());
    }

    #[test]
    fn says_when_a_key_is_exposed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        replace(&path, b"", SECRET).unwrap();
        assert_eq!(exposure(&path), None);
        replace(&path, b"", PUBLIC).unwrap();
        assert!(exposure(&path).unwrap().contains("mode 644"));
    }
}
