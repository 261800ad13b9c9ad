//! What handlers take out of a request. Whatever cannot be read becomes a problem that says where and why.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use chancery_api::{IDEMPOTENCY_KEY_HEADER, ProblemCode, limits};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, IF_MATCH};
use http::request::Parts;
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{HttpProblem, Peer};

/// A body that is JSON, in requests and in answers.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = HttpProblem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, HttpProblem> {
        require_media_type(request.headers(), "application/json")?;
        let bytes = whole_body(request).await?;
        // Every body is an object; one whose members may all be absent would be read from an empty array too.
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err(malformed("the body does not fit").field("", "it is an array, not an object"));
        }
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let pointer = json_pointer(error.path());
            malformed("the body does not fit").field(pointer, error.inner().to_string())
        })?;
        reader.end().map_err(|error| malformed("the body does not end").field("", error.to_string()))?;
        Ok(Self(value))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => {
                let media_type = http::HeaderValue::from_static("application/json");
                ([(CONTENT_TYPE, media_type)], bytes).into_response()
            }
            Err(error) => HttpProblem::internal(error).into_response(),
        }
    }
}

/// A body that is an OCSP request (RFC 6960 appendix A.1).
#[derive(Debug, Clone)]
pub struct OcspBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for OcspBody {
    type Rejection = HttpProblem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, HttpProblem> {
        require_media_type(request.headers(), "application/ocsp-request")?;
        whole_body(request).await.map(Self)
    }
}

/// The query string.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpProblem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| malformed("the query does not fit").field("", error.body_text()))
    }
}

/// The variable parts of the path.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(path)| Self(path))
            .map_err(|error| malformed("the path does not fit").field("", error.body_text()))
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller(pub Peer);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpProblem> {
        parts
            .extensions
            .get::<Peer>()
            .cloned()
            .map(Self)
            .ok_or_else(|| HttpProblem::internal("the request has no peer"))
    }
}

/// The caller's own name for the request: required where a repetition must have the first one's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub String);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpProblem> {
        let refused = |detail: &str| HttpProblem::new(ProblemCode::IdempotencyKeyInvalid, detail);
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY_HEADER).iter();
        let value = values.next().ok_or_else(|| refused("the Idempotency-Key header is missing"))?;
        if values.next().is_some() {
            return Err(refused("there is more than one Idempotency-Key header"));
        }
        let text = value.to_str().unwrap_or_default();
        let fits = (1..=limits::IDEMPOTENCY_KEY_CHARACTERS).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused("the Idempotency-Key header is not 1 to 128 visible ASCII characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for IdempotencyKey {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, HttpProblem> {
        if !parts.headers.contains_key(IDEMPOTENCY_KEY_HEADER) {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some)
    }
}

/// The version that a change is made to: `If-Match: "7"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedVersion(pub u64);

impl<S: Send + Sync> FromRequestParts<S> for ExpectedVersion {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpProblem> {
        parts
            .headers
            .get(IF_MATCH)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.strip_prefix('"')?.strip_suffix('"')?.parse().ok())
            .map(Self)
            .ok_or_else(|| {
                malformed("the If-Match header must name the version that is changed, such as \"7\"")
            })
    }
}

fn malformed(detail: &str) -> HttpProblem {
    HttpProblem::new(ProblemCode::MalformedRequest, detail)
}

fn require_media_type(headers: &HeaderMap, expected: &str) -> Result<(), HttpProblem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(HttpProblem::new(ProblemCode::UnsupportedMediaType, format!("the body must be {expected}")))
}

/// The gate has read the body within its limits before the handler is called.
async fn whole_body(request: Request) -> Result<Bytes, HttpProblem> {
    request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| malformed("the body broke off").because(error))
}

/// RFC 6901: `/items/3/key`.
fn json_pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use chancery_api::{BatchEnrollRequest, CertificateQuery};

    use super::*;

    fn post(media_type: &str, body: &str) -> Request {
        Request::post("/").header(CONTENT_TYPE, media_type).body(Body::from(body.to_owned())).unwrap()
    }

    async fn refusal(request: Request) -> chancery_api::Problem {
        Json::<BatchEnrollRequest>::from_request(request, &()).await.unwrap_err().into_problem()
    }

    #[tokio::test]
    async fn says_which_part_of_the_body_is_wrong() {
        let body = r#"{"items":[{"identity":"spiffe://e/x","key":{"csr":"AQID"},"ttl":1}]}"#;
        let problem = refusal(post("application/json", body)).await;
        assert_eq!(problem.code, "malformed-request");
        assert_eq!(problem.errors[0].pointer, "/items/0/ttl");
        assert!(problem.errors[0].detail.contains("unknown field `ttl`"));
        let problem = refusal(post("application/json", r#"{"items":[]} {}"#)).await;
        assert_eq!(problem.detail, "the body does not end");
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(refusal(post("application/json", &deep)).await.code, "malformed-request");
    }

    #[tokio::test]
    async fn reads_json_only_when_it_says_so() {
        let request = post("application/json; charset=utf-8", r#"{"items":[]}"#);
        assert!(Json::<BatchEnrollRequest>::from_request(request, &()).await.is_ok());
        let problem = refusal(post("text/plain", r#"{"items":[]}"#)).await;
        assert_eq!(problem.code, "unsupported-media-type");
        let wrong = OcspBody::from_request(post("application/json", "{}"), &()).await.unwrap_err();
        assert_eq!(wrong.code(), ProblemCode::UnsupportedMediaType);
    }

    async fn parts<T: FromRequestParts<(), Rejection = HttpProblem>>(
        request: Request,
    ) -> Result<T, ProblemCode> {
        let (mut parts, _) = request.into_parts();
        T::from_request_parts(&mut parts, &()).await.map_err(|problem| problem.code())
    }

    #[tokio::test]
    async fn refuses_conditions_that_it_does_not_know() {
        let get = |uri: &str| Request::get(uri).body(Body::empty()).unwrap();
        let query = parts::<Query<CertificateQuery>>(get("/?status=held&limit=3")).await.unwrap();
        assert_eq!(query.0.limit, Some(3));
        for uri in ["/?stat=held", "/?status=lost", "/?limit=x", "/?limit=1&limit=2"] {
            let refused = parts::<Query<CertificateQuery>>(get(uri)).await;
            assert_eq!(refused.unwrap_err(), ProblemCode::MalformedRequest, "{uri}");
        }
    }

    #[tokio::test]
    async fn idempotency_keys_are_required_single_and_visible() {
        let with = |keys: &[&str]| {
            let request = Request::post("/");
            keys.iter()
                .fold(request, |request, key| request.header(IDEMPOTENCY_KEY_HEADER, *key))
                .body(Body::empty())
                .unwrap()
        };
        assert_eq!(parts::<IdempotencyKey>(with(&["k1"])).await.unwrap().0, "k1");
        for keys in [vec![], vec!["a", "b"], vec![""], vec!["a b"], vec![&*"k".repeat(129)]] {
            let refused = parts::<IdempotencyKey>(with(&keys)).await.unwrap_err();
            assert_eq!(refused, ProblemCode::IdempotencyKeyInvalid, "{keys:?}");
        }
    }

    #[tokio::test]
    async fn a_change_names_its_version() {
        let with = |text: &str| Request::put("/").header(IF_MATCH, text).body(Body::empty()).unwrap();
        assert_eq!(parts::<ExpectedVersion>(with("\"7\"")).await.unwrap(), ExpectedVersion(7));
        for text in ["7", "*", "W/\"7\"", "\"x\""] {
            assert!(parts::<ExpectedVersion>(with(text)).await.is_err(), "{text}");
        }
    }
}
