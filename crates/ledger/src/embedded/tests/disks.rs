//! Disks that fail, and disks that remember.

use std::collections::BTreeMap;
use std::fs::{self, File};
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

/// Remembers everything that was done, to tell later what a power cut at any moment could have left.
#[derive(Debug, Default)]
pub(super) struct RecordingDisk(Mutex<Vec<Step>>);

#[derive(Debug, Clone)]
enum Step {
    /// A name for a new, empty file.
    Create(PathBuf),
    Truncate(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    /// Longer with zeros, or shorter.
    SetLength(PathBuf, u64),
    Grow(PathBuf, u64),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDirectory(PathBuf),
}

impl RecordingDisk {
    /// Steps so far: moments at which the power can fail.
    pub(super) fn moment(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn record<T>(&self, step: impl FnOnce(&mut Vec<Step>) -> io::Result<T>) -> io::Result<T> {
        // Under the lock, so that the steps are in the order in which they happened.
        step(&mut self.0.lock().unwrap())
    }

    /// Writes into a directory what could be found after a power cut at this moment: everything that was
    /// synced, and of the rest what `chance` decides, sector by sector. Names last as the journal of a file
    /// system keeps them: in their order, up to some point.
    pub(super) fn after_power_cut(
        &self,
        moment: usize,
        from: &Path,
        to: &Path,
        chance: &mut dyn FnMut(u64) -> u64,
    ) {
        let steps = self.0.lock().unwrap();
        let mut platter = Platter::default();
        for step in &steps[..moment] {
            platter.step(step);
        }
        platter.lose(chance);
        for (path, file) in platter.names {
            let path = to.join(path.strip_prefix(from).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &platter.files[file].durable).unwrap();
        }
        for directory in ["journal", "derived"] {
            fs::create_dir_all(to.join(directory)).unwrap();
        }
    }
}

/// What is on the medium, and what is on its way there.
#[derive(Debug, Default)]
struct Platter {
    files: Vec<OnPlatter>,
    /// Durable names.
    names: BTreeMap<PathBuf, usize>,
    /// Names as programs see them.
    seen: BTreeMap<PathBuf, usize>,
    /// Changes of names that no directory sync has made durable.
    renames: Vec<(Option<PathBuf>, Option<(PathBuf, usize)>)>,
}

#[derive(Debug, Default)]
struct OnPlatter {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLength(u64),
    Grow(u64),
}

impl OnPlatter {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(offset, bytes) => {
                let start = usize::try_from(*offset).unwrap();
                self.durable.resize(self.durable.len().max(start + bytes.len()), 0);
                self.durable[start..start + bytes.len()].copy_from_slice(bytes);
            }
            Change::SetLength(length) => self.durable.resize(usize::try_from(*length).unwrap(), 0),
            Change::Grow(length) => {
                let length = usize::try_from(*length).unwrap();
                self.durable.resize(self.durable.len().max(length), 0);
            }
        }
    }
}

const SECTOR: usize = 512;

impl Platter {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Create(path) => {
                let file = self.files.len();
                self.files.push(OnPlatter::default());
                self.seen.insert(path.clone(), file);
                self.renames.push((None, Some((path.clone(), file))));
            }
            Step::Truncate(path) => self.change(path, Change::SetLength(0)),
            Step::Write(path, offset, bytes) => self.change(path, Change::Write(*offset, bytes.clone())),
            Step::SetLength(path, length) => self.change(path, Change::SetLength(*length)),
            Step::Grow(path, length) => self.change(path, Change::Grow(*length)),
            Step::Sync(path) => {
                let file = &mut self.files[self.seen[path]];
                for change in std::mem::take(&mut file.pending) {
                    file.apply(&change);
                }
            }
            Step::Rename(from, to) => {
                let file = self.seen.remove(from).unwrap();
                self.seen.insert(to.clone(), file);
                self.renames.push((Some(from.clone()), Some((to.clone(), file))));
            }
            Step::Remove(path) => {
                self.seen.remove(path);
                self.renames.push((Some(path.clone()), None));
            }
            Step::SyncDirectory(directory) => {
                let of_it = |path: &Path| path.parent() == Some(directory);
                let renames = std::mem::take(&mut self.renames);
                for rename in renames {
                    let path = rename.0.as_deref().or(rename.1.as_ref().map(|(path, _)| path.as_path()));
                    if of_it(path.unwrap()) { self.name(rename) } else { self.renames.push(rename) }
                }
            }
        }
    }

    fn change(&mut self, path: &Path, change: Change) {
        self.files[self.seen[path]].pending.push(change);
    }

    fn name(&mut self, (from, to): (Option<PathBuf>, Option<(PathBuf, usize)>)) {
        if let Some(from) = from {
            self.names.remove(&from);
        }
        if let Some((path, file)) = to {
            self.names.insert(path, file);
        }
    }

    /// Some of what was on its way arrives.
    fn lose(&mut self, chance: &mut dyn FnMut(u64) -> u64) {
        let arrived = usize::try_from(chance(self.renames.len() as u64 + 1)).unwrap();
        for rename in std::mem::take(&mut self.renames).into_iter().take(arrived) {
            self.name(rename);
        }
        for file in &mut self.files {
            for change in std::mem::take(&mut file.pending) {
                match (&change, chance(3)) {
                    (_, 0) => {}
                    (Change::Write(offset, bytes), 1) => {
                        let mut at = 0;
                        while at < bytes.len() {
                            let place = usize::try_from(*offset).unwrap() + at;
                            let end = bytes.len().min(at + SECTOR - place % SECTOR);
                            if chance(2) == 0 {
                                file.apply(&Change::Write(place as u64, bytes[at..end].to_vec()));
                            }
                            at = end;
                        }
                    }
                    _ => file.apply(&change),
                }
            }
        }
    }
}

impl Disk for RecordingDisk {
    fn open(&self, path: &Path, how: How) -> io::Result<File> {
        self.record(|steps| {
            let is_new = !path.exists();
            let file = RealDisk.open(path, how)?;
            if is_new {
                steps.push(Step::Create(path.to_owned()));
            } else if how == How::Anew {
                steps.push(Step::Truncate(path.to_owned()));
            }
            Ok(file)
        })
    }

    fn allocate(&self, path: &Path, file: &File, from: u64, to: u64, grow: bool) -> io::Result<()> {
        self.record(|steps| {
            RealDisk.allocate(path, file, from, to, grow)?;
            if grow {
                steps.push(Step::Grow(path.to_owned(), to));
            }
            Ok(())
        })
    }

    fn write(&self, path: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.record(|steps| {
            steps.push(Step::Write(path.to_owned(), offset, bytes.to_vec()));
            RealDisk.write(path, file, bytes, offset)
        })
    }

    fn set_length(&self, path: &Path, file: &File, length: u64) -> io::Result<()> {
        self.record(|steps| {
            steps.push(Step::SetLength(path.to_owned(), length));
            RealDisk.set_length(path, file, length)
        })
    }

    fn sync(&self, path: &Path, _: &File) -> io::Result<()> {
        self.record(|steps| {
            steps.push(Step::Sync(path.to_owned()));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.record(|steps| {
            steps.push(Step::Rename(from.to_owned(), to.to_owned()));
            RealDisk.rename(from, to)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.record(|steps| {
            RealDisk.remove(path)?;
            steps.push(Step::Remove(path.to_owned()));
            Ok(())
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.record(|steps| {
            steps.push(Step::SyncDirectory(path.to_owned()));
            Ok(())
        })
    }
}
