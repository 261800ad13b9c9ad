//! What the kernel says of this process and of the disk.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time of all threads so far.
pub(crate) fn cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Processor time of this thread so far.
pub(crate) fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A field of `/proc/self/status`, such as `VmRSS`, in MiB; 0 where there is none.
pub(crate) fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Blocks that a directory's files occupy, in MiB.
pub(crate) fn disk(dir: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0.0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk(&entry.path()),
            Ok(metadata) => metadata.blocks() as f64 * 512.0 / f64::from(1 << 20),
            Err(_) => 0.0,
        })
        .fold(0.0, |sum, size| sum + size)
}

/// The load average of the last minute: how busy the machine was beside us.
pub(crate) fn load() -> f64 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0.0)
}

/// Differs from run to run.
pub(crate) fn seed() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_nsec as u64 ^ (u64::from(std::process::id()) << 32)
}
