//! Opens a store as a server does, and asks it what a server asks.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::certificate::{Batch, Certificate, Noise, Tables, identity};
use crate::engine::{self, Durability, Engine};
use crate::{journal, process, run};

/// Milliseconds from the call to a store that answers and has everything the journal has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) open_ms: f64,
    /// Reading and applying the journal's tail.
    pub(crate) replay_ms: f64,
    pub(crate) replayed: u64,
    pub(crate) certificates: u64,
}

/// Microseconds, warm.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lookups {
    pub(crate) serial_p50: f64,
    pub(crate) serial_p99: f64,
    pub(crate) key_p50: f64,
    pub(crate) key_p99: f64,
    /// A hundred certificates of one identity.
    pub(crate) identity_p50: f64,
    pub(crate) identity_p99: f64,
    pub(crate) rss_mib: f64,
}

pub(crate) fn open(store: &str, dir: &Path) -> Result<Opened> {
    let started = Instant::now();
    let Some(index) = engine::open(store, dir)? else {
        // Without an index a start reads the whole journal.
        let length = journal::count(dir, 0)?;
        let replay_ms = milliseconds(started);
        return Ok(Opened { open_ms: 0.0, replay_ms, replayed: length, certificates: length });
    };
    let known = index.position()?;
    let open_ms = milliseconds(started);

    let started = Instant::now();
    let length = journal::count(dir, known)?;
    run::replay(&*index, known, length, Tables::ALL)?;
    let replay_ms = milliseconds(started);
    verify(&*index, length, 2_000)?;
    index.close()?;
    Ok(Opened { open_ms, replay_ms, replayed: length - known, certificates: length })
}

pub(crate) fn lookups(store: &str, dir: &Path) -> Result<Lookups> {
    let index = engine::open(store, dir)?.context("this store has no index")?;
    let length = index.position()?;
    ensure!(length > 0, "the store is empty");
    let mut noise = Noise(7);
    for _ in 0..100_000 {
        index.by_serial(&Certificate::numbered(noise.word() % length).serial)?;
    }
    let serial = sample(200_000, || {
        let certificate = Certificate::numbered(noise.word() % length);
        timed(|| index.by_serial(&certificate.serial), |found| *found == Some(certificate.summary))
    })?;
    let key = sample(100_000, || {
        let certificate = Certificate::numbered(noise.word() % length);
        timed(|| index.by_key(&certificate.key), |found| *found == Some(certificate.counter))
    })?;
    let identities = sample(20_000, || {
        let identity = identity(noise.word() % 10_000);
        timed(|| index.by_identity(&identity, 100), |found| found.is_sorted())
    })?;
    let rss_mib = process::memory("VmRSS");
    index.close()?;
    Ok(Lookups {
        serial_p50: serial.0,
        serial_p99: serial.1,
        key_p50: key.0,
        key_p99: key.1,
        identity_p50: identities.0,
        identity_p99: identities.1,
        rss_mib,
    })
}

/// Checks `samples` certificates of the first `length` in every table, spread evenly, the last one included.
pub(crate) fn verify(index: &dyn Engine, length: u64, samples: u64) -> Result<()> {
    let step = (length / samples.max(1)).max(1);
    let mut counter = length;
    while counter > 0 {
        let certificate = Certificate::numbered(counter - 1);
        let number = certificate.counter;
        ensure!(
            index.by_serial(&certificate.serial)? == Some(certificate.summary),
            "serial {number} is not there"
        );
        ensure!(index.by_key(&certificate.key)? == Some(number), "key of {number} is not there");
        let lineage = index.by_lineage(&certificate.lineage)?;
        ensure!(lineage == Some(certificate.lineage_state), "lineage of {number} is not there");
        let identity = index.by_identity(&certificate.identity, usize::MAX)?;
        ensure!(identity.binary_search(&number).is_ok(), "{number} is not listed under its identity");
        ensure!(identity.last() < Some(&length), "identity of {number} lists what was never committed");
        counter = counter.saturating_sub(step);
    }
    let expiries = index.expiries()?;
    ensure!(expiries == length, "{expiries} expiries for {length} certificates");
    Ok(())
}

/// What a power cut left in `dir`, against the acknowledgements that got out before it.
pub(crate) fn check(store: &str, dir: &Path, acknowledged: impl Iterator<Item = String>) -> Result<String> {
    let (mut journal_acked, mut index_acked) = (0, 0);
    for line in acknowledged {
        let mut words = line.split_whitespace();
        match (words.next(), words.next().map(str::parse::<u64>)) {
            (Some("journal"), Some(Ok(length))) => journal_acked = length,
            (Some("index"), Some(Ok(position))) => index_acked = position,
            _ => {} // a line that was cut short
        }
    }
    let journal = dir.join("journal").exists().then(|| journal::count(dir, 0)).transpose()?;
    let length = journal.unwrap_or(0);
    ensure!(length >= journal_acked, "journal has {length} whole records, {journal_acked} were acknowledged");
    let Some(index) = engine::open(store, dir)? else {
        return Ok(format!("journal {length} of {journal_acked} acknowledged"));
    };
    let position = index.position()?;
    ensure!(position >= index_acked, "index reaches {position}, {index_acked} was acknowledged");
    // A store that was written alone is its own truth.
    let length = if journal.is_some() { length } else { position };
    ensure!(position <= length, "index reaches {position}, the journal only {length}");
    verify(&*index, position, 5_000).context("before the replay")?;
    run::replay(&*index, position, length, Tables::ALL)?;
    verify(&*index, length, 5_000).context("after the replay")?;
    index.apply(&Batch::of(length, length + 1, Tables::ALL), length + 1, Durability::Now)?;
    verify(&*index, length + 1, 100).context("after another commit")?;
    index.close()?;
    Ok(match journal {
        Some(length) => format!(
            "journal {length} of {journal_acked} acknowledged, index {position} of {index_acked}, replayed {}",
            length - position
        ),
        None => format!("index {position} of {index_acked} acknowledged"),
    })
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn timed<T>(ask: impl FnOnce() -> Result<T>, right: impl FnOnce(&T) -> bool) -> Result<f64> {
    let started = Instant::now();
    let answer = ask()?;
    let microseconds = started.elapsed().as_secs_f64() * 1e6;
    ensure!(right(&answer), "a lookup gave the wrong answer");
    Ok(microseconds)
}

/// Median and 99th percentile.
fn sample(times: usize, mut once: impl FnMut() -> Result<f64>) -> Result<(f64, f64)> {
    let mut samples = (0..times).map(|_| once()).collect::<Result<Vec<_>>>()?;
    samples.sort_by(f64::total_cmp);
    Ok((samples[times / 2], samples[times * 99 / 100]))
}
