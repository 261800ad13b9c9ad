//! What the ledger costs in PostgreSQL beside what it costs in a directory, in one run: a lone commit, and the rate that
//! one, two and three replicas reach.
//!
//! ```text
//! cargo run --release -p chancery-ledger --example replicas -- postgres://chancery@127.0.0.1/postgres \
//!     [seconds=4] [group=128] [replicas=1,2,3] [dir=DIR]
//! ```
//! Each replica has so many callers; each commits one enrolment at a time. Processor time is that of this process and, for
//! a database on this machine whose processes are named `postgres`, that of the database.

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
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chancery_ledger::{
    EmbeddedLedger, IssuedSignature, Ledger, Options, Outcome, PostgresLedger, PostgresOptions,
};
use chancery_types::SystemRandom;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const IDENTITIES: u64 = 1000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let url = words.next().ok_or("name the database: postgres://...")?;
    let words: HashMap<String, String> =
        words.filter_map(|word| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect();
    let number = |name: &str, otherwise: u64| words.get(name).map_or(Ok(otherwise), |text| text.parse());
    let (seconds, group) = (number("seconds", 4)?, number("group", 128)?);
    let directory =
        words.get("dir").map_or_else(|| std::env::temp_dir().join("chancery-replicas"), PathBuf::from);
    let _ = fs::remove_dir_all(&directory);
    let run = Run { time: Duration::from_secs(seconds), group, counter: Arc::new(AtomicU64::new(1)) };

    let embedded = EmbeddedLedger::create(
        &directory.join("embedded"),
        workload::signer(),
        Options::default(),
        &SystemRandom,
    )?;
    let embedded: Vec<Arc<dyn Ledger>> = vec![Arc::new(embedded)];
    set_up(&*embedded[0]).await?;
    println!(
        "{:<28}{:>10}{:>12}{:>10}{:>10}{:>10}{:>10}",
        "", "per sec", "x embedded", "p50 ms", "p99 ms", "us here", "us there"
    );
    let alone = run.lone(&*embedded[0]).await?;
    println!("{:<28}{alone}", "embedded, lone commit");
    let base = run.all(&embedded).await?;
    base.print("embedded", base.rate);

    let counts: Vec<usize> = words
        .get("replicas")
        .map_or("1,2,3", String::as_str)
        .split(',')
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let mut options = PostgresOptions::new(&url, directory.join("replica"));
    options.schema = format!("measured_{}", std::process::id());
    let first = PostgresLedger::create(options.clone(), workload::signer(), &SystemRandom).await?;
    set_up(&first).await?;
    let mut replicas: Vec<Arc<dyn Ledger>> = vec![Arc::new(first)];
    println!("{:<28}{}", "PostgreSQL, lone commit", run.lone(&*replicas[0]).await?);
    for count in counts {
        while replicas.len() < count {
            let mut options = options.clone();
            options.directory = directory.join(format!("replica-{}", replicas.len()));
            replicas.push(Arc::new(PostgresLedger::open(options, workload::signer(), &SystemRandom).await?));
        }
        let found = run.all(&replicas[..count]).await?;
        found.print(&format!("PostgreSQL, {count} replica(s)"), base.rate);
    }
    fs::remove_dir_all(&directory)?;
    Ok(())
}

async fn set_up(ledger: &dyn Ledger) -> Result<()> {
    let mut proposals = vec![workload::genesis(), workload::issuer()];
    proposals.extend((0..IDENTITIES).map(workload::registration));
    ledger.commit(proposals).await?;
    Ok(())
}

struct Run {
    time: Duration,
    group: u64,
    counter: Arc<AtomicU64>,
}

struct Found {
    rate: f64,
    times: Vec<Duration>,
    here: f64,
    there: f64,
}

impl Found {
    fn print(&self, name: &str, base: f64) {
        println!(
            "{name:<28}{:>10.0}{:>12.2}{:>10.2}{:>10.2}{:>10.1}{:>10.1}",
            self.rate,
            self.rate / base,
            at(&self.times, 0.5),
            at(&self.times, 0.99),
            self.here,
            self.there
        );
    }
}

impl Run {
    /// One caller, one certificate at a time.
    async fn lone(&self, ledger: &dyn Ledger) -> Result<String> {
        let mut times = Vec::new();
        let until = Instant::now() + self.time / 2;
        while Instant::now() < until {
            times.push(enrol(ledger, self.counter.fetch_add(1, Ordering::Relaxed), false).await?);
        }
        times.sort_unstable();
        Ok(format!(
            "{:>10}{:>12}{:>10.2}{:>10.2}",
            times.len() as u64 * 2 / self.time.as_secs(),
            "",
            at(&times, 0.5),
            at(&times, 0.99)
        ))
    }

    /// So many callers at each replica, with the signatures that they keep.
    async fn all(&self, replicas: &[Arc<dyn Ledger>]) -> Result<Found> {
        let (began, here, there) = (Instant::now(), processor_time("self"), database_time());
        let until = began + self.time;
        let mut tasks = tokio::task::JoinSet::new();
        for replica in replicas {
            for _ in 0..self.group {
                let (ledger, counter) = (Arc::clone(replica), Arc::clone(&self.counter));
                tasks.spawn(async move {
                    let mut times = Vec::new();
                    while Instant::now() < until {
                        times.push(enrol(&*ledger, counter.fetch_add(1, Ordering::Relaxed), true).await?);
                    }
                    Ok::<_, Box<dyn Error + Send + Sync>>(times)
                });
            }
        }
        let mut times = Vec::new();
        while let Some(of_task) = tasks.join_next().await {
            times.extend(of_task??);
        }
        times.sort_unstable();
        let each = |microseconds: f64| microseconds / times.len() as f64;
        let rate = times.len() as f64 / began.elapsed().as_secs_f64();
        let (here, there) = (each(processor_time("self") - here), each(database_time() - there));
        Ok(Found { rate, times, here, there })
    }
}

async fn enrol(ledger: &dyn Ledger, number: u64, keep: bool) -> Result<Duration> {
    let proposal = workload::enrolment(workload::issuance(number, workload::identity(number % IDENTITIES)));
    let began = Instant::now();
    let outcomes = ledger.commit(vec![proposal]).await?;
    let [Outcome::Accepted { first_index: index }] = outcomes[..] else {
        return Err(format!("refused: {outcomes:?}").into());
    };
    if keep {
        ledger.keep_signatures(vec![IssuedSignature { index, signature: vec![7; 71] }]).await?;
    }
    Ok(began.elapsed())
}

fn at(times: &[Duration], part: f64) -> f64 {
    times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3
}

/// Processor time of a process, in microseconds.
fn processor_time(process: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    // utime and stime, a hundred ticks a second.
    (ticks(11) + ticks(12)) * 1e4
}

/// That of every process named postgres.
fn database_time() -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let is_one = |process: &String| {
        fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.trim() == "postgres")
    };
    names.filter(is_one).map(|process| processor_time(&process)).sum()
}
