//! nginx's side: `auth_request`, an HTTP request without a body.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::{Decider, Verdict};

/// Says in which header nginx puts `$ssl_client_escaped_cert`.
const CERTIFICATE: &str = "x-client-certificate";
/// Says who it is, to nginx and, from Envoy, to the service.
pub(super) const HEADER: &str = "x-spiffe-id";

/// 204 lets it through (any 2xx does), 403 does not, 500 is an error of ours: nginx knows no others.
pub(super) fn answer(decider: &Decider, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let mut given = headers.get_all(CERTIFICATE).iter();
    let escaped = match (given.next(), given.next()) {
        (Some(only), None) => only.to_str().unwrap_or_default(),
        // Two of them: one is the client's.
        _ => "",
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = match decider.decide(escaped) {
        Verdict::Allowed(id) => {
            if let Ok(value) = HeaderValue::from_str(id.as_str()) {
                response.headers_mut().insert(HEADER, value);
            }
            StatusCode::NO_CONTENT
        }
        Verdict::Denied(why) => {
            tracing::info!(why, "nginx was told to refuse");
            StatusCode::FORBIDDEN
        }
        Verdict::Unknown(why) => {
            tracing::warn!(why, "nginx was told that it is not known");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    response
}
