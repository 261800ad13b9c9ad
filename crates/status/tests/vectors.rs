//! Golden vectors, and a reader in another language that judges them.
//!
//! `CHANCERY_REWRITE=1` writes them anew: only for a new version of the format.

#![expect(clippy::unwrap_used, reason = "a test's helpers stop the test")]
#![expect(clippy::print_stdout, reason = "a judge that is missing must be noticed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use chancery_merkle::{Ed25519NoteSigner, LogSigners};
use chancery_status::{SetBuilder, SignedSet};
use chancery_types::{IssuerEpoch, Timestamp, TrustDomain};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

const MADE: i64 = 1_795_000_000_123;

type Lists = BTreeMap<u16, Vec<u64>>;

fn signer() -> Arc<LogSigners> {
    let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
    let sign = move |text: &[u8]| Ok::<_, std::io::Error>(key.sign(text).as_ref().to_vec());
    LogSigners::of(Ed25519NoteSigner::new("example.org/chancery-log", public, sign).unwrap())
}

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

/// What each version says, in the order of their sequences.
fn versions() -> Vec<(&'static str, u64, Lists)> {
    let scattered = |count: u64| (0..count).map(|at| at * 97 + (at * at * 31) % 89).collect::<Vec<_>>();
    let ends = vec![0, 1, (1 << 48) - 2, (1 << 48) - 1];
    vec![
        ("empty", 1, Lists::new()),
        ("one-issuer", 2, Lists::from([(1, vec![])])),
        ("few", 9, Lists::from([(1, vec![0, 5, 6, 1000]), (2, ends)])),
        ("blocks", 12, Lists::from([(1, scattered(300)), (2, (500..900).collect()), (7, vec![3])])),
        (
            "later",
            4711,
            Lists::from([(2, (500..901).filter(|at| at % 50 != 7).collect()), (7, vec![3]), (9, vec![])]),
        ),
    ]
}

fn made(sequence: u64, lists: &Lists) -> SignedSet {
    let mut builder = SetBuilder::new(sequence, Timestamp::from_millis(MADE));
    for (epoch, counters) in lists {
        builder.issuer(IssuerEpoch(*epoch), counters.iter().copied()).unwrap();
    }
    SignedSet::sign(builder.build().unwrap(), &domain(), &signer()).unwrap()
}

fn described(sequence: u64, lists: &Lists) -> Value {
    let issuers: BTreeMap<String, &Vec<u64>> =
        lists.iter().map(|(epoch, list)| (epoch.to_string(), list)).collect();
    json!({ "trust_domain": "example.org", "sequence": sequence, "made": MADE, "issuers": issuers })
}

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn compare_or_rewrite(name: &str, bytes: &[u8]) {
    if std::env::var_os("CHANCERY_REWRITE").is_some() {
        std::fs::write(vector(name), bytes).unwrap();
    }
    assert!(std::fs::read(vector(name)).unwrap() == bytes, "{name} is not what it always was");
}

/// The order of the names in it means nothing.
fn describe_or_compare(name: &str, described: &Value) {
    if std::env::var_os("CHANCERY_REWRITE").is_some() {
        std::fs::write(vector(name), format!("{described}\n")).unwrap();
    }
    let found: Value = serde_json::from_slice(&std::fs::read(vector(name)).unwrap()).unwrap();
    assert_eq!(&found, described, "{name}");
}

#[test]
fn vectors_are_what_they_always_were_and_come_out_as_they_went_in() {
    let mut before: Option<SignedSet> = None;
    for (name, sequence, lists) in versions() {
        let set = made(sequence, &lists);
        compare_or_rewrite(&format!("{name}.set"), &set.to_bytes());
        describe_or_compare(&format!("{name}.json"), &described(sequence, &lists));

        let bytes = std::fs::read(vector(&format!("{name}.set"))).unwrap();
        let read = SignedSet::open(bytes.clone().into(), &domain(), &signer().verifiers()).unwrap();
        let mut again = SetBuilder::new(read.set().sequence(), read.set().made());
        for epoch in read.set().issuers() {
            again.issuer(epoch, read.set().counters(epoch).unwrap().iter()).unwrap();
        }
        assert_eq!(again.build().unwrap().bytes(), read.set().bytes());
        assert_eq!(read.to_bytes(), bytes);
        if let Some(before) = before.replace(set.clone()) {
            let delta = set.delta_from(before.set()).unwrap();
            compare_or_rewrite(&format!("{name}.delta"), &delta);
            let delta = std::fs::read(vector(&format!("{name}.delta"))).unwrap();
            let advanced = before.advance(delta.into(), &domain(), &signer().verifiers()).unwrap();
            assert_eq!(advanced.to_bytes(), bytes);
        }
    }
}

/// What the reader in Python makes of these files: what it prints, or why it refuses.
fn python(files: &[PathBuf]) -> Option<Result<Value, String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_set.py");
    match Command::new("python3").arg(script).args(files).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Some(Ok(serde_json::from_slice(&output.stdout).unwrap())),
        Ok(output) => Some(Err(String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(_) => {
            println!("SKIPPED: python3 is not installed, so no other reader judges the vectors");
            None
        }
    }
}

#[test]
fn a_reader_in_another_language_reads_the_same() {
    let mut before = None;
    for (name, sequence, lists) in versions() {
        let set = vector(&format!("{name}.set"));
        let Some(read) = python(std::slice::from_ref(&set)) else { return };
        assert_eq!(read, Ok(described(sequence, &lists)), "{name}");
        if let Some(before) = before.replace(set) {
            let advanced = python(&[before, vector(&format!("{name}.delta"))]).unwrap();
            assert_eq!(advanced, Ok(described(sequence, &lists)), "{name}");
        }
    }
}

#[test]
fn both_readers_refuse_the_same_alterations() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("altered.set");
    let sound = std::fs::read(vector("few.set")).unwrap();
    let length = usize::from(sound[8]) + 256 * usize::from(sound[9]);
    // One bit of every third byte of the set; the hash in the note is not what refuses, but the form.
    for at in (0..length).step_by(3) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        let ours = chancery_status::ExactSet::parse(bytes[..length].to_vec().into()).is_ok();
        std::fs::write(&path, &bytes).unwrap();
        let Some(theirs) = python(std::slice::from_ref(&path)) else { return };
        let reason = theirs.unwrap_err();
        assert_eq!(ours, reason.contains("the note of another set"), "byte {at}: {reason}");
    }
}
