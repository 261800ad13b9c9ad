//! From operations to routes: every operation has exactly one, behind its own gate, and nothing else has any.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use chancery_api::{Method, Operation, ProblemCode};

use crate::chassis::Chassis;
use crate::gate::{Gate, pass};
use crate::{HttpProblem, Json};

/// A handler as the route of an operation: for its method alone.
pub fn handle<H, T, S>(operation: Operation, handler: H) -> MethodRouter<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    let method = match operation.method() {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    };
    on(method, handler)
}

/// Routes every operation to what `route` gives for it. Write `route` as one match without wildcard, and an
/// operation without a handler does not compile.
pub fn assemble<S>(chassis: &Arc<Chassis>, state: S, route: impl Fn(Operation) -> MethodRouter<S>) -> Router
where
    S: Clone + Send + Sync + 'static,
{
    assemble_some(chassis, state, |operation| Some(route(operation)))
}

/// Routes the operations that `route` gives something for, behind the same gates; for the others there is no
/// such path.
pub fn assemble_some<S>(
    chassis: &Arc<Chassis>,
    state: S,
    route: impl Fn(Operation) -> Option<MethodRouter<S>>,
) -> Router
where
    S: Clone + Send + Sync + 'static,
{
    let gate = |operation| Gate { chassis: Arc::clone(chassis), operation };
    let mut router = Router::new();
    for &operation in Operation::ALL {
        let Some(handler) = route(operation) else { continue };
        let handler = handler.route_layer(from_fn_with_state(gate(Some(operation)), pass));
        router = router.route(operation.path(), handler);
    }
    let unrouted = || from_fn_with_state(gate(None), pass);
    router
        .method_not_allowed_fallback(method_not_allowed.layer(unrouted()))
        .fallback(not_found.layer(unrouted()))
        .with_state(state)
}

/// Routes for the operations that need nothing but the chassis; nothing for the others.
pub fn chassis_route<S>(operation: Operation, chassis: &Arc<Chassis>) -> Option<MethodRouter<S>>
where
    S: Clone + Send + Sync + 'static,
{
    let chassis = Arc::clone(chassis);
    match operation {
        Operation::Healthz => Some(handle(operation, move || async move { Json(chassis.health.alive()) })),
        Operation::Readyz => Some(handle(operation, move || async move { chassis.health.ready().map(Json) })),
        Operation::Metrics => Some(handle(operation, move || async move {
            let media_type = [(http::header::CONTENT_TYPE, crate::metrics::METRICS_MEDIA_TYPE)];
            (media_type, chassis.metrics.encode())
        })),
        Operation::OpenApi => Some(handle(operation, || async {
            ([(http::header::CONTENT_TYPE, "application/json")], crate::openapi::document_text())
        })),
        _ => None,
    }
}

async fn not_found() -> HttpProblem {
    HttpProblem::new(ProblemCode::NotFound, "there is no such path; docs/openapi.json lists them")
}

async fn method_not_allowed() -> HttpProblem {
    HttpProblem::new(ProblemCode::MethodNotAllowed, "this path exists, for other methods")
}
