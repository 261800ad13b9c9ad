//! A signal, to the process that is meant and to no other.
//!
//! A number in a file may be that of a process that took the place of the one that wrote it. So the number is
//! first pinned to a process by a descriptor; then what the kernel says of the process is compared with what is
//! known of the one that is meant; then the signal goes to the descriptor.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use super::{HookOutcome, SignalName};

#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) addressee: Addressee,
    pub(super) signal: SignalName,
    pub(super) executable: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub(super) enum Addressee {
    /// Whoever wrote this file.
    PidFile(PathBuf),
    /// The process that had the id when the agent started; `started` in ticks since the machine did.
    Pinned { pid: u32, started: u64 },
}

impl Addressee {
    pub(super) fn pinned(pid: u32) -> Result<Self, String> {
        let started = started(pid).ok_or_else(|| format!("there is no process {pid}"))?;
        Ok(Self::Pinned { pid, started })
    }
}

impl Target {
    pub(super) fn send(&self) -> HookOutcome {
        match self.find().and_then(|process| self.signal(&process)) {
            Ok(()) => HookOutcome::Done { output: String::new() },
            Err(why) => HookOutcome::NoProcess { why },
        }
    }

    fn find(&self) -> Result<OwnedFd, String> {
        match &self.addressee {
            Addressee::Pinned { pid, started: then } => {
                let process = open(*pid)?;
                self.check_executable(*pid)?;
                match started(*pid) {
                    Some(now) if now == *then => Ok(process),
                    _ => Err(format!("{pid} is not the process any more that it was")),
                }
            }
            Addressee::PidFile(path) => {
                let PidFile { pid, written, owner } = read_pidfile(path)?;
                let process = open(pid)?;
                self.check_executable(pid)?;
                // Whoever can write the file must not have the agent signal what he could not signal himself.
                if owner != 0 && user(pid) != Some(owner) {
                    return Err(format!("process {pid} is not of user {owner}, who owns {}", path.display()));
                }
                // Who wrote the file was there before it; both times are coarse.
                match started(pid).and_then(seconds_since_1970) {
                    Some(started) if started <= written + TOLERANCE => Ok(process),
                    _ => Err(format!("process {pid} began after {} was written", path.display())),
                }
            }
        }
    }

    fn check_executable(&self, pid: u32) -> Result<(), String> {
        let Some(expected) = &self.executable else { return Ok(()) };
        let error = |why: String| format!("process {pid} does not run {}: {why}", expected.display());
        let runs = fs::read_link(format!("/proc/{pid}/exe")).map_err(|cause| error(cause.to_string()))?;
        // A package may have replaced the file since.
        let runs = runs.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
        let same = Path::new(&runs) == fs::canonicalize(expected).as_deref().unwrap_or(expected);
        if same { Ok(()) } else { Err(error(format!("it runs {runs}"))) }
    }

    fn signal(&self, process: &OwnedFd) -> Result<(), String> {
        pidfd_send_signal(process, self.signal.0).map_err(|cause| format!("cannot be signalled: {cause}"))
    }
}

fn open(pid: u32) -> Result<OwnedFd, String> {
    let error = |why: &str| format!("there is no process {pid}: {why}");
    let id = i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw);
    let id = id.ok_or_else(|| error("it is not a number that a service has"))?;
    pidfd_open(id, PidfdFlags::empty()).map_err(|cause| error(&cause.to_string()))
}

struct PidFile {
    pid: u32,
    /// In seconds since 1970.
    written: u64,
    owner: u32,
}

fn read_pidfile(path: &Path) -> Result<PidFile, String> {
    let error = |why: String| format!("cannot read {}: {why}", path.display());
    let file = fs::File::open(path).map_err(|cause| error(cause.to_string()))?;
    let about = file.metadata().map_err(|cause| error(cause.to_string()))?;
    if !about.is_file() {
        return Err(error("it is no file".to_owned()));
    }
    let mut text = String::new();
    file.take(PIDFILE_LIMIT).read_to_string(&mut text).map_err(|cause| error(cause.to_string()))?;
    // PostgreSQL writes more lines after the first.
    let first = text.lines().next().unwrap_or_default().trim();
    let pid = first.parse().map_err(|_| error(format!("its first line is {first:?}, not a number")))?;
    Ok(PidFile { pid, written: u64::try_from(about.mtime()).unwrap_or(0), owner: about.uid() })
}

/// When a process started, in ticks since the machine did: field 22 of `/proc/PID/stat`, whose second field is a
/// name in parentheses that may hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// The real user of a process.
fn user(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

fn seconds_since_1970(ticks: u64) -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks / rustix::param::clock_ticks_per_second())
}

/// In seconds: the time of the start of the machine is rounded, and moves when its clock is corrected.
const TOLERANCE: u64 = 2;

/// More than any program writes.
const PIDFILE_LIMIT: u64 = 4096;
