//! What a proposal may require, and what becomes of it.

use std::time::Duration;

use chancery_entry::{Body, Document, Entry, HoldTarget, IdentityRegistration, IssuerRetirement, TokenSpend};
use chancery_ledger::{Outcome, Precondition, Proposal, Standing, TokenState};
use chancery_types::{Generation, Identity, IdentityState, IssuerEpoch, LineageId, RevocationReason};

use super::{Harness, accept, refuse, standing};
use crate::workload::{self, ISSUER, identity, issuance, lineage, now, propose, serial, token};

/// A table of every precondition, on things in every state.
pub(crate) async fn every_precondition_holds_and_fails_as_it_says(harness: &dyn Harness) {
    let ledger = harness.create().await;
    assert_eq!(standing(&*ledger, Precondition::Empty).await, None);
    let second = Duration::from_secs(1);
    let idempotency = workload::digest("idempotency", 1);
    let setup = vec![
        workload::genesis(),
        workload::issuer(),
        propose(vec![], now(), vec![workload::activation(IssuerEpoch(2))]),
        propose(
            vec![],
            now(),
            vec![Body::IssuerRetired(IssuerRetirement {
                epoch: IssuerEpoch(2),
                by: "ada".into(),
                note: String::new(),
            })],
        ),
        workload::registration(1),
        workload::registration(2),
        workload::registration(3),
        propose(vec![], now(), vec![Body::IdentityHeld(workload::identity_change(identity(2)))]),
        propose(vec![], now(), vec![Body::IdentityRetired(workload::identity_change(identity(3)))]),
        token(1).1,
        token(2).1,
        token(3).1,
        workload::spend(token(2).0, 7, now()),
        workload::revoke_token(token(3).0),
        workload::enrolment({
            let mut first = issuance(1, identity(1));
            first.idempotency = Some(idempotency);
            first
        }),
        workload::renewing(workload::renewal(2, &issuance(1, identity(1)))),
        workload::enrolment(issuance(3, identity(1))),
        workload::hold(HoldTarget::Lineage(lineage(3)), now()),
        workload::enrolment(issuance(4, identity(1))),
        workload::revoke(serial(4), RevocationReason::Superseded, now()),
        workload::enrolment(issuance(5, identity(1))),
        workload::revoke(serial(5), RevocationReason::KeyCompromise, now()),
        workload::crl(ISSUER, None, 8),
        propose(
            vec![],
            now(),
            vec![Body::TemplateRegistered(chancery_entry::TemplateRegistration {
                name: "pod".into(),
                document: Document("{}".into()),
                by: "ada".into(),
            })],
        ),
    ];
    for outcome in ledger.commit(setup).await.unwrap() {
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    use HoldTarget::{Certificate, Lineage};
    use Precondition as P;
    use Standing as S;
    let usable = |number, at| P::TokenUsable { token: token(number).0, now: at };
    let expiry = now() + Duration::from_secs(3600);
    let at =
        |number, generation| P::LineageAt { lineage: lineage(number), generation: Generation(generation) };
    let revocable = |counter, reason| P::Revocable { serial: serial(counter), reason };
    let number =
        |epoch, previous, number| P::CrlFollows { epoch: IssuerEpoch(epoch), shard: None, previous, number };
    let follows = |previous, sequence| P::StatusSetFollows { previous, sequence };
    let (compromise, superseded) = (RevocationReason::KeyCompromise, RevocationReason::Superseded);
    let cases = [
        (P::Empty, Some(S::NotEmpty)),
        (P::SerialUnused(serial(9)), None),
        (P::SerialUnused(serial(0)), None),
        (P::SerialUnused(serial(1)), Some(S::Exists)),
        (usable(1, now()), None),
        (usable(1, expiry - Duration::from_millis(1)), None),
        (usable(1, expiry), Some(S::Expired)),
        (usable(2, now()), Some(S::Spent)),
        (usable(2, expiry + second), Some(S::Spent)),
        (usable(3, now()), Some(S::Revoked)),
        (usable(4, now()), Some(S::Unknown)),
        (P::TokenOpen(token(1).0), None),
        (P::TokenOpen(token(2).0), Some(S::Spent)),
        (P::TokenOpen(token(3).0), Some(S::Revoked)),
        (P::TokenOpen(token(4).0), Some(S::Unknown)),
        (P::LineageUnused(LineageId::from_array([0xee; 16])), None),
        (P::LineageUnused(lineage(1)), Some(S::Exists)),
        (at(1, 1), None),
        (at(1, 0), Some(S::Generation(Generation(1)))),
        (at(1, 2), Some(S::Generation(Generation(1)))),
        (at(3, 0), Some(S::Held)),
        (at(9, 0), Some(S::Unknown)),
        (P::IdentityActive(identity(1)), None),
        (P::IdentityActive(identity(2)), Some(S::Held)),
        (P::IdentityActive(identity(3)), Some(S::Retired)),
        (P::IdentityActive(identity(4)), Some(S::Unknown)),
        (P::IdentityRegistered(identity(1)), None),
        (P::IdentityRegistered(identity(2)), None),
        (P::IdentityRegistered(identity(3)), Some(S::Retired)),
        (P::IdentityRegistered(identity(4)), Some(S::Unknown)),
        (P::IdentityHeld(identity(1)), Some(S::NotHeld)),
        (P::IdentityHeld(identity(2)), None),
        (P::IdentityHeld(identity(3)), Some(S::Retired)),
        (P::IdentityHeld(identity(4)), Some(S::Unknown)),
        (P::IdentityUnused(identity(1)), Some(S::Exists)),
        (P::IdentityUnused(identity(2)), Some(S::Exists)),
        (P::IdentityUnused(identity(3)), Some(S::Retired)),
        (P::IdentityUnused(identity(4)), None),
        (P::TemplateExists("pod".into()), None),
        (P::TemplateExists("po".into()), Some(S::Unknown)),
        (P::IssuerActive(ISSUER), None),
        (P::IssuerActive(IssuerEpoch(2)), Some(S::Retired)),
        (P::IssuerActive(IssuerEpoch(3)), Some(S::Unknown)),
        (P::IssuerUnused(IssuerEpoch(3)), None),
        (P::IssuerUnused(IssuerEpoch(2)), Some(S::Exists)),
        (revocable(1, superseded), None),
        (revocable(3, superseded), None),
        (revocable(4, superseded), Some(S::Revoked)),
        (revocable(4, compromise), None),
        (revocable(5, compromise), Some(S::Revoked)),
        (revocable(5, superseded), Some(S::Revoked)),
        (revocable(9, compromise), Some(S::Unknown)),
        (follows(None, 3), None),
        (follows(Some(workload::digest("set", 1)), 3), Some(S::Unknown)),
        (P::Holdable(Certificate(serial(1))), None),
        (P::Holdable(Certificate(serial(3))), Some(S::Held)),
        (P::Holdable(Certificate(serial(4))), Some(S::Revoked)),
        (P::Holdable(Certificate(serial(9))), Some(S::Unknown)),
        (P::Holdable(Lineage(lineage(1))), None),
        (P::Holdable(Lineage(lineage(3))), Some(S::Held)),
        (P::Holdable(Lineage(lineage(9))), Some(S::Unknown)),
        (P::Releasable(Certificate(serial(3))), None),
        (P::Releasable(Certificate(serial(1))), Some(S::NotHeld)),
        (P::Releasable(Certificate(serial(4))), Some(S::Revoked)),
        (P::Releasable(Certificate(serial(9))), Some(S::Unknown)),
        (P::Releasable(Lineage(lineage(3))), None),
        (P::Releasable(Lineage(lineage(1))), Some(S::NotHeld)),
        (P::Releasable(Lineage(lineage(9))), Some(S::Unknown)),
        (P::IdempotencyUnused(idempotency), Some(S::Issued(serial(1)))),
        (P::IdempotencyUnused(workload::digest("idempotency", 2)), None),
        (number(1, Some(8), 9), None),
        (number(1, Some(7), 9), Some(S::Number(8))),
        (number(1, None, 9), Some(S::Number(8))),
        (number(1, Some(8), 8), Some(S::Number(8))),
        (number(1, Some(8), 7), Some(S::Number(8))),
        (number(2, None, 0), None),
        (number(2, Some(1), 2), Some(S::Unknown)),
    ];
    let mut ledger = ledger;
    for round in ["as committed", "reopened", "rebuilt"] {
        for (precondition, expected) in &cases {
            let found = standing(&*ledger, precondition.clone()).await;
            assert_eq!(found, *expected, "{precondition:?}, {round}");
        }
        ledger = if round == "as committed" {
            harness.reopen(ledger).await
        } else {
            harness.rebuild(ledger).await
        };
    }
}

pub(crate) async fn earlier_proposals_of_a_call_are_seen_by_later_ones(harness: &dyn Harness) {
    let ledger = harness.create().await;
    let (first, creation) = token(1);
    let outcomes = ledger
        .commit(vec![
            workload::genesis(),
            creation,
            workload::spend(first, 1, now()),
            workload::spend(first, 2, now()),
            workload::issuer(),
            workload::registration(1),
            workload::registration(1),
            workload::enrolment(issuance(1, identity(1))),
            workload::renewing(workload::renewal(2, &issuance(1, identity(1)))),
            workload::renewing(workload::renewal(3, &issuance(1, identity(1)))),
            workload::genesis(),
        ])
        .await
        .unwrap();
    let standings: Vec<Result<u64, Standing>> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Accepted { first_index } => Ok(first_index),
            Outcome::Refused(conflict) => Err(conflict.standing),
        })
        .collect();
    let expected = [
        Ok(0),
        Ok(1),
        Ok(2),
        Err(Standing::Spent),
        Ok(3),
        Ok(4),
        Err(Standing::Exists),
        Ok(5),
        Ok(6),
        Err(Standing::Generation(Generation(1))),
        Err(Standing::NotEmpty),
    ];
    assert_eq!(standings, expected);
    let record = ledger.token(first).await.unwrap().unwrap();
    assert_eq!(record.state, TokenState::Spent { serial: serial(1) });
}

pub(crate) async fn a_refused_proposal_leaves_nothing_and_does_not_stop_the_others(harness: &dyn Harness) {
    let ledger = harness.create().await;
    let both = propose(
        vec![Precondition::IdentityUnused(identity(1)), Precondition::IssuerActive(ISSUER)],
        now(),
        vec![
            Body::IdentityRegistered(workload::identity_document(&Identity::new(identity(1), "ada"))),
            Body::Null,
        ],
    );
    let outcomes =
        ledger.commit(vec![workload::registration(2), both.clone(), workload::registration(3)]).await;
    let outcomes = outcomes.unwrap();
    assert_eq!(outcomes[0], Outcome::Accepted { first_index: 0 });
    assert!(matches!(&outcomes[1], Outcome::Refused(conflict)
        if conflict.precondition == Precondition::IssuerActive(ISSUER) && conflict.standing == Standing::Unknown));
    assert_eq!(outcomes[2], Outcome::Accepted { first_index: 1 });
    assert_eq!(ledger.head().size, 2);
    assert_eq!(ledger.identity(&identity(1)).await.unwrap(), None);
    accept(&*ledger, workload::issuer()).await;
    assert_eq!(accept(&*ledger, both).await, 3);
    assert_eq!(ledger.head().size, 5);
}

pub(crate) async fn a_proposal_without_entries_only_asks(harness: &dyn Harness) {
    let ledger = harness.create().await;
    let question = Proposal::new(vec![Precondition::IdentityUnused(identity(1))], vec![]).unwrap();
    assert!(question.is_empty());
    let outcomes = ledger.commit(vec![question.clone(), workload::registration(1), question]).await.unwrap();
    assert_eq!(outcomes[0], Outcome::Accepted { first_index: 0 });
    assert_eq!(outcomes[1], Outcome::Accepted { first_index: 0 });
    assert!(matches!(outcomes[2], Outcome::Refused(_)));
    assert_eq!(ledger.head().size, 1);
    assert!(ledger.commit(vec![]).await.unwrap().is_empty());
}

pub(crate) async fn what_cannot_be_recorded_is_refused_and_nothing_with_it(harness: &dyn Harness) {
    let ledger = harness.create().await;
    let of_another = serde_json::to_string(&Identity::new(identity(2), "ada")).unwrap();
    for document in ["", "{}", "not JSON", of_another.as_str()] {
        let registration = IdentityRegistration {
            identity: identity(1),
            document: Document(document.to_owned()),
            by: "ada".into(),
        };
        for body in [Body::IdentityRegistered(registration.clone()), Body::IdentityChanged(registration)] {
            let with_others = propose(vec![], now(), vec![Body::Null, body]);
            let (precondition, stands) = refuse(&*ledger, with_others).await;
            assert_eq!(precondition, Precondition::IdentityRegistered(identity(1)), "{document:?}");
            assert_eq!(stands, Standing::Unknown);
        }
    }
    assert_eq!(ledger.head().size, 0);
    assert_eq!(accept(&*ledger, workload::registration(3)).await, 0);
}

pub(crate) async fn time_may_go_backwards(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(1)).await;
    let mut first = issuance(1, identity(1));
    first.not_before = now() + Duration::from_secs(9_000);
    accept(&*ledger, workload::enrolment(first.clone())).await;
    let mut second = workload::renewal(2, &first);
    second.not_before = now();
    accept(&*ledger, workload::renewing(second)).await;
    accept(
        &*ledger,
        workload::revoke(serial(1), RevocationReason::Superseded, now() - Duration::from_secs(99)),
    )
    .await;
    let ledger = harness.rebuild(harness.reopen(ledger).await).await;
    assert_eq!(ledger.lineage(lineage(1)).await.unwrap().unwrap().latest, serial(2));
    assert_eq!(ledger.revoked(ISSUER, now()).await.unwrap()[0].at, now() - Duration::from_secs(99));
}

/// Entries without preconditions stand for callers with a mistake in them.
pub(crate) async fn what_is_final_stays(harness: &dyn Harness) {
    let ledger = harness.create().await;
    let (spent, creation) = token(1);
    let rude = |body| Proposal::new(vec![], vec![Entry::new(now(), body)]).unwrap();
    let setup = vec![
        workload::issuer(),
        workload::registration(1),
        creation.clone(),
        workload::spend(spent, 1, now()),
        workload::enrolment(issuance(1, identity(1))),
        workload::revoke(serial(1), RevocationReason::Superseded, now()),
        rude(Body::IdentityRetired(workload::identity_change(identity(1)))),
        // And now the mistakes.
        creation,
        rude(Body::TokenSpent(TokenSpend { token: spent, serial: serial(2) })),
        rude(Body::TokenRevoked(chancery_entry::TokenRevocation { token: spent, by: "ada".into() })),
        rude(Body::IdentityReleased(workload::identity_change(identity(1)))),
        rude(Body::IdentityHeld(workload::identity_change(identity(1)))),
        rude(Body::IdentityRegistered(workload::identity_document(&Identity::new(identity(1), "eve")))),
        rude(Body::Release(chancery_entry::Release {
            target: HoldTarget::Certificate(serial(1)),
            by: "eve".into(),
            note: String::new(),
        })),
        rude(Body::Hold(chancery_entry::Hold {
            target: HoldTarget::Certificate(serial(1)),
            cause: "operator".into(),
            by: "eve".into(),
            note: String::new(),
        })),
    ];
    for outcome in ledger.commit(setup).await.unwrap() {
        assert!(matches!(outcome, Outcome::Accepted { .. }));
    }
    let ledger = harness.rebuild(harness.reopen(ledger).await).await;
    let record = ledger.token(spent).await.unwrap().unwrap();
    assert_eq!(record.state, TokenState::Spent { serial: serial(1) });
    assert_eq!(ledger.identity(&identity(1)).await.unwrap().unwrap().state, IdentityState::Retired);
    let (_, stands) = refuse(&*ledger, workload::hold(HoldTarget::Certificate(serial(1)), now())).await;
    assert_eq!(stands, Standing::Revoked);
    assert_eq!(ledger.revoked(ISSUER, now()).await.unwrap().len(), 1);
}
