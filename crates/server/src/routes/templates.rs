//! Templates for identities.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use chancery_api::{Page, ProblemCode, TemplateDocument, TemplateView};
use chancery_entry::Entry;
use chancery_ledger::TemplateRecord;
use chancery_policy::IdentityTemplate;

use super::access::Who;
use super::problem_of;
use crate::site::Site;
use crate::{HttpProblem, Json, Path};

pub(super) async fn register(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(document): Json<TemplateDocument>,
) -> Result<Json<TemplateView>, HttpProblem> {
    let known = site.authority.ledger().template(&document.name).await.map_err(problem_of)?;
    if known.is_some() {
        let detail = format!("there is a template {:?} already; change it instead", document.name);
        return Err(HttpProblem::new(ProblemCode::AlreadyExists, detail));
    }
    put(&site, &who, document).await
}

pub(super) async fn change(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
    Json(document): Json<TemplateDocument>,
) -> Result<Json<TemplateView>, HttpProblem> {
    if document.name != name {
        let detail = format!("the document names {:?}, the path {name:?}", document.name);
        return Err(HttpProblem::new(ProblemCode::InvalidTemplate, detail).field("/name", "another name"));
    }
    record(&site, &name).await?;
    put(&site, &who, document).await
}

pub(super) async fn list(State(site): State<Arc<Site>>) -> Result<Json<Page<TemplateView>>, HttpProblem> {
    let mut items = Vec::new();
    for record in site.authority.ledger().templates().await.map_err(problem_of)? {
        items.push(view(&site, record).await?);
    }
    Ok(Json(Page { items, next: None }))
}

pub(super) async fn read(
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
) -> Result<Json<TemplateView>, HttpProblem> {
    view(&site, record(&site, &name).await?).await.map(Json)
}

pub(super) async fn remove(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
) -> Result<Json<TemplateView>, HttpProblem> {
    let removed = view(&site, record(&site, &name).await?).await?;
    site.authority.remove_template(&name, &who.name()).await.map_err(problem_of)?;
    Ok(Json(removed))
}

async fn put(site: &Site, who: &Who, document: TemplateDocument) -> Result<Json<TemplateView>, HttpProblem> {
    let template = translate::<_, IdentityTemplate>(&document)?;
    site.authority.register_template(&template, &who.name()).await.map_err(problem_of)?;
    view(site, record(site, &template.name).await?).await.map(Json)
}

async fn record(site: &Site, name: &str) -> Result<TemplateRecord, HttpProblem> {
    let record = site.authority.ledger().template(name).await.map_err(problem_of)?;
    record.ok_or_else(|| HttpProblem::new(ProblemCode::NotFound, format!("there is no template {name:?}")))
}

async fn view(site: &Site, record: TemplateRecord) -> Result<TemplateView, HttpProblem> {
    let entry = site.authority.ledger().entry(record.index).await.map_err(problem_of)?;
    let changed =
        entry.and_then(|bytes| Entry::decode(&bytes).ok()).map(|entry| entry.time).unwrap_or_default();
    Ok(TemplateView { template: translate(&record.document)?, changed })
}

/// The interface's document and policy's template have one JSON form.
fn translate<S: serde::Serialize, T: serde::de::DeserializeOwned>(from: &S) -> Result<T, HttpProblem> {
    serde_json::to_value(from)
        .and_then(serde_json::from_value)
        .map_err(|error| HttpProblem::new(ProblemCode::InvalidTemplate, error.to_string()))
}
