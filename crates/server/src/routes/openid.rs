//! What lets those who know OpenID Connect and not SPIFFE verify our tokens: clouds, mostly.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use chancery_api::{JwksBundle, OpenIdConfiguration, Operation};
use http::HeaderMap;
use serde::Serialize;

use crate::HttpProblem;
use crate::jwk::{jws_algorithm, jwt_authority};
use crate::published::Published;
use crate::site::Site;

/// How long what is said here may be kept.
const MAX_AGE: Duration = Duration::from_secs(300);

/// Where the keys are (OpenID Connect Discovery 1.0, section 4).
pub(super) async fn configuration(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let url = &site.authority.config().url;
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let document = OpenIdConfiguration {
        issuer: url.clone(),
        jwks_uri: format!("{url}{}", Operation::JwtKeys.path()),
        authorization_endpoint: String::new(),
        response_types_supported: texts(&["id_token"]),
        subject_types_supported: texts(&["public"]),
        id_token_signing_alg_values_supported: texts(&[jws_algorithm(site.authority.jwt_key().algorithm())]),
        claims_supported: texts(&["aud", "exp", "iat", "iss", "jti", "sub"]),
    };
    publish(&document, &headers)
}

/// The keys (RFC 7517 section 5).
pub(super) async fn keys(State(site): State<Arc<Site>>, headers: HeaderMap) -> Result<Response, HttpProblem> {
    let key = jwt_authority(site.authority.jwt_key(), "sig").map_err(HttpProblem::internal)?;
    let document = JwksBundle { keys: vec![key], spiffe_sequence: None, spiffe_refresh_hint: None };
    publish(&document, &headers)
}

fn publish(document: &impl Serialize, headers: &HeaderMap) -> Result<Response, HttpProblem> {
    let bytes = serde_json::to_vec(document).map_err(HttpProblem::internal)?;
    Ok(Published::new("application/json", bytes, MAX_AGE).answer(headers))
}
