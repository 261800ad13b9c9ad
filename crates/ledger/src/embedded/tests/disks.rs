//! Disks that fail, and disks that remember.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::super::disk::{Disk, How, RealDisk};

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does nothing.
    Fails,
    /// It does everything, and says that it has not.
    FailsPersisted,
    /// There is no room for it.
    Full,
    /// There is room for half of it.
    Short,
    /// The process is gone: neither it nor any later one does anything.
    Dead,
    /// There is no room for it, nor for any later one until somebody makes some.
    StaysFull,
}

pub(super) const FAULTS: [Fault; 6] =
    [Fault::Fails, Fault::FailsPersisted, Fault::Full, Fault::Short, Fault::Dead, Fault::StaysFull];

/// Fails at one operation.
#[derive(Debug, Default)]
pub(super) struct FaultyDisk(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Operations so far, by what they did.
    operations: Vec<String>,
    plan: Option<(usize, Fault)>,
    syncs_failed: Vec<PathBuf>,
}

impl FaultyDisk {
    /// Fails the operation of this number, counted from now.
    pub(super) fn plan(&self, after: usize, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        state.operations.clear();
        state.plan = Some((after, fault));
    }

    /// Everything works again.
    pub(super) fn heal(&self) {
        self.0.lock().unwrap().plan = None;
    }

    pub(super) fn operations(&self) -> Vec<String> {
        self.0.lock().unwrap().operations.clone()
    }

    fn step<T>(
        &self,
        what: &str,
        path: &Path,
        half: impl FnOnce(),
        real: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let fault = {
            let mut state = self.0.lock().unwrap();
            let number = state.operations.len();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            state.operations.push(format!("{what} {name}"));
            if what == "sync" {
                let failed_before = state.syncs_failed.iter().any(|failed| failed == path);
                assert!(!failed_before, "a sync of {name} failed, and was tried again");
            }
            let fault = state.plan.and_then(|(at, fault)| match fault {
                Fault::Dead | Fault::StaysFull => (number >= at).then_some(fault),
                _ => (number == at).then_some(fault),
            });
            let fails_sync = matches!(fault, Some(Fault::Fails | Fault::FailsPersisted));
            if what == "sync" && fails_sync {
                state.syncs_failed.push(path.to_owned());
            }
            fault
        };
        match fault {
            None => real(),
            Some(Fault::Fails | Fault::Dead) => Err(broken()),
            Some(Fault::FailsPersisted) => real().and(Err(broken())),
            Some(Fault::Full | Fault::StaysFull) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Short) => {
                half();
                Err(io::ErrorKind::StorageFull.into())
            }
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("injected")
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, how: How) -> io::Result<File> {
        self.step("open", path, || {}, || RealDisk.open(path, how))
    }

    fn allocate(&self, path: &Path, file: &File, from: u64, to: u64, grow: bool) -> io::Result<()> {
        self.step("allocate", path, || {}, || RealDisk.allocate(path, file, from, to, grow))
    }

    fn write(&self, path: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let half = || file.write_all_at(&bytes[..bytes.len() / 2], offset).unwrap();
        self.step("write", path, half, || RealDisk.write(path, file, bytes, offset))
    }

    fn set_length(&self, path: &Path, file: &File, length: u64) -> io::Result<()> {
        self.step("set_length", path, || {}, || RealDisk.set_length(path, file, length))
    }

    fn sync(&self, path: &Path, file: &File) -> io::Result<()> {
        self.step("sync", path, || {}, || RealDisk.sync(path, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename", to, || {}, || RealDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step("remove", path, || {}, || RealDisk.remove(path))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.step("sync directory", path, || {}, || RealDisk.sync_directory(path))
    }
}
