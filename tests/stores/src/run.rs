//! The write path in small: one thread appends to the journal, another brings the index after it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::certificate::{Batch, Noise, Tables};
use crate::engine::{self, Durability, Engine};
use crate::journal::{self, Journal};
use crate::process;

/// What to write and when to stop.
pub(crate) struct Plan {
    pub(crate) store: String,
    /// Which tables the index keeps. A store without all of them can be written, not checked.
    pub(crate) tables: Tables,
    /// Certificates for each `fdatasync` of the journal.
    pub(crate) batch: BatchSize,
    pub(crate) until: Until,
    /// Certificates a second; as fast as it goes without one.
    pub(crate) pace: Option<u64>,
    /// The index waits until this many certificates are pending, or until `patience` has passed.
    pub(crate) apply_at_least: u64,
    pub(crate) patience: Duration,
    pub(crate) apply_at_most: u64,
    /// How far the index may fall behind before the writer waits for it, in certificates.
    pub(crate) lag: u64,
    pub(crate) durable_every: Duration,
    /// The writer stops early when the process has grown past this.
    pub(crate) rss_limit_mib: f64,
    /// Print `ack journal N` and `ack index N` as things become durable.
    pub(crate) acknowledge: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum BatchSize {
    Fixed(usize),
    /// Anything from one to this.
    Random(usize),
}

#[derive(Clone, Copy)]
pub(crate) enum Until {
    Length(u64),
    Elapsed(Duration),
}

/// What came of it. Times in seconds, processor time in microseconds for each certificate.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) certificates: u64,
    pub(crate) seconds: f64,
    /// Sustained: until the index had caught up and was durable.
    pub(crate) per_second: f64,
    /// Journal alone, in the last tenth of the run, held back by the index.
    pub(crate) per_second_last: f64,
    /// From the last append until the index had caught up.
    pub(crate) catch_up_seconds: f64,
    pub(crate) greatest_lag: u64,
    /// Processor time of the journal's thread.
    pub(crate) journal_cpu_us: f64,
    /// Processor time of everything else in the process: the index and its engine's own threads.
    pub(crate) index_cpu_us: f64,
    pub(crate) applies: u64,
    pub(crate) longest_apply_ms: f64,
    pub(crate) longest_durable_ms: f64,
    pub(crate) rss_mib: f64,
    pub(crate) peak_rss_mib: f64,
}

/// Where the two threads stand, in certificates from the start of the journal.
struct Positions {
    journal: AtomicU64,
    index: AtomicU64,
    writer_done: AtomicBool,
    greatest_lag: AtomicU64,
}

/// Runs the plan in `dir` and closes everything cleanly.
pub(crate) fn run(dir: &Path, plan: &Plan) -> Result<Report> {
    std::fs::create_dir_all(dir)?;
    let index = engine::open(&plan.store, dir)?;
    let known = index.as_deref().map_or(Ok(0), Engine::position)?;
    let sync = if plan.store == "careless" { journal::Sync::Never } else { journal::Sync::Always };
    let mut journal = Journal::open(dir, known, sync)?;
    if let Some(index) = index.as_deref() {
        replay(index, known, journal.length(), plan.tables)?;
    }

    let first = journal.length();
    let positions = Positions {
        journal: AtomicU64::new(first),
        index: AtomicU64::new(first),
        writer_done: AtomicBool::new(false),
        greatest_lag: AtomicU64::new(0),
    };
    let (started, cpu_before) = (Instant::now(), process::cpu());

    let (writer, follower) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let written = write(&mut journal, plan, &positions, index.is_some());
            positions.writer_done.store(true, Ordering::Release);
            written
        });
        let follower = index.as_deref().map(|index| scope.spawn(|| follow(index, plan, &positions)));
        progress(plan, &positions, first);
        (writer.join(), follower.map(|follower| follower.join()))
    });
    let written = writer.expect("the writer does not panic")?;
    let followed = match follower {
        Some(result) => result.expect("the index thread does not panic")?,
        None => Followed::default(),
    };

    let certificates = positions.journal.load(Ordering::Acquire) - first;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / certificates.max(1) as f64;
    let report = Report {
        certificates,
        seconds: written.elapsed.as_secs_f64(),
        per_second: certificates as f64 / started.elapsed().as_secs_f64(),
        per_second_last: written.last_tenth,
        catch_up_seconds: started.elapsed().saturating_sub(written.elapsed).as_secs_f64(),
        greatest_lag: positions.greatest_lag.load(Ordering::Relaxed),
        journal_cpu_us: each(written.cpu),
        index_cpu_us: each((process::cpu() - cpu_before).saturating_sub(written.cpu)),
        applies: followed.applies,
        longest_apply_ms: followed.longest_apply.as_secs_f64() * 1e3,
        longest_durable_ms: followed.longest_durable.as_secs_f64() * 1e3,
        rss_mib: process::memory("VmRSS"),
        peak_rss_mib: process::memory("VmHWM"),
    };
    if let Some(index) = index {
        index.close()?;
    }
    Ok(report)
}

/// Commits to the index and to nothing else, each commit durable and acknowledged, until it is killed: no journal's
/// `fdatasync` on the same file system helps the engine's files along.
pub(crate) fn write_alone(dir: &Path, store: &str) -> Result<()> {
    let index = engine::open(store, dir)?.context("this store has no index")?;
    let (mut noise, mut position) = (Noise(process::seed()), index.position()?);
    loop {
        let end = position + 1 + noise.word() % 256;
        index.apply(&Batch::of(position, end, Tables::ALL), end, Durability::Now)?;
        println!("ack index {end}");
        position = end;
    }
}

/// Applies what the journal has and the index has not, as a start after a crash does.
pub(crate) fn replay(index: &dyn Engine, known: u64, length: u64, tables: Tables) -> Result<()> {
    let mut position = known;
    while position < length {
        let end = length.min(position + 32_768);
        let durability = if end == length { Durability::Now } else { Durability::Later };
        index.apply(&Batch::of(position, end, tables), end, durability)?;
        position = end;
    }
    Ok(())
}

struct Written {
    elapsed: Duration,
    cpu: Duration,
    last_tenth: f64,
}

fn write(journal: &mut Journal, plan: &Plan, positions: &Positions, indexed: bool) -> Result<Written> {
    let (started, cpu_before, first) = (Instant::now(), process::thread_cpu(), journal.length());
    let mut noise = Noise(process::seed());
    let mut marks = vec![(Duration::ZERO, first)];
    loop {
        let now = started.elapsed();
        let done = match plan.until {
            Until::Length(length) => journal.length() >= length,
            Until::Elapsed(limit) => now >= limit,
        };
        if done {
            break;
        }
        if let Some(pace) = plan.pace {
            let due = Duration::from_secs_f64((journal.length() - first) as f64 / pace as f64);
            std::thread::sleep(due.saturating_sub(now));
        }
        let mut batch = match plan.batch {
            BatchSize::Fixed(size) => size,
            BatchSize::Random(most) => 1 + (noise.word() % most as u64) as usize,
        };
        if let Until::Length(length) = plan.until {
            batch = batch.min((length - journal.length()) as usize);
        }
        journal.append(batch)?;
        let length = journal.length();
        positions.journal.store(length, Ordering::Release);
        if plan.acknowledge {
            println!("ack journal {length}");
        }
        if marks.last().is_some_and(|(at, _)| started.elapsed() - *at > Duration::from_millis(100)) {
            marks.push((started.elapsed(), length));
            if process::memory("VmRSS") > plan.rss_limit_mib {
                eprintln!("    stopped at {length} certificates: more than {} MiB", plan.rss_limit_mib);
                break;
            }
        }
        while indexed && length - positions.index.load(Ordering::Acquire) > plan.lag {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    let elapsed = started.elapsed();
    marks.push((elapsed, journal.length()));
    let tenth = (journal.length() - first) / 10;
    let length = journal.length();
    let last_tenth = match marks.iter().find(|(_, at)| *at >= length - tenth) {
        Some((since, from)) if elapsed > *since => (length - from) as f64 / (elapsed - *since).as_secs_f64(),
        _ => 0.0,
    };
    Ok(Written { elapsed, cpu: process::thread_cpu() - cpu_before, last_tenth })
}

#[derive(Default)]
struct Followed {
    applies: u64,
    longest_apply: Duration,
    longest_durable: Duration,
}

fn follow(index: &dyn Engine, plan: &Plan, positions: &Positions) -> Result<Followed> {
    let mut followed = Followed::default();
    let mut position = positions.index.load(Ordering::Acquire);
    let (mut last_durable, mut last_apply) = (Instant::now(), Instant::now());
    loop {
        // Read in this order: what was written before the writer said "done" is seen.
        let done = positions.writer_done.load(Ordering::Acquire);
        let length = positions.journal.load(Ordering::Acquire);
        let pending = length - position;
        positions.greatest_lag.fetch_max(pending, Ordering::Relaxed);
        if done && pending == 0 {
            break;
        }
        let patient = last_apply.elapsed() < plan.patience;
        if pending == 0 || (pending < plan.apply_at_least && patient && !done) {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        let end = position + pending.min(plan.apply_at_most);
        let batch = Batch::of(position, end, plan.tables);
        let durable = last_durable.elapsed() >= plan.durable_every;
        let durability = if durable { Durability::Now } else { Durability::Later };
        let started = Instant::now();
        index.apply(&batch, end, durability)?;
        followed.applies += 1;
        if durable {
            followed.longest_durable = followed.longest_durable.max(started.elapsed());
            last_durable = Instant::now();
            if plan.acknowledge {
                println!("ack index {end}");
            }
        } else {
            followed.longest_apply = followed.longest_apply.max(started.elapsed());
        }
        position = end;
        last_apply = Instant::now();
        positions.index.store(position, Ordering::Release);
    }
    index.apply(&Batch::default(), position, Durability::Now)?;
    if plan.acknowledge {
        println!("ack index {position}");
    }
    Ok(followed)
}

/// A line a second on standard error, until the writer is done.
fn progress(plan: &Plan, positions: &Positions, first: u64) {
    if plan.acknowledge {
        return;
    }
    let (mut shown, mut before) = (Instant::now(), first);
    while !positions.writer_done.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(20));
        if shown.elapsed() >= Duration::from_secs(2) {
            let journal = positions.journal.load(Ordering::Relaxed);
            let lag = journal.saturating_sub(positions.index.load(Ordering::Relaxed));
            let rate = (journal - before) as f64 / shown.elapsed().as_secs_f64();
            eprintln!("    {journal:>9} certificates  {rate:>8.0}/s  index {lag:>6} behind",);
            (shown, before) = (Instant::now(), journal);
        }
    }
}
