//! A share of a core for a process, as if it had a smaller machine to itself (cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// How often the share is given anew. A process that has used it up waits for the next, and others with it if it has
/// something locked: a share of a core is at least the millisecond of this that the kernel asks for.
const PERIOD_US: u32 = 20_000;

/// A control group with one process in it. The process is let go when this is dropped.
#[derive(Debug)]
pub(crate) struct CoreShare(PathBuf);

impl CoreShare {
    /// Holds a process to so many percent of a core, in all of its threads together.
    ///
    /// # Errors
    ///
    /// If no control group for processor time can be made here.
    pub(crate) fn hold(process: u32, percent: u16) -> Result<Self> {
        let (quota, period) = (u32::from(percent) * PERIOD_US / 100, PERIOD_US);
        let version_1 = [("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
        let version_2 = [("cpu.max", format!("{quota} {period}"))];
        for (root, settings) in [("/sys/fs/cgroup/cpu", &version_1[..]), ("/sys/fs/cgroup", &version_2[..])] {
            let group = Self(Path::new(root).join(format!("chancery-bench-{process}")));
            let held = fs::create_dir(&group.0).and_then(|()| {
                settings.iter().try_for_each(|(file, text)| fs::write(group.0.join(file), text))?;
                fs::write(group.0.join("cgroup.procs"), process.to_string())
            });
            if held.is_ok() {
                return Ok(group);
            }
        }
        bail!(
            "no control group for processor time can be made in /sys/fs/cgroup; run this as root, with the cpu \
             controller enabled, or without --core-share"
        )
    }
}

impl Drop for CoreShare {
    fn drop(&mut self) {
        let members = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let parent = self.0.with_file_name("cgroup.procs");
        // What cannot be removed has a name that tells where it comes from.
        members.lines().for_each(|member| drop(fs::write(&parent, member)));
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::bench::process::cpu_time;

    #[test]
    fn a_busy_process_gets_its_share_and_no_more() {
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let held = CoreShare::hold(busy.id(), 10);
        if let Ok(share) = held {
            let (before, began) = (cpu_time(busy.id()).unwrap(), Instant::now());
            std::thread::sleep(Duration::from_millis(500));
            let used = cpu_time(busy.id()).unwrap() - before;
            let most = began.elapsed() / 10 + Duration::from_millis(100);
            assert!(used < most, "{used:?} of {most:?}");
            let group = share.0.clone();
            drop(share);
            assert!(!group.exists());
        } else {
            println!("SKIPPED a share of a core: no control group for processor time can be made here");
        }
        busy.kill().unwrap();
        busy.wait().unwrap();
    }
}
