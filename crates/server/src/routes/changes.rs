//! Changes to many certificates: who lets them run, and how far they have come.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use chancery_api::{
    ChangeAction, ChangeQuery, ChangeStatus, ChangeStepRequest, ChangeView, ChangesResponse, ProblemCode,
    limits,
};
use chancery_entry::Step;
use chancery_ledger::{ChangeRecord, ChangeState, change_name};
use chancery_policy::{Action, CallerFacts, Factor, OperatorDecision, OperatorRequest, ResourceFacts};
use chancery_revoke::{Order, Radius, has_grown, recorded_radius};
use chancery_types::IdentityState;

use super::access::Who;
use super::identities::note;
use super::problem_of;
use super::revocation::{facts, looks, radius_of};
use crate::site::Site;
use crate::{HttpProblem, Json, Path, Query};

/// How long an answer waits for a change to be done.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

pub(super) async fn list(
    State(site): State<Arc<Site>>,
    Query(query): Query<ChangeQuery>,
) -> Result<Json<ChangesResponse>, HttpProblem> {
    let mut changes = Vec::new();
    for record in site.changes.all().await.map_err(problem_of)?.iter().rev() {
        let view = view(&site, record)?;
        if query.all || view.status.is_open() {
            changes.push(view);
        }
        if changes.len() == limits::LISTED_CHANGES {
            break;
        }
    }
    Ok(Json(ChangesResponse { changes }))
}

pub(super) async fn read(
    State(site): State<Arc<Site>>,
    Path(number): Path<u64>,
) -> Result<Json<ChangeView>, HttpProblem> {
    let record = record(&site, number).await?;
    let mut shown = view(&site, &record)?;
    if shown.status == ChangeStatus::Pending {
        let order = Order::of(&record).map_err(problem_of)?;
        let radius = radius_of(&site, &order.scope, order.aim(), looks(&record.by)).await?;
        shown.radius_now = Some(radius.blast);
    }
    Ok(Json(shown))
}

pub(super) async fn approve(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(number): Path<u64>,
    Json(request): Json<ChangeStepRequest>,
) -> Result<Json<ChangeView>, HttpProblem> {
    let note = note(&request.note)?;
    let record = record(&site, number).await?;
    let status = view(&site, &record)?.status;
    if status != ChangeStatus::Pending {
        let detail = format!("change {number} is {status}; only a pending one is approved");
        return Err(HttpProblem::new(ProblemCode::NotInThisState, detail));
    }
    if is_same_operator(&record.by, &who) {
        let detail = format!("{} asked for change {number} and cannot approve it", record.by);
        return Err(HttpProblem::new(ProblemCode::SameOperator, detail));
    }
    let order = Order::of(&record).map_err(problem_of)?;
    let radius = radius_of(&site, &order.scope, order.aim(), looks(&record.by)).await?;
    may_still(&site, &who, &record, &order, &radius).await?;
    let asked = recorded_radius(&record).map_err(problem_of)?;
    if let Some(why) = has_grown(&asked, &radius.blast) {
        return Err(HttpProblem::new(ProblemCode::ScopeGrown, format!("change {number}: {why}")));
    }
    step(&site, &who, &record, Step::Approved, note).await?;
    tracing::warn!(change = number, by = %who.name(), asked_by = %record.by, "a large change was approved");
    let reached = site.changes.wait(number, 0, PATIENCE).await.map_err(problem_of)?;
    Ok(Json(view(&site, &reached.unwrap_or(record))?))
}

pub(super) async fn withdraw(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(number): Path<u64>,
    Json(request): Json<ChangeStepRequest>,
) -> Result<Json<ChangeView>, HttpProblem> {
    take(&site, &who, number, Step::Withdrawn, &request).await
}

pub(super) async fn pause(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(number): Path<u64>,
    Json(request): Json<ChangeStepRequest>,
) -> Result<Json<ChangeView>, HttpProblem> {
    take(&site, &who, number, Step::Paused, &request).await
}

pub(super) async fn resume(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(number): Path<u64>,
    Json(request): Json<ChangeStepRequest>,
) -> Result<Json<ChangeView>, HttpProblem> {
    take(&site, &who, number, Step::Resumed, &request).await
}

pub(super) async fn undo(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(number): Path<u64>,
    Json(request): Json<ChangeStepRequest>,
) -> Result<Json<ChangeView>, HttpProblem> {
    let record = record(&site, number).await?;
    let order = Order::of(&record).map_err(problem_of)?;
    if order.action == ChangeAction::Revoke {
        let detail = format!("change {number} revokes, and what is revoked stays so; only a hold is undone");
        return Err(HttpProblem::new(ProblemCode::NotInThisState, detail));
    }
    let resource = ResourceFacts { id: order.scope.to_string(), ..ResourceFacts::the("certificate") };
    site.permit(&who, Action::CertificateRelease, resource, Some(record.changed)).await?;
    take(&site, &who, number, Step::Undone, &request).await
}

async fn take(
    site: &Arc<Site>,
    who: &Who,
    number: u64,
    taken: Step,
    request: &ChangeStepRequest,
) -> Result<Json<ChangeView>, HttpProblem> {
    let note = note(&request.note)?;
    let record = record(site, number).await?;
    let waves = record.waves;
    step(site, who, &record, taken, note).await?;
    // What is undone is done soon; what runs on may have hours to its next wave.
    let patience = if taken == Step::Undone { PATIENCE } else { Duration::ZERO };
    let reached = site.changes.wait(number, waves, patience).await.map_err(problem_of)?;
    Ok(Json(view(site, &reached.unwrap_or(record))?))
}

/// Takes a step, if it can be taken from where the change stands and nobody else took one meanwhile.
async fn step(
    site: &Arc<Site>,
    who: &Who,
    record: &ChangeRecord,
    step: Step,
    note: &str,
) -> Result<(), HttpProblem> {
    let change = record.change;
    if record.state.after(step).is_none() {
        let status = view(site, record)?.status;
        let detail = format!("change {change} is {status}, and this cannot be done to it then");
        return Err(HttpProblem::new(ProblemCode::NotInThisState, detail));
    }
    let revoker = site.authority.revoker();
    revoker.step(change, record.steps, step, &who.name(), note).await.map_err(problem_of)?;
    site.changes.go_on(change);
    Ok(())
}

/// Two names on the administration socket are not two people: whoever is root there is every user.
fn is_same_operator(by: &str, who: &Who) -> bool {
    by == who.name() || (by.starts_with("uid:") && who.facts.factor == Factor::LocalSocket)
}

/// Whether policy permits the change, now that it is approved, to whoever asked for it and to whoever approves.
async fn may_still(
    site: &Site,
    who: &Who,
    record: &ChangeRecord,
    order: &Order,
    radius: &Radius,
) -> Result<(), HttpProblem> {
    let action = match order.action {
        ChangeAction::Revoke => Action::CertificateRevoke,
        ChangeAction::Hold => Action::CertificateHold,
    };
    let resource = facts(site, &order.scope, radius).await?;
    let affected = Some(radius.blast.certificates);
    let approval = Some(change_name(record.change));
    if let Some(denial) = site.decide(who, action, resource.clone(), affected, approval.clone()) {
        return Err(site.denied(who, denial).await);
    }
    let asker = asker(site, &record.by).await?;
    let mut request = OperatorRequest::new(asker, action, resource, site.authority.clock().now());
    (request.affected, request.approval) = (affected, approval);
    match site.authority.rules().engine().decide_operator(request) {
        OperatorDecision::Permitted(_) => Ok(()),
        OperatorDecision::Denied(denial) => {
            let detail = format!("{} may not do this any more: {}", record.by, denial.reason);
            Err(HttpProblem::new(ProblemCode::NotPermitted, detail))
        }
    }
}

/// Whoever asked for a change, with the role that they have today.
async fn asker(site: &Site, by: &str) -> Result<CallerFacts, HttpProblem> {
    if let Some(uid) = by.strip_prefix("uid:").and_then(|uid| uid.parse().ok()) {
        return Ok(CallerFacts::local_admin(uid));
    }
    let Ok(id) = by.parse() else { return Ok(CallerFacts::anonymous()) };
    let known = site.authority.identity(&id).await.map_err(problem_of)?;
    let role =
        known.filter(|(_, state)| *state == IdentityState::Active).and_then(|(identity, _)| identity.role);
    Ok(CallerFacts::mtls(&id, role))
}

async fn record(site: &Site, number: u64) -> Result<ChangeRecord, HttpProblem> {
    let record = site.authority.ledger().change(number).await.map_err(problem_of)?;
    record.ok_or_else(|| HttpProblem::new(ProblemCode::NotFound, format!("there is no change {number}")))
}

/// A change as callers see it.
pub(super) fn view(site: &Site, record: &ChangeRecord) -> Result<ChangeView, HttpProblem> {
    let order = Order::of(record).map_err(problem_of)?;
    let next_wave = order.next_wave(record).filter(|_| record.state == ChangeState::Running);
    let (permitted, permitted_by) = record.permitted.clone().unzip();
    Ok(ChangeView {
        change: record.change,
        status: status(record.state, record.expires <= site.authority.clock().now()),
        action: order.action,
        reason: (order.action == ChangeAction::Revoke).then_some(order.reason),
        selectors: order.scope.selectors().iter().map(ToString::to_string).collect(),
        block: order.block,
        waves_done: record.waves,
        next_wave,
        changed: record.changed,
        radius: recorded_radius(record).map_err(problem_of)?,
        radius_now: None,
        by: record.by.clone(),
        asked: record.asked,
        expires: record.expires,
        note: record.note.clone(),
        permitted,
        permitted_by,
        stepped_by: record.stepped_by.clone(),
        stepped: record.stepped,
        sequence: site.authority.ledger().head().size,
        waves: order.waves,
    })
}

fn status(state: ChangeState, has_expired: bool) -> ChangeStatus {
    match state {
        ChangeState::Pending if has_expired => ChangeStatus::Expired,
        ChangeState::Pending => ChangeStatus::Pending,
        ChangeState::Running => ChangeStatus::Running,
        ChangeState::Paused => ChangeStatus::Paused,
        ChangeState::Undoing => ChangeStatus::Undoing,
        ChangeState::Withdrawn => ChangeStatus::Withdrawn,
        ChangeState::Ended => ChangeStatus::Ended,
        ChangeState::Undone => ChangeStatus::Undone,
    }
}
