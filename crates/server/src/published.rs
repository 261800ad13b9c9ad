//! Documents that anybody may fetch and keep for a while, with what HTTP caches need to know of them.

use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use chancery_types::{Digest, Timestamp};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode};

/// A document of this moment.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// What it is.
    pub(crate) media_type: &'static str,
    /// The document.
    pub(crate) bytes: Bytes,
    /// SHA-256 of it, or of what alone it is made from.
    pub(crate) tag: Digest,
    /// When it was made, where that is known.
    pub(crate) modified: Option<Timestamp>,
    /// How long a cache may use it without asking again.
    pub(crate) max_age: Duration,
}

impl Published {
    /// A small document without a date.
    pub(crate) fn new(media_type: &'static str, bytes: impl Into<Bytes>, max_age: Duration) -> Self {
        let bytes = bytes.into();
        Self { media_type, tag: Digest::of(&bytes), bytes, modified: None, max_age }
    }

    /// The document, or word that what the caller has is still it (RFC 9110 section 13.2.2).
    pub(crate) fn answer(self, request: &HeaderMap) -> Response {
        let tag = format!("\"{}\"", self.tag);
        let is_known = match request.get(IF_NONE_MATCH) {
            Some(_) => names_tag(request, &tag),
            None => self.modified.is_some_and(|modified| is_not_newer(request, modified)),
        };
        let mut response = if is_known {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let mut response = Response::new(Body::from(self.bytes));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
            response
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, text(&tag));
        headers.insert(CACHE_CONTROL, text(&format!("public, max-age={}", self.max_age.as_secs())));
        if let Some(modified) = self.modified {
            headers.insert(LAST_MODIFIED, http_date(modified));
        }
        response
    }
}

/// A moment as HTTP writes it (RFC 9110 section 5.6.7).
pub(crate) fn http_date(moment: Timestamp) -> HeaderValue {
    let seconds = u64::try_from(moment.seconds()).unwrap_or(0);
    // The form has four digits for the year.
    let seconds = seconds.min(Timestamp::MAX.seconds().unsigned_abs());
    text(&httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)))
}

/// `*`, or this tag in the list, weak or strong: for GET the two are compared weakly.
pub(crate) fn names_tag(request: &HeaderMap, tag: &str) -> bool {
    request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn is_not_newer(request: &HeaderMap, modified: Timestamp) -> bool {
    request
        .get(IF_MODIFIED_SINCE)
        .and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok())
        .and_then(|since| i64::try_from(since.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok())
        .is_some_and(|since| modified.seconds() <= since)
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("dates, numbers and hexadecimal are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Published {
        Published {
            modified: Some(Timestamp::from_millis(1_795_000_000_700)),
            ..Published::new("application/pkix-crl", b"list".as_slice(), Duration::from_secs(30))
        }
    }

    fn answer(headers: &[(http::HeaderName, &str)]) -> Response {
        let request =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        document().answer(&request.collect())
    }

    #[test]
    fn says_what_it_is_and_how_long_it_may_be_kept() {
        let response = answer(&[]);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/pkix-crl");
        assert_eq!(response.headers()[CACHE_CONTROL], "public, max-age=30");
        assert_eq!(response.headers()[LAST_MODIFIED], "Wed, 18 Nov 2026 11:06:40 GMT");
    }

    #[test]
    fn sends_nothing_to_whoever_has_it() {
        let tag = answer(&[]).headers()[ETAG].to_str().unwrap().to_owned();
        let held = [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".into()];
        for held in held {
            let response = answer(&[(IF_NONE_MATCH, &held)]);
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{held}");
            assert_eq!(response.headers()[ETAG], tag.as_str());
            assert!(!response.headers().contains_key(CONTENT_TYPE));
        }
        let date = "Wed, 18 Nov 2026 11:06:40 GMT";
        assert_eq!(answer(&[(IF_MODIFIED_SINCE, date)]).status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn sends_it_to_whoever_has_another_or_cannot_say() {
        let late = "Thu, 19 Nov 2026 11:06:40 GMT";
        let conditions: [&[(http::HeaderName, &str)]; 5] = [
            &[(IF_NONE_MATCH, "\"other\"")],
            &[(IF_NONE_MATCH, "nonsense")],
            &[(IF_MODIFIED_SINCE, "Wed, 18 Nov 2026 11:06:39 GMT")],
            &[(IF_MODIFIED_SINCE, "yesterday")],
            // The tag decides alone when both are there.
            &[(IF_NONE_MATCH, "\"other\""), (IF_MODIFIED_SINCE, late)],
        ];
        for headers in conditions {
            assert_eq!(answer(headers).status(), StatusCode::OK, "{headers:?}");
        }
    }

    #[test]
    fn writes_dates_of_every_year() {
        assert_eq!(http_date(Timestamp::from_millis(i64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(http_date(Timestamp::from_millis(-1)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
