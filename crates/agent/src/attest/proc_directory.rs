//! What the kernel says of one process, read through its opened directory in `/proc`.
//!
//! The open directory stays that of the process it was opened for: once the process is gone, reading through it
//! fails, even when its id means another process by then. `/proc/PID` is never looked up a second time.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, PROC_SUPER_MAGIC, StatxFlags};

/// `/proc/PID`, open.
#[derive(Debug)]
pub(super) struct ProcDirectory(OwnedFd);

/// Which file something is; no two files have the same as long as one of them is held open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
}

/// As whom the process acts (proc_pid_status(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Real, effective, saved and file system user.
    pub(super) uids: [u32; 4],
    /// The same of the group.
    pub(super) gids: [u32; 4],
    /// Supplementary groups.
    pub(super) groups: Vec<u32>,
}

impl Credentials {
    /// The user that permissions are checked for.
    pub(super) fn uid(&self) -> u32 {
        self.uids[1]
    }

    /// Its group.
    pub(super) fn gid(&self) -> u32 {
        self.gids[1]
    }
}

/// What is used of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// The controlling terminal; 0 without one.
    pub(super) terminal: i64,
    /// When the process started, in clock ticks since boot.
    pub(super) start: u64,
}

/// What can be asked a thousand times a second: enough to see that something changed, not what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glance {
    /// The executable.
    pub(super) executable: FileId,
    /// Who owns the directory: the process's effective user and group, or root if it may not be traced.
    pub(super) owner: (u32, u32),
}

impl ProcDirectory {
    /// Opens the directory of whichever process has this id now. The caller makes sure that it is the right one.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = rustix::fs::openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())?;
        if rustix::fs::fstatfs(&directory)?.f_type != PROC_SUPER_MAGIC {
            return Err(io::Error::other("/proc is not what the kernel mounts there"));
        }
        Ok(Self(directory))
    }

    /// When it started, and its terminal.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        parse_stat(&self.read("stat", MAX_STAT)?).ok_or_else(|| unexpected("stat"))
    }

    /// As whom it acts.
    pub(super) fn credentials(&self) -> io::Result<Credentials> {
        parse_status(&self.read("status", MAX_STATUS)?).ok_or_else(|| unexpected("status"))
    }

    /// `/proc/PID/cgroup`.
    pub(super) fn cgroup(&self) -> io::Result<String> {
        self.read("cgroup", MAX_CGROUP)
    }

    /// A handle on the file that it runs, which keeps the file from being replaced by another one of the same
    /// number. The file itself is not opened.
    pub(super) fn executable(&self) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.0, "exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// What the kernel calls that file: a path as its own mount namespace has it.
    pub(super) fn executable_name(&self) -> io::Result<CString> {
        Ok(rustix::fs::readlinkat(&self.0, "exe", Vec::new())?)
    }

    /// See [`Glance`].
    pub(super) fn glance(&self) -> io::Result<Glance> {
        let owner = rustix::fs::fstat(&self.0)?;
        // Without this flag a file system in user space could keep us waiting for ever.
        let executable =
            rustix::fs::statx(&self.0, "exe", AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE | StatxFlags::INO)?;
        Ok(Glance {
            executable: FileId {
                device: (executable.stx_dev_major, executable.stx_dev_minor),
                inode: executable.stx_ino,
            },
            owner: (owner.st_uid, owner.st_gid),
        })
    }

    fn read(&self, name: &str, limit: usize) -> io::Result<String> {
        let file = rustix::fs::openat(&self.0, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let bytes = read_whole(file, limit)?;
        // The name of a program may hold any bytes; everything that is asked for is ASCII.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Which file an open one is.
pub(super) fn file_id(file: impl AsFd) -> io::Result<FileId> {
    let found = rustix::fs::statx(
        file,
        "",
        AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC,
        StatxFlags::TYPE | StatxFlags::INO,
    )?;
    Ok(FileId { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
}

fn read_whole(file: OwnedFd, limit: usize) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::with_capacity(2048);
    let within = u64::try_from(limit).unwrap_or(u64::MAX);
    let read = std::fs::File::from(file).take(within.saturating_add(1)).read_to_end(&mut bytes)?;
    if read > limit {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// The second field is the program's name in parentheses, and the program chooses it: what follows the last
/// parenthesis is the kernel's.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // Field 3 of the manual page is the first one here.
    Some(Stat { terminal: fields.get(7 - 3)?.parse().ok()?, start: fields.get(22 - 3)?.parse().ok()? })
}

/// The kernel writes a newline in a program's name as `\n`, so that no name can begin a line.
fn parse_status(text: &str) -> Option<Credentials> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let numbers = |name: &str| -> Option<Vec<u32>> {
        field(name)?.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
    };
    Some(Credentials {
        uids: numbers("Uid")?.try_into().ok()?,
        gids: numbers("Gid")?.try_into().ok()?,
        groups: numbers("Groups")?,
    })
}

fn unexpected(file: &str) -> io::Error {
    io::Error::other(format!("/proc/PID/{file} is not as the kernel documents it"))
}

const MAX_STAT: usize = 4096;

/// Most of it is the list of groups, of which there are 65,536 at most.
const MAX_STATUS: usize = 1 << 20;

/// A path for each hierarchy.
const MAX_CGROUP: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_process() {
        let directory = ProcDirectory::open(std::process::id()).unwrap();
        assert!(directory.stat().unwrap().start > 0);
        assert_eq!(directory.credentials().unwrap().uid(), rustix::process::geteuid().as_raw());
        assert!(directory.cgroup().unwrap().contains(':'));
        let executable = directory.executable().unwrap();
        assert_eq!(directory.glance().unwrap().executable, file_id(&executable).unwrap());
    }

    #[test]
    fn is_not_led_astray_by_the_name_of_a_program() {
        let fields = "S 1 2 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 77 5 6";
        let honest = parse_stat(&format!("1 (sh) {fields}")).unwrap();
        assert_eq!(honest, Stat { terminal: 0, start: 77 });
        for name in
            [") R 9 9 9 9", "a) (b", "", "\u{fffd}", ") S 1 2 3 34816 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 5"]
        {
            assert_eq!(parse_stat(&format!("1 ({name}) {fields}")).unwrap(), honest, "{name}");
        }
        let status = "Name:\t\\nUid:\\t0\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t4 24 \n";
        let credentials = parse_status(status).unwrap();
        assert_eq!((credentials.uid(), credentials.gid()), (2, 6));
        assert_eq!(credentials.groups, [4, 24]);
    }

    #[test]
    fn makes_nothing_of_a_file_that_is_cut_short() {
        for text in ["", "1 (sh", "1 (sh) S 1 2", "1 (sh) S 1 2 3 x -1"] {
            assert_eq!(parse_stat(text), None, "{text}");
        }
        for text in ["", "Uid:\t1\n", "Uid:\t1\t2\t3\t4\n", "Uid:\t1\t2\t3\tx\nGid:\t5\t6\t7\t8\nGroups:\t\n"]
        {
            assert_eq!(parse_status(text), None, "{text}");
        }
    }

    #[test]
    fn reads_nothing_once_the_process_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let directory = ProcDirectory::open(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(directory.stat().is_err() && directory.credentials().is_err() && directory.cgroup().is_err());
        assert!(directory.executable().is_err() && directory.executable_name().is_err());
    }
}
