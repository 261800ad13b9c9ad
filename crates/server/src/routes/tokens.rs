//! Join tokens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use chancery_api::{
    CreateTokenRequest, CreateTokenResponse, Page, ProblemCode, TokenQuery, TokenState as ApiState,
    TokenSubject, TokenView,
};
use chancery_ledger::{TokenRecord, TokenState};
use chancery_policy::{Action, ResourceFacts};
use chancery_types::{Timestamp, TokenId};

use super::access::Who;
use super::identities::{page_request, page_response};
use super::problem_of;
use crate::authority::TokenFor;
use crate::site::Site;
use crate::{HttpProblem, Json, Path, Query};

/// A token lives for an hour unless the request says otherwise.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

pub(super) async fn create(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<CreateTokenRequest>,
) -> Result<Json<CreateTokenResponse>, HttpProblem> {
    let subject = request.subject().map_err(|error| {
        HttpProblem::new(ProblemCode::MalformedRequest, error.to_string()).field("", error.to_string())
    })?;
    let purpose = match subject {
        TokenSubject::Identity(id) => {
            let record = site.authority.ledger().identity(&id).await.map_err(problem_of)?;
            let record = record.ok_or_else(|| {
                HttpProblem::new(ProblemCode::NotFound, format!("there is no identity {id}"))
            })?;
            let resource = ResourceFacts::of("token", id.as_str(), &record.identity);
            site.permit(&who, Action::TokenCreate, resource, None).await?;
            TokenFor::Identity(id)
        }
        TokenSubject::Template(name, parameters) => TokenFor::Template { name, parameters },
    };
    let lifetime = request.ttl.map_or(DEFAULT_LIFETIME, |ttl| ttl.0);
    let token = site
        .authority
        .create_token(purpose, lifetime, request.key_fingerprint, request.with_fingerprint, &who.name())
        .await
        .map_err(problem_of)?;
    Ok(Json(CreateTokenResponse { id: token.id, token: token.text, expires: token.expires }))
}

pub(super) async fn list(
    State(site): State<Arc<Site>>,
    Query(query): Query<TokenQuery>,
) -> Result<Json<Page<TokenView>>, HttpProblem> {
    let page = site.authority.ledger().tokens(&page_request(&query.page())?).await.map_err(problem_of)?;
    let now = site.authority.clock().now();
    let mut page = page_response(page, |record| view(record, now));
    page.items.retain(|token| {
        query.state.is_none_or(|state| state == token.state)
            && query.identity.as_ref().is_none_or(|identity| Some(identity) == token.identity.as_ref())
    });
    Ok(Json(page))
}

pub(super) async fn revoke(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(id): Path<TokenId>,
) -> Result<Json<TokenView>, HttpProblem> {
    site.authority.revoke_token(id, &who.name()).await.map_err(problem_of)?;
    let record = site.authority.ledger().token(id).await.map_err(problem_of)?;
    let record = record.ok_or_else(|| HttpProblem::internal("a withdrawn token is gone"))?;
    Ok(Json(view(record, site.authority.clock().now())))
}

fn view(record: TokenRecord, now: Timestamp) -> TokenView {
    let (state, spent_on) = match record.state {
        TokenState::Spent { serial } => (ApiState::Spent, Some(serial)),
        TokenState::Revoked => (ApiState::Revoked, None),
        TokenState::Open if record.expires <= now => (ApiState::Expired, None),
        TokenState::Open => (ApiState::Open, None),
    };
    let (template, parameters) = match record.template {
        Some((name, parameters)) => (Some(name), serde_json::from_value(parameters).unwrap_or_default()),
        None => (None, BTreeMap::new()),
    };
    TokenView {
        id: record.token,
        state,
        identity: record.identity,
        template,
        parameters,
        key_fingerprint: record.key,
        created: record.created,
        created_by: record.created_by,
        expires: record.expires,
        spent_on,
    }
}
