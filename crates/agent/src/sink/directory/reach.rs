//! The way to a directory that nobody else can turn into a way to another one.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::DirectoryError;
use crate::sink::config::SinkConfig;

/// Opens a path from the root, one directory after the other, and makes the last one if it is not there.
pub(super) fn reach(config: &SinkConfig) -> Result<OwnedFd, DirectoryError> {
    let path = config.directory.as_path();
    let system = |what, path: &Path| {
        let path = path.display().to_string();
        move |cause| DirectoryError::System { what, path, cause }
    };
    // Links above it, such as /var/run, are followed here once and for all; below, none are.
    let above = path.parent().unwrap_or(path);
    let resolved = std::fs::canonicalize(above)
        .map_err(|cause| Errno::from_io_error(&cause).unwrap_or(Errno::IO))
        .map_err(system("find", above))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut so_far = PathBuf::from("/");
    let mut fd = fs::open("/", flags, Mode::empty()).map_err(system("open", &so_far))?;
    check_trust(&fd, &so_far)?;
    for component in resolved.components() {
        let Component::Normal(name) = component else { continue };
        so_far.push(name);
        fd = fs::openat(&fd, name, flags, Mode::empty()).map_err(system("open", &so_far))?;
        check_trust(&fd, &so_far)?;
    }
    let name = path.file_name().unwrap_or(OsStr::new("."));
    let made = match fs::mkdirat(&fd, name, Mode::from(0o700)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(cause) => return Err(system("make", path)(cause)),
    };
    let last = fs::openat(&fd, name, flags, Mode::empty()).map_err(|cause| match cause {
        Errno::LOOP | Errno::NOTDIR => untrusted(path, "is a link or no directory"),
        cause => system("open", path)(cause),
    })?;
    check_trust(&last, path)?;
    if fs::fstat(&last).map_err(system("look at", path))?.st_mode & STICKY != 0 {
        return Err(untrusted(path, "is shared by everyone"));
    }
    if made {
        let gid = config.ownership.gid.map(fs::Gid::from_raw);
        fs::fchown(&last, None, gid).map_err(system("change the group of", path))?;
        fs::fchmod(&last, Mode::from(config.directory_mode)).map_err(system("change the mode of", path))?;
        fs::fsync(&fd).map_err(system("sync", above))?;
    }
    Ok(last)
}

fn check_trust(fd: impl AsFd, path: &Path) -> Result<(), DirectoryError> {
    let untrusted = |why| untrusted(path, why);
    let stat = fs::fstat(fd).map_err(|cause| DirectoryError::System {
        what: "look at",
        path: path.display().to_string(),
        cause,
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(untrusted("is no directory"));
    }
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(untrusted("belongs to another user"));
    }
    if stat.st_mode & 0o022 != 0 && stat.st_mode & STICKY == 0 {
        return Err(untrusted("can be written by others"));
    }
    Ok(())
}

fn untrusted(path: &Path, why: &'static str) -> DirectoryError {
    DirectoryError::Untrusted { path: path.display().to_string(), why }
}

/// Everyone may write, and nobody may move what is another's.
const STICKY: u32 = 0o1000;
