//! Files that hold secrets: written once and never over another, read only while nobody else can read them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chancery_types::{Random, SecretString, SystemRandom};
use data_encoding::HEXLOWER;
use rustix::fs::{CWD, OFlags, RenameFlags};
use zeroize::Zeroizing;

/// A secret file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// There is none.
    #[error("there is no file {}", .0.display())]
    NotFound(PathBuf),
    /// There is one already, and it may be the only copy of a key.
    #[error("{} exists already and is never overwritten; move it away or choose another path", .0.display())]
    Exists(PathBuf),
    /// Others than its owner can read or change it.
    #[error("{} can be used by others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user, who could change it.
    #[error("{} belongs to user {owner}, not to root or to this process (user {user}); run: chown {user} {}", path.display(), path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// A directory, a pipe or a device where a file is expected.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Too large to be what it should be.
    #[error("{} is larger than {limit} bytes and cannot be what is expected", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How large it may be.
        limit: usize,
    },
    /// A passphrase or PIN file without one.
    #[error("{} holds no secret: its first line is empty", .0.display())]
    Empty(PathBuf),
    /// A passphrase or PIN file that is more than one line of text.
    #[error("{} must hold one line of UTF-8 text", .0.display())]
    NotOneLine(PathBuf),
    /// The operating system refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Reads a passphrase or PIN from a file of one line. The file must not be readable by others; a pipe or
/// terminal (`/dev/stdin`) is taken as it is.
///
/// # Errors
/// [`SecretFileError`] when the file is missing, open to others, empty, more than a line or larger than 4 KiB.
pub fn read_secret(path: &Path) -> Result<SecretString, SecretFileError> {
    let mut file = File::open(path).map_err(|cause| read_error(path, cause))?;
    let metadata = file.metadata().map_err(|cause| read_error(path, cause))?;
    if metadata.is_file() {
        check_access(path, &metadata)?;
    }
    let bytes = read_limited(path, &mut file, MAX_SECRET)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretFileError::NotOneLine(path.to_owned()))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(SecretFileError::Empty(path.to_owned()));
    }
    if line.chars().any(char::is_control) {
        return Err(SecretFileError::NotOneLine(path.to_owned()));
    }
    Ok(SecretString::new(line.to_owned()))
}

/// Reads a key file of at most 64 KiB, after checking on the open file that nobody else can use it.
///
/// # Errors
/// [`SecretFileError`] when the file is missing, open to others, no regular file or larger.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|cause| read_error(path, cause))?;
    let metadata = file.metadata().map_err(|cause| read_error(path, cause))?;
    if !metadata.is_file() {
        return Err(SecretFileError::NotAFile(path.to_owned()));
    }
    check_access(path, &metadata)?;
    read_limited(path, &mut file, MAX_KEY_FILE)
}

/// Writes a new file with mode 0600, durable on return: a temporary file beside it, fsync, a rename that does
/// not replace, fsync of the directory. Missing directories are made with mode 0700.
pub(crate) fn create(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    let Some(name) = path.file_name() else { return Err(SecretFileError::NotAFile(path.to_owned())) };
    if exists(path)? {
        return Err(SecretFileError::Exists(path.to_owned()));
    }
    let directory = parent(path);
    create_directories(directory)?;
    let temporary = directory.join(format!(".{}.{}.tmp", name.to_string_lossy(), suffix(path)?));
    let placed = write_temporary(&temporary, content).and_then(|()| place(&temporary, path));
    if placed.is_err() {
        // It is ours by its random name; if it cannot be removed it is mode 0600 and named in the error.
        let _ = std::fs::remove_file(&temporary);
    }
    placed?;
    sync_directory(directory)
}

/// Whether anything, even a dangling link, has this name.
pub(crate) fn exists(path: &Path) -> Result<bool, SecretFileError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(SecretFileError::Io { action: "look for", path: path.to_owned(), cause }),
    }
}

fn check_access(path: &Path, metadata: &std::fs::Metadata) -> Result<(), SecretFileError> {
    let user = rustix::process::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
    match forbidden_bits(owner, user) {
        None => Err(SecretFileError::ForeignOwner { path: path.to_owned(), owner, user }),
        Some(bits) if mode & bits != 0 => Err(SecretFileError::TooOpen { path: path.to_owned(), mode }),
        Some(_) => Ok(()),
    }
}

/// The permission bits that a secret file of this owner must not have when this user reads it; none if the user
/// should not trust it at all. PostgreSQL has the same rule for its server key: our own file at most 0600; a
/// file of root's, as an orchestrator mounts it for a group, at most 0640.
fn forbidden_bits(owner: u32, user: u32) -> Option<u32> {
    match (owner, user) {
        (_, 0) => Some(0o077),
        (owner, user) if owner == user => Some(0o077),
        (0, _) => Some(0o027),
        _ => None,
    }
}

fn read_limited(path: &Path, file: &mut File, limit: usize) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    // Allocated at once, so that growing leaves no copies behind.
    let mut bytes = Zeroizing::new(vec![0; limit + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(read_error(path, cause)),
        }
    }
    if length > limit {
        return Err(SecretFileError::TooLarge { path: path.to_owned(), limit });
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn write_temporary(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    let failed = |cause| SecretFileError::Io { action: "write", path: path.to_owned(), cause };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.sync_all().map_err(failed)
}

fn place(temporary: &Path, path: &Path) -> Result<(), SecretFileError> {
    use rustix::io::Errno;
    let failed = |errno: Errno| match errno {
        Errno::EXIST => SecretFileError::Exists(path.to_owned()),
        other => SecretFileError::Io { action: "create", path: path.to_owned(), cause: other.into() },
    };
    match rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        // NFS and some FUSE file systems; a hard link does not replace either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::link(temporary, path).map_err(failed)?;
            rustix::fs::unlink(temporary).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

fn create_directories(directory: &Path) -> Result<(), SecretFileError> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = parent(directory);
    create_directories(above)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => sync_directory(above),
        // Somebody else made it in the meantime.
        Err(_) if directory.is_dir() => Ok(()),
        Err(cause) => {
            Err(SecretFileError::Io { action: "create directory", path: directory.to_owned(), cause })
        }
    }
}

fn sync_directory(directory: &Path) -> Result<(), SecretFileError> {
    File::open(directory).and_then(|handle| handle.sync_all()).map_err(|cause| SecretFileError::Io {
        action: "sync directory",
        path: directory.to_owned(),
        cause,
    })
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn suffix(path: &Path) -> Result<String, SecretFileError> {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes).map_err(|error| SecretFileError::Io {
        action: "write",
        path: path.to_owned(),
        cause: io::Error::other(error.to_string()),
    })?;
    Ok(HEXLOWER.encode(&bytes))
}

fn read_error(path: &Path, cause: io::Error) -> SecretFileError {
    match cause.kind() {
        io::ErrorKind::NotFound => SecretFileError::NotFound(path.to_owned()),
        _ => SecretFileError::Io { action: "read", path: path.to_owned(), cause },
    }
}

/// An encrypted RSA-4096 key with its preamble is 4 KiB.
const MAX_KEY_FILE: usize = 64 << 10;
const MAX_SECRET: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusts_own_files_and_files_of_root_only() {
        let (root, own, other) = (0, 1000, 1001);
        assert_eq!(forbidden_bits(own, own), Some(0o077));
        assert_eq!(forbidden_bits(root, own), Some(0o027));
        assert_eq!(forbidden_bits(other, own), None);
        assert_eq!(forbidden_bits(root, root), Some(0o077));
        assert_eq!(forbidden_bits(other, root), Some(0o077));
    }

    #[test]
    fn leaves_nothing_behind_when_the_place_cannot_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        create(&file, b"first").unwrap();
        assert!(matches!(create(&file, b"second"), Err(SecretFileError::Exists(_))));
        assert!(matches!(create(&file.join("below"), b"x"), Err(SecretFileError::Io { .. })));
        assert!(matches!(create(Path::new("/"), b"x"), Err(SecretFileError::NotAFile(_))));
        // What the rename says when the name is taken after the first look.
        let temporary = directory.path().join("temporary");
        write_temporary(&temporary, b"third").unwrap();
        assert!(matches!(place(&temporary, &file), Err(SecretFileError::Exists(_))));
        assert_eq!(std::fs::read(&file).unwrap(), b"first");
    }
}
