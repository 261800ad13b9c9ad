//! The authority's own issuers and keys: how they stand, and what operators want of them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use chancery_api::{
    AddRootRequest, CaIssuer, CaKey, CaRoot, CaStatusResponse, IssuerState, PlannedChange, ProblemCode,
    RollbackRequest, RotateRequest, RotationResponse, RotationSubject, TaintRequest,
};
use chancery_entry::{Body, RotationWish, Wanted};
use chancery_rotate::authority::{
    Actor, Change, Issuer, Key, Phase, Root, State as Standing, Subject, Taint, TaintStep, Violation, Wish,
    check,
};

use chancery_x509::{Certificate, VouchedRoot, read_certificates};

use super::access::Who;
use super::identities::note;
use super::problem_of;
use crate::rotation::RotationError;
use crate::site::Site;
use crate::{HttpProblem, Json};

/// A root, and certificates by which others vouch for it.
const MOST_CERTIFICATES: usize = 9;

pub(super) async fn status(State(site): State<Arc<Site>>) -> Result<Json<CaStatusResponse>, HttpProblem> {
    let state = site.rotation.state().await.map_err(problem)?;
    let mut troubles: Vec<String> = site.rotation.trouble().into_iter().collect();
    troubles.extend(check(&state).err().map(|violation| violation.to_string()));
    let paused = state.wishes.iter().filter(|(_, wish)| matches!(wish, Wish::Pause { .. }));
    Ok(Json(CaStatusResponse {
        enabled: site.authority.config().rotation.enabled,
        notice_seconds: site.rotation.rules().notice().as_secs(),
        roots: state.roots.iter().map(|one| root(one, &state)).collect(),
        issuers: state.issuers.iter().map(issuer).collect(),
        jwt_keys: state.jwt_keys.iter().filter_map(key).collect(),
        log_keys: state.log_keys.iter().filter_map(key).collect(),
        paused: paused.map(|(subject, _)| subject.name().to_owned()).collect(),
        timeline: site.rotation.timeline_of(&state).iter().map(planned).collect(),
        troubles,
    }))
}

pub(super) async fn rotate(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<RotateRequest>,
) -> Result<Json<RotationResponse>, HttpProblem> {
    let (note, subject) = (note(&request.note)?, subject(request.subject));
    if request.dry_run {
        let mut state = site.rotation.state().await.map_err(problem)?;
        let at = site.authority.clock().now();
        state.wishes.insert(subject, Wish::Now { by: who.name(), at });
        return Ok(Json(RotationResponse {
            done: Vec::new(),
            planned: of(&site.rotation.timeline_of(&state), subject),
        }));
    }
    if subject == Subject::Root && !site.rotation.has_waiting_root().await.map_err(problem)? {
        let why = "no root waits to be used: make one with `chancery root rotate` where the root is kept, and bring it \
                   with `chancery ca root add`";
        return Err(HttpProblem::new(ProblemCode::NotInThisState, why));
    }
    site.authority.record(wish(subject, Wanted::Now, &who, note)).await.map_err(problem_of)?;
    site.rotation.look_in_turn().await;
    follows(&site, subject, vec![format!("the next {} was asked for", subject.name())]).await
}

pub(super) async fn roll_back(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<RollbackRequest>,
) -> Result<Json<RotationResponse>, HttpProblem> {
    let (note, subject) = (note(&request.note)?, subject(request.subject));
    let what = site.rotation.undoing(subject).await.map_err(problem)?;
    if request.dry_run {
        return Ok(Json(RotationResponse {
            done: vec![format!("would be done: {what}")],
            planned: Vec::new(),
        }));
    }
    let rest = wish(subject, Wanted::Pause, &who, note);
    site.rotation.make(&what, &who.name(), note, vec![rest]).await.map_err(problem)?;
    follows(
        &site,
        subject,
        vec![what.to_string(), format!("the {} rests until it is rotated", subject.name())],
    )
    .await
}

pub(super) async fn add_root(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<AddRootRequest>,
) -> Result<Json<RotationResponse>, HttpProblem> {
    let note = note(&request.note)?;
    let root = read_root(&request.certificates).map_err(|why| {
        HttpProblem::new(ProblemCode::MalformedRequest, "the certificates cannot be read")
            .field("/certificates", why)
    })?;
    let admitted = site.rotation.admit_root(root).await.map_err(problem)?;
    let id = admitted.id();
    if request.dry_run {
        let done = vec![format!("would be done: publish root {id}")];
        return Ok(Json(RotationResponse { done, planned: Vec::new() }));
    }
    site.rotation.publish_root(admitted, &who.name(), note).await.map_err(problem)?;
    follows(&site, Subject::Root, vec![format!("root {id} is published")]).await
}

fn read_root(pem: &str) -> Result<VouchedRoot, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let certificates = read_certificates(pem.as_bytes(), MOST_CERTIFICATES).map_err(|error| text(&error))?;
    let certificates: Result<_, _> = certificates.iter().map(|der| Certificate::from_der(der)).collect();
    VouchedRoot::from_certificates(certificates.map_err(|error| text(&error))?).map_err(|error| text(&error))
}

pub(super) async fn taint(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<TaintRequest>,
) -> Result<Json<RotationResponse>, HttpProblem> {
    let note = note(&request.note)?;
    let epoch = request.issuer;
    if request.dry_run {
        let mut state = site.rotation.state().await.map_err(problem)?;
        let at = site.authority.clock().now();
        let meant = state.issuers.iter_mut().find(|issuer| issuer.epoch == epoch);
        let meant = meant.ok_or_else(|| problem(Violation::Unknown(format!("issuer {epoch}")).into()))?;
        meant.taint.get_or_insert(Taint { at, step: TaintStep::Marked });
        let planned = of(&site.rotation.timeline_of(&state), Subject::Issuer);
        return Ok(Json(RotationResponse { done: Vec::new(), planned }));
    }
    site.rotation.taint(epoch, &who.name(), note).await.map_err(problem)?;
    site.rotation.look_in_turn().await;
    follows(&site, Subject::Issuer, vec![format!("issuer {epoch} is tainted")]).await
}

async fn follows(
    site: &Site,
    subject: Subject,
    done: Vec<String>,
) -> Result<Json<RotationResponse>, HttpProblem> {
    let planned = of(&site.rotation.timeline().await.map_err(problem)?, subject);
    Ok(Json(RotationResponse { done, planned }))
}

fn of(changes: &[Change], subject: Subject) -> Vec<PlannedChange> {
    changes.iter().filter(|change| change.what.kind() == subject.name()).map(planned).collect()
}

fn wish(subject: Subject, wish: Wanted, who: &Who, note: &str) -> Body {
    let subject = subject.name().to_owned();
    Body::RotationWished(RotationWish { subject, wish, by: who.name(), note: note.to_owned() })
}

fn subject(subject: RotationSubject) -> Subject {
    match subject {
        RotationSubject::Issuer => Subject::Issuer,
        RotationSubject::Root => Subject::Root,
        RotationSubject::Jwt => Subject::Jwt,
        RotationSubject::Log => Subject::Log,
    }
}

fn planned(change: &Change) -> PlannedChange {
    PlannedChange {
        due: change.due,
        kind: change.what.kind().to_owned(),
        what: change.what.to_string(),
        reason: change.reason.to_string(),
        code: change.reason.code().to_owned(),
        actor: match change.what.actor() {
            Actor::Scheduler => "scheduler",
            Actor::OwnTask => "own-task",
            Actor::Operator => "operator",
        }
        .to_owned(),
    }
}

fn issuer(issuer: &Issuer) -> CaIssuer {
    let state = match (issuer.phase, issuer.taint) {
        (Phase::Requested | Phase::Spare, _) => None,
        (Phase::Withdrawn, _) => Some(IssuerState::Withdrawn),
        (Phase::Active(_), _) => Some(IssuerState::Active),
        (_, Some(_)) => Some(IssuerState::Tainted),
        (Phase::Published(_), None) => Some(IssuerState::Prepared),
        (Phase::Superseded(_), None) => Some(IssuerState::Retired),
    };
    CaIssuer {
        epoch: issuer.epoch,
        state,
        since: phase(issuer.phase).map(|(_, since)| since),
        not_before: issuer.life.from,
        not_after: issuer.life.until,
        tainted: issuer.taint.map(|taint| taint.at),
    }
}

fn root(root: &Root, state: &Standing) -> CaRoot {
    let phase = phase(root.phase);
    let below = state.issuers.iter().filter(|issuer| issuer.root == root.id);
    CaRoot {
        fingerprint: root.id,
        phase: phase.map_or("withdrawn", |(name, _)| name).to_owned(),
        since: phase.map(|(_, since)| since),
        not_before: root.life.from,
        not_after: root.life.until,
        issuers: below.map(|issuer| issuer.epoch).collect(),
    }
}

/// One that is published or signs.
fn key(key: &Key) -> Option<CaKey> {
    let (phase, since) = phase(key.phase)?;
    Some(CaKey { fingerprint: key.id, phase: phase.to_owned(), since })
}

fn phase(phase: Phase) -> Option<(&'static str, chancery_types::Timestamp)> {
    match phase {
        Phase::Published(since) => Some(("published", since.at)),
        Phase::Active(since) => Some(("active", since.at)),
        Phase::Superseded(since) => Some(("superseded", since.at)),
        Phase::Requested | Phase::Spare | Phase::Withdrawn => None,
    }
}

fn problem(error: RotationError) -> HttpProblem {
    match error {
        RotationError::Violation(Violation::Unknown(what)) => {
            HttpProblem::new(ProblemCode::NotFound, format!("{what} is not known here"))
        }
        RotationError::Violation(violation) => {
            HttpProblem::new(ProblemCode::NotInThisState, violation.to_string())
        }
        RotationError::Root(refusal) => HttpProblem::new(ProblemCode::RootRefused, refusal.to_string()),
        RotationError::Authority(error) => problem_of(error),
        RotationError::Revoke(error) => problem_of(error),
        error @ RotationError::NoList(_) => HttpProblem::new(ProblemCode::NotReady, error.to_string()),
        other => HttpProblem::internal(other),
    }
}
