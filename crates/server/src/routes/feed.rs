//! The status feed, and the relying parties that confirm what they enforce.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use chancery_api::{FeedAcknowledgement, FeedQuery, ProblemCode, RelyingPartiesResponse, RelyingPartyView};
use futures_util::stream;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tonic::{Code, Status};

use super::access::Who;
use super::agents::record_of;
use super::problem_of;
use crate::feed::grpc::{self, FollowRequest};
use crate::feed::{AcknowledgeError, Holder, SubscribeError, Subscription, is_instance};
use crate::handover::{Handover, lasting};
use crate::openapi::EVENT_STREAM;
use crate::site::Site;
use crate::{HttpProblem, Json, Query};

/// The longest that a poll waits, in seconds: less than what a connection may be silent for.
const LONGEST_WAIT: u64 = 45;
/// Seconds after which somebody who found no room may try again.
const RETRY: u64 = 5;

/// Follows the feed as server-sent events.
pub(super) async fn follow(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Query(query): Query<FeedQuery>,
    handover: Option<Extension<Handover>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    // Where a browser's EventSource connects anew, its header is later than what its address says.
    let after = last_event_id(&headers)?.or(query.after);
    let subscription = subscribe(&site, &who, query.instance, after).await?;
    let events = stream::unfold(subscription, |mut subscription| async move {
        let event = subscription.next().await?;
        Some((event.sse, subscription))
    });
    Ok(([(CONTENT_TYPE, EVENT_STREAM)], lasting(handover.map(|Extension(handover)| handover), events))
        .into_response())
}

/// Answers with what was missed, or waits for what happens.
pub(super) async fn poll(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Query(query): Query<FeedQuery>,
) -> Result<Response, HttpProblem> {
    let wait = Duration::from_secs(query.wait.unwrap_or(0).min(LONGEST_WAIT));
    let mut subscription = subscribe(&site, &who, query.instance, query.after).await?;
    // Who does not say where it stands wants to know that first.
    let wait = query.after.map_or(Duration::ZERO, |_| wait);
    let events = subscription.gather(wait).await;
    let mut body = vec![b'['];
    for (number, event) in events.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&event.json);
    }
    body.push(b']');
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Follows the feed as gRPC.
pub(super) async fn grpc(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    request: Request,
) -> Response {
    let open = |request: FollowRequest| async move {
        let instance = Some(request.instance).filter(|instance| !instance.is_empty());
        let opened = subscribe(&site, &who, instance, request.after).await;
        opened.map_err(|problem| Status::new(grpc_code(problem.code()), problem.into_problem().detail))
    };
    grpc::answer(request, open).await
}

/// What gRPC has for a problem (its status codes, in the words of its documentation).
fn grpc_code(code: ProblemCode) -> Code {
    match code {
        ProblemCode::MalformedRequest => Code::InvalidArgument,
        ProblemCode::CertificateRequired | ProblemCode::CertificateNotAccepted => Code::Unauthenticated,
        ProblemCode::Overloaded | ProblemCode::NotReady => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// Takes the word of a relying party.
pub(super) async fn acknowledge(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(word): Json<FeedAcknowledgement>,
) -> Result<Json<RelyingPartyView>, HttpProblem> {
    let holder = holder(&site, &who).await?;
    let view = site.feed.acknowledge(&holder.id, word).map_err(|error| {
        let (code, field) = match &error {
            AcknowledgeError::Instance => (ProblemCode::MalformedRequest, "/instance"),
            AcknowledgeError::Ahead { .. } => (ProblemCode::NotInThisState, "/sequence"),
        };
        HttpProblem::new(code, error.to_string()).field(field, error.to_string())
    })?;
    Ok(Json(view))
}

/// Lists relying parties.
pub(super) async fn relying_parties(State(site): State<Arc<Site>>) -> Json<RelyingPartiesResponse> {
    Json(site.feed.relying_parties())
}

/// Opens a subscription for whoever holds the certificate on the connection.
async fn subscribe(
    site: &Site,
    who: &Who,
    instance: Option<String>,
    after: Option<u64>,
) -> Result<Subscription, HttpProblem> {
    if instance.as_deref().is_some_and(|instance| !is_instance(instance)) {
        let detail = AcknowledgeError::Instance.to_string();
        return Err(HttpProblem::new(ProblemCode::MalformedRequest, &detail).field("instance", detail));
    }
    let holder = holder(site, who).await?;
    site.authority.has_heard_of(after.unwrap_or_default()).await;
    let subscription = site.feed.subscribe(holder, instance, after).map_err(|error| {
        let code = match error {
            SubscribeError::Full(_) => ProblemCode::Overloaded,
            SubscribeError::Ended => ProblemCode::NotReady,
        };
        HttpProblem::new(code, error.to_string()).retry_after(RETRY)
    })?;
    // What was revoked before the subscription was open does not end it.
    let certificate = who.certificate().unwrap_or_default();
    if site.authority.caller(certificate).await.map_err(problem_of)?.is_none() {
        let detail = "the certificate was revoked while the feed was opened";
        return Err(HttpProblem::new(ProblemCode::CertificateNotAccepted, detail));
    }
    Ok(subscription)
}

async fn holder(site: &Site, who: &Who) -> Result<Holder, HttpProblem> {
    let certificate = who.certificate().ok_or_else(|| {
        let detail = "show a client certificate of this authority on the connection";
        HttpProblem::new(ProblemCode::CertificateRequired, detail)
    })?;
    let record = record_of(site, certificate).await?;
    Ok(Holder { id: record.identity, serial: record.serial, not_after: record.not_after })
}

/// The position at which a reader broke off (HTML, section 9.2.4).
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, HttpProblem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let position = value.to_str().ok().and_then(|text| text.parse().ok());
    position.map(Some).ok_or_else(|| {
        let detail = "the Last-Event-ID header is no position of this feed; leave it out to begin anew";
        HttpProblem::new(ProblemCode::MalformedRequest, detail)
    })
}
