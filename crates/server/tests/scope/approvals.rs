//! Large changes: who has to agree, and until when.

use std::time::Duration;

use chancery_api::{
    CertificateStatus, ChangeQuery, ChangeStatus, ChangeStepRequest, HoldRequest, IdentityStateRequest,
    ProblemCode, RevokeRequest,
};
use chancery_client::Client;
use chancery_types::Role;

use crate::running::{Running, id, problem};
use crate::{count, enrol_in, environment, local, revocation, strict};

async fn second(running: &Running) -> Client {
    running.client(Some(running.operator("olga", Role::Operator).await.identity()))
}

fn yes_really() -> RevokeRequest {
    RevokeRequest { yes_really: true, ..revocation(environment("prod")) }
}

fn step() -> ChangeStepRequest {
    ChangeStepRequest::default()
}

/// Asks for everything in prod to be revoked; returns the number of the change.
async fn ask(running: &Running) -> u64 {
    let asked = running.admin().revoke(&yes_really()).await.unwrap();
    let change = asked.change.unwrap();
    assert_eq!((asked.count, change.status), (0, ChangeStatus::Pending));
    change.change
}

#[tokio::test]
async fn a_large_revocation_waits_for_another_operator_and_then_runs_once() {
    let running = strict(|_| {}).await;
    let web = enrol_in(&running, "web", "prod", "ada", 5).await;
    let (admin, olga) = (running.admin(), second(&running).await);

    let counted = admin.revoke(&RevokeRequest { dry_run: true, ..revocation(environment("prod")) }).await;
    let radius = counted.unwrap().radius.unwrap();
    assert_eq!((radius.certificates, radius.environments[0].in_force), (5, Some(5)));
    assert!(radius.needs_approval.unwrap().contains("100 %"));
    let refused = admin.revoke(&revocation(environment("prod"))).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::ApprovalNeeded), "{refused}");

    let change = ask(&running).await;
    assert_eq!(count(&running, &web, CertificateStatus::Good).await, 5);
    let pending = olga.list_changes(&ChangeQuery::default()).await.unwrap().changes;
    assert_eq!(pending.iter().map(|view| view.change).collect::<Vec<_>>(), [change]);
    assert_eq!(olga.read_change(change).await.unwrap().radius_now.unwrap().certificates, 5);
    let same = admin.approve_change(change, &step()).await.unwrap_err();
    assert_eq!(problem(&same), Some(ProblemCode::SameOperator), "{same}");

    let done = olga.approve_change(change, &step()).await.unwrap();
    assert_eq!((done.status, done.changed), (ChangeStatus::Ended, 5));
    assert_eq!(done.permitted_by.as_deref(), Some("spiffe://example.org/operator/olga"));
    assert_eq!(count(&running, &web, CertificateStatus::Revoked).await, 5);
    let again = olga.approve_change(change, &step()).await.unwrap_err();
    assert_eq!(problem(&again), Some(ProblemCode::NotInThisState), "{again}");
    assert!(olga.list_changes(&ChangeQuery::default()).await.unwrap().changes.is_empty());
    assert_eq!(olga.list_changes(&ChangeQuery { all: true }).await.unwrap().changes.len(), 1);
    running.server.stop().await;
}

#[tokio::test]
async fn of_two_approvals_at_once_one_counts() {
    let running = strict(|_| {}).await;
    enrol_in(&running, "web", "prod", "ada", 4).await;
    let (olga, omar) = (
        second(&running).await,
        running.client(Some(running.operator("omar", Role::Operator).await.identity())),
    );
    let change = ask(&running).await;
    let step = step();
    let (one, other) = tokio::join!(olga.approve_change(change, &step), omar.approve_change(change, &step));
    assert!(one.is_ok() != other.is_ok() || one.is_ok(), "{one:?} {other:?}");
    let refused = [one, other].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let code = problem(&refused[0]).unwrap();
    assert!([ProblemCode::VersionConflict, ProblemCode::NotInThisState].contains(&code), "{code}");
    assert_eq!(olga.read_change(change).await.unwrap().changed, 4);
    running.server.stop().await;
}

#[tokio::test]
async fn an_approval_that_comes_too_late_or_for_more_than_was_asked_for_is_refused() {
    let running = strict(|raw| raw.revocation.approval_lifetime = "1s".parse().unwrap()).await;
    enrol_in(&running, "web", "prod", "ada", 4).await;
    let olga = second(&running).await;
    let change = ask(&running).await;
    let expires = olga.read_change(change).await.unwrap().expires;
    while running.server.site().authority.clock().now() <= expires {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let late = olga.approve_change(change, &step()).await.unwrap_err();
    assert_eq!(problem(&late), Some(ProblemCode::NotInThisState), "{late}");
    assert_eq!(olga.read_change(change).await.unwrap().status, ChangeStatus::Expired);
    running.server.stop().await;

    let running = strict(|_| {}).await;
    enrol_in(&running, "web", "prod", "ada", 4).await;
    let olga = second(&running).await;
    let change = ask(&running).await;
    enrol_in(&running, "db", "prod", "ada", 2).await;
    let grown = olga.approve_change(change, &step()).await.unwrap_err();
    assert_eq!(problem(&grown), Some(ProblemCode::ScopeGrown), "{grown}");
    olga.withdraw_change(change, &step()).await.unwrap();
    let gone = olga.approve_change(change, &step()).await.unwrap_err();
    assert_eq!(problem(&gone), Some(ProblemCode::NotInThisState), "{gone}");
    running.server.stop().await;
}

#[tokio::test]
async fn what_waits_for_approval_survives_a_restart_and_a_rebuilt_index() {
    let running = strict(|_| {}).await;
    let web = enrol_in(&running, "web", "prod", "ada", 3).await;
    let olga = running.operator("olga", Role::Operator).await;
    let change = ask(&running).await;
    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    let config = place.config();
    chancery_server::maintenance::rebuild_ledger(&config, |_, _| {}).await.unwrap();
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    let olga = running.client(Some(olga.identity()));
    assert_eq!(olga.approve_change(change, &step()).await.unwrap().changed, 3);
    assert_eq!(count(&running, &web, CertificateStatus::Revoked).await, 3);
    running.server.stop().await;
}

#[tokio::test]
async fn only_the_local_administrator_dispenses_with_approval_and_is_recorded() {
    let running = strict(|_| {}).await;
    let web = enrol_in(&running, "web", "prod", "ada", 3).await;
    let request = RevokeRequest { dangerous_without_approval: true, ..revocation(environment("prod")) };
    let refused = running.admin().revoke(&request).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");
    assert_eq!(count(&running, &web, CertificateStatus::Good).await, 3);

    let done = local(&running).revoke(&request).await.unwrap();
    let change = done.change.unwrap();
    assert_eq!((done.count, change.permitted.as_deref()), (3, Some("overridden")));
    assert!(change.permitted_by.unwrap().starts_with("uid:"));
    running.server.stop().await;
}

#[tokio::test]
async fn two_names_on_the_administration_socket_are_one_operator() {
    let running = strict(|_| {}).await;
    enrol_in(&running, "web", "prod", "ada", 3).await;
    let asked = local(&running).revoke(&yes_really()).await.unwrap().change.unwrap();
    let same = local(&running).approve_change(asked.change, &step()).await.unwrap_err();
    assert_eq!(problem(&same), Some(ProblemCode::SameOperator), "{same}");
    assert_eq!(running.admin().approve_change(asked.change, &step()).await.unwrap().changed, 3);
    running.server.stop().await;
}

#[tokio::test]
async fn an_identity_with_much_of_an_environment_is_not_retired_or_held_past_the_limit() {
    let running = strict(|_| {}).await;
    enrol_in(&running, "web", "prod", "ada", 3).await;
    let (admin, request) = (running.admin(), IdentityStateRequest::default());
    for refused in
        [admin.retire_identity(&id("web"), &request).await, admin.hold_identity(&id("web"), &request).await]
    {
        let refused = refused.unwrap_err();
        assert_eq!(problem(&refused), Some(ProblemCode::ApprovalNeeded), "{refused}");
    }
    let change = ask(&running).await;
    second(&running).await.approve_change(change, &step()).await.unwrap();
    admin.retire_identity(&id("web"), &request).await.unwrap();
    running.server.stop().await;
}

#[tokio::test]
async fn a_small_share_runs_at_once_and_is_recorded_as_a_change() {
    let running = strict(|_| {}).await;
    enrol_in(&running, "web", "prod", "ada", 3).await;
    enrol_in(&running, "db", "prod", "bob", 12).await;
    let request = HoldRequest::new(chancery_api::Selector::Identity(id("web")));
    let held = running.admin().hold(&request).await.unwrap();
    let change = held.change.unwrap();
    assert_eq!((held.count, change.status), (3, ChangeStatus::Ended));
    assert_eq!(change.permitted.as_deref(), Some("begun"));
    running.server.stop().await;
}

fn one(held: &crate::running::Held) -> RevokeRequest {
    revocation(chancery_api::Selector::Serial(held.response.serial))
}

#[tokio::test]
async fn what_one_operator_revokes_bit_by_bit_adds_up_also_after_a_restart() {
    let running = strict(|_| {}).await;
    let web = enrol_in(&running, "web", "prod", "ada", 20).await;
    let olga = running.operator("olga", Role::Operator).await;
    let admin = running.admin();
    // Five of twenty are a quarter, the limit.
    for held in &web[..5] {
        admin.revoke(&one(held)).await.unwrap();
    }
    let refused = admin.revoke(&one(&web[5])).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::ApprovalNeeded), "{refused}");
    assert!(refused.to_string().contains("5 did by the same hand within 1h: 30 % of 20"), "{refused}");
    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    let config = place.config();
    chancery_server::maintenance::rebuild_ledger(&config, |_, _| {}).await.unwrap();
    let server = place.serve().await.unwrap();
    let running = Running { place, server };

    let admin = running.admin();
    let refused = admin.revoke(&one(&web[5])).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::ApprovalNeeded), "{refused}");
    let looked = admin.revoke(&RevokeRequest { dry_run: true, ..one(&web[5]) }).await.unwrap();
    let part = looked.radius.unwrap().environments.remove(0);
    assert_eq!((part.certificates, part.recent, part.in_force), (1, 5, Some(15)));
    // Somebody else has taken nothing yet, and an approval makes it nobody's own.
    let olga = running.client(Some(olga.identity()));
    olga.revoke(&one(&web[5])).await.unwrap();
    let asked = admin.revoke(&RevokeRequest { yes_really: true, ..one(&web[6]) }).await.unwrap();
    let done = olga.approve_change(asked.change.unwrap().change, &step()).await.unwrap();
    assert_eq!(done.changed, 1);
    let looked = olga.revoke(&RevokeRequest { dry_run: true, ..one(&web[7]) }).await.unwrap();
    assert_eq!(looked.radius.unwrap().environments[0].recent, 1);
    running.server.stop().await;
}

#[tokio::test]
async fn acts_of_one_operator_at_the_same_time_do_not_pass_the_limit_together() {
    let running = strict(|_| {}).await;
    let web = enrol_in(&running, "web", "prod", "ada", 20).await;
    let admin = running.admin();
    let mut acts = tokio::task::JoinSet::new();
    for held in &web {
        let (admin, request) = (admin.clone(), one(held));
        acts.spawn(async move { admin.revoke(&request).await });
    }
    for refused in acts.join_all().await.into_iter().filter_map(Result::err) {
        assert_eq!(problem(&refused), Some(ProblemCode::ApprovalNeeded), "{refused}");
    }
    let revoked = count(&running, &web, CertificateStatus::Revoked).await;
    assert!((1..=5).contains(&revoked), "{revoked}");
    running.server.stop().await;
}

#[tokio::test]
async fn what_was_held_first_counts_once_and_without_a_window_each_change_counts_alone() {
    let running = strict(|_| {}).await;
    let web = enrol_in(&running, "web", "prod", "ada", 8).await;
    let admin = running.admin();
    for held in &web[..2] {
        let hold = HoldRequest::new(chancery_api::Selector::Serial(held.response.serial));
        admin.hold(&hold).await.unwrap();
        admin.revoke(&one(held)).await.unwrap();
    }
    let refused = admin.revoke(&one(&web[2])).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::ApprovalNeeded), "{refused}");
    running.server.stop().await;

    let running = strict(|raw| raw.revocation.limit_window = "0s".parse().unwrap()).await;
    let web = enrol_in(&running, "web", "prod", "ada", 8).await;
    for held in &web {
        running.admin().revoke(&one(held)).await.unwrap();
    }
    running.server.stop().await;
}

#[tokio::test]
async fn a_change_that_needed_no_approval_counts_for_its_asker() {
    let running = strict(|_| {}).await;
    enrol_in(&running, "web", "prod", "ada", 3).await;
    let db = enrol_in(&running, "db", "prod", "bob", 12).await;
    let admin = running.admin();
    let begun = HoldRequest::new(chancery_api::Selector::Identity(id("web")));
    assert_eq!(admin.hold(&begun).await.unwrap().change.unwrap().permitted.as_deref(), Some("begun"));
    let refused = admin.revoke(&one(&db[0])).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::ApprovalNeeded), "{refused}");
    running.server.stop().await;
}
