//! kill -9 at random moments under load: what was acknowledged is there afterwards, and no token spent twice.
//!
//! `CHANCERY_LEDGER_KILLS` sets the number of rounds; all of them use one ledger, which grows.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "tests and what they share"
)]

mod workload;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chancery_entry::{Body, Entry, TokenSpend};
use chancery_ledger::{
    EmbeddedLedger, IssuedSignature, Ledger, Options, Outcome, Precondition, Proposal, ReadModel,
};
use chancery_merkle::{Checkpoint, leaf_hash};
use chancery_types::{Digest, RevocationReason, SystemRandom};

const CHILD: &str = "CHANCERY_LEDGER_KILL_CHILD";

fn options() -> Options {
    Options {
        segment_bytes: 256 << 10,
        index_interval: Duration::from_millis(100),
        index_changes: 2_000,
        cache_bytes: 8 << 20,
        may_have_ended: false,
    }
}

/// What a child was told before it died.
#[derive(Debug, Default)]
struct Told {
    entries: HashMap<u64, Digest>,
    checkpoints: Vec<(u64, Digest)>,
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    let rounds = std::env::var("CHANCERY_LEDGER_KILLS").map_or(10, |number| number.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let ledger =
        EmbeddedLedger::create(directory.path(), workload::signer(), options(), &SystemRandom).unwrap();
    let mut setup = vec![workload::genesis(), workload::issuer()];
    setup.extend((0..100).map(workload::registration));
    ledger.commit(setup).await.unwrap();
    drop(ledger);
    let mut dice = workload::Mix::new(u64::from(std::process::id()));
    let mut told = Told::default();
    for round in 0..rounds {
        let alive = Duration::from_millis(dice.below(900));
        let before = told.entries.len();
        run_and_kill(directory.path(), alive, &mut told);
        if round % 5 == 0 {
            EmbeddedLedger::check_everything(directory.path(), &mut |_, _| {}).unwrap();
        }
        let began = Instant::now();
        let ledger = EmbeddedLedger::open(directory.path(), workload::signer(), options()).unwrap();
        println!(
            "round {round}: killed after {alive:?}, {} acknowledged, {} entries, opened in {:?}",
            told.entries.len() - before,
            ledger.head().size,
            began.elapsed()
        );
        verify(&ledger, &told).await;
    }
    assert!(told.entries.len() > 100, "the children did next to nothing");
    EmbeddedLedger::check_everything(directory.path(), &mut |_, _| {}).unwrap();
}

fn run_and_kill(directory: &Path, alive: Duration, told: &mut Told) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_of_the_kill_test", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("ready"));
    assert!(ready, "the child did not start: {:?}", child.wait());
    let killer = std::thread::spawn(move || {
        std::thread::sleep(alive);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    for line in lines.map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        // The last line may be torn: what was not said whole was not said.
        match words[..] {
            ["ack", index, leaf, "."] => {
                told.entries.insert(index.parse().unwrap(), leaf.parse().unwrap());
            }
            ["checkpoint", size, root, "."] => {
                told.checkpoints.push((size.parse().unwrap(), root.parse().unwrap()));
            }
            _ => {}
        }
    }
    killer.join().unwrap();
}

async fn verify(ledger: &EmbeddedLedger, told: &Told) {
    let size = ledger.head().size;
    let mut spent = HashMap::new();
    let (mut index, mut leaves) = (0, Vec::new());
    while index < size {
        for bytes in ledger.entries(index, 256).await.unwrap() {
            leaves.push(leaf_hash(&bytes));
            if let Body::TokenSpent(spend) = Entry::decode(&bytes).unwrap().body {
                let again = spent.insert(spend.token, spend.serial);
                assert_eq!(again, None, "token {} was spent twice", spend.token);
            }
            index += 1;
        }
    }
    for (index, leaf) in &told.entries {
        assert_eq!(leaves.get(usize::try_from(*index).unwrap()), Some(leaf), "acknowledged entry {index}");
    }
    let mut published: Vec<&(u64, Digest)> = told.checkpoints.iter().collect();
    published.sort_by_key(|(size, _)| *size);
    let mut frontier = chancery_merkle::Frontier::new();
    for (size, root) in published {
        assert!(*size <= leaves.len() as u64, "a checkpoint of {size} was published");
        while frontier.size() < *size {
            let next = usize::try_from(frontier.size()).unwrap();
            frontier.append(leaves[next], &mut |_, _, _| {});
        }
        assert_eq!(frontier.root(), *root, "the checkpoint of {size}");
    }
}

/// Not a test: what the children run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_of_the_kill_test() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let ledger = EmbeddedLedger::open(Path::new(&directory), workload::signer(), options()).unwrap();
    let ledger = Arc::new(ledger);
    let last = ledger.last_counter(workload::ISSUER).await.unwrap().unwrap_or(0);
    let counter = Arc::new(AtomicU64::new(last + 1));
    println!("ready");
    let tasks: Vec<_> = (0..16)
        .map(|task| tokio::spawn(commit_for_ever(Arc::clone(&ledger), Arc::clone(&counter), task)))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn commit_for_ever(ledger: Arc<EmbeddedLedger>, counter: Arc<AtomicU64>, task: u64) {
    loop {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let (token, creation) = workload::token(number);
        say(&*ledger, vec![creation]).await;
        let issuance = workload::issuance(number, workload::identity(number % 100));
        let spend = Body::TokenSpent(TokenSpend { token, serial: issuance.serial });
        let requires = vec![
            Precondition::TokenUsable { token, now: workload::now() },
            Precondition::SerialUnused(issuance.serial),
            Precondition::IdentityActive(issuance.identity.clone()),
        ];
        let buying = workload::propose(requires, issuance.not_before, vec![issuance.clone().into(), spend]);
        // Twice: one of them is refused.
        let index = say(&*ledger, vec![buying.clone(), buying]).await;
        ledger.keep_signatures(vec![IssuedSignature { index, signature: vec![7; 70] }]).await.unwrap();
        if task.is_multiple_of(4) {
            let reason = RevocationReason::Superseded;
            say(&*ledger, vec![workload::revoke(issuance.serial, reason, workload::now())]).await;
        }
        if task == 1 {
            let checkpoint = Checkpoint::parse(ledger.checkpoint().unwrap().text()).unwrap();
            print_line(&format!("checkpoint {} {} .", checkpoint.size(), checkpoint.root()));
        }
    }
}

/// Commits, and says what was acknowledged. The first index.
async fn say(ledger: &dyn Ledger, proposals: Vec<Proposal>) -> u64 {
    let counts: Vec<usize> = proposals.iter().map(Proposal::len).collect();
    let outcomes = ledger.commit(proposals).await.unwrap();
    let mut first = None;
    for (outcome, count) in outcomes.iter().zip(counts) {
        if let Outcome::Accepted { first_index } = outcome {
            first.get_or_insert(*first_index);
            for (entry, index) in
                ledger.entries(*first_index, count).await.unwrap().iter().zip(*first_index..)
            {
                print_line(&format!("ack {index} {} .", leaf_hash(entry)));
            }
        }
    }
    first.expect("one of them is accepted")
}

/// In one write, so that lines of different tasks do not mix.
fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}
