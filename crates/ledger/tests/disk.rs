//! Real file systems that are full or cannot be written.
//!
//! They have to be mounted, which needs root; where that does not work, the tests say so and pass.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "tests and what they share"
)]

mod workload;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use chancery_ledger::{CommitError, EmbeddedLedger, Ledger, OpenError, Options, ReadModel};
use chancery_types::SystemRandom;

const CHILD: &str = "CHANCERY_LEDGER_DISK_CHILD";

fn options() -> Options {
    Options {
        segment_bytes: 256 << 10,
        index_interval: Duration::from_millis(100),
        index_changes: 500,
        cache_bytes: 4 << 20,
        may_have_ended: false,
    }
}

/// A small file system in memory, unmounted when dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(mebibytes: u32) -> Option<Self> {
        let mount = Self(tempfile::tempdir().unwrap());
        let size = format!("size={mebibytes}m,mode=0755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(mount.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(mount);
        }
        eprintln!("SKIPPED: no tmpfs can be mounted here (that needs root); full disks were not tested");
        std::mem::forget(mount);
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, how: &str) {
        let option = format!("remount,{how}");
        let status = Command::new("mount").args(["-o", &option]).arg(self.path()).status().unwrap();
        assert!(status.success(), "remount,{how}");
    }

    /// Leaves no room but this many bytes.
    fn fill(&self, leave: usize) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut bytes = 64 << 20;
        while bytes > 0 {
            let mut content = fs::read(&ballast).unwrap_or_default();
            content.resize(content.len() + bytes, 1);
            if fs::write(&ballast, &content).is_err() {
                content.truncate(content.len() - bytes);
                fs::write(&ballast, &content).unwrap();
                bytes /= 2;
            }
        }
        let content = fs::read(&ballast).unwrap();
        fs::write(&ballast, &content[..content.len().saturating_sub(leave)]).unwrap();
        ballast
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Enrols until the disk is full or so many are in; how many were acknowledged.
async fn enrol(ledger: &EmbeddedLedger, from: u64, most: u64) -> (u64, Option<CommitError>) {
    for counter in from..from + most {
        let proposal = workload::enrolment(workload::issuance(counter, workload::identity(1)));
        if let Err(error) = ledger.commit(vec![proposal]).await {
            return (counter, Some(error));
        }
    }
    (from + most, None)
}

async fn everything_is_there(ledger: &EmbeddedLedger, certificates: u64) {
    for counter in 0..certificates {
        let record = ledger.certificate(workload::serial(counter)).await.unwrap();
        let record = record.unwrap_or_else(|| panic!("certificate {counter} is missing"));
        assert!(ledger.entry(record.index).await.unwrap().is_some());
    }
    assert_eq!(ledger.certificate(workload::serial(certificates)).await.unwrap(), None);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let Some(mount) = Mount::new(12) else { return };
    let home = mount.path().join("ledger");
    let ledger = EmbeddedLedger::create(&home, workload::signer(), options(), &SystemRandom).unwrap();
    ledger.commit(vec![workload::genesis(), workload::issuer(), workload::registration(1)]).await.unwrap();
    let (mut done, error) = enrol(&ledger, 0, 300).await;
    assert_eq!(error, None);
    for leave in [0, 100 << 10, 700 << 10] {
        let ballast = mount.fill(leave);
        let (acknowledged, error) = enrol(&ledger, done, 100_000).await;
        done = acknowledged;
        assert_eq!(error, Some(CommitError::DiskFull), "after {done}");
        everything_is_there(&ledger, done).await;
        assert_eq!(ledger.halted(), None, "a full disk is no reason to stop for good");
        fs::remove_file(ballast).unwrap();
        let mut again = enrol(&ledger, done, 5).await;
        for _ in 0..100 {
            if again.1.is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            again = enrol(&ledger, again.0, 5).await;
        }
        assert_eq!(again.1, None, "there is room again");
        done = again.0;
    }
    drop(ledger);
    let report = EmbeddedLedger::check_everything(&home, &mut |_, _| {}).unwrap();
    assert_eq!((report.issuances, report.indexed), (done, report.entries));
}

#[tokio::test]
async fn a_ledger_opens_and_answers_on_a_full_disk() {
    let Some(mount) = Mount::new(12) else { return };
    let home = mount.path().join("ledger");
    let ledger = EmbeddedLedger::create(&home, workload::signer(), options(), &SystemRandom).unwrap();
    ledger.commit(vec![workload::genesis(), workload::issuer(), workload::registration(1)]).await.unwrap();
    let (done, _) = enrol(&ledger, 0, 400).await;
    mount.fill(0);
    let (done, error) = enrol(&ledger, done, 100_000).await;
    assert_eq!(error, Some(CommitError::DiskFull));
    drop(ledger);
    for _ in 0..2 {
        let ledger = EmbeddedLedger::open(&home, workload::signer(), options()).unwrap();
        everything_is_there(&ledger, done).await;
        ledger.checkpoint().unwrap();
        let (_, error) = enrol(&ledger, done, 100_000).await;
        assert_eq!(error, Some(CommitError::DiskFull));
        assert_eq!(ledger.halted(), None);
    }
    fs::remove_file(mount.path().join("ballast")).unwrap();
    let ledger = EmbeddedLedger::open(&home, workload::signer(), options()).unwrap();
    let size = ledger.head().size;
    everything_is_there(&ledger, size - 3).await;
    assert_eq!(enrol(&ledger, size - 3, 200).await.1, None);
    drop(ledger);
    EmbeddedLedger::check_everything(&home, &mut |_, _| {}).unwrap();
}

#[tokio::test]
async fn a_read_only_file_system_is_refused_with_what_to_do() {
    let Some(mount) = Mount::new(12) else { return };
    let home = mount.path().join("ledger");
    drop(EmbeddedLedger::create(&home, workload::signer(), options(), &SystemRandom).unwrap());
    mount.remount("ro");
    let error = EmbeddedLedger::open(&home, workload::signer(), options()).unwrap_err();
    assert!(matches!(error, OpenError::Directory { .. }), "{error:?}");
    assert!(error.to_string().contains("mount it writable"), "{error}");
    let other = mount.path().join("other");
    let error = EmbeddedLedger::create(&other, workload::signer(), options(), &SystemRandom).unwrap_err();
    assert!(error.to_string().contains("other"), "{error}");
    mount.remount("rw");
    EmbeddedLedger::open(&home, workload::signer(), options()).unwrap();
}

/// Root may write everywhere, so this one looks from the outside.
#[test]
fn a_directory_of_somebody_else_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("ledger");
    drop(EmbeddedLedger::create(&home, workload::signer(), options(), &SystemRandom).unwrap());
    let allow = |path: &Path, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    allow(directory.path(), 0o755);
    for (mode, told) in [(0o755, "give it to the user"), (0o700, "Permission denied")] {
        allow(&home, mode);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_of_the_permission_test", "--nocapture"])
            .env(CHILD, &home)
            .uid(65_534)
            .output();
        let Ok(child) = child else {
            eprintln!("SKIPPED: no process of another user can be started here (that needs root)");
            return;
        };
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(said.contains(told), "mode {mode:o}: {said}");
    }
}

/// Not a test: what another user sees.
#[test]
fn child_of_the_permission_test() {
    let Some(home) = std::env::var_os(CHILD) else { return };
    match EmbeddedLedger::open(Path::new(&home), workload::signer(), options()) {
        Ok(_) => println!("it opened"),
        Err(error) => println!("refused: {error}"),
    }
}
