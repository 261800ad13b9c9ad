//! What certificates are worth: revocation lists, OCSP, and the same as JSON; and the door without TLS where
//! relying parties fetch them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use chancery_api::{
    CertificateStatus, Operation, ProblemCode, RevocationView, StatusAnswer, StatusQuestion, StatusResponse,
    limits,
};
use chancery_revoke::{OcspAnswer, PublishedCrl};
use chancery_types::{RevocationReason, SerialNumber, Timestamp};
use chancery_x509::write_pem;
use data_encoding::{BASE64, BASE64_NOPAD};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};

use super::certificates::standing;
use super::{authorized, problem_of};
use crate::authority::AuthorityError;
use crate::published::{Published, http_date};
use crate::router::assemble_some;
use crate::site::Site;
use crate::{HttpProblem, Json, OcspBody, Path};

/// How long a cache may keep a list: a revocation should be seen soon, whatever `nextUpdate` allows.
const LIST_AGE: Duration = Duration::from_secs(30);
/// How long a question waits for the position that it names.
const PATIENCE: Duration = Duration::from_secs(2);
/// Seconds after which a list may be there that is not yet.
const RETRY: u64 = 5;

/// The door without TLS: what relying parties need before they trust anything, and nothing else.
pub(crate) fn status(site: &Site) -> Router {
    let site = Arc::new(site.clone());
    assemble_some(&site.chassis, Arc::clone(&site), |operation| {
        is_for_everybody(operation).then(|| authorized(&site, operation))
    })
}

fn is_for_everybody(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::IssuerCertificate
            | Operation::CrlDer
            | Operation::CrlPem
            | Operation::IssuerCrl
            | Operation::OcspGet
            | Operation::OcspPost
            | Operation::StatusSet
            | Operation::StatusDelta
            | Operation::Healthz
    )
}

/// What a certificate is worth, as JSON.
pub(crate) async fn certificate(
    State(site): State<Arc<Site>>,
    Path(serial): Path<SerialNumber>,
) -> Result<Json<StatusResponse>, HttpProblem> {
    let now = site.authority.clock().now();
    let record = site.authority.ledger().certificate(serial).await.map_err(problem_of)?;
    let record = record.ok_or_else(|| problem_of(AuthorityError::not_found("certificate", serial)))?;
    let (status, revocation) = standing(&record, now);
    Ok(Json(StatusResponse { serial, status, revocation, as_of: now }))
}

/// Which of many certificates are not good: from memory, so that a stranger's question costs little.
pub(crate) async fn of_many(
    State(site): State<Arc<Site>>,
    Json(question): Json<StatusQuestion>,
) -> Result<Json<StatusAnswer>, HttpProblem> {
    let limit = limits::STATUS_SERIALS;
    if question.serials.len() > limit {
        let detail =
            format!("{} serial numbers were asked about, at most {limit} may be", question.serials.len());
        return Err(HttpProblem::new(ProblemCode::MalformedRequest, &detail).field("/serials", detail));
    }
    let after = question.after.unwrap_or(0);
    if !has_reached(&site, after).await {
        return of_many_by_the_ledger(&site, &question.serials, after).await.map(Json);
    }
    let as_of = site.authority.clock().now();
    let lines = site.board.read();
    let not_good = question.serials.iter().filter_map(|serial| lines.get(*serial)).map(|line| {
        let is_held = line.reason == RevocationReason::CertificateHold;
        StatusResponse {
            serial: line.serial,
            status: if is_held { CertificateStatus::Held } else { CertificateStatus::Revoked },
            revocation: Some(RevocationView { reason: line.reason, at: line.at }),
            as_of,
        }
    });
    Ok(Json(StatusAnswer { sequence: lines.position(), not_good: not_good.collect() }))
}

/// Whether the board is right at this position, or is so soon. It moves with what changes status, and so may stand
/// behind a log in which nothing of that happened.
async fn has_reached(site: &Site, position: u64) -> bool {
    let mut news = site.board.news();
    let reached = async {
        while site.board.read().position() < position {
            // Told or missed: the board says itself how far it is.
            let _ = news.recv().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.is_ok()
}

/// The same by the ledger, one by one: after a wait, so that nobody has it done often.
async fn of_many_by_the_ledger(
    site: &Site,
    serials: &[SerialNumber],
    position: u64,
) -> Result<StatusAnswer, HttpProblem> {
    let ledger = site.authority.ledger();
    let (sequence, as_of) = (ledger.head().size, site.authority.clock().now());
    if sequence < position {
        let detail = format!("the log has {sequence} entries, and the question names position {position}");
        return Err(HttpProblem::new(ProblemCode::NotReady, detail).retry_after(RETRY));
    }
    let mut not_good = Vec::new();
    for serial in serials {
        let Some(record) = ledger.certificate(*serial).await.map_err(problem_of)? else { continue };
        let (status, revocation) = standing(&record, as_of);
        if matches!(status, CertificateStatus::Held | CertificateStatus::Revoked) {
            not_good.push(StatusResponse { serial: *serial, status, revocation, as_of });
        }
    }
    Ok(StatusAnswer { sequence, not_good })
}

/// The full list of the active issuer, DER.
pub(crate) async fn crl_der(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let list = current(&site)?;
    Ok(der(list).answer(&headers))
}

/// The same, PEM.
pub(crate) async fn crl_pem(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let list = current(&site)?;
    let bytes = Bytes::from(write_pem("X509 CRL", &list.der));
    Ok(Published { media_type: "application/x-pem-file", bytes, ..der(list) }.answer(&headers))
}

/// The full list of one issuer, DER: `1.crl`.
pub(crate) async fn issuer_crl(
    State(site): State<Arc<Site>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    if file != format!("{}.crl", site.crl.epoch()) {
        return Err(problem_of(AuthorityError::not_found("revocation list", file)));
    }
    Ok(der(current(&site)?).answer(&headers))
}

fn current(site: &Site) -> Result<Arc<PublishedCrl>, HttpProblem> {
    site.crl.current().ok_or_else(|| {
        HttpProblem::new(ProblemCode::NotReady, "no revocation list was published yet").retry_after(RETRY)
    })
}

fn der(list: Arc<PublishedCrl>) -> Published {
    /// Serves a list from where it is.
    struct InPlace(Arc<PublishedCrl>);

    impl AsRef<[u8]> for InPlace {
        fn as_ref(&self) -> &[u8] {
            &self.0.der
        }
    }

    Published {
        media_type: "application/pkix-crl",
        tag: list.hash,
        modified: Some(list.made),
        max_age: LIST_AGE,
        bytes: Bytes::from_owner(InPlace(list)),
    }
}

/// An OCSP request in the path (RFC 6960 appendix A.1).
pub(crate) async fn ocsp_get(State(site): State<Arc<Site>>, Path(request): Path<String>) -> Response {
    // What is not base64 is answered as what is not a request: by a malformedRequest.
    let request = decode_path(&request).unwrap_or_default();
    answer(&site, &request).await
}

/// An OCSP request in the body.
pub(crate) async fn ocsp_post(State(site): State<Arc<Site>>, OcspBody(request): OcspBody) -> Response {
    answer(&site, &request).await
}

async fn answer(site: &Site, request: &[u8]) -> Response {
    let now = site.authority.clock().now();
    ocsp_response(site.ocsp.answer(request).await, now)
}

/// Base64 as it stands behind `/ocsp/`, percent-decoded. Clients leave its `/` and `+` as they are, drop the
/// padding, use the alphabet for URLs, or double the slash in front; a `+` may have become a space on the way.
fn decode_path(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_start_matches('/').trim_end_matches('=');
    if text.len() > BASE64.encode_len(limits::OCSP_BYTES) {
        return None;
    }
    let text: String = text
        .chars()
        .map(|character| match character {
            '-' | ' ' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    BASE64_NOPAD.decode(text.as_bytes()).ok()
}

/// RFC 5019 section 6.2: caches may keep a good answer, and nobody may change it on the way.
fn ocsp_response(answer: OcspAnswer, now: Timestamp) -> Response {
    let mut response = Response::new(Body::from(answer.der));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/ocsp-response"));
    let Some(max_age) = answer.max_age else {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return response;
    };
    let control = format!("max-age={}, public, no-transform, must-revalidate", max_age.as_secs());
    headers.insert(CACHE_CONTROL, HeaderValue::from_str(&control).expect("it is visible ASCII"));
    headers.insert(LAST_MODIFIED, http_date(now));
    headers.insert(EXPIRES, http_date(now + max_age));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_base64_as_clients_send_it() {
        // Every byte value at every place of a quantum, so that the text has `/`, `+` and padding.
        let request: Vec<u8> = (0..=255).chain([255, 239, 190, 251]).collect();
        let text = BASE64.encode(&request);
        assert!(text.contains('/') && text.contains('+') && text.ends_with('='));
        let spellings = [
            text.clone(),
            text.trim_end_matches('=').to_owned(),
            format!("/{text}"),
            text.replace('+', "-").replace('/', "_"),
            text.replace('+', " "),
        ];
        for spelling in spellings {
            assert_eq!(decode_path(&spelling).as_deref(), Some(request.as_slice()), "{spelling}");
        }
    }

    #[test]
    fn refuses_what_is_not_base64_or_too_long() {
        for text in ["A", "MEI%", "MEI\u{e9}", "ME=I", &"A".repeat(limits::OCSP_BYTES * 2)] {
            assert_eq!(decode_path(text), None, "{text}");
        }
        assert_eq!(decode_path(&BASE64.encode(&[0; limits::OCSP_BYTES])).unwrap().len(), limits::OCSP_BYTES);
    }

    #[test]
    fn only_answers_without_nonce_are_cached() {
        let now = Timestamp::from_seconds(1_795_000_000);
        let answer = |max_age| ocsp_response(OcspAnswer { der: vec![0x30, 0], max_age }, now);
        let cached = answer(Some(Duration::from_secs(60)));
        assert_eq!(cached.headers()[CONTENT_TYPE], "application/ocsp-response");
        assert_eq!(cached.headers()[CACHE_CONTROL], "max-age=60, public, no-transform, must-revalidate");
        assert_eq!(cached.headers()[LAST_MODIFIED], "Wed, 18 Nov 2026 11:06:40 GMT");
        assert_eq!(cached.headers()[EXPIRES], "Wed, 18 Nov 2026 11:07:40 GMT");
        let own = answer(None);
        assert_eq!(own.headers()[CACHE_CONTROL], "no-store");
        assert!(!own.headers().contains_key(EXPIRES));
    }

    #[test]
    fn the_open_door_has_nothing_that_is_for_somebody() {
        for &operation in Operation::ALL {
            if is_for_everybody(operation) {
                assert_eq!(operation.audience(), chancery_api::Audience::Anybody, "{operation:?}");
            }
        }
        assert!(!is_for_everybody(Operation::Enroll) && !is_for_everybody(Operation::Nonce));
    }
}
