//! What a commit costs: alone, in company, and with everything decided again by preconditions.
//!
//! `cargo bench -p chancery-ledger`; `examples/throughput.rs` measures a large ledger.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    missing_docs,
    reason = "a benchmark stops at the first surprise, and shares a module with the tests"
)]

#[path = "../tests/workload/mod.rs"]
mod workload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_ledger::{EmbeddedLedger, Ledger, Options, Proposal, ReadModel};
use chancery_types::SystemRandom;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const IDENTITIES: u64 = 1_000;

struct Bench {
    runtime: Runtime,
    ledger: Arc<EmbeddedLedger>,
    counter: u64,
    _directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("threads");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let created =
            EmbeddedLedger::create(directory.path(), workload::signer(), Options::default(), &SystemRandom);
        let ledger = Arc::new(created.expect("an empty directory takes a ledger"));
        let mut setup = vec![workload::genesis(), workload::issuer()];
        setup.extend((0..IDENTITIES).map(workload::registration));
        runtime.block_on(ledger.commit(setup)).expect("there is room");
        Self { runtime, ledger, counter: 0, _directory: directory }
    }

    fn enrolments(&mut self, count: u64) -> Vec<Proposal> {
        let first = self.counter;
        self.counter += count;
        (first..self.counter)
            .map(|counter| {
                workload::enrolment(workload::issuance(counter, workload::identity(counter % IDENTITIES)))
            })
            .collect()
    }

    /// So many calls at once, each from a task of its own: until the last has its answer.
    fn commit(&mut self, calls: u64) -> Duration {
        let proposals = self.enrolments(calls);
        let ledger = &self.ledger;
        self.runtime.block_on(async {
            let began = Instant::now();
            let tasks: Vec<_> = proposals
                .into_iter()
                .map(|proposal| {
                    let ledger = Arc::clone(ledger);
                    tokio::spawn(async move { ledger.commit(vec![proposal]).await })
                })
                .collect();
            for task in tasks {
                task.await.expect("no panic").expect("there is room");
            }
            began.elapsed()
        })
    }
}

fn commits(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let mut group = criterion.benchmark_group("commit");
    group.sample_size(20);
    for calls in [1_u64, 8, 64, 1024] {
        group.throughput(Throughput::Elements(calls));
        group.bench_function(BenchmarkId::new("at once", calls), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| bench.commit(calls)).sum());
        });
    }
    group.throughput(Throughput::Elements(256));
    group.bench_function("one call of 256", |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let proposals = bench.enrolments(256);
                    let began = Instant::now();
                    bench.runtime.block_on(bench.ledger.commit(proposals)).expect("there is room");
                    began.elapsed()
                })
                .sum()
        });
    });
    group.finish();
}

fn proposals(criterion: &mut Criterion) {
    let issuance = workload::issuance(7, workload::identity(7));
    criterion.bench_function("proposal: encode and hash", |bencher| {
        bencher.iter(|| workload::enrolment(std::hint::black_box(issuance.clone())));
    });
}

fn reads(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.commit(1024);
    }
    let (ledger, runtime, last) = (Arc::clone(&bench.ledger), &bench.runtime, bench.counter);
    let size = ledger.head().size;
    let mut n = 0_u64;
    let mut next = move || {
        n = n.wrapping_add(0x9e37_79b9);
        n
    };
    criterion.bench_function("read: certificate by serial", |bencher| {
        bencher.iter(|| runtime.block_on(ledger.certificate(workload::serial(next() % last))));
    });
    let mut n = 0_u64;
    let mut next = move || {
        n = n.wrapping_add(0x9e37_79b9);
        n
    };
    criterion.bench_function("read: entry", |bencher| {
        bencher.iter(|| runtime.block_on(ledger.entry(next() % size)));
    });
    criterion.bench_function("read: inclusion proof", |bencher| {
        bencher.iter(|| runtime.block_on(ledger.inclusion_proof(size / 3, size)));
    });
    criterion.bench_function("read: checkpoint", |bencher| bencher.iter(|| ledger.checkpoint()));
}

criterion_group!(benches, proposals, commits, reads);
criterion_main!(benches);
