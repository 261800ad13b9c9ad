//! A directory whose files change all at once.
//!
//! ```text
//! tls.crt -> ..data/tls.crt          what programs are told
//! tls.key -> ..data/tls.key
//! ..data -> ..v0001-...              replaced by one rename
//! ..v0001-.../tls.crt, tls.key       a version: written, synced, never changed again
//! ```
//!
//! At any moment, also in the middle of a crash, `..data` leads to one whole version. A program that opens two
//! files one after the other, and reloads on its own instead of by a hook, can still meet a change between the two;
//! one that resolves `..data` first, or reads a combined file, cannot.
//!
//! The directory and all above it must belong to root or to the agent's user and be writable by nobody else, or be
//! sticky: then nobody can put a link where a file is about to be, and nothing that was checked can change. It is
//! reached step by step through directory descriptors that follow no links.

mod reach;

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use chancery_types::Timestamp;
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use self::reach::reach;
use super::config::SinkConfig;
use super::owner::Ownership;
use super::render::Rendered;

/// Why a directory cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system refused.
    #[error("cannot {what} {path}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// Why not.
        cause: Errno,
    },
    /// Somebody else could change what is written.
    #[error("{path} {why}: let it belong to root or to the agent's user, writable by nobody else")]
    Untrusted {
        /// Where.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something else stands where a file should appear.
    #[error("{0} is there and is not from this agent: move it away")]
    InTheWay(String),
    /// Two writers.
    #[error("another process writes to {0}: give each sink a directory of its own")]
    Locked(String),
}

/// A version that is, or was, in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) name: String,
    /// When it was written.
    pub(super) written: Timestamp,
    /// When what it holds ends; the epoch for one that holds nothing.
    pub(super) ends: Timestamp,
    /// The serial of its certificate; empty for one that holds nothing.
    pub(super) serial: String,
}

/// The directory, held by its descriptor and locked.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    ownership: Ownership,
    grace: Duration,
    #[cfg(test)]
    pub(super) crash_at: std::sync::Mutex<Option<Step>>,
}

/// What happens one after the other; a crash can come before each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    MakeVersion,
    WriteFile(usize),
    SyncVersion,
    NameVersion,
    LinkFile(usize),
    MakePointer,
    SwapPointer,
    SyncDirectory,
    Prune,
}

impl Directory {
    /// Reaches the directory, makes it if need be, and takes away what a crash left half done.
    pub(super) fn open(config: &SinkConfig) -> Result<Self, DirectoryError> {
        let fd = reach(config)?;
        let directory = Self {
            fd,
            path: config.directory.clone(),
            ownership: config.ownership,
            grace: config.grace,
            #[cfg(test)]
            crash_at: std::sync::Mutex::new(None),
        };
        match fs::flock(&directory.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(DirectoryError::Locked(config.directory.display().to_string()));
            }
            Err(cause) => return Err(directory.error("lock", "", cause)),
        }
        directory.clear()?;
        Ok(directory)
    }

    /// Puts a whole set of files in the place of the one before.
    pub(super) fn publish(
        &self,
        files: &[Rendered],
        serial: &str,
        ends: Timestamp,
        now: Timestamp,
    ) -> Result<Version, DirectoryError> {
        self.refuse_obstacles(files)?;
        let version = self.next_version(serial, ends, now)?;
        self.step(Step::MakeVersion)?;
        self.remove_tree(HALF_VERSION)?;
        self.try_to("make", HALF_VERSION, fs::mkdirat(&self.fd, HALF_VERSION, Mode::from(0o700)))?;
        let half = self.subdirectory(HALF_VERSION)?;
        for (index, file) in files.iter().enumerate() {
            self.step(Step::WriteFile(index))?;
            self.write(&half, file)?;
        }
        self.step(Step::SyncVersion)?;
        // The files have modes and owners of their own; what is secret in them does not hang on this.
        self.try_to("change the mode of", HALF_VERSION, fs::fchmod(&half, Mode::from(0o755)))?;
        self.try_to("sync", HALF_VERSION, fs::fsync(&half))?;
        self.step(Step::NameVersion)?;
        self.try_to("rename", HALF_VERSION, fs::renameat(&self.fd, HALF_VERSION, &self.fd, &version.name))?;
        for (index, file) in files.iter().enumerate() {
            self.step(Step::LinkFile(index))?;
            let name = &file.file.name;
            match fs::symlinkat(format!("{POINTER}/{name}"), &self.fd, name.as_str()) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(cause) => return Err(self.error("link", name, cause)),
            }
        }
        self.point_to(&version)?;
        Ok(version)
    }

    /// Puts a version that is there in place.
    pub(super) fn point_to(&self, version: &Version) -> Result<(), DirectoryError> {
        self.subdirectory(&version.name)?;
        self.step(Step::MakePointer)?;
        self.remove_file(HALF_POINTER)?;
        self.try_to("link", HALF_POINTER, fs::symlinkat(version.name.as_str(), &self.fd, HALF_POINTER))?;
        // What the new pointer leads to must be on disk before the pointer is.
        self.try_to("sync", "", fs::fsync(&self.fd))?;
        self.step(Step::SwapPointer)?;
        self.try_to("rename", HALF_POINTER, fs::renameat(&self.fd, HALF_POINTER, &self.fd, POINTER))?;
        self.step(Step::SyncDirectory)?;
        self.try_to("sync", "", fs::fsync(&self.fd))
    }

    /// The version in place.
    pub(super) fn current(&self) -> Result<Option<Version>, DirectoryError> {
        match fs::readlinkat(&self.fd, POINTER, Vec::new()) {
            Ok(target) => Ok(target.to_str().ok().and_then(Version::read)),
            Err(Errno::NOENT) => Ok(None),
            Err(cause) => Err(self.error("read", POINTER, cause)),
        }
    }

    /// Takes away the versions whose grace is over, but never the one in place nor the one to keep.
    pub(super) fn prune(&self, keep: Option<&Version>, now: Timestamp) -> Result<(), DirectoryError> {
        self.step(Step::Prune)?;
        let current = self.current()?;
        let mut versions = self.versions()?;
        versions.sort_by_key(|version| version.written);
        // A version was replaced when the next one was written.
        for (version, replaced) in versions.iter().zip(versions.iter().skip(1)) {
            let needed = [current.as_ref(), keep].contains(&Some(version));
            if !needed && now.since(replaced.written) >= self.grace {
                self.remove_tree(&version.name)?;
            }
        }
        Ok(())
    }

    /// Every version but the one in place, and the names of what it does not have, at once: when an identity is withdrawn.
    pub(super) fn remove_others(&self) -> Result<(), DirectoryError> {
        let current = self.current()?;
        for version in self.versions()?.iter().filter(|version| Some(*version) != current.as_ref()) {
            self.remove_tree(&version.name)?;
        }
        self.clear_links()
    }

    fn next_version(&self, serial: &str, ends: Timestamp, now: Timestamp) -> Result<Version, DirectoryError> {
        // Names must not collide and must sort, also after the clock was set back.
        let last = self.versions()?.iter().map(|version| version.written).max();
        let written = last.map_or(now, |last| now.max(last + Duration::from_millis(1)));
        Ok(Version::new(written, ends, serial))
    }

    fn versions(&self) -> Result<Vec<Version>, DirectoryError> {
        let names = self.names(&self.fd)?;
        Ok(names.iter().filter_map(|name| Version::read(name)).collect())
    }

    fn names(&self, directory: &OwnedFd) -> Result<Vec<String>, DirectoryError> {
        let entries = fs::Dir::read_from(directory).map_err(|cause| self.error("list", "", cause))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|cause| self.error("list", "", cause))?;
            names.extend(entry.file_name().to_str().map(str::to_owned).ok());
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    fn write(&self, version: &OwnedFd, rendered: &Rendered) -> Result<(), DirectoryError> {
        let name = rendered.file.name.as_str();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.try_to("make", name, fs::openat(version, name, flags, Mode::from(0o600)))?;
        let mut file = std::fs::File::from(file);
        let written = file.write_all(&rendered.bytes);
        self.try_to(
            "write",
            name,
            written.map_err(|cause| Errno::from_io_error(&cause).unwrap_or(Errno::IO)),
        )?;
        let Ownership { uid, gid } = self.ownership;
        let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
        self.try_to("change the owner of", name, fs::fchown(&file, uid, gid))?;
        self.try_to("change the mode of", name, fs::fchmod(&file, Mode::from(rendered.file.mode)))?;
        self.try_to("sync", name, fs::fsync(&file))
    }

    /// Whoever has a file of his own under one of these names does not lose it.
    fn refuse_obstacles(&self, files: &[Rendered]) -> Result<(), DirectoryError> {
        for name in files.iter().map(|file| file.file.name.as_str()) {
            let ours = match fs::readlinkat(&self.fd, name, Vec::new()) {
                Ok(target) => target.to_bytes() == format!("{POINTER}/{name}").as_bytes(),
                Err(Errno::NOENT) => true,
                Err(_) => false,
            };
            if !ours {
                return Err(DirectoryError::InTheWay(self.path.join(name).display().to_string()));
            }
        }
        Ok(())
    }

    /// What a crash left, and links to files that are no longer configured or no longer there.
    fn clear(&self) -> Result<(), DirectoryError> {
        self.remove_tree(HALF_VERSION)?;
        self.remove_file(HALF_POINTER)?;
        self.clear_links()
    }

    /// Takes away the names of files that the version in place does not have.
    fn clear_links(&self) -> Result<(), DirectoryError> {
        for name in self.names(&self.fd)? {
            let Ok(target) = fs::readlinkat(&self.fd, name.as_str(), Vec::new()) else { continue };
            let ours = target.to_bytes() == format!("{POINTER}/{name}").as_bytes();
            if ours
                && fs::statat(&self.fd, name.as_str(), AtFlags::empty())
                    .is_err_and(|cause| cause == Errno::NOENT)
            {
                self.remove_file(&name)?;
            }
        }
        Ok(())
    }

    fn remove_file(&self, name: &str) -> Result<(), DirectoryError> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(cause) => Err(self.error("remove", name, cause)),
        }
    }

    /// A version holds files and nothing below them.
    fn remove_tree(&self, name: &str) -> Result<(), DirectoryError> {
        let version = match self.subdirectory(name) {
            Ok(version) => version,
            Err(DirectoryError::System { cause: Errno::NOENT, .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for file in self.names(&version)? {
            self.try_to("remove", &file, fs::unlinkat(&version, file.as_str(), AtFlags::empty()))?;
        }
        self.try_to("remove", name, fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR))
    }

    fn subdirectory(&self, name: &str) -> Result<OwnedFd, DirectoryError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.try_to("open", name, fs::openat(&self.fd, name, flags, Mode::empty()))
    }

    fn try_to<T>(&self, what: &'static str, name: &str, done: Result<T, Errno>) -> Result<T, DirectoryError> {
        done.map_err(|cause| self.error(what, name, cause))
    }

    fn error(&self, what: &'static str, name: &str, cause: Errno) -> DirectoryError {
        DirectoryError::System { what, path: self.path.join(name).display().to_string(), cause }
    }

    #[cfg(test)]
    fn step(&self, step: Step) -> Result<(), DirectoryError> {
        let crash = *self.crash_at.lock().expect("no test panics with it") == Some(step);
        if crash { Err(self.error("survive", "the test", Errno::CANCELED)) } else { Ok(()) }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "a crash can only come here in tests")]
    fn step(&self, _: Step) -> Result<(), DirectoryError> {
        Ok(())
    }
}

impl Version {
    fn new(written: Timestamp, ends: Timestamp, serial: &str) -> Self {
        let name = format!("{VERSION}{:015}-{}-{serial}", written.millis(), ends.millis());
        Self { name, written, ends, serial: serial.to_owned() }
    }

    /// Reads a name back. Names that others made are none.
    fn read(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(VERSION)?.splitn(3, '-');
        let written = Timestamp::from_millis(parts.next()?.parse().ok()?);
        let ends = Timestamp::from_millis(parts.next()?.parse().ok()?);
        let serial = parts.next()?;
        let version = Self::new(written, ends, serial);
        (version.name == name && serial.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(version)
    }
}

/// Where the names lead.
const POINTER: &str = "..data";
/// The next pointer, before it takes its place.
const HALF_POINTER: &str = "..data-next";
/// The next version, before it is whole.
const HALF_VERSION: &str = "..next";
/// How names of versions begin.
const VERSION: &str = "..v";
