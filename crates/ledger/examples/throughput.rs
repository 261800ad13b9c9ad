//! What the ledger costs: processor time of its two threads for each certificate, rates, lookups, memory,
//! and how long it takes to open after a clean stop and after SIGKILL.
//!
//! ```text
//! cargo run --release -p chancery-ledger --example throughput -- [entries=1000000] [groups=1,64,1024]
//!     [dir=DIR] [cache-mib=N] [changes=N] [interval-ms=N] [pace=N] [identities=10000]
//! ```
//! Each group size commits that many proposals at a time from tasks of their own; the last one fills the
//! ledger to `entries`. `pace` limits the filling to so many a second, to see the index keep up.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "an example prints what it finds, and shares a module with the tests"
)]

#[path = "../tests/workload/mod.rs"]
mod workload;

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_ledger::{EmbeddedLedger, Ledger, Options, Outcome, Proposal, ReadModel};
use chancery_types::SystemRandom;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.text("child") {
        Some("open") => {
            let ledger = open(&arguments)?;
            println!("size {} rss {:.0} MiB", ledger.head().size, memory("VmRSS"));
            runtime.block_on(lookups(&ledger))?;
            Ok(())
        }
        Some("commit-until-killed") => runtime.block_on(commit_until_killed(&arguments)),
        _ => runtime.block_on(measure(&arguments)),
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let directory = arguments.directory();
    let _ = fs::remove_dir_all(&directory);
    let ledger = Arc::new(EmbeddedLedger::create(
        &directory,
        workload::signer(),
        arguments.options()?,
        &SystemRandom,
    )?);
    let identities = arguments.number("identities", 10_000)?;
    ledger.commit(vec![workload::issuer()]).await?;
    let registrations: Vec<Proposal> = (0..identities).map(workload::registration).collect();
    ledger.commit(registrations).await?;
    println!("{identities} identities registered");
    let entries = arguments.number("entries", 1_000_000)?;
    let groups: Vec<usize> = arguments
        .text("groups")
        .unwrap_or("1,64,1024")
        .split(',')
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let mut counter = 0;
    for (place, group) in groups.iter().enumerate() {
        let last = place + 1 == groups.len();
        let until = if last { entries } else { counter + (200 * *group as u64).clamp(2_000, 50_000) };
        fill(&ledger, &mut counter, until.min(entries), *group, identities, arguments).await?;
    }
    println!("rss {:.0} MiB, peak {:.0} MiB", memory("VmRSS"), memory("VmHWM"));
    lookups(&ledger).await?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = threads();
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("idle: {:.0} us of processor time a second", since(&before).values().sum::<f64>() / 3.0);
    let started = Instant::now();
    drop(ledger);
    println!("clean stop in {:.2} s; files {:?}", started.elapsed().as_secs_f64(), sizes(&directory)?);
    let took = reopen(arguments)?;
    println!("open after a clean stop: {took:.2} s (process and all)");
    kill_under_load(arguments)?;
    let took = reopen(arguments)?;
    println!("open after SIGKILL under load: {took:.2} s (process and all)");
    if arguments.text("keep").is_none() {
        fs::remove_dir_all(&directory)?;
    }
    Ok(())
}

async fn fill(
    ledger: &Arc<EmbeddedLedger>,
    counter: &mut u64,
    until: u64,
    group: usize,
    identities: u64,
    arguments: &Arguments,
) -> Result<()> {
    let pace: Option<f64> = arguments.text("pace").map(str::parse).transpose()?;
    let (first, started, before, syncs) = (*counter, Instant::now(), threads(), ledger.syncs());
    let mut latencies = Vec::new();
    let mut tenths = vec![Instant::now()];
    while *counter < until {
        let proposals: Vec<Proposal> = (*counter..until.min(*counter + group as u64))
            .map(|n| workload::enrolment(workload::issuance(n, workload::identity(n * 7 % identities))))
            .collect();
        *counter += proposals.len() as u64;
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for proposal in proposals {
            let ledger = Arc::clone(ledger);
            tasks.spawn(async move { ledger.commit(vec![proposal]).await });
        }
        while let Some(outcomes) = tasks.join_next().await {
            let outcomes = outcomes??;
            if !matches!(outcomes[..], [Outcome::Accepted { .. }]) {
                return Err(format!("refused: {outcomes:?}").into());
            }
        }
        latencies.push(begun.elapsed());
        if (*counter - first) * 10 / (until - first) >= tenths.len() as u64 {
            tenths.push(Instant::now());
        }
        if let Some(pace) = pace {
            let due = Duration::from_secs_f64((*counter - first) as f64 / pace);
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        }
    }
    let done = *counter - first;
    let rate = |from: Instant, to: Instant, count: u64| count as f64 / to.duration_since(from).as_secs_f64();
    println!(
        "group {group:>5}: {done} certificates, {:.0}/s (first tenth {:.0}/s, last {:.0}/s), {} syncs",
        rate(started, Instant::now(), done),
        rate(tenths[0], tenths[1], done / 10),
        rate(tenths[tenths.len() - 2], tenths[tenths.len() - 1], done / 10),
        ledger.syncs() - syncs
    );
    println!("             commit {}", percentiles(&mut latencies));
    let used = since(&before);
    let each = |name: &str| used.get(name).copied().unwrap_or(0.0) / done as f64;
    let ours = ["ledger-sequence", "ledger-indexer"];
    let others: f64 = used.iter().filter(|(name, _)| !ours.contains(&name.as_str())).map(|(_, t)| t).sum();
    println!(
        "             us of processor time per certificate: sequencer {:.1}, indexer {:.1}, proposers {:.1}",
        each(ours[0]),
        each(ours[1]),
        others / done as f64
    );
    Ok(())
}

async fn lookups(ledger: &EmbeddedLedger) -> Result<()> {
    let size = ledger.last_counter(workload::ISSUER).await?.unwrap_or(0);
    let mut times = Vec::new();
    for n in 0..20_000_u64 {
        let serial = workload::serial(n.wrapping_mul(0x9e37_79b9) % size.max(1));
        let begun = Instant::now();
        let found = ledger.certificate(serial).await?;
        times.push(begun.elapsed());
        if found.is_none() {
            return Err(format!("certificate {serial} is missing").into());
        }
    }
    println!("lookup by serial: {}", percentiles(&mut times));
    Ok(())
}

fn reopen(arguments: &Arguments) -> Result<f64> {
    let started = Instant::now();
    let ledger = open(arguments)?;
    let took = started.elapsed().as_secs_f64();
    println!("opened {} entries in {took:.2} s", ledger.head().size);
    drop(ledger);
    let status = Command::new(std::env::current_exe()?).args(arguments.again("open")).status()?;
    if status.success() { Ok(took) } else { Err("the child could not open the ledger".into()) }
}

fn open(arguments: &Arguments) -> Result<EmbeddedLedger> {
    Ok(EmbeddedLedger::open(&arguments.directory(), workload::signer(), arguments.options()?)?)
}

/// A child commits with all its might and is killed after three seconds.
fn kill_under_load(arguments: &Arguments) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments.again("commit-until-killed"))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
    std::thread::sleep(Duration::from_secs(3));
    child.kill()?;
    child.wait()?;
    Ok(())
}

async fn commit_until_killed(arguments: &Arguments) -> Result<()> {
    let ledger = Arc::new(open(arguments)?);
    println!("ready");
    std::io::stdout().flush()?;
    let mut counter = ledger.last_counter(workload::ISSUER).await?.unwrap_or(0) + 1;
    loop {
        let proposals = (counter..counter + 256)
            .map(|n| workload::enrolment(workload::issuance(n, workload::identity(n % 100))))
            .collect();
        counter += 256;
        ledger.commit(proposals).await?;
    }
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    format!("p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, max {:.0} us", at(0.5), at(0.99), at(0.999), at(1.0))
}

/// Processor time of every thread so far by name, in microseconds.
fn threads() -> HashMap<String, f64> {
    let mut times = HashMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let schedule = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let nanoseconds: f64 = schedule.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
        *times.entry(name.trim().to_owned()).or_insert(0.0) += nanoseconds / 1e3;
    }
    times
}

fn since(before: &HashMap<String, f64>) -> HashMap<String, f64> {
    let now = threads();
    now.into_iter().map(|(name, time)| (name.clone(), time - before.get(&name).unwrap_or(&0.0))).collect()
}

/// A line of /proc/self/status in MiB.
fn memory(line: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kibibytes: f64 = found.and_then(|text| text.trim().split(' ').next()?.parse().ok()).unwrap_or(0.0);
    kibibytes / 1024.0
}

fn sizes(directory: &Path) -> Result<Vec<String>> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let bytes: u64 = if entry.path().is_dir() {
            fs::read_dir(entry.path())?.flatten().flat_map(|file| file.metadata()).map(|m| m.len()).sum()
        } else {
            entry.metadata()?.len()
        };
        sizes.push(format!("{} {} MiB", entry.file_name().to_string_lossy(), bytes >> 20));
    }
    Ok(sizes)
}

/// `name=value` words.
struct Arguments(HashMap<String, String>);

impl Arguments {
    fn read() -> Result<Self> {
        let words = std::env::args().skip(1);
        let pair = |word: String| {
            let (name, value) = word.split_once('=').ok_or(format!("{word}: expected name=value"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        words.map(pair).collect::<Result<_>>().map(Self)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str, otherwise: u64) -> Result<u64> {
        Ok(self.text(name).map_or(Ok(otherwise), str::parse)?)
    }

    fn directory(&self) -> PathBuf {
        self.text("dir").map_or_else(|| std::env::temp_dir().join("chancery-throughput"), PathBuf::from)
    }

    fn options(&self) -> Result<Options> {
        let default = Options::default();
        let mib = |bytes: usize| (bytes >> 20) as u64;
        Ok(Options {
            cache_bytes: (self.number("cache-mib", mib(default.cache_bytes))? as usize) << 20,
            index_changes: self.number("changes", default.index_changes as u64)? as usize,
            index_interval: Duration::from_millis(
                self.number("interval-ms", default.index_interval.as_millis() as u64)?,
            ),
            ..default
        })
    }

    /// The same words for a child that is to do this.
    fn again(&self, child: &str) -> Vec<String> {
        let others = self.0.iter().filter(|(name, _)| *name != "child");
        others.map(|(name, value)| format!("{name}={value}")).chain([format!("child={child}")]).collect()
    }
}
