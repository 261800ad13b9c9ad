//! Streams of security events: what SSF calls the transmitter's endpoints.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chancery_api::{
    AuthorizationScheme, EventStreamsResponse, Operation, POLL, PUSH, PollRequest, PollResponse, ProblemCode,
    SPEC_VERSION, StreamConfiguration, StreamQuery, StreamRequest, StreamStatus, TransmitterConfiguration,
    VerificationRequest,
};
use chancery_types::SpiffeId;
use http::{HeaderMap, StatusCode};

use super::access::Who;
use super::agents::record_of;
use super::problem_of;
use crate::published::Published;
use crate::site::Site;
use crate::ssf::{SsfError, Transmitter};
use crate::{HttpProblem, Json, Path, Query};

/// How long what receivers have to know may be kept.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Seconds after which somebody who came too often may try again.
const RETRY: u64 = 10;

/// What receivers have to know.
pub(super) async fn configuration(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let url = &site.authority.config().url;
    let at = |operation: Operation| format!("{url}{}", operation.path());
    let methods = if site.ssf.pushes() { vec![PUSH, POLL] } else { vec![POLL] };
    let document = TransmitterConfiguration {
        spec_version: SPEC_VERSION.to_owned(),
        issuer: url.clone(),
        jwks_uri: at(Operation::JwtKeys),
        delivery_methods_supported: methods.into_iter().map(str::to_owned).collect(),
        configuration_endpoint: at(Operation::CreateStream),
        status_endpoint: at(Operation::ReadStreamStatus),
        verification_endpoint: at(Operation::VerifyStream),
        authorization_schemes: vec![AuthorizationScheme { spec_urn: "urn:ietf:rfc:8705".to_owned() }],
        default_subjects: "ALL".to_owned(),
    };
    let bytes = serde_json::to_vec(&document).map_err(HttpProblem::internal)?;
    Ok(Published::new("application/json", bytes, MAX_AGE).answer(&headers))
}

/// Makes a stream.
pub(super) async fn create(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<StreamRequest>,
) -> Result<Response, HttpProblem> {
    let owner = owner(&site, &who).await?;
    let made = on_disk(&site, move |ssf| ssf.create(owner, request)).await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// Shows a stream, or all of the caller's.
pub(super) async fn read(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Query(query): Query<StreamQuery>,
) -> Result<Response, HttpProblem> {
    let owner = owner(&site, &who).await?;
    match query.stream_id {
        Some(stream) => Ok(Json(site.ssf.read(&owner, &stream).map_err(problem)?).into_response()),
        None => Ok(Json(site.ssf.read_all(&owner)).into_response()),
    }
}

/// Changes what the body names.
pub(super) async fn update(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<StreamRequest>,
) -> Result<Json<StreamConfiguration>, HttpProblem> {
    let owner = owner(&site, &who).await?;
    on_disk(&site, move |ssf| ssf.change(&owner, request, false)).await.map(Json)
}

/// Replaces all that the caller chose.
pub(super) async fn replace(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<StreamRequest>,
) -> Result<Json<StreamConfiguration>, HttpProblem> {
    let owner = owner(&site, &who).await?;
    on_disk(&site, move |ssf| ssf.change(&owner, request, true)).await.map(Json)
}

/// Removes a stream.
pub(super) async fn delete(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Query(query): Query<StreamQuery>,
) -> Result<StatusCode, HttpProblem> {
    let (owner, stream) = (owner(&site, &who).await?, named(query)?);
    on_disk(&site, move |ssf| ssf.delete(&owner, &stream)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a stream runs.
pub(super) async fn status(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Query(query): Query<StreamQuery>,
) -> Result<Json<StreamStatus>, HttpProblem> {
    let owner = owner(&site, &who).await?;
    site.ssf.status(&owner, &named(query)?).map(Json).map_err(problem)
}

/// Enables, pauses or disables a stream.
pub(super) async fn set_status(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(wish): Json<StreamStatus>,
) -> Result<Json<StreamStatus>, HttpProblem> {
    let owner = owner(&site, &who).await?;
    on_disk(&site, move |ssf| ssf.set_status(&owner, wish)).await.map(Json)
}

/// Has an event sent that shows that a stream works.
pub(super) async fn verify(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<VerificationRequest>,
) -> Result<StatusCode, HttpProblem> {
    let owner = owner(&site, &who).await?;
    on_disk(&site, move |ssf| ssf.verify(&owner, &request.stream_id, request.state)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Hands out tokens and takes acknowledgements.
pub(super) async fn poll(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(stream): Path<String>,
    Json(request): Json<PollRequest>,
) -> Result<Json<PollResponse>, HttpProblem> {
    let owner = owner(&site, &who).await?;
    site.ssf.poll(&owner, &stream, request).await.map(Json).map_err(problem)
}

/// Lists every stream.
pub(super) async fn list(State(site): State<Arc<Site>>) -> Json<EventStreamsResponse> {
    Json(site.ssf.list())
}

/// Whose certificate is on the connection.
async fn owner(site: &Site, who: &Who) -> Result<SpiffeId, HttpProblem> {
    let certificate = who.certificate().ok_or_else(|| {
        let detail = "show a client certificate of this authority on the connection";
        HttpProblem::new(ProblemCode::CertificateRequired, detail)
    })?;
    Ok(record_of(site, certificate).await?.identity)
}

fn named(query: StreamQuery) -> Result<String, HttpProblem> {
    query.stream_id.ok_or_else(|| {
        let detail = "name the stream: ?stream_id=";
        HttpProblem::new(ProblemCode::MalformedRequest, detail).field("stream_id", detail)
    })
}

/// Does what ends in a write to disk, where nobody waits for the thread.
async fn on_disk<T: Send + 'static>(
    site: &Site,
    work: impl FnOnce(&Arc<Transmitter>) -> Result<T, SsfError> + Send + 'static,
) -> Result<T, HttpProblem> {
    let ssf = Arc::clone(&site.ssf);
    let done = tokio::task::spawn_blocking(move || work(&ssf)).await.map_err(HttpProblem::internal)?;
    done.map_err(problem)
}

fn problem(error: SsfError) -> HttpProblem {
    let text = error.to_string();
    match error {
        SsfError::NotFound(_) => HttpProblem::new(ProblemCode::NotFound, text),
        SsfError::Invalid { field, why } => {
            HttpProblem::new(ProblemCode::MalformedRequest, text).field(field, why)
        }
        SsfError::TooMany(..) | SsfError::NotEnabled | SsfError::IsPushed => {
            HttpProblem::new(ProblemCode::NotInThisState, text)
        }
        SsfError::TooSoon => HttpProblem::new(ProblemCode::RateLimited, text).retry_after(RETRY),
        SsfError::Busy(_) => HttpProblem::new(ProblemCode::Overloaded, text).retry_after(RETRY),
        SsfError::Authority(error) => problem_of(error),
        SsfError::Model(error) => HttpProblem::internal(error),
        SsfError::Random(error) => HttpProblem::internal(error),
        SsfError::Store(_) | SsfError::Record(_) => HttpProblem::internal(error),
    }
}
