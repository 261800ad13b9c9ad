//! Takes every store through the same day: fill, stop, open, look up, write on, be killed, open again.
//!
//! Each step is a process of its own, so that memory and opening times are those of a fresh start.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::probe::{Lookups, Opened};
use crate::process;
use crate::run::Report;

/// How much to do.
pub(crate) struct Effort {
    pub(crate) stores: Vec<String>,
    pub(crate) certificates: u64,
    /// How long each of the timed runs lasts.
    pub(crate) seconds: f64,
    pub(crate) dir: PathBuf,
    pub(crate) json: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Results {
    certificates: u64,
    stores: Vec<StoreResult>,
}

#[derive(Default, Serialize, Deserialize)]
struct StoreResult {
    store: String,
    /// Load average when its turn began: 0 is a machine of our own.
    load: f64,
    fill: Report,
    index_mib: f64,
    clean_open: Opened,
    lookups: Option<Lookups>,
    /// Full speed on the filled store, by journal batch.
    batches: Vec<(usize, Report)>,
    /// At 10,000 certificates a second, by the number the index waits for.
    paced: Vec<(String, Report)>,
    /// The same in steps of 8192 on a store of its own size that keeps only these tables.
    tables: Vec<(String, Report)>,
    killed_open: Opened,
}

/// What a busy authority on two cores issues.
const PACE: &str = "10000";
/// How many certificates the index waits for before it applies them; 1 is "whatever there is".
const STEPS: [&str; 4] = ["1", "1024", "8192", "65536"];
/// Serials and expiries grow with time; keys, identities and lineages are inserted at random.
const TABLES: [&str; 3] = ["se", "sek", "sekl"];

pub(crate) fn measure(effort: &Effort) -> Result<()> {
    let mut results = Results { certificates: effort.certificates, stores: Vec::new() };
    for store in &effort.stores {
        eprintln!("{store}");
        let dir = effort.dir.join(store);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let result = one(store, &dir, effort).with_context(|| store.clone());
        std::fs::remove_dir_all(&dir).ok();
        results.stores.push(result?);
    }
    if let Some(path) = &effort.json {
        std::fs::write(path, serde_json::to_vec_pretty(&results)?)?;
    }
    print(&results);
    Ok(())
}

fn one(store: &str, dir: &Path, effort: &Effort) -> Result<StoreResult> {
    let mut result = StoreResult { store: store.to_owned(), load: process::load(), ..StoreResult::default() };
    // A large batch costs sled gigabytes: it gets the size that suits it.
    let most = if store.starts_with("sled") { "1024" } else { "65536" };
    let length = effort.certificates.to_string();
    let seconds = effort.seconds.to_string();
    let fill = ["run", "--batch", "256", "--length", &length, "--apply-at-most", most];

    eprintln!("  {length} certificates, 256 for each fdatasync");
    result.fill = child(store, dir, &fill)?;
    result.index_mib = process::disk(&dir.join("index"));
    result.clean_open = child(store, dir, &["open"])?;
    if store != "journal" {
        eprintln!("  lookups");
        result.lookups = Some(child(store, dir, &["lookups"])?);
    }
    for step in STEPS {
        eprintln!("  at {PACE} a second, the index in steps of {step}");
        result.paced.push((step.to_owned(), child(store, dir, &paced(step, most, &seconds))?));
    }
    for batch in [1, 32, 256] {
        eprintln!("  full speed, {batch} for each fdatasync");
        let words = ["run", "--batch", &batch.to_string(), "--seconds", &seconds, "--apply-at-most", most];
        result.batches.push((batch, child(store, dir, &words)?));
    }
    eprintln!("  killed at full speed, then opened");
    kill(
        start(store, dir, &["run", "--batch", "256", "--seconds", "600", "--apply-at-most", most])?,
        effort,
    )?;
    result.killed_open = child(store, dir, &["open"])?;

    if ["redb", "fjall"].contains(&store) {
        for tables in TABLES {
            eprintln!("  only the tables {tables}");
            std::fs::remove_dir_all(dir)?;
            child::<Report>(store, dir, &[&fill[..], &["--tables", tables]].concat())?;
            let words = [&paced("8192", most, &seconds)[..], &["--tables", tables]].concat();
            result.tables.push((tables.to_owned(), child(store, dir, &words)?));
        }
    }
    Ok(result)
}

fn paced<'a>(step: &'a str, most: &'a str, seconds: &'a str) -> Vec<&'a str> {
    let mut words = vec!["run", "--batch", "32", "--pace", PACE, "--lag", "200000", "--patience-ms", "60000"];
    words.extend(["--seconds", seconds, "--apply-at-least", step, "--apply-at-most", most]);
    words
}

fn start(store: &str, dir: &Path, words: &[&str]) -> Result<Child> {
    let program = std::env::current_exe()?;
    let child = Command::new(program)
        .args(words)
        .args(["--store", store, "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}

fn child<T: DeserializeOwned>(store: &str, dir: &Path, words: &[&str]) -> Result<T> {
    let output = start(store, dir, words)?.wait_with_output()?;
    ensure!(output.status.success(), "{} ended with {}", words.join(" "), output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Lets it run for a while, a little more or less each time, and kills it without warning.
fn kill(mut child: Child, effort: &Effort) -> Result<()> {
    let jitter = 0.8 + (process::seed() % 1000) as f64 / 2500.0;
    // Opening a large store may take longer than a timed run.
    let deadline = Instant::now() + Duration::from_secs_f64((effort.seconds + 5.0) * jitter);
    while Instant::now() < deadline {
        ensure!(child.try_wait()?.is_none(), "it ended before it was killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn print(results: &Results) {
    println!("{} certificates, five index entries each; rates in certificates/s\n", results.certificates);
    println!(
        "| store | sustained | last tenth | index CPU us | journal CPU us | index MiB | peak RSS MiB | longest apply / durable ms | load |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for result in &results.stores {
        let fill = &result.fill;
        let short = fill.certificates < results.certificates;
        let stopped =
            if short { format!(" (stopped at {}: memory)", fill.certificates) } else { String::new() };
        println!(
            "| {}{stopped} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} / {:.0} | {:.1} |",
            result.store,
            fill.per_second,
            fill.per_second_last,
            fill.index_cpu_us,
            fill.journal_cpu_us,
            result.index_mib,
            fill.peak_rss_mib,
            fill.longest_apply_ms,
            fill.longest_durable_ms,
            result.load,
        );
    }

    println!("\nOn the filled store: full speed by journal batch, and index CPU us at {PACE}/s by step\n");
    println!("| store | batch 1 | 32 | 256 | as it comes | 1,024 | 8,192 | 65,536 |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for result in &results.stores {
        let full_speed = result.batches.iter().map(|(_, run)| format!("{:.0}", run.per_second));
        let paced = result.paced.iter().map(|(_, run)| {
            // A store that cannot follow says so by its rate.
            let late = run.catch_up_seconds > 0.2 * run.seconds;
            let rate = if late { format!(" ({:.0}/s)", run.per_second) } else { String::new() };
            format!("{:.1}{rate}", run.index_cpu_us)
        });
        println!("| {} | {} |", result.store, full_speed.chain(paced).collect::<Vec<_>>().join(" | "));
    }

    println!("\nIndex CPU us at {PACE}/s in steps of 8,192, by tables (s, e ordered; k, l, i random)\n");
    println!("| store | {} | all |", TABLES.join(" | "));
    println!("| --- | --- | --- | --- | --- |");
    for result in results.stores.iter().filter(|result| !result.tables.is_empty()) {
        let all = result.paced.iter().filter(|(step, _)| step == "8192").map(|(_, run)| run.index_cpu_us);
        let some = result.tables.iter().map(|(_, run)| run.index_cpu_us);
        let cells: Vec<_> = some.chain(all).map(|time| format!("{time:.1}")).collect();
        println!("| {} | {} |", result.store, cells.join(" | "));
    }

    println!("\nOpening (ms) and lookups (us, p50 / p99)\n");
    println!(
        "| store | after a clean stop | after kill -9 | then replay (records) | by serial | by key | 100 of an identity | RSS MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for result in &results.stores {
        let lookups = result.lookups.as_ref().map_or("- | - | - | -".to_owned(), |found| {
            format!(
                "{:.1} / {:.1} | {:.1} / {:.1} | {:.0} / {:.0} | {:.0}",
                found.serial_p50,
                found.serial_p99,
                found.key_p50,
                found.key_p99,
                found.identity_p50,
                found.identity_p99,
                found.rss_mib
            )
        });
        println!(
            "| {} | {:.0} | {:.0} | {:.0} ({}) | {lookups} |",
            result.store,
            result.clean_open.open_ms + result.clean_open.replay_ms,
            result.killed_open.open_ms,
            result.killed_open.replay_ms,
            result.killed_open.replayed,
        );
    }
}
