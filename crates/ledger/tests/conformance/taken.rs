//! What one hand takes out of force within a window: what a limit on revocations and holds is measured by.

use std::collections::BTreeMap;
use std::time::Duration;

use chancery_entry::{Body, ChangeProposal, ChangeStep, Document, Hold, HoldTarget, Revocation, Step};
use chancery_ledger::{Ledger, Precondition, change_name};
use chancery_types::{Identity, RevocationReason, Timestamp};

use super::{Harness, accept, refuse};
use crate::workload::{self, identity, identity_document, issuance, lineage, now, propose, serial};

const GRACE: &str = "operator grace";
/// The grain of the count.
const SLOT: u64 = 300;

/// Certificates 0 to 29: those of identity 0 in production, those of identity 1 in a test environment.
async fn populate(ledger: &dyn Ledger) {
    accept(ledger, workload::issuer()).await;
    for (number, environment) in [(0, "production"), (1, "test")] {
        let mut document = Identity::new(identity(number), "ada@example.org");
        document.environment = environment.into();
        let body = Body::IdentityRegistered(identity_document(&document));
        accept(ledger, propose(vec![], now(), vec![body])).await;
    }
    for counter in 0..30 {
        accept(ledger, workload::enrolment(issuance(counter, identity(counter % 2)))).await;
    }
}

fn at(slots: u64) -> Timestamp {
    now() + Duration::from_secs(slots * SLOT)
}

async fn revoke(ledger: &dyn Ledger, by: &str, counter: u64, time: Timestamp) {
    let (serial, reason) = (serial(counter), RevocationReason::Superseded);
    let body = Body::Revocation(Revocation { serial, reason, by: by.into(), note: String::new() });
    accept(ledger, propose(vec![Precondition::Revocable { serial, reason }], time, vec![body])).await;
}

async fn hold(ledger: &dyn Ledger, by: &str, target: HoldTarget, time: Timestamp) {
    let (cause, note) = ("operator".to_owned(), String::new());
    let body = Body::Hold(Hold { target: target.clone(), cause, by: by.into(), note });
    accept(ledger, propose(vec![Precondition::Holdable(target)], time, vec![body])).await;
}

async fn taken(ledger: &dyn Ledger, by: &str, since: Timestamp) -> (u64, u64) {
    let counts: BTreeMap<String, u64> = ledger.taken(by, since).await.unwrap();
    let of = |environment| counts.get(environment).copied().unwrap_or(0);
    assert!(counts.keys().all(|environment| environment == "production" || environment == "test"));
    (of("production"), of("test"))
}

pub(crate) async fn what_a_hand_takes_is_added_up_by_environment_within_a_window(harness: &dyn Harness) {
    let mut ledger = harness.create().await;
    populate(&*ledger).await;
    let target = |counter| HoldTarget::Certificate(serial(counter));
    for counter in [0, 1, 2] {
        revoke(&*ledger, GRACE, counter, at(0)).await;
    }
    // What is out of force already is not taken once more, and a release gives nothing back.
    hold(&*ledger, GRACE, target(4), at(1)).await;
    revoke(&*ledger, GRACE, 4, at(1)).await;
    hold(&*ledger, GRACE, target(6), at(1)).await;
    accept(&*ledger, workload::release(target(6), at(1))).await;
    hold(&*ledger, GRACE, HoldTarget::Lineage(lineage(7)), at(2)).await;
    // Others, and what counts for nobody.
    revoke(&*ledger, workload::BY, 8, at(2)).await;
    for (by, counter) in [("chancery", 10), ("key-holder:00ff", 12), ("change:3", 14)] {
        revoke(&*ledger, by, counter, at(2)).await;
    }
    for round in 0..3 {
        assert_eq!(taken(&*ledger, GRACE, at(0)).await, (4, 2), "round {round}");
        assert_eq!(taken(&*ledger, GRACE, at(1)).await, (2, 1));
        assert_eq!(taken(&*ledger, GRACE, at(2)).await, (0, 1));
        assert_eq!(taken(&*ledger, GRACE, at(3)).await, (0, 0));
        assert_eq!(taken(&*ledger, workload::BY, at(0)).await, (1, 0));
        for by in ["chancery", "key-holder:00ff", "change:3", "operator nobody"] {
            assert_eq!(taken(&*ledger, by, at(0)).await, (0, 0), "{by}");
        }
        ledger = match round {
            0 => harness.reopen(ledger).await,
            _ => harness.rebuild(ledger).await,
        };
    }
    // A day later the first is forgotten; what was tidied away in between has been counted all the same.
    let next_day = at(24 * 3600 / SLOT);
    revoke(&*ledger, GRACE, 16, next_day).await;
    assert_eq!(taken(&*ledger, GRACE, at(0)).await, (3, 1));
    let serials = (0..30).map(serial).collect();
    let tidy = Body::Tidied(chancery_entry::Tidy { ended_before: next_day, serials });
    accept(&*ledger, propose(vec![], next_day, vec![tidy])).await;
    assert_eq!(taken(&*ledger, GRACE, at(0)).await, (3, 1));
    let question = Precondition::Revocable { serial: serial(18), reason: RevocationReason::Superseded };
    let body = Body::Null;
    refuse(&*ledger, propose(vec![question], next_day, vec![body])).await;
}

pub(crate) async fn a_change_counts_for_whoever_began_it_alone(harness: &dyn Harness) {
    let ledger = harness.create().await;
    populate(&*ledger).await;
    let radius = r#"{"environments":[{"name":"production","certificates":9,"held":2},{"name":"test","certificates":3}]}"#;
    for (by, step) in [(GRACE, Step::Begun), (workload::BY, Step::Approved)] {
        let proposal = ChangeProposal {
            request: Document(r#"{"action":"hold"}"#.into()),
            radius: Document(radius.into()),
            expires: at(9),
            by: by.into(),
            note: String::new(),
        };
        let change = accept(&*ledger, propose(vec![], at(0), vec![Body::ChangeProposed(proposal)])).await;
        let details = Document("{}".into());
        let note = String::new();
        let step = ChangeStep { change, step, by: "operator lin".into(), details, note };
        accept(&*ledger, propose(vec![], at(1), vec![Body::ChangeStepped(step)])).await;
        // What it does then was counted, or approved.
        revoke(&*ledger, &change_name(change), change % 30, at(2)).await;
    }
    let ledger = harness.rebuild(harness.reopen(ledger).await).await;
    assert_eq!(taken(&*ledger, GRACE, at(0)).await, (7, 3));
    assert_eq!(taken(&*ledger, GRACE, at(2)).await, (0, 0));
    assert_eq!(taken(&*ledger, workload::BY, at(0)).await, (0, 0));
    assert_eq!(taken(&*ledger, "operator lin", at(0)).await, (0, 0));
}
