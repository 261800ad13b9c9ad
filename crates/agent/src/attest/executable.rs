//! The file that a process runs: where it lies and what is in it.
//!
//! A process can make its own mount namespace and put any file at any path there, so the path that the kernel
//! shows is believed only if it leads to the same file in the machine's own. A file system in user space can show
//! one content to us and run another, so nothing on one is hashed.

use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use chancery_types::Digest;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::proc_directory::{FileId, file_id};

/// The file, kept from being replaced by another one of the same number.
#[derive(Debug)]
pub(super) struct Executable {
    handle: OwnedFd,
    id: FileId,
}

/// A content of a file: it cannot change without one of these changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Version {
    id: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    /// Seconds since the epoch of the last change, which nobody but the kernel can set.
    pub(super) fn changed_seconds(&self) -> i64 {
        self.changed.0
    }
}

/// An executable opened for reading.
#[derive(Debug)]
pub(super) struct Content {
    file: std::fs::File,
    version: Version,
}

impl Executable {
    pub(super) fn new(handle: OwnedFd) -> io::Result<Self> {
        let id = file_id(&handle)?;
        Ok(Self { handle, id })
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// The path, if it is one by which the machine knows this file. May block.
    pub(super) fn path(&self, name: &CStr, root: &Path) -> io::Result<Option<String>> {
        // The kernel's mark of a file that has no name any more; a file that is really called so has none either.
        let is_name = |path: &&str| !path.ends_with(DELETED) && !path.chars().any(char::is_control);
        let path = name.to_str().ok().filter(is_name);
        let Some((path, relative)) = path.and_then(|path| Some((path, path.strip_prefix('/')?))) else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty())?;
        let within = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH;
        match rustix::fs::openat2(root, relative, flags, Mode::empty(), within) {
            Ok(found) => Ok((file_id(found)? == self.id).then(|| path.to_owned())),
            Err(
                Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::ACCESS | Errno::NAMETOOLONG,
            ) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens it for reading; nothing if its content cannot be known. May block.
    pub(super) fn content(&self, limit: u64) -> io::Result<Option<Content>> {
        let by_handle = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        if rustix::fs::fstatfs(&self.handle)?.f_type == FUSE_SUPER_MAGIC {
            return Ok(None);
        }
        let file = match rustix::fs::openat(CWD, by_handle, flags, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            // Programs may be there to be run and not to be read.
            Err(Errno::ACCESS | Errno::PERM) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let version = version(&file)?;
        Ok((version.id == self.id && version.size <= limit).then_some(Content { file, version }))
    }
}

impl Content {
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// SHA-256, unless the file changes meanwhile or cannot be read. Blocks for as long as that takes.
    pub(super) fn hash(mut self) -> io::Result<Digest> {
        let changed = || io::Error::other("it changed while it was read");
        let mut hasher = ring::digest::Context::new(&ring::digest::SHA256);
        let mut buffer = vec![0; 128 * 1024];
        let mut left = self.version.size;
        loop {
            let read = self.file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            // It grew: so it changed, and its size is no limit any more.
            left = left.checked_sub(read as u64).ok_or_else(changed)?;
            hasher.update(&buffer[..read]);
        }
        let unchanged = left == 0 && version(&self.file)? == self.version;
        let digest = hasher.finish().as_ref().try_into().map_err(io::Error::other)?;
        unchanged.then(|| Digest::from_array(digest)).ok_or_else(changed)
    }
}

fn version(file: &std::fs::File) -> io::Result<Version> {
    use std::os::unix::fs::MetadataExt;
    let found = file.metadata()?;
    Ok(Version {
        id: file_id(file)?,
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

const DELETED: &str = " (deleted)";

/// statfs(2).
const FUSE_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5546;

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    fn opened(path: &Path) -> Executable {
        Executable::new(rustix::fs::openat(CWD, path, OFlags::PATH, Mode::empty()).unwrap()).unwrap()
    }

    fn named(path: &Path) -> CString {
        CString::new(path.to_str().unwrap()).unwrap()
    }

    #[test]
    fn believes_a_path_only_if_it_leads_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let root = Path::new("/");
        let (real, other) = (directory.path().join("real"), directory.path().join("other"));
        std::fs::write(&real, "a").unwrap();
        std::fs::write(&other, "b").unwrap();
        let executable = opened(&real);
        assert_eq!(executable.path(&named(&real), root).unwrap().as_deref(), real.to_str());
        assert_eq!(executable.path(&named(&other), root).unwrap(), None);
        assert_eq!(executable.path(&named(&directory.path().join("none")), root).unwrap(), None);
        assert_eq!(executable.path(c"real", root).unwrap(), None);
        assert_eq!(executable.path(c"/real", directory.path()).unwrap().as_deref(), Some("/real"));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(executable.path(&named(&link), root).unwrap(), None);
    }

    #[test]
    fn a_deleted_file_has_no_path_whatever_it_was_called() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tool (deleted)");
        std::fs::write(&path, "a").unwrap();
        assert_eq!(opened(&path).path(&named(&path), Path::new("/")).unwrap(), None);
        let path = directory.path().join("a\nb");
        std::fs::write(&path, "a").unwrap();
        assert_eq!(opened(&path).path(&named(&path), Path::new("/")).unwrap(), None);
    }

    #[test]
    fn hashes_the_file_it_holds_and_not_the_one_that_took_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tool");
        std::fs::write(&path, "first").unwrap();
        let executable = opened(&path);
        let new = directory.path().join("new");
        std::fs::write(&new, "second").unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert_eq!(executable.content(5).unwrap().unwrap().hash().unwrap(), Digest::of(b"first"));
        assert!(executable.content(4).unwrap().is_none());
    }

    #[test]
    fn has_no_hash_of_a_file_that_changed_while_it_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tool");
        std::fs::write(&path, "first").unwrap();
        let content = opened(&path).content(100).unwrap().unwrap();
        std::fs::write(&path, "longer than it was").unwrap();
        assert!(content.hash().is_err());
        let content = opened(&path).content(100).unwrap().unwrap();
        std::fs::write(&path, "short").unwrap();
        assert!(content.hash().is_err());
    }
}
