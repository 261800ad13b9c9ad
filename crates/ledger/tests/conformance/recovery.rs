//! What is committed is there for the next process, and the read model follows from the entries alone.

use chancery_ledger::Outcome;

use super::{Harness, accept, snapshot};
use crate::workload::{self, Mix};

pub(crate) async fn everything_is_the_same_after_reopening_and_rebuilding(harness: &dyn Harness) {
    for seed in 0..harness.histories() {
        let mut mix = Mix::new(seed);
        let mut ledger = harness.create().await;
        accept(&*ledger, workload::genesis()).await;
        for round in 0..6 {
            let mut accepted = 0;
            for _ in 0..60 {
                let proposals: Vec<_> = (0..mix.below(9)).map(|_| mix.proposal()).collect();
                let outcomes = ledger.commit(proposals).await.unwrap();
                accepted +=
                    outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted { .. })).count();
            }
            assert!(accepted > 20, "seed {seed}: the mix has nothing left to do");
            let before = snapshot(&*ledger).await;
            ledger = harness.reopen(ledger).await;
            assert_eq!(snapshot(&*ledger).await, before, "seed {seed}, round {round}, reopened");
            ledger = harness.rebuild(ledger).await;
            assert_eq!(snapshot(&*ledger).await, before, "seed {seed}, round {round}, rebuilt");
        }
    }
}

pub(crate) async fn work_goes_on_after_reopening(harness: &dyn Harness) {
    let mut ledger = harness.create().await;
    for number in 0..20 {
        assert_eq!(accept(&*ledger, workload::registration(number)).await, number);
        ledger = harness.reopen(ledger).await;
        assert_eq!(ledger.head().size, number + 1);
    }
    let before = snapshot(&*ledger).await;
    assert_eq!(snapshot(&*harness.rebuild(ledger).await).await, before);
}
