//! Processes, and what they use as Linux counts it (proc(5)).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// How long a process may take to begin or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// USER_HZ, which is part of the kernel's interface.
const TICK: Duration = Duration::from_millis(10);

/// A running `chancery`, which ends with this at the latest.
pub(crate) struct Program {
    child: Child,
    process: u32,
}

impl Program {
    pub(crate) fn start(arguments: &[&str], directory: &Path, log: &Path) -> Self {
        let child = Command::new(path())
            .args(arguments)
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(File::create(log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let process = child.id().unwrap();
        Self { child, process }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self) {
        let process = Pid::from_raw(self.process.cast_signed()).unwrap();
        kill_process(process, Signal::TERM).unwrap();
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").unwrap();
    }

    /// Processor time of all its threads.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process)).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        TICK * (fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap())
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

/// The program that is measured.
fn path() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().parent().unwrap().with_file_name("chancery");
    let path = std::env::var_os("CHANCERY_PROGRAM").map_or_else(beside, PathBuf::from);
    assert!(path.exists(), "{} is not there: build it, or set CHANCERY_PROGRAM", path.display());
    path
}

/// What was measured, and how busy the machine was with other things.
pub(crate) fn conditions() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    format!("{}; load average {}", path().display(), load.join(" "))
}
