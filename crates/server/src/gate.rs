//! The gate before every handler: who asks, how often, how much; and on the way back, the request's id, the
//! final problem document, the log and the metrics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chancery_api::{Audience, Operation, ProblemCode, REQUEST_ID_HEADER};
use chancery_telemetry::{TraceContext, Trust, step};
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Version};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::OwnedSemaphorePermit;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::activity::Guarded;
use crate::chassis::{BODY_UNIT, Chassis, Weight, body_limit, weight};
use crate::metrics::Counted;
use crate::peer::CallerKey;
use crate::problem::Pending;
use crate::request_id::RequestId;
use crate::{HttpProblem, Peer};

/// The gate of one operation, or of requests that are for none.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) chassis: Arc<Chassis>,
    pub(crate) operation: Option<Operation>,
}

/// Middleware around a handler.
pub(crate) async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let _counted = Counted::new(&gate.chassis.metrics.in_flight);
    let id = gate.chassis.request_ids.next();
    request.extensions_mut().insert(id.clone());
    let peer = request.extensions().get::<Peer>().cloned();
    let version = request.version();
    let operation = gate.operation.map_or("none", Operation::id);
    let caller = TraceContext::from_headers(request.headers());
    let spans = Spans {
        step: gate.step(&id, peer.as_ref(), caller.as_ref()),
        log: tracing::info_span!("request", id = id.as_str(), operation, trace_id = Empty),
    };
    if let Some(trace) = spans.step.in_scope(chancery_telemetry::current).or(caller) {
        spans.log.record("trace_id", trace.trace_id());
    }
    let work = async {
        let peer = peer.as_ref().ok_or_else(|| HttpProblem::internal("the request has no peer"))?;
        gate.answer(peer, request, next, &spans).await
    };
    let result: Result<Response, HttpProblem> = spans.around(work).await;
    let response = result.unwrap_or_else(IntoResponse::into_response);
    let response = spans.log.in_scope(|| gate.finish(response, &id, peer.as_ref(), version, began.elapsed()));
    let status = response.status();
    spans.step.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        spans.step.record("otel.status_code", "ERROR");
    }
    response
}

/// A request in the log and in a trace. A task that goes on with it has to be in both: who looks at one of them does
/// not see the other.
struct Spans {
    log: Span,
    step: Span,
}

impl Spans {
    fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        work.instrument(self.log.clone()).instrument(self.step.clone())
    }
}

impl Gate {
    /// The request as it is shown in a trace: a part of the caller's, where that says so.
    fn step(&self, id: &RequestId, peer: Option<&Peer>, caller: Option<&TraceContext>) -> Span {
        let Some(operation) = self.operation.filter(|operation| is_shown(*operation)) else {
            return Span::none();
        };
        let step = step!(
            "request",
            otel.name = operation.id(),
            otel.kind = "server",
            http.request.method = operation.method().as_str(),
            http.route = operation.path(),
            http.response.status_code = Empty,
            otel.status_code = Empty,
            chancery.request = id.as_str(),
            chancery.caller = Empty,
        );
        if step.is_disabled() {
            return step;
        }
        let certificate = peer.and_then(Peer::certificate);
        if let Some(certificate) = certificate {
            step.record("chancery.caller", certificate.spiffe_id().as_str());
        }
        if let Some(caller) = caller {
            let is_known = certificate.is_some() || matches!(peer, Some(Peer::Admin { .. }));
            chancery_telemetry::adopt(&step, caller, if is_known { Trust::Known } else { Trust::Stranger });
        }
        step
    }

    async fn answer(
        &self,
        peer: &Peer,
        request: Request,
        next: Next,
        spans: &Spans,
    ) -> Result<Response, HttpProblem> {
        self.check_rate(peer)?;
        let Some(operation) = self.operation else { return Ok(next.run(request).await) };
        self.check_audience(peer, operation)?;
        let (request, memory) = self.read_body(request, operation).await?;
        match weight(operation) {
            Weight::Light => run_here(request, next).await,
            Weight::Write => {
                let turn = self.chassis.writes.admit().await.map_err(overloaded)?;
                self.run_whole(request, next, spans, (turn, memory)).await
            }
            Weight::Bulk => {
                let turn = self.chassis.bulk.admit().await.map_err(overloaded)?;
                let response = run_here(request, next).await?;
                // The turn lasts until the last byte of the stream is handed over.
                Ok(response.map(|body| Body::new(Guarded::new(body, turn))))
            }
        }
    }

    fn check_rate(&self, peer: &Peer) -> Result<(), HttpProblem> {
        let Some(key) = peer.caller_key() else { return Ok(()) };
        let table = match &key {
            CallerKey::Address(_) => &self.chassis.address_rates,
            CallerKey::Identity(_) => &self.chassis.identity_rates,
        };
        let Some(table) = table else { return Ok(()) };
        table.take(key, Instant::now()).map_err(|wait| {
            HttpProblem::new(ProblemCode::RateLimited, "you ask faster than you may")
                .retry_after(wait.as_secs() + 1)
        })
    }

    /// Turns away those who cannot be permitted whatever policy says, before their body is read.
    fn check_audience(&self, peer: &Peer, operation: Operation) -> Result<(), HttpProblem> {
        match (operation.audience(), peer) {
            (Audience::Anybody | Audience::Evidence, _) | (Audience::Operator, Peer::Admin { .. }) => Ok(()),
            (Audience::Holder | Audience::Operator, _) => {
                self.chassis.require_certificate(peer, operation).map(|_| ())
            }
        }
    }

    /// Reads the whole body, within its size, its time and the memory that all bodies share, so that nobody
    /// holds a turn while sending slowly.
    async fn read_body(
        &self,
        request: Request,
        operation: Operation,
    ) -> Result<(Request, Option<OwnedSemaphorePermit>), HttpProblem> {
        if request.body().is_end_stream() {
            return Ok((request, None));
        }
        let limit = body_limit(operation);
        let too_large = || {
            HttpProblem::new(ProblemCode::BodyTooLarge, format!("the body may have at most {limit} bytes"))
        };
        let announced = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
            .map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let memory = self.reserve(announced.unwrap_or(limit))?;
        let (parts, body) = request.into_parts();
        let reading = Limited::new(body, limit).collect();
        let bytes: Bytes = match tokio::time::timeout(self.chassis.body_time, reading).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(error)) => {
                return Err(
                    HttpProblem::new(ProblemCode::MalformedRequest, "the body broke off").because(error)
                );
            }
            Err(_) => {
                let detail = format!("the body did not arrive within {:?}", self.chassis.body_time);
                return Err(HttpProblem::new(ProblemCode::RequestTimeout, detail));
            }
        };
        Ok((Request::from_parts(parts, Body::from(bytes)), Some(memory)))
    }

    fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, HttpProblem> {
        let units = u32::try_from(bytes.div_ceil(BODY_UNIT)).unwrap_or(u32::MAX);
        Arc::clone(&self.chassis.body_memory)
            .try_acquire_many_owned(units)
            .map_err(|_| overloaded("the memory for request bodies is used up"))
    }

    /// Runs a handler to its end even if the caller hangs up: a workflow that has reached the ledger is not
    /// cut in half.
    async fn run_whole<G: Send + 'static>(
        &self,
        request: Request,
        next: Next,
        spans: &Spans,
        guard: G,
    ) -> Result<Response, HttpProblem> {
        let work = async move {
            let response = next.run(request).await;
            drop(guard);
            response
        };
        let handle = self.chassis.shutdown.spawn_whole(spans.around(work));
        handle.await.map_err(HttpProblem::internal)
    }

    fn finish(
        &self,
        response: Response,
        id: &RequestId,
        peer: Option<&Peer>,
        version: Version,
        elapsed: Duration,
    ) -> Response {
        let pending = response.extensions().get::<Pending>().cloned();
        let mut response = match &pending {
            Some(Pending(problem)) => {
                let mut rendered = problem.render(Some(id.as_str()));
                for (name, value) in response.headers() {
                    rendered.headers_mut().entry(name).or_insert_with(|| value.clone());
                }
                rendered.headers_mut().remove(CONTENT_LENGTH);
                rendered
            }
            None => response,
        };
        let status = response.status();
        let headers = response.headers_mut();
        headers.insert(
            REQUEST_ID_HEADER,
            HeaderValue::from_str(id.as_str()).expect("a request id is hexadecimal"),
        );
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        if self.chassis.shutdown.has_begun() && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.chassis.metrics.answered(self.operation, status.as_u16(), elapsed);
        let peer = peer.map(Peer::describe).unwrap_or_default();
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        match pending {
            Some(Pending(problem)) if status.is_server_error() => {
                tracing::error!(peer, milliseconds, %problem, cause = problem.chain(), "failed");
            }
            Some(Pending(problem)) => {
                tracing::info!(peer, milliseconds, %problem, cause = problem.chain(), "refused");
            }
            None if self.operation.is_some_and(|operation| weight(operation) == Weight::Light) => {
                tracing::debug!(peer, milliseconds, status = status.as_u16(), "answered");
            }
            None => tracing::info!(peer, milliseconds, status = status.as_u16(), "answered"),
        }
        response
    }
}

/// What probes and scrapers ask every few seconds says nothing in a trace.
fn is_shown(operation: Operation) -> bool {
    !matches!(operation, Operation::Healthz | Operation::Readyz | Operation::Metrics)
}

/// Runs a handler that may be dropped at any point; a panic in it is an answer too.
async fn run_here(request: Request, next: Next) -> Result<Response, HttpProblem> {
    AssertUnwindSafe(next.run(request)).catch_unwind().await.map_err(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        HttpProblem::internal(format!("a handler panicked: {text}"))
    })
}

fn overloaded(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HttpProblem {
    HttpProblem::new(ProblemCode::Overloaded, "the server has more to do than it can")
        .retry_after(1)
        .because(cause)
}

#[cfg(test)]
mod tests;
