//! What a process and the machine have used, as Linux counts it (proc(5)).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// USER_HZ, which is part of the kernel's interface: 100 wherever this runs.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of a process, all its threads, user and system.
pub(crate) fn cpu_time(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    ticks(&stat).map(|ticks| TICK * ticks).with_context(|| format!("{path} is not as expected"))
}

/// CPU time of the calling thread, nanoseconds exact.
pub(crate) fn thread_cpu_time() -> Result<Duration> {
    // The kernel brings the figure up to date when the thread is scheduled.
    std::thread::yield_now();
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).context(path)?;
    let first = text.split(' ').next().and_then(|field| field.parse().ok());
    first.map(Duration::from_nanos).with_context(|| format!("{path} is not as expected"))
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.map(|count| count * 1024).with_context(|| format!("{path} has no VmRSS"))
}

/// What the machine's cores have done up to some moment, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MachineTime {
    idle: u64,
    all: u64,
}

impl MachineTime {
    /// Up to now.
    pub(crate) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::of(&stat).context("/proc/stat is not as expected")
    }

    /// The share of all cores' time since then in which they had nothing to do.
    pub(crate) fn idle_share_since(self) -> Result<f64> {
        let now = Self::now()?;
        Ok(now.idle.saturating_sub(self.idle) as f64 / now.all.saturating_sub(self.all).max(1) as f64)
    }

    /// The first line: user, nice, system, idle, waiting for I/O, interrupts, soft interrupts, stolen.
    fn of(stat: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { idle: ticks.get(3)? + ticks.get(4)?, all: ticks.iter().sum() })
    }
}

/// Bytes of all files in a directory and below.
pub(crate) fn bytes_in(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Fields 14 and 15, counted from behind the name, which may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u32> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u32>().ok();
    field(14)?.checked_add(field(15)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ticks_behind_a_name_with_spaces() {
        let stat = "12 (a ) b) S 1 1 1 0 -1 4194304 100 0 0 0 7 5 0 0 20 0 1 0 100";
        assert_eq!(ticks(stat), Some(12));
        assert_eq!(ticks("12 (x"), None);
    }

    #[test]
    fn the_machine_idles_and_waits_for_its_disk() {
        let time = MachineTime::of("cpu  10 1 4 70 9 2 3 1 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n").unwrap();
        assert_eq!((time.idle, time.all), (79, 100));
        assert!(MachineTime::of("intr 1 2 3").is_none());
        assert!((0.0..=1.0).contains(&MachineTime::now().unwrap().idle_share_since().unwrap()));
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let id = std::process::id();
        assert!(cpu_time(id).is_ok() && thread_cpu_time().is_ok());
        assert!(resident_bytes(id).unwrap() > 1 << 20);
    }
}
