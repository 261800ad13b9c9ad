//! How the rate grows with replicas while there is processor time left: each gets a fifth of a core and no more.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::cluster::{Cluster, REPLICAS, token};
use super::load::{enrolment, fresh};
use chancery_types::KeyAlgorithm;
use chancery_x509::SubjectKey;

/// Microseconds of a core in each [`PERIOD`].
const SHARE: u32 = 2_000;
const PERIOD: u32 = 10_000;
/// Clients of each replica.
const CLIENTS: usize = 8;
const WARM: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(15);

/// Prints certificates a second for one replica, two, three, and how much of the machine was idle.
pub(crate) async fn measure(cluster: &mut Cluster) {
    (1..REPLICAS).for_each(|which| cluster.kill(which));
    let (mut limits, mut alone) = (Vec::new(), None);
    for count in 1..=REPLICAS {
        if count > 1 {
            cluster.spawn(count - 1);
        }
        let Some(limit) = Limit::on(cluster.process(count - 1)) else {
            println!(
                "SKIPPED how the rate grows with replicas: no control group for processor time can be made here"
            );
            return;
        };
        limits.push(limit);
        cluster.each_of(count).await;
        let (rate, idle) = rate_of(cluster, count).await;
        let one = *alone.get_or_insert(rate);
        println!(
            "{count} replicas: {rate:.0} certificates/s, {:.2} of one; the machine was {idle:.0} % idle",
            rate / one
        );
    }
}

async fn rate_of(cluster: &Cluster, count: usize) -> (f64, f64) {
    let (stop, issued) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..count * CLIENTS {
        let operator = cluster.operator(cluster.addresses[number % count]);
        let (stop, issued) = (Arc::clone(&stop), Arc::clone(&issued));
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let token = operator.create_token(&token()).await.unwrap();
                let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
                operator.enroll(&enrolment(&key, &token.token), &fresh()).await.unwrap();
                issued.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(WARM).await;
    let (before, (idle, all), began) = (issued.load(Ordering::Relaxed), ticks(), Instant::now());
    tokio::time::sleep(LONG).await;
    let (done, took) = (issued.load(Ordering::Relaxed) - before, began.elapsed());
    let (idle_after, all_after) = ticks();
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    (done as f64 / took.as_secs_f64(), 100.0 * (idle_after - idle) as f64 / (all_after - all) as f64)
}

/// Ticks of all processors: idle, and all of them (proc(5)).
fn ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().next().unwrap();
    let fields: Vec<u64> = line.split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect();
    (fields[3] + fields[4], fields[..8].iter().sum())
}

/// A control group with one process in it; it ends with the process.
struct Limit(PathBuf);

impl Limit {
    fn on(process: u32) -> Option<Self> {
        let name = format!("chancery-scale-{process}");
        for (root, files) in [
            (
                "/sys/fs/cgroup/cpu",
                vec![("cpu.cfs_period_us", PERIOD.to_string()), ("cpu.cfs_quota_us", SHARE.to_string())],
            ),
            ("/sys/fs/cgroup", vec![("cpu.max", format!("{SHARE} {PERIOD}"))]),
        ] {
            let group = Self(PathBuf::from(root).join(&name));
            let made = fs::create_dir(&group.0).and_then(|()| {
                for (file, text) in &files {
                    fs::write(group.0.join(file), text)?;
                }
                fs::write(group.0.join("cgroup.procs"), process.to_string())
            });
            if made.is_ok() {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Its process goes on without a limit.
        if let Ok(members) = fs::read_to_string(self.0.join("cgroup.procs")) {
            let parent = self.0.parent().map(|parent| parent.join("cgroup.procs")).unwrap_or_default();
            members.lines().for_each(|member| drop(fs::write(&parent, member)));
        }
        let _ = fs::remove_dir(&self.0);
    }
}
