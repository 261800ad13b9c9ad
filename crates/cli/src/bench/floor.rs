//! The floor: what this machine needs for the cryptography and the disk alone, measured in the same run.
//!
//! Everything above is compared with it, so that figures of different machines, and of one machine on different
//! days, can be compared with each other.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde::Serialize;

use super::load::percentile_ms;
use super::process::thread_cpu_time;

/// Bytes that a certificate brings to the ledger, about.
const RECORD: usize = 1536;
/// Syncs that are measured.
const SYNCS: usize = 300;
/// How often each operation is measured; the median counts.
const ROUNDS: usize = 5;
/// How long each time.
const ROUND: Duration = Duration::from_millis(60);

/// What the machine needs, in CPU microseconds of one core with all cores busy.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Floor {
    /// Cores.
    pub(crate) cores: usize,
    /// An ECDSA P-256 signature.
    pub(crate) sign_us: f64,
    /// Its verification.
    pub(crate) verify_us: f64,
    /// A new P-256 key.
    pub(crate) keygen_us: f64,
    /// SHA-256 of 1 KiB.
    pub(crate) hash_us: f64,
    /// Appending 1.5 KiB and fdatasync, in milliseconds.
    pub(crate) sync_p50_ms: f64,
    /// The same at the 99th percentile.
    pub(crate) sync_p99_ms: f64,
}

impl Floor {
    /// Measures it; syncs happen in `directory`.
    pub(crate) fn measure(directory: &Path) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let random = SystemRandom::new();
        let fail = |_| anyhow::anyhow!("ring does not work on this machine");
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(fail)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
            .context("ring does not read its own key")?;
        let message = [7; 512];
        let signature = key.sign(&random, &message).map_err(fail)?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref().to_vec());
        let kibibyte = [7; 1024];
        let (sync_p50_ms, sync_p99_ms) = syncs(directory)?;
        Ok(Self {
            cores,
            sign_us: cost(cores, || key.sign(&random, black_box(&message)).is_ok())?,
            verify_us: cost(cores, || public.verify(black_box(&message), signature.as_ref()).is_ok())?,
            keygen_us: cost(cores, || {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).is_ok()
            })?,
            hash_us: cost(cores, || !digest(&SHA256, black_box(&kibibyte)).as_ref().is_empty())?,
            sync_p50_ms,
            sync_p99_ms,
        })
    }

    /// A certificate from a request: verify the request, sign, verify what was signed.
    pub(crate) fn enrolment_us(&self) -> f64 {
        self.verify_us * 2.0 + self.sign_us
    }

    /// A certificate for a key that somebody vouches for: sign, verify what was signed.
    pub(crate) fn vouched_us(&self) -> f64 {
        self.verify_us + self.sign_us
    }
}

/// CPU microseconds of one call, with every core doing the same.
fn cost<F: Fn() -> bool + Sync>(cores: usize, operation: F) -> Result<f64> {
    let mut rounds = Vec::with_capacity(ROUNDS * cores);
    for _ in 0..ROUNDS {
        let measured: Vec<Result<f64>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(|| round(&operation))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a measurement does not panic")).collect()
        });
        for one in measured {
            rounds.push(one?);
        }
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[rounds.len() / 2])
}

fn round(operation: &(impl Fn() -> bool + Sync)) -> Result<f64> {
    let (began, before, mut calls) = (Instant::now(), thread_cpu_time()?, 0_u32);
    while began.elapsed() < ROUND {
        for _ in 0..16 {
            anyhow::ensure!(black_box(operation()), "ring refused its own work");
        }
        calls += 16;
    }
    let spent = thread_cpu_time()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e6 / f64::from(calls))
}

/// Milliseconds of an append with fdatasync: median and 99th percentile.
fn syncs(directory: &Path) -> Result<(f64, f64)> {
    let path = directory.join("floor.bin");
    let mut file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[7; RECORD])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok((percentile_ms(&times, 0.5), percentile_ms(&times, 0.99)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_positive_and_verifying_costs_more_than_hashing() {
        let directory = tempfile::tempdir().unwrap();
        let floor = Floor::measure(directory.path()).unwrap();
        assert!(floor.hash_us > 0.0 && floor.verify_us > floor.hash_us);
        assert!(floor.enrolment_us() > floor.vouched_us());
        assert!(floor.sync_p99_ms >= floor.sync_p50_ms);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
