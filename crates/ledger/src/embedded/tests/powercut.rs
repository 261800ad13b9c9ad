//! Power cuts, simulated: what was not synced arrives in part, out of order, or not at all.
//!
//! Every step that the ledger takes towards the disk is recorded. For a moment between two steps, a directory is
//! made that a power cut then could have left, and opened.

use super::disks::RecordingDisk;
use super::*;

/// What the client knew at a moment.
struct Known {
    moment: usize,
    client: Client,
}

async fn history(disk: &Arc<RecordingDisk>, home: &Path, seed: u64) -> Vec<Known> {
    let shared: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    let options = Options { segment_bytes: 3 << 10, ..hasty() };
    let (mut mix, mut client) = (Mix::new(seed), Client::default());
    let mut ledger =
        EmbeddedLedger::create_on(&shared, home, workload::signer(), options.clone(), &SystemRandom).unwrap();
    client
        .commit(&ledger, vec![workload::genesis(), workload::issuer(), workload::registration(99)])
        .await
        .unwrap();
    let mut history = vec![Known { moment: disk.moment(), client: client.clone() }];
    for call in 0..40_u64 {
        let mut proposals: Vec<Proposal> = (0..mix.below(4)).map(|_| mix.proposal()).collect();
        proposals.push(workload::enrolment(workload::issuance(5_000 + call, workload::identity(99))));
        client.uncertain = proposals
            .iter()
            .flat_map(|proposal| &proposal.entries)
            .map(|entry| entry.bytes.clone())
            .collect();
        // From here on the call may be half done.
        history.push(Known { moment: disk.moment(), client: client.clone() });
        client.commit(&ledger, proposals).await.unwrap();
        client.uncertain.clear();
        client.checkpoint(&ledger);
        history.push(Known { moment: disk.moment(), client: client.clone() });
        if let Some(index) = client.acknowledged.keys().next_back() {
            client.sign(&ledger, *index).await.unwrap();
        }
        if call == 20 {
            drop(ledger);
            ledger = EmbeddedLedger::open_on(&shared, home, workload::signer(), options.clone()).unwrap();
        }
    }
    drop(ledger);
    history.push(Known { moment: disk.moment(), client });
    history
}

/// Every moment with `CHANCERY_LEDGER_POWER_CUTS=all`, some hundred of them otherwise.
#[tokio::test]
async fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    let (home, disk) = (directory(), Arc::new(RecordingDisk::default()));
    let history = history(&disk, home.path(), 7).await;
    let (first, last) = (history[0].moment, disk.moment());
    let all = std::env::var("CHANCERY_LEDGER_POWER_CUTS").is_ok_and(|value| value == "all");
    let step = if all { 1 } else { (last - first).div_ceil(120) };
    let mut cuts = 0;
    for moment in (first..=last).step_by(step) {
        let known = history.iter().rfind(|known| known.moment <= moment).unwrap();
        let mut dice = Mix::new(moment as u64);
        let after = directory();
        disk.after_power_cut(moment, home.path(), after.path(), &mut |bound| dice.below(bound));
        let context = format!("cut at moment {moment} of {last}");
        let ledger = open(after.path()).unwrap_or_else(|error| panic!("{context}: {error}"));
        println!(
            "{context}: {} entries, {} acknowledged",
            ledger.head().size,
            known.client.acknowledged.len()
        );
        known.client.verify(&ledger).await;
        let acknowledged = (0..).zip(ledger.entries(0, 10_000).await.unwrap()).collect();
        let mut client = Client { acknowledged, ..Client::default() };
        fill(&ledger, &mut Mix::new(1), &mut client, 3).await;
        drop(ledger);
        let report = check(after.path());
        assert_eq!(report.indexed, client.acknowledged.len() as u64, "{context}");
        cuts += 1;
    }
    println!("{cuts} power cuts");
}

/// A control: the simulation does lose what was not synced.
#[test]
fn the_simulated_power_cut_loses_what_was_not_synced() {
    let (home, disk) = (directory(), RecordingDisk::default());
    let path = home.path().join("file");
    let file = disk.open(&path, super::super::disk::How::Create).unwrap();
    disk.sync_directory(home.path()).unwrap();
    disk.write(&path, &file, &[1; 4096], 0).unwrap();
    disk.sync(&path, &file).unwrap();
    disk.write(&path, &file, &[2; 4096], 0).unwrap();
    let (mut old, mut new, mut mixed) = (0, 0, 0);
    let mut dice = Mix::new(3);
    for _ in 0..100 {
        let after = directory();
        disk.after_power_cut(disk.moment(), home.path(), after.path(), &mut |bound| dice.below(bound));
        let bytes = std::fs::read(after.path().join("file")).unwrap();
        match (bytes.contains(&1), bytes.contains(&2)) {
            (true, false) => old += 1,
            (false, true) => new += 1,
            _ => mixed += 1,
        }
    }
    assert!(old > 10 && new > 10 && mixed > 10, "{old} old, {new} new, {mixed} mixed");
}
