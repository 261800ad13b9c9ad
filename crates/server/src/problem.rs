//! Problems as HTTP: the only place where statuses exist.
//!
//! What the caller may know goes into the document; the cause goes to the log under the same request id.

use std::error::Error;
use std::fmt;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use chancery_api::{FieldProblem, PROBLEM_MEDIA_TYPE, Problem, ProblemCode};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

/// What a handler returns instead of an answer.
#[derive(Debug)]
pub struct HttpProblem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    code: ProblemCode,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// A problem on its way out, left in the response so that the gate can add the request's id and log it.
#[derive(Debug, Clone)]
pub(crate) struct Pending(pub(crate) std::sync::Arc<HttpProblem>);

impl HttpProblem {
    /// A problem with a text for the caller.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner { problem: Problem::new(code, detail), code, cause: None }))
    }

    /// The server's own failure: the caller learns nothing but the request id.
    #[must_use]
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ProblemCode::Internal, "the server failed; the cause is in its log").because(cause)
    }

    /// Adds what only the log is told.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds the seconds after which the same request may succeed.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.problem.retry_after = Some(seconds);
        self
    }

    /// Adds what is wrong with one part of the request.
    #[must_use]
    pub fn field(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.0.problem.errors.push(FieldProblem { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// The kind of problem.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        self.0.code
    }

    /// The document without status and request id: what a batch carries for one of its items.
    #[must_use]
    pub fn into_problem(self) -> Problem {
        self.0.problem
    }

    /// The causes, from the nearest to the first, for the log.
    pub(crate) fn chain(&self) -> String {
        let mut text = String::new();
        let mut next: Option<&dyn Error> = self.0.cause.as_deref().map(|cause| cause as &dyn Error);
        while let Some(error) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }

    pub(crate) fn render(&self, request_id: Option<&str>) -> Response {
        let status = status(self.0.code);
        let mut problem = self.0.problem.clone();
        problem.status = Some(status.as_u16());
        problem.request_id = request_id.map(str::to_owned);
        let body = serde_json::to_vec(&problem).expect("a problem is strings and numbers");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        if let Some(seconds) = problem.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl fmt::Display for HttpProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.0.problem.detail, self.0.code)
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        response.extensions_mut().insert(Pending(std::sync::Arc::new(self)));
        response
    }
}

/// The status of each code. 4xx: the caller's turn; 5xx: ours. 403 where showing something else may help, 401
/// where the connection itself has to change.
pub(crate) fn status(code: ProblemCode) -> StatusCode {
    match code {
        ProblemCode::MalformedRequest | ProblemCode::InvalidCsr | ProblemCode::IdempotencyKeyInvalid => {
            StatusCode::BAD_REQUEST
        }
        ProblemCode::CertificateRequired | ProblemCode::CertificateNotAccepted => StatusCode::UNAUTHORIZED,
        ProblemCode::NotPermitted
        | ProblemCode::EvidenceRefused
        | ProblemCode::EvidenceExpired
        | ProblemCode::TokenSpent
        | ProblemCode::NonceUnknown
        | ProblemCode::NoMatchingIdentity
        | ProblemCode::AmbiguousIdentity
        | ProblemCode::IdentityHeld
        | ProblemCode::IdentityRetired
        | ProblemCode::PolicyDenied
        | ProblemCode::LineageForked
        | ProblemCode::CertificateRevoked
        | ProblemCode::SameOperator
        | ProblemCode::RootRefused
        | ProblemCode::KeyProofRefused => StatusCode::FORBIDDEN,
        ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ProblemCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ProblemCode::AlreadyExists
        | ProblemCode::VersionConflict
        | ProblemCode::ApprovalNeeded
        | ProblemCode::ScopeGrown
        | ProblemCode::NotInThisState
        | ProblemCode::IdempotencyInProgress => StatusCode::CONFLICT,
        ProblemCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ProblemCode::KeyRefused
        | ProblemCode::UnknownProfile
        | ProblemCode::OutsideProfile
        | ProblemCode::ExtensionRefused
        | ProblemCode::LintFailed
        | ProblemCode::InvalidIdentity
        | ProblemCode::InvalidTemplate
        | ProblemCode::TooManyItems
        | ProblemCode::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        ProblemCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ProblemCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ProblemCode::Overloaded
        | ProblemCode::ShuttingDown
        | ProblemCode::NotReady
        | ProblemCode::LedgerUnavailable
        | ProblemCode::KeyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::compare_or_rewrite;

    /// What `docs/ERRORS.md` says between its markers.
    fn table() -> String {
        let mut text =
            String::from("| code | status | what it means | what to do |\n| --- | --- | --- | --- |\n");
        for &code in ProblemCode::ALL {
            let status = status(code).as_u16();
            text.push_str(&format!("| `{code}` | {status} | {} | {} |\n", code.title(), code.advice()));
        }
        text
    }

    #[test]
    fn the_list_of_errors_in_the_documentation_is_complete() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ERRORS.md");
        let document = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = document.split_once("<!-- codes: begin -->\n").expect("the begin marker");
        let (_, after) = rest.split_once("<!-- codes: end -->").expect("the end marker");
        let expected = format!("{before}<!-- codes: begin -->\n{}<!-- codes: end -->{after}", table());
        compare_or_rewrite(&path, &expected);
    }

    #[test]
    fn every_status_is_an_error() {
        for &code in ProblemCode::ALL {
            let status = status(code);
            assert!(status.is_client_error() || status.is_server_error(), "{code}");
        }
    }

    #[tokio::test]
    async fn the_cause_is_for_the_log_alone() {
        let cause = std::io::Error::other("disk /var/lib/secret is full");
        let problem = HttpProblem::internal(cause).retry_after(3);
        assert_eq!(problem.chain(), "disk /var/lib/secret is full");
        let response = problem.render(Some("r1"));
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_MEDIA_TYPE);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let document: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!((document.status, document.request_id.as_deref()), (Some(500), Some("r1")));
        assert!(!String::from_utf8_lossy(&body).contains("disk"));
    }
}
