//! A disk that can be filled, broken and repaired.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::running::{Place, skipped};

/// Room for a ledger with its first reserved segment, and not for a second.
const MEBIBYTES: u32 = 160;

/// A file system, mounted for one test.
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// In memory; `None`, loudly, where nothing can be mounted.
    pub(crate) fn in_memory(test: &str, path: PathBuf) -> Option<Self> {
        let size = format!("size={MEBIBYTES}m,mode=700");
        Self::mount(test, path, &["-t", "tmpfs", "-o", &size, "tmpfs"])
    }

    /// With ext4 on a loop device over an image; `None`, loudly, where that cannot be.
    pub(crate) fn of_blocks(test: &str, path: PathBuf, image: &Path) -> Option<Self> {
        std::fs::File::create(image).unwrap().set_len(u64::from(2 * MEBIBYTES) << 20).unwrap();
        if let Err(why) = run("mkfs.ext4", &["-q", "-F", text(image)]) {
            skipped(test, &why);
            return None;
        }
        Self::mount(test, path, &["-t", "ext4", "-o", "loop,errors=remount-ro", text(image)])
    }

    fn mount(test: &str, path: PathBuf, how: &[&str]) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        match run("mount", &[how, &[text(&path)]].concat()) {
            Ok(()) => Some(Self { path }),
            Err(why) => {
                skipped(test, &format!("nothing can be mounted: {why}"));
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn remount(&self, how: &str) {
        // ext4 says that it is broken once it was told to be.
        let _ = run("mount", &["-o", &format!("remount,{how}"), text(&self.path)]);
    }

    /// Unmounts it, has its file system checked, and mounts it again.
    pub(crate) fn repair(&mut self, image: &Path) {
        run("umount", &[text(&self.path)]).unwrap();
        // 1: errors were found and corrected.
        let _ = run("e2fsck", &["-f", "-y", text(image)]);
        run("mount", &["-t", "ext4", "-o", "loop", text(image), text(&self.path)]).unwrap();
    }

    /// Leaves not a byte.
    pub(crate) fn fill(&self) {
        let mut file = std::fs::File::create(self.path.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
    }

    pub(crate) fn empty(&self) {
        std::fs::remove_file(self.path.join("filler")).unwrap();
    }

    /// The ledger's directory on it: what `place` has there, moved. Files are copied without their holes, or
    /// with: then the journal's space is not reserved any more, and its next page is the first to miss.
    pub(crate) fn take_ledger(&self, place: &Place, sparse: &str) {
        let (from, to) = (place.file("ledger"), self.path.join("ledger"));
        let sparse = format!("--sparse={sparse}");
        run("cp", &["-a", &sparse, text(&from), text(&to)]).unwrap();
        // The authority had all of it on the disk; so must the copy.
        run("sync", &["-f", text(&to)]).unwrap();
        place.edit(|raw| raw.storage.ledger = to.to_str().unwrap().to_owned());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", text(&self.path)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
