//! The fault matrix: every write x every way to fail, then retry, reopen, and check everything.

use std::sync::Arc;

use super::disks::{FAULTS, Fault, FaultyDisk};
use super::*;

/// Calls of the mix while one operation fails; what the client knows then. Reads go on, and a ledger that has
/// stopped stays so.
async fn work(ledger: &EmbeddedLedger, mix: &mut Mix, client: &mut Client, fault: Fault) {
    for call in 0..12 {
        let mut proposals: Vec<Proposal> = (0..mix.below(4)).map(|_| mix.proposal()).collect();
        let counter = 10_000 + ledger.head().size * 100 + call;
        proposals.push(workload::enrolment(workload::issuance(counter, workload::identity(99))));
        let mut answer = client.commit(ledger, proposals.clone()).await;
        if answer == Err(CommitError::DiskFull) {
            assert!(!matches!(fault, Fault::Fails | Fault::FailsPersisted | Fault::Dead), "{fault:?}");
            read_all(ledger).await;
            // Where it was the index that had no room, the indexer has to try again first.
            for _ in 0..100 {
                if fault == Fault::StaysFull || answer != Err(CommitError::DiskFull) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                answer = client.commit(ledger, proposals.clone()).await;
            }
        }
        match answer {
            Ok(_) => assert!(client.uncertain.is_empty(), "written after it had stopped"),
            Err(CommitError::DiskFull) => assert_eq!(fault, Fault::StaysFull),
            Err(CommitError::Halted { reason }) => {
                read_all(ledger).await;
                let again = ledger.commit(vec![]).await;
                assert_eq!(again, Err(CommitError::Halted { reason }), "call {call}");
                assert!(ledger.halted().is_some());
            }
            Err(error) => panic!("{error}"),
        }
        if let Some(index) = client.acknowledged.keys().next_back() {
            let _ = client.sign(ledger, *index).await;
        }
        client.checkpoint(ledger);
    }
    read_all(ledger).await;
}

/// One cell of the matrix. Returns the operations that there were.
async fn survive(seed: u64, plan: Option<(usize, Fault)>) -> Vec<String> {
    let fault = plan.map_or(Fault::Fails, |(_, fault)| fault);
    let (directory, mut mix, mut client) = (directory(), Mix::new(seed), Client::default());
    let disk = Arc::new(FaultyDisk::default());
    let shared: Arc<dyn Disk> = Arc::clone(&disk) as Arc<dyn Disk>;
    let options = Options { segment_bytes: 2 << 10, ..hasty() };
    let signer = workload::signer();
    let ledger =
        EmbeddedLedger::create_on(&shared, directory.path(), signer, options, &SystemRandom).unwrap();
    let setup = vec![workload::genesis(), workload::issuer(), workload::registration(99)];
    client.commit(&ledger, setup).await.unwrap();
    fill(&ledger, &mut mix, &mut client, 5).await;
    let (at, _) = plan.unwrap_or((usize::MAX, fault));
    disk.plan(at, fault);
    work(&ledger, &mut mix, &mut client, fault).await;
    if fault == Fault::StaysFull && ledger.halted().is_none() {
        disk.heal();
        // Room again: everything works again before long, without a restart.
        for _ in 0..200 {
            if !ledger.shared.index_is_full.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        work(&ledger, &mut mix, &mut client, Fault::Fails).await;
        assert_eq!(ledger.halted(), None);
    }
    drop(ledger);
    let operations = disk.operations();
    let report = check(directory.path());
    assert!(report.entries >= client.acknowledged.len() as u64);
    let ledger = open(directory.path()).unwrap();
    client.verify(&ledger).await;
    read_all(&ledger).await;
    // What is there now is acknowledged from here on.
    client.acknowledged = (0..).zip(ledger.entries(0, 10_000).await.unwrap()).collect();
    client.uncertain.clear();
    fill(&ledger, &mut mix, &mut client, 5).await;
    drop(ledger);
    assert_eq!(check(directory.path()).indexed, client.acknowledged.len() as u64);
    operations
}

/// Every operation with `CHANCERY_LEDGER_FAULTS=all`; otherwise the first of each kind on each kind of file.
#[tokio::test]
async fn every_write_may_fail_in_every_way() {
    let operations = survive(1, None).await;
    let kinds: Vec<String> = operations.iter().map(|operation| kind(operation)).collect();
    for what in ["allocate .new", "rename .journal", "sync entries", "write index.redb", "rename checkpoint"]
    {
        assert!(kinds.iter().any(|kind| kind == what), "no {what} in {operations:?}");
    }
    let all = std::env::var("CHANCERY_LEDGER_FAULTS").is_ok_and(|value| value == "all");
    let mut cells = 0;
    for (at, operation) in operations.iter().enumerate() {
        if !all && kinds[..at].contains(&kinds[at]) {
            continue;
        }
        for fault in FAULTS {
            // Printed when it fails.
            println!("operation {at} ({operation}) {fault:?}");
            survive(1, Some((at, fault))).await;
            cells += 1;
        }
    }
    println!("{cells} cells over {} operations", operations.len());
}

/// An operation without numbers: `write 00000003.journal` is `write .journal`.
fn kind(operation: &str) -> String {
    let (what, name) = operation.rsplit_once(' ').unwrap();
    match what {
        "sync directory" => what.to_owned(),
        _ => format!("{what} {}", name.trim_start_matches(|letter: char| letter.is_ascii_digit())),
    }
}

/// Every operation of opening, too: a failure is an error, and the next start finds all.
#[tokio::test]
async fn opening_may_fail_at_every_operation_and_loses_nothing() {
    let (origin, mut mix, mut client) = (directory(), Mix::new(2), Client::default());
    let ledger = create(origin.path(), lazy());
    client.commit(&ledger, vec![workload::genesis(), workload::issuer()]).await.unwrap();
    fill(&ledger, &mut mix, &mut client, 30).await;
    // As a kill leaves it: nothing in the index, everything to replay; and as one in the middle of a write.
    let killed = copy(origin.path());
    tear(killed.path());
    drop(ledger);
    let reopen = |directory: &Path, disk: &Arc<FaultyDisk>| {
        let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
        EmbeddedLedger::open_on(&disk, directory, workload::signer(), hasty())
    };
    for source in [killed.path(), origin.path()] {
        let disk = Arc::new(FaultyDisk::default());
        let work = copy(source);
        disk.plan(usize::MAX, Fault::Fails);
        reopen(work.path(), &disk).unwrap();
        let count = disk.operations().len();
        for at in 0..count {
            for fault in [Fault::Fails, Fault::FailsPersisted, Fault::StaysFull, Fault::Short, Fault::Dead] {
                let work = copy(source);
                let disk = Arc::new(FaultyDisk::default());
                disk.plan(at, fault);
                if let Ok(ledger) = reopen(work.path(), &disk) {
                    client.verify(&ledger).await;
                    read_all(&ledger).await;
                }
                let ledger = open(work.path()).unwrap_or_else(|error| panic!("{at} {fault:?}: {error}"));
                client.verify(&ledger).await;
                drop(ledger);
                assert_eq!(check(work.path()).indexed, client.acknowledged.len() as u64);
            }
        }
    }
}

/// Leaves half a batch behind the last one.
fn tear(directory: &Path) {
    let last = (0..).take_while(|number| segment(directory, *number).exists()).last().unwrap();
    let path = segment(directory, last);
    let mut bytes = std::fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let torn = b"CHB1 and what else was written of it".repeat(3);
    bytes.resize(bytes.len().max(used + torn.len()), 0);
    bytes[used..used + torn.len()].copy_from_slice(&torn);
    std::fs::write(&path, bytes).unwrap();
}

/// Creating a ledger in a directory where it failed before works, or says that there is one.
#[tokio::test]
async fn creation_may_fail_at_every_operation_and_be_repeated() {
    let attempt = |directory: &Path, disk: &Arc<FaultyDisk>| {
        let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
        EmbeddedLedger::create_on(&disk, directory, workload::signer(), hasty(), &SystemRandom)
    };
    let disk = Arc::new(FaultyDisk::default());
    disk.plan(usize::MAX, Fault::Fails);
    attempt(directory().path(), &disk).unwrap();
    for at in 0..disk.operations().len() {
        for fault in FAULTS {
            let (directory, disk) = (directory(), Arc::new(FaultyDisk::default()));
            disk.plan(at, fault);
            drop(attempt(directory.path(), &disk));
            let ledger = match attempt(directory.path(), &Arc::default()) {
                Err(OpenError::Directory { .. }) => open(directory.path()),
                other => other,
            };
            let ledger = ledger.unwrap_or_else(|error| panic!("{at} {fault:?}: {error}"));
            assert_eq!(ledger.head().size, 0);
            Client::default().commit(&ledger, vec![workload::genesis()]).await.unwrap();
        }
    }
}
