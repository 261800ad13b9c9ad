//! What a lookup costs in a set of ten million certificates of which one in a hundred is not good, and what the set
//! weighs. `cargo bench -p chancery-status`.

#![expect(clippy::print_stdout, reason = "sizes are printed beside the times")]

use std::hint::black_box;

use chancery_status::{Delta, ExactSet, SetBuilder, map_file, replace_file};
use chancery_types::{IssuerEpoch, SerialNumber, Timestamp};
use criterion::{Criterion, criterion_group, criterion_main};

const CERTIFICATES: u64 = 10_000_000;

/// A fixed, well-mixed function (the finaliser of splitmix64).
fn mixed(at: u64) -> u64 {
    let mut mixed = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn counters(one_in: u64) -> impl Iterator<Item = u64> {
    (0..CERTIFICATES).filter(move |at| mixed(*at).is_multiple_of(one_in))
}

fn set(sequence: u64, counters: impl Iterator<Item = u64>) -> ExactSet {
    let mut builder = SetBuilder::new(sequence, Timestamp::from_millis(0));
    builder.issuer(IssuerEpoch(1), counters).expect("counters rise");
    builder.build().expect("a set of this size")
}

fn lookups(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    for one_in in [10_000, 1_000, 100, 10, 2] {
        let built = set(1, counters(one_in));
        let bits = built.bytes().len() as f64 * 8.0 / built.len() as f64;
        println!(
            "1 in {one_in}: {} not good, {} bytes, {bits:.2} bits each",
            built.len(),
            built.bytes().len()
        );
        let path = directory.path().join("set");
        replace_file(&path, built.bytes()).expect("a file");
        let mapped = ExactSet::parse(map_file(&path).expect("a file")).expect("a set");
        let serials: Vec<SerialNumber> = (0..4096)
            .map(|at| {
                let counter = mixed(at) % CERTIFICATES;
                SerialNumber::compose(IssuerEpoch(1), counter, [0; 8]).expect("a counter")
            })
            .collect();
        let mut next = 0;
        criterion.bench_function(&format!("lookup, 1 in {one_in}, mapped"), |bencher| {
            bencher.iter(|| {
                next = (next + 1) % serials.len();
                black_box(mapped.contains(serials[next]))
            });
        });
    }
}

fn versions(criterion: &mut Criterion) {
    let old = set(1, counters(100));
    let new = set(2, counters(100).chain(CERTIFICATES..CERTIFICATES + 100));
    criterion.bench_function("parse, 1 in 100", |bencher| {
        bencher.iter(|| black_box(ExactSet::parse(old.bytes().clone())));
    });
    let listed: Vec<u64> = counters(100).collect();
    criterion.bench_function("build, 1 in 100", |bencher| {
        bencher.iter(|| black_box(set(1, listed.iter().copied())));
    });
    let delta = Delta::between(&old, &new).expect("a later version");
    println!("delta of 100 new ones: {} bytes", delta.bytes().len());
    criterion.bench_function("delta of 100, make", |bencher| {
        bencher.iter(|| black_box(Delta::between(&old, &new)));
    });
    criterion.bench_function("delta of 100, apply", |bencher| {
        bencher.iter(|| black_box(delta.apply(&old)));
    });
}

criterion_group!(benches, lookups, versions);
criterion_main!(benches);
