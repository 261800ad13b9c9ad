//! Certificates that ended long ago leave what searches find, and nothing else.

use std::time::Duration;

use chancery_entry::{Body, HoldTarget, Issuance, Tidy};
use chancery_ledger::{
    CertificateQuery, CertificateState, Ledger, Outcome, PageRequest, Precondition, Proposal, Standing,
    StateFilter,
};
use chancery_types::{Digest, EvidenceKind, Generation, RevocationReason, SerialNumber, Timestamp};

use super::{Harness, accept, snapshot, standing};
use crate::workload::{self, ISSUER, identity, issuance, lineage, now, propose, serial};

/// When the first ten certificates of [`populate`] have ended, and no other.
fn ended() -> Timestamp {
    now() + Duration::from_secs(1000)
}

fn tidying(time: Timestamp, ended_before: Timestamp, serials: Vec<SerialNumber>) -> Proposal {
    propose(vec![], time, vec![Body::Tidied(Tidy { ended_before, serials })])
}

fn node() -> chancery_types::SpiffeId {
    "spiffe://example.org/node/a".parse().expect("a SPIFFE ID")
}

/// Certificates 0 to 19, of which the first ten have ended before [`ended`]. Every third came through a node's agent,
/// 3 is revoked, 4 is held.
async fn populate(ledger: &dyn Ledger) -> Vec<Issuance> {
    accept(ledger, workload::issuer()).await;
    for number in 0..2 {
        accept(ledger, workload::registration(number)).await;
    }
    let mut issued = Vec::new();
    for counter in 0..20 {
        let mut issuance = issuance(counter, identity(counter % 2));
        let lives = if counter < 10 { 900 } else { 9000 };
        issuance.not_after = now() + Duration::from_secs(lives + counter);
        issuance.key = workload::digest("key", counter % 4);
        issuance.idempotency = Some(workload::digest("idempotency", counter));
        if counter % 3 == 0 {
            issuance.evidence = EvidenceKind::Workload;
            issuance.requester = node().to_string();
        }
        accept(ledger, workload::enrolment(issuance.clone())).await;
        issued.push(issuance);
    }
    accept(ledger, workload::revoke(serial(3), RevocationReason::KeyCompromise, now())).await;
    accept(ledger, workload::hold(HoldTarget::Certificate(serial(4)), now())).await;
    issued
}

async fn found(ledger: &dyn Ledger, query: CertificateQuery) -> Vec<u64> {
    let page = ledger.certificates(&query, &PageRequest::first(1000)).await.unwrap();
    assert!(page.next.is_none());
    page.items.iter().map(|record| record.serial.counter()).collect()
}

/// Everything that was not tidied away and has ended, page by page.
async fn left(ledger: &dyn Ledger, before: Timestamp, limit: usize) -> Vec<u64> {
    let (mut page, mut all) = (PageRequest::first(limit), Vec::new());
    loop {
        let next = ledger.ended(before, &page).await.unwrap();
        all.extend(next.items.iter().map(|serial| serial.counter()));
        match next.next {
            Some(after) => page.after = Some(after),
            None => return all,
        }
    }
}

pub(crate) async fn what_ended_long_ago_leaves_the_searches_and_nothing_else(harness: &dyn Harness) {
    let ledger = harness.create().await;
    populate(&*ledger).await;
    let mut before = Vec::new();
    for counter in 0..20 {
        before.push(ledger.certificate(serial(counter)).await.unwrap().unwrap());
    }
    for limit in [1, 3, 10, 11] {
        assert_eq!(left(&*ledger, ended(), limit).await, (0..10).collect::<Vec<_>>());
    }
    assert!(left(&*ledger, now(), 5).await.is_empty());
    let at = ended() + Duration::from_secs(60);
    // The second time over the same, some that live, and one that nobody knows: nothing happens to those.
    accept(&*ledger, tidying(at, ended(), (0..6).map(serial).collect())).await;
    accept(&*ledger, tidying(at, ended(), (0..16).chain([777]).map(serial).collect())).await;
    // Not even where the proposer's reckoning runs ahead of its own clock.
    let in_a_year = at + Duration::from_secs(365 * 86_400);
    accept(&*ledger, tidying(at, in_a_year, (10..20).map(serial).collect())).await;

    let mut ledger = ledger;
    for round in 0..3 {
        assert!(left(&*ledger, ended(), 7).await.is_empty(), "round {round}");
        let none = CertificateQuery::default;
        assert_eq!(found(&*ledger, none()).await, (10..20).collect::<Vec<_>>());
        let of = |start: u64, step: usize| (start..20).step_by(step).collect::<Vec<_>>();
        assert_eq!(
            found(&*ledger, CertificateQuery { identity: Some(identity(1)), ..none() }).await,
            of(11, 2)
        );
        let key = Some(workload::digest("key", 0));
        assert_eq!(found(&*ledger, CertificateQuery { key, ..none() }).await, of(12, 4));
        assert_eq!(found(&*ledger, CertificateQuery { node: Some(node()), ..none() }).await, of(12, 3));
        let expires_before = Some(ended());
        assert!(found(&*ledger, CertificateQuery { expires_before, ..none() }).await.is_empty());
        for state in [StateFilter::Revoked, StateFilter::Held] {
            assert!(found(&*ledger, CertificateQuery { state: Some(state), ..none() }).await.is_empty());
        }
        assert!(found(&*ledger, CertificateQuery { lineage: Some(lineage(5)), ..none() }).await.is_empty());
        assert!(ledger.revoked(ISSUER, Timestamp::from_millis(0)).await.unwrap().is_empty());

        // By its serial it is what it was, and says that it was tidied away.
        for (counter, before) in before.iter().enumerate() {
            let mut record = ledger.certificate(serial(counter as u64)).await.unwrap().unwrap();
            assert_eq!(record.is_tidied, counter < 10);
            record.is_tidied = false;
            assert_eq!(record, *before);
        }
        let of = async |counter| ledger.certificate(serial(counter)).await.unwrap().unwrap().state;
        let reason = RevocationReason::KeyCompromise;
        assert_eq!(of(3).await, CertificateState::Revoked { at: now(), reason });
        assert_eq!(of(4).await, CertificateState::Held { since: now() });

        // What may happen only once stays so.
        assert_eq!(ledger.last_counter(ISSUER).await.unwrap(), Some(19));
        for counter in [0, 3, 9] {
            let precondition = Precondition::SerialUnused(serial(counter));
            assert_eq!(standing(&*ledger, precondition).await, Some(Standing::Exists));
            let precondition = Precondition::LineageUnused(lineage(counter));
            assert_eq!(standing(&*ledger, precondition).await, Some(Standing::Exists));
            let hash = workload::digest("idempotency", counter);
            assert_eq!(ledger.idempotent(hash).await.unwrap(), Some(serial(counter)));
        }
        // And nothing more happens to it.
        let target = HoldTarget::Certificate(serial(4));
        for precondition in [
            Precondition::Revocable { serial: serial(2), reason },
            Precondition::Revocable { serial: serial(3), reason },
            Precondition::InForce(serial(2)),
            Precondition::Holdable(HoldTarget::Certificate(serial(2))),
            Precondition::Releasable(target),
        ] {
            assert_eq!(
                standing(&*ledger, precondition.clone()).await,
                Some(Standing::Expired),
                "{precondition}"
            );
        }
        ledger = match round {
            0 => harness.reopen(ledger).await,
            _ => harness.rebuild(ledger).await,
        };
    }
}

pub(crate) async fn a_lineage_goes_on_when_its_latest_was_tidied_away(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(0)).await;
    let mut first = issuance(0, identity(0));
    first.not_after = now() + Duration::from_secs(90_000);
    accept(&*ledger, workload::enrolment(first.clone())).await;
    let mut second = workload::renewal(1, &first);
    second.not_after = now() + Duration::from_secs(100);
    accept(&*ledger, workload::renewing(second.clone())).await;
    let at = ended();
    accept(&*ledger, tidying(at, at, vec![serial(0), serial(1)])).await;
    let of_lineage = CertificateQuery { lineage: Some(lineage(0)), ..Default::default() };
    assert_eq!(found(&*ledger, of_lineage.clone()).await, [0], "what lives is found, to be revoked");
    let head = ledger.lineage(lineage(0)).await.unwrap().unwrap();
    assert_eq!((head.generation, head.latest), (Generation(1), serial(1)));
    accept(&*ledger, workload::hold(HoldTarget::Lineage(lineage(0)), at)).await;
    let record = ledger.certificate(serial(0)).await.unwrap().unwrap();
    assert_eq!(record.state, CertificateState::Held { since: at });
    assert_eq!(ledger.certificate(serial(1)).await.unwrap().unwrap().state, CertificateState::Good);
    accept(&*ledger, workload::release(HoldTarget::Lineage(lineage(0)), at)).await;
    let at_second = Precondition::LineageAt { lineage: lineage(0), generation: Generation(0) };
    assert_eq!(standing(&*ledger, at_second).await, Some(Standing::Generation(Generation(1))));
    let mut third = workload::renewal(2, &second);
    third.not_before = at;
    third.not_after = at + Duration::from_secs(3600);
    accept(&*ledger, workload::renewing(third)).await;
    let ledger = harness.rebuild(ledger).await;
    assert_eq!(found(&*ledger, of_lineage).await, [0, 2]);
    assert_eq!(ledger.living(lineage(0)).await.unwrap(), [serial(0), serial(2)]);
}

/// One entry names so many; what is in the same call, and in the same batch, is seen.
pub(crate) async fn many_are_tidied_away_at_once_and_in_the_batch_that_issues_them(harness: &dyn Harness) {
    const MANY: u64 = 3000;
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(0)).await;
    let mut proposals: Vec<Proposal> =
        (0..MANY).map(|counter| workload::enrolment(issuance(counter, identity(0)))).collect();
    let at = now() + Duration::from_secs(86_400);
    proposals.push(tidying(at, at, (0..MANY).map(serial).collect()));
    let outcomes = ledger.commit(proposals).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })));
    let mut text = String::new();
    let mut ledger = ledger;
    for round in 0..3 {
        assert!(left(&*ledger, at, 1000).await.is_empty(), "round {round}");
        assert!(found(&*ledger, CertificateQuery::default()).await.is_empty());
        let record = ledger.certificate(serial(MANY - 1)).await.unwrap().unwrap();
        assert!(record.is_tidied && record.identity == identity(0));
        let now = Digest::of(snapshot(&*ledger).await.as_bytes()).to_string();
        assert!(round == 0 || text == now);
        text = now;
        ledger = match round {
            0 => harness.reopen(ledger).await,
            _ => harness.rebuild(ledger).await,
        };
    }
}
