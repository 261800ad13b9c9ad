//! The read model is a pure function of the entries, however and whenever it was computed.

use proptest::prelude::*;

use super::disks::{Fault, FaultyDisk};
use super::*;

/// What is done to a ledger.
#[derive(Debug, Clone)]
enum Step {
    /// A call of so many proposals.
    Commit(u64),
    /// A clean stop and a start.
    Reopen,
    /// A kill and a start.
    Kill,
    Rebuild,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0_u64..12).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => Just(Step::Rebuild),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn incremental_replayed_and_rebuilt_models_are_equal(
        seed: u64, steps in steps(), index_changes in 1_usize..200, segment_bytes in 1_000_u64..30_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(play(seed, steps, Options { index_changes, segment_bytes, ..hasty() }));
    }
}

async fn play(seed: u64, steps: Vec<Step>, options: Options) {
    let (mut mix, mut client) = (Mix::new(seed), Client::default());
    let (home, faulty) = (directory(), Arc::new(FaultyDisk::default()));
    let disk: Arc<dyn Disk> = Arc::clone(&faulty) as Arc<dyn Disk>;
    let open = || EmbeddedLedger::open_on(&disk, home.path(), workload::signer(), options.clone()).unwrap();
    let (signer, random) = (workload::signer(), SystemRandom);
    let mut ledger = EmbeddedLedger::create_on(&disk, home.path(), signer, options.clone(), &random).unwrap();
    client.commit(&ledger, vec![workload::genesis()]).await.unwrap();
    for step in steps {
        let digest = ledger.model_digest().unwrap();
        match step {
            Step::Commit(count) => {
                let proposals = (0..count).map(|_| mix.proposal()).collect();
                client.commit(&ledger, proposals).await.unwrap();
                if let Some(index) = client.acknowledged.keys().next_back() {
                    client.sign(&ledger, *index).await.unwrap();
                }
                client.checkpoint(&ledger);
                continue;
            }
            Step::Reopen => {
                drop(ledger);
                let report = check(home.path());
                assert_eq!(report.indexed, client.acknowledged.len() as u64);
                ledger = open();
            }
            Step::Kill => {
                faulty.plan(0, Fault::Dead);
                drop(ledger);
                faulty.heal();
                check(home.path());
                ledger = open();
            }
            Step::Rebuild => {
                drop(ledger);
                let mut heard = 0;
                let mut progress = |done, _| {
                    assert!(done > heard);
                    heard = done;
                };
                let (signer, options) = (workload::signer(), options.clone());
                ledger =
                    EmbeddedLedger::rebuild_on(&disk, home.path(), signer, options, &mut progress).unwrap();
                assert_eq!(heard, ledger.head().size);
            }
        }
        assert_eq!(ledger.model_digest().unwrap(), digest);
        client.verify(&ledger).await;
        client.verify_signatures(&ledger).await;
    }
}
