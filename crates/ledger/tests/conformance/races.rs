//! Many at a time: the order is decided in one place, and one of them wins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chancery_entry::{Body, HoldTarget, TokenSpend};
use chancery_ledger::{Ledger, Outcome, Precondition, Proposal, Standing, TokenState};
use chancery_types::Generation;

use super::{Harness, accept};
use crate::workload::{self, identity, issuance, lineage, now, propose, serial, token};

const AT_A_TIME: u64 = 64;

/// Commits all of these at once, each from a task of its own; how each stands.
async fn race(ledger: &Arc<dyn Ledger>, proposals: Vec<Proposal>) -> Vec<Result<u64, Standing>> {
    let start = Arc::new(tokio::sync::Barrier::new(proposals.len()));
    let tasks: Vec<_> = proposals
        .into_iter()
        .map(|proposal| {
            let (ledger, start) = (Arc::clone(ledger), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                ledger.commit(vec![proposal]).await.unwrap().remove(0)
            })
        })
        .collect();
    let mut standings = Vec::new();
    for task in tasks {
        standings.push(match task.await.unwrap() {
            Outcome::Accepted { first_index } => Ok(first_index),
            Outcome::Refused(conflict) => Err(conflict.standing),
        });
    }
    standings
}

/// Exactly one was accepted and all others were told the same; which one.
fn one_winner(standings: &[Result<u64, Standing>], loss: Standing) -> usize {
    let winners: Vec<usize> =
        standings.iter().enumerate().filter(|(_, standing)| standing.is_ok()).map(|(at, _)| at).collect();
    assert_eq!(winners.len(), 1, "{standings:?}");
    assert!(standings.iter().all(|standing| standing.is_ok() || *standing == Err(loss)), "{standings:?}");
    winners[0]
}

pub(crate) async fn a_token_is_spent_once_by_64_at_a_time(harness: &dyn Harness) {
    let ledger = harness.create().await;
    for number in 0..8 {
        let (token, creation) = token(number);
        accept(&*ledger, creation).await;
        let spends = (0..AT_A_TIME).map(|counter| workload::spend(token, counter, now())).collect();
        let winner = one_winner(&race(&ledger, spends).await, Standing::Spent);
        let spent = TokenState::Spent { serial: serial(winner as u64) };
        assert_eq!(ledger.token(token).await.unwrap().unwrap().state, spent);
    }
    let ledger = harness.rebuild(harness.reopen(ledger).await).await;
    assert_eq!(ledger.head().size, 16);
}

pub(crate) async fn an_identity_is_registered_once_by_64_at_a_time(harness: &dyn Harness) {
    let ledger = harness.create().await;
    for number in 0..8 {
        let registrations = (0..AT_A_TIME).map(|_| workload::registration(number)).collect();
        one_winner(&race(&ledger, registrations).await, Standing::Exists);
    }
    assert_eq!(ledger.head().size, 8);
}

pub(crate) async fn a_lineage_is_renewed_once_by_64_at_a_time(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(1)).await;
    let mut latest = issuance(0, identity(1));
    accept(&*ledger, workload::enrolment(latest.clone())).await;
    for generation in 1..=8 {
        let rivals: Vec<_> =
            (0..AT_A_TIME).map(|rival| workload::renewal(generation * 100 + rival, &latest)).collect();
        let proposals = rivals.iter().cloned().map(workload::renewing).collect();
        let loss = Standing::Generation(Generation(u32::try_from(generation).unwrap()));
        latest = rivals[one_winner(&race(&ledger, proposals).await, loss)].clone();
    }
    let record = ledger.lineage(lineage(0)).await.unwrap().unwrap();
    assert_eq!(record.generation, Generation(8));
    assert_eq!(record.latest, latest.serial);
}

pub(crate) async fn an_idempotency_key_buys_once_by_64_at_a_time(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(1)).await;
    let hash = workload::digest("idempotency", 1);
    let rivals = (0..AT_A_TIME).map(|counter| {
        let mut rival = issuance(counter, identity(1));
        rival.idempotency = Some(hash);
        workload::enrolment(rival)
    });
    let standings = race(&ledger, rivals.collect()).await;
    let winner = standings.iter().position(Result::is_ok).unwrap() as u64;
    one_winner(&standings, Standing::Issued(serial(winner)));
    assert_eq!(ledger.idempotent(hash).await.unwrap(), Some(serial(winner)));
}

pub(crate) async fn a_crl_number_is_used_once_by_64_at_a_time(harness: &dyn Harness) {
    let ledger = harness.create().await;
    for number in 1..=8 {
        let previous = Some(number - 1).filter(|previous| *previous > 0);
        let lists = (0..AT_A_TIME).map(|_| workload::crl(workload::ISSUER, previous, number)).collect();
        one_winner(&race(&ledger, lists).await, Standing::Number(number));
    }
}

pub(crate) async fn a_hold_wins_or_loses_against_renewals_but_never_both(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(1)).await;
    for number in 0..16 {
        let first = issuance(number * 10, identity(1));
        accept(&*ledger, workload::enrolment(first.clone())).await;
        let renewal = workload::renewal(number * 10 + 1, &first);
        let hold = workload::hold(HoldTarget::Lineage(first.lineage), renewal.not_before);
        let standings = race(&ledger, vec![hold, workload::renewing(renewal.clone())]).await;
        let held_at = standings[0].unwrap();
        let record = ledger.certificate(renewal.serial).await.unwrap();
        match standings[1] {
            Ok(renewed_at) => {
                assert!(renewed_at < held_at, "renewed after the hold");
                let state = record.unwrap().state;
                assert!(matches!(state, chancery_ledger::CertificateState::Held { .. }), "{state:?}");
            }
            Err(standing) => assert_eq!((standing, record), (Standing::Held, None)),
        }
    }
}

pub(crate) async fn counters_are_given_once_and_above_what_is_recorded(harness: &dyn Harness) {
    let mut ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(1)).await;
    accept(&*ledger, workload::enrolment(issuance(70_000, identity(1)))).await;
    for recorded in [70_000, 80_000] {
        let tasks: Vec<_> = (0..AT_A_TIME)
            .map(|task| {
                let ledger = Arc::clone(&ledger);
                tokio::spawn(async move {
                    let count = 1 + task * task;
                    let first = ledger.reserve_counters(workload::ISSUER, count).await.unwrap();
                    (first, first + count)
                })
            })
            .collect();
        let mut given = Vec::new();
        for task in tasks {
            given.push(task.await.unwrap());
        }
        given.sort_unstable();
        assert!(given[0].0 > recorded, "{given:?}");
        assert!(given.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{given:?}");
        let other = chancery_types::IssuerEpoch(2);
        assert!(ledger.reserve_counters(other, 1).await.unwrap() < 10_000, "each issuer has its own");
        let (_, end) = given[given.len() - 1];
        accept(&*ledger, workload::enrolment(issuance(end.max(80_000), identity(1)))).await;
        ledger = harness.reopen(ledger).await;
    }
}

/// An issuance and the token that it spends are there together.
pub(crate) async fn readers_never_see_half_a_proposal_after_its_answer(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(1)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (ledger, stop) = (Arc::clone(&ledger), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                let size = ledger.head().size;
                assert!(size >= last);
                last = size;
                if let Some(index) = size.checked_sub(1) {
                    assert!(ledger.entry(index).await.unwrap().is_some());
                    assert!(ledger.inclusion_proof(index, size).await.is_ok());
                }
                tokio::task::yield_now().await;
            }
        })
    };
    for number in 0..100 {
        let (token, creation) = token(number);
        let spend = Body::TokenSpent(TokenSpend { token, serial: serial(number) });
        let requires = vec![Precondition::TokenOpen(token), Precondition::SerialUnused(serial(number))];
        let buying = propose(requires, now(), vec![issuance(number, identity(1)).into(), spend]);
        accept(&*ledger, creation).await;
        let first = accept(&*ledger, buying).await;
        assert!(ledger.head().size >= first + 2);
        assert_eq!(ledger.certificate(serial(number)).await.unwrap().unwrap().index, first);
        let spent = TokenState::Spent { serial: serial(number) };
        assert_eq!(ledger.token(token).await.unwrap().unwrap().state, spent);
    }
    stop.store(true, Ordering::Relaxed);
    watcher.await.unwrap();
}

pub(crate) async fn each_of_many_questions_at_once_has_its_own_answer(harness: &dyn Harness) {
    let ledger = harness.create().await;
    for number in 0..32 {
        accept(&*ledger, workload::registration(number)).await;
    }
    let (token, creation) = token(1);
    accept(&*ledger, creation).await;
    let tasks: Vec<_> = (0..2000_u64)
        .map(|question| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                let number = question % 64;
                let found = ledger.identity(&identity(number)).await.unwrap();
                assert_eq!(
                    found.map(|record| record.identity.spiffe_id),
                    (number < 32).then(|| identity(number))
                );
                assert!(ledger.token(token).await.unwrap().is_some());
                assert!(ledger.certificate(serial(question)).await.unwrap().is_none());
            })
        })
        .collect();
    for (question, task) in tasks.into_iter().enumerate() {
        // Some lose interest; that is nobody else's loss.
        if question % 7 == 0 {
            task.abort();
            continue;
        }
        task.await.unwrap();
    }
    assert!(ledger.token(token).await.unwrap().is_some());
}

pub(crate) async fn asking_for_what_is_not_recorded_yet_stops_nobody_who_records(harness: &dyn Harness) {
    let ledger = harness.create().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let (ledger, is_over) = (Arc::clone(&ledger), Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    ledger.entry(ledger.head().size + 1).await.unwrap();
                }
            })
        })
        .collect();
    for number in 0..400 {
        accept(&*ledger, workload::registration(number)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for task in asking {
        task.await.unwrap();
    }
}
