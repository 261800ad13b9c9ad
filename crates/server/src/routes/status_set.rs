//! The exact set and its deltas, as relying parties fetch them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chancery_api::ProblemCode;
use chancery_revoke::PublishedSet;
use chancery_types::Digest;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, StatusCode};

use crate::published::Published;
use crate::site::Site;
use crate::{HttpProblem, Path};

/// The set with its signature.
pub(crate) const SET_MEDIA_TYPE: &str = "application/vnd.chancery.status-set";
/// A delta with the signature of what it makes.
pub(crate) const DELTA_MEDIA_TYPE: &str = "application/vnd.chancery.status-delta";
/// How long a cache may keep the set: about as long as versions are apart.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Seconds after which the first version is there.
const RETRY: u64 = 2;

/// The current version.
pub(crate) async fn current(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let set = in_place(&site)?;
    let bytes = set.bytes().clone();
    // No date: the clock may have stepped back between two versions, and the tag says all.
    let document =
        Published { media_type: SET_MEDIA_TYPE, tag: set.tag(), modified: None, max_age: MAX_AGE, bytes };
    Ok(document.answer(&headers))
}

/// The way from an earlier version to the current one.
pub(crate) async fn delta(
    State(site): State<Arc<Site>>,
    Path(from): Path<u64>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let set = in_place(&site)?;
    if set.set().sequence() == from {
        return Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response());
    }
    let publisher = Arc::clone(&site.set);
    let made = {
        let set = Arc::clone(&set);
        tokio::task::spawn_blocking(move || publisher.delta(&set, from)).await
    };
    match made.map_err(HttpProblem::internal)?.map_err(HttpProblem::internal)? {
        Some(bytes) => {
            let tag = Digest::of(format!("{} {from}", set.tag()).as_bytes());
            let document =
                Published { media_type: DELTA_MEDIA_TYPE, tag, modified: None, max_age: MAX_AGE, bytes };
            Ok(document.answer(&headers))
        }
        None => {
            let detail = format!("there is no delta from {from}; fetch the whole set at /v1/status/set");
            Err(HttpProblem::new(ProblemCode::NotFound, detail))
        }
    }
}

fn in_place(site: &Site) -> Result<Arc<PublishedSet>, HttpProblem> {
    site.set.current().ok_or_else(|| {
        HttpProblem::new(ProblemCode::NotReady, "no exact set was published yet").retry_after(RETRY)
    })
}
