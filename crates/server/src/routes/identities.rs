//! Registered identities.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use chancery_api::{
    Cursor, IdentityDocument, IdentityQuery, IdentityStateRequest, IdentityView, Page, PageQuery, ProblemCode,
};
use chancery_ledger::{self as ledger, CertificateQuery, IdentityRecord, PageRequest, StateFilter};
use chancery_policy::{Action, ResourceFacts};
use chancery_revoke::{Aim, Asker, Intent, Radius, Scope, Selector};
use chancery_types::{RevocationReason, SpiffeId};

use super::access::Who;
use super::problem_of;
use super::revocation::radius_of;
use crate::site::Site;
use crate::{ExpectedVersion, HttpProblem, Json, Path, Query};

/// Certificates that are counted for an identity at the most.
const COUNTED: usize = 10_000;

pub(super) async fn register(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(IdentityDocument(identity)): Json<IdentityDocument>,
) -> Result<Json<IdentityView>, HttpProblem> {
    let resource = ResourceFacts::of("identity", identity.spiffe_id.as_str(), &identity);
    site.permit(&who, Action::IdentityRegister, resource, None).await?;
    site.authority.register_identity(&identity, &who.name()).await.map_err(problem_of)?;
    show(&site, &identity.spiffe_id).await
}

pub(super) async fn list(
    State(site): State<Arc<Site>>,
    Query(query): Query<IdentityQuery>,
) -> Result<Json<Page<IdentityView>>, HttpProblem> {
    let request = page_request(&query.page())?;
    let wanted = ledger::IdentityQuery {
        owner: query.owner,
        team: query.team,
        environment: query.environment,
        state: query.state,
        profile: query.profile,
        ..ledger::IdentityQuery::default()
    };
    let page = site.authority.ledger().identities(&wanted, &request).await.map_err(problem_of)?;
    let mut items = Vec::with_capacity(page.items.len());
    for record in page.items {
        items.push(view(&site, record).await?);
    }
    Ok(Json(Page { items, next: page.next.map(|key| Cursor(key).to_text()) }))
}

pub(super) async fn read(
    State(site): State<Arc<Site>>,
    Path(id): Path<SpiffeId>,
) -> Result<Json<IdentityView>, HttpProblem> {
    show(&site, &id).await
}

pub(super) async fn change(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(id): Path<SpiffeId>,
    ExpectedVersion(version): ExpectedVersion,
    Json(IdentityDocument(identity)): Json<IdentityDocument>,
) -> Result<Json<IdentityView>, HttpProblem> {
    if identity.spiffe_id != id {
        let detail =
            format!("the document names {}, the path {id}; a name never changes", identity.spiffe_id);
        return Err(
            HttpProblem::new(ProblemCode::InvalidIdentity, detail).field("/spiffe_id", "another name")
        );
    }
    let before = record(&site, &id).await?;
    // Both what it was and what it would become must be this caller's to change.
    for document in [&before.identity, &identity] {
        let resource = ResourceFacts::of("identity", id.as_str(), document);
        site.permit(&who, Action::IdentityChange, resource, None).await?;
    }
    if before.index != version {
        let detail =
            format!("version {version} was to be changed, it stands at {}; read it again", before.index);
        return Err(HttpProblem::new(ProblemCode::VersionConflict, detail));
    }
    site.authority.change_identity(&identity, &who.name()).await.map_err(problem_of)?;
    show(&site, &id).await
}

pub(super) async fn retire(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(id): Path<SpiffeId>,
    Json(request): Json<IdentityStateRequest>,
) -> Result<Json<IdentityView>, HttpProblem> {
    permit(&site, &who, Action::IdentityRetire, &id).await?;
    let aim = Aim::Revoke(RevocationReason::CessationOfOperation);
    let _claimed = is_small(&site, &who, &id, aim).await?;
    site.authority
        .revoker()
        .retire_identity(&id, &who.name(), note(&request.note)?)
        .await
        .map_err(problem_of)?;
    show(&site, &id).await
}

pub(super) async fn hold(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(id): Path<SpiffeId>,
    Json(request): Json<IdentityStateRequest>,
) -> Result<Json<IdentityView>, HttpProblem> {
    permit(&site, &who, Action::IdentityHold, &id).await?;
    let _claimed = is_small(&site, &who, &id, Aim::Hold).await?;
    site.authority
        .revoker()
        .hold_identity(&id, &who.name(), note(&request.note)?)
        .await
        .map_err(problem_of)?;
    show(&site, &id).await
}

pub(super) async fn release(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(id): Path<SpiffeId>,
    Json(request): Json<IdentityStateRequest>,
) -> Result<Json<IdentityView>, HttpProblem> {
    permit(&site, &who, Action::IdentityRelease, &id).await?;
    site.authority
        .revoker()
        .release_identity(&id, &who.name(), note(&request.note)?)
        .await
        .map_err(problem_of)?;
    show(&site, &id).await
}

async fn permit(site: &Site, who: &Who, action: Action, id: &SpiffeId) -> Result<(), HttpProblem> {
    let record = record(site, id).await?;
    site.permit(who, action, ResourceFacts::of("identity", id.as_str(), &record.identity), None).await
}

/// Whether what happens to an identity's certificates needs no approval; else they come first, by themselves.
async fn is_small(site: &Site, who: &Who, id: &SpiffeId, aim: Aim) -> Result<Radius, HttpProblem> {
    let scope = Scope::from(Selector::Identity(id.clone()));
    let by = who.name();
    let radius = radius_of(site, &scope, aim, Asker { by: &by, intent: Intent::Act }).await?;
    let Some(why) = &radius.blast.needs_approval else { return Ok(radius) };
    let first = match aim {
        Aim::Hold => "hold the certificates first, with block and with approval: POST /v1/hold",
        _ => "revoke the certificates first, with block and with approval: POST /v1/revoke",
    };
    Err(HttpProblem::new(ProblemCode::ApprovalNeeded, format!("{why}; {first}")))
}

pub(super) async fn record(site: &Site, id: &SpiffeId) -> Result<IdentityRecord, HttpProblem> {
    let record = site.authority.ledger().identity(id).await.map_err(problem_of)?;
    record.ok_or_else(|| HttpProblem::new(ProblemCode::NotFound, format!("there is no identity {id}")))
}

async fn show(site: &Site, id: &SpiffeId) -> Result<Json<IdentityView>, HttpProblem> {
    view(site, record(site, id).await?).await.map(Json)
}

async fn view(site: &Site, record: IdentityRecord) -> Result<IdentityView, HttpProblem> {
    let living = CertificateQuery {
        identity: Some(record.identity.spiffe_id.clone()),
        state: Some(StateFilter::Good),
        expires_after: Some(site.authority.clock().now()),
        ..CertificateQuery::default()
    };
    let living = site.authority.ledger().certificates(&living, &PageRequest::first(COUNTED)).await;
    Ok(IdentityView {
        state: record.state,
        version: record.index,
        registered: record.registered,
        changed: record.changed,
        live_certificates: living.map_err(problem_of)?.items.len() as u64,
        identity: IdentityDocument(record.identity),
    })
}

/// A note for the log, within its limit.
pub(super) fn note(text: &str) -> Result<&str, HttpProblem> {
    let limit = chancery_api::limits::NOTE_CHARACTERS;
    if text.chars().count() > limit {
        let detail = format!("a note has at most {limit} characters");
        return Err(HttpProblem::new(ProblemCode::MalformedRequest, &detail).field("/note", detail));
    }
    Ok(text)
}

pub(super) fn page_request(query: &PageQuery) -> Result<PageRequest, HttpProblem> {
    let after = query.start().map_err(|error| {
        HttpProblem::new(ProblemCode::MalformedRequest, error.to_string()).field("cursor", error.to_string())
    })?;
    Ok(PageRequest { limit: query.size(), after: after.map(|cursor| cursor.0) })
}

pub(super) fn page_response<T, V>(page: ledger::Page<T>, view: impl Fn(T) -> V) -> Page<V> {
    Page {
        items: page.items.into_iter().map(view).collect(),
        next: page.next.map(|key| Cursor(key).to_text()),
    }
}
