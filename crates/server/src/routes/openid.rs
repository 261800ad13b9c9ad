//! What lets those who know OpenID Connect and not SPIFFE verify our tokens: clouds, mostly.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use chancery_api::{JwksBundle, OpenIdConfiguration, Operation};
use http::HeaderMap;
use serde::Serialize;

use super::problem_of;
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
    let mut algorithms: Vec<String> = Vec::new();
    for key in site.authority.jwt_keys().await.map_err(problem_of)? {
        let name = jws_algorithm(key.algorithm()).to_owned();
        if !algorithms.contains(&name) {
            algorithms.push(name);
        }
    }
    let document = OpenIdConfiguration {
        issuer: url.clone(),
        jwks_uri: format!("{url}{}", Operation::JwtKeys.path()),
        authorization_endpoint: String::new(),
        response_types_supported: texts(&["id_token"]),
        subject_types_supported: texts(&["public"]),
        id_token_signing_alg_values_supported: algorithms,
        claims_supported: texts(&["aud", "exp", "iat", "iss", "jti", "sub"]),
    };
    publish(&document, &headers)
}

/// The keys (RFC 7517 section 5).
pub(super) async fn keys(State(site): State<Arc<Site>>, headers: HeaderMap) -> Result<Response, HttpProblem> {
    let keys = site.authority.jwt_keys().await.map_err(problem_of)?;
    let keys = keys.iter().map(|key| jwt_authority(key, "sig")).collect::<Result<_, _>>();
    let keys = keys.map_err(HttpProblem::internal)?;
    let document = JwksBundle { keys, spiffe_sequence: None, spiffe_refresh_hint: None };
    publish(&document, &headers)
}

fn publish(document: &impl Serialize, headers: &HeaderMap) -> Result<Response, HttpProblem> {
    let bytes = serde_json::to_vec(document).map_err(HttpProblem::internal)?;
    Ok(Published::new("application/json", bytes, MAX_AGE).answer(headers))
}
