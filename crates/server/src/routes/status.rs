//! What certificates are worth: revocation lists, OCSP, and the same as JSON; and the door without TLS where
//! relying parties fetch them.

use std::ffi::OsStr;
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
use chancery_revoke::{OcspAnswer, Place, PublishedCrl};
use chancery_types::{CrlShard, IssuerEpoch, RevocationReason, SerialNumber, Timestamp};
use chancery_x509::write_pem;
use data_encoding::{BASE64, BASE64_NOPAD};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::certificates::standing;
use super::{authorized, problem_of};
use crate::authority::AuthorityError;
use crate::published::{Published, http_date, names_tag};
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
            | Operation::ShardCrl
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
    if file == "chain.pem" {
        return Ok(Published::new("application/x-pem-file", chain(&site)?, LIST_AGE).answer(&headers));
    }
    if file == "roots.pem" {
        let lists: String = root_lists(&site)?.iter().map(|(_, list)| write_pem("X509 CRL", list)).collect();
        if lists.is_empty() {
            return Err(no_list(file));
        }
        return Ok(Published::new("application/x-pem-file", lists, LIST_AGE).answer(&headers));
    }
    if file.starts_with("root") {
        let found = root_lists(&site)?.into_iter().find(|(name, _)| *name == file);
        let (_, list) = found.ok_or_else(|| no_list(file))?;
        return Ok(Published::new("application/pkix-crl", list, LIST_AGE).answer(&headers));
    }
    let place = number(&file).and_then(|epoch| site.crl.full(IssuerEpoch(epoch)));
    let place = place.ok_or_else(|| no_list(file))?;
    Ok(der(in_place(&place)?).answer(&headers))
}

/// The lists that somebody made where the roots' keys are, and put beside the first root's certificate: `root.crl`, and
/// `root-2.crl` or whatever else follows the dash for other roots. By name.
fn root_lists(site: &Site) -> Result<Vec<(String, Vec<u8>)>, HttpProblem> {
    let first = &site.authority.config().root_certificate;
    let stem = first.file_stem().and_then(OsStr::to_str).unwrap_or("root");
    let entries = first.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    let mut lists = Vec::new();
    for entry in entries.into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name();
        let Some(ending) = name.to_str().and_then(|name| name.strip_prefix(stem)) else { continue };
        if ending == ".crl" || (ending.starts_with('-') && ending.ends_with(".crl")) {
            let list = site.authority.roots().list_in(&entry.path()).map_err(HttpProblem::internal)?;
            lists.extend(list.map(|list| (format!("root{ending}"), list)));
        }
    }
    lists.sort();
    Ok(lists)
}

/// The full lists of all issuers and the roots', for programs that want one from every authority of a chain.
fn chain(site: &Site) -> Result<String, HttpProblem> {
    let mut pem = String::new();
    for place in site.crl.places().filter(|place| place.shard().is_none()) {
        pem.push_str(&write_pem("X509 CRL", &in_place(&place)?.der));
    }
    for (_, list) in root_lists(site)? {
        pem.push_str(&write_pem("X509 CRL", &list));
    }
    Ok(pem)
}

/// The list of one part of an issuer's certificates, DER: `/crl/1/16/3.crl`.
pub(crate) async fn shard_crl(
    State(site): State<Arc<Site>>,
    Path((epoch, shards, file)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let name = |text: &str| text.parse::<u16>().ok().filter(|number| number.to_string() == text);
    let shard = name(&shards).zip(number(&file)).and_then(|(of, number)| CrlShard::new(number, of).ok());
    let place = name(&epoch).zip(shard).and_then(|(epoch, shard)| site.crl.part(IssuerEpoch(epoch), shard));
    let place = place.ok_or_else(|| no_list(format!("{epoch}/{shards}/{file}")))?;
    Ok(der(in_place(&place)?).answer(&headers))
}

/// The number in `3.crl`, spelt in the one way that certificates have.
fn number(file: &str) -> Option<u16> {
    let text = file.strip_suffix(".crl")?;
    text.parse::<u16>().ok().filter(|number| number.to_string() == text)
}

fn no_list(name: String) -> HttpProblem {
    problem_of(AuthorityError::not_found("revocation list", name))
}

fn current(site: &Site) -> Result<Arc<PublishedCrl>, HttpProblem> {
    let epoch = site.authority.workflow().issuer().epoch();
    let place = site.crl.full(epoch).ok_or_else(|| no_list(format!("{epoch}.crl")))?;
    in_place(&place)
}

fn in_place(place: &Place) -> Result<Arc<PublishedCrl>, HttpProblem> {
    place.current().ok_or_else(|| {
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
pub(crate) async fn ocsp_get(
    State(site): State<Arc<Site>>,
    Path(request): Path<String>,
    headers: HeaderMap,
) -> Response {
    // What is not base64 is answered as what is not a request: by a malformedRequest.
    let request = decode_path(&request).unwrap_or_default();
    ocsp_response(site.ocsp.answer(&request).await, now(&site), Some(&headers))
}

/// An OCSP request in the body.
pub(crate) async fn ocsp_post(State(site): State<Arc<Site>>, OcspBody(request): OcspBody) -> Response {
    ocsp_response(site.ocsp.answer(&request).await, now(&site), None)
}

fn now(site: &Site) -> Timestamp {
    site.authority.clock().now()
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

/// RFC 9919 section 6: caches may keep a good answer, and nobody may change it on the way. Who asks by GET and has it
/// already is only told how long it may be kept.
fn ocsp_response(answer: OcspAnswer, now: Timestamp, request: Option<&HeaderMap>) -> Response {
    let tag = answer.shared.map(|shared| format!("\"{}\"", shared.tag));
    let is_known = tag.as_ref().zip(request).is_some_and(|(tag, request)| names_tag(request, tag));
    let mut response = match is_known {
        true => Response::new(Body::empty()),
        false => Response::new(Body::from(answer.der)),
    };
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/ocsp-response"));
    let (Some(shared), Some(tag)) = (answer.shared, tag) else {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return response;
    };
    let visible = |text: &str| HeaderValue::from_str(text).expect("it is visible ASCII");
    let control = format!("max-age={}, public, no-transform, must-revalidate", shared.max_age.as_secs());
    headers.insert(CACHE_CONTROL, visible(&control));
    headers.insert(ETAG, visible(&tag));
    headers.insert(LAST_MODIFIED, http_date(shared.made));
    headers.insert(EXPIRES, http_date(now + shared.max_age));
    response
}

#[cfg(test)]
mod tests {
    use chancery_revoke::SharedAnswer;
    use chancery_types::Digest;
    use http::header::IF_NONE_MATCH;

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
        let der = Bytes::from_static(&[0x30, 0]);
        let shared = SharedAnswer { made: now, max_age: Duration::from_secs(60), tag: Digest::of(&der) };
        let answer = |shared, request: Option<&HeaderMap>| {
            ocsp_response(OcspAnswer { der: der.clone(), shared }, now, request)
        };
        let cached = answer(Some(shared), None);
        assert_eq!(cached.headers()[CONTENT_TYPE], "application/ocsp-response");
        assert_eq!(cached.headers()[CACHE_CONTROL], "max-age=60, public, no-transform, must-revalidate");
        assert_eq!(cached.headers()[LAST_MODIFIED], "Wed, 18 Nov 2026 11:06:40 GMT");
        assert_eq!(cached.headers()[EXPIRES], "Wed, 18 Nov 2026 11:07:40 GMT");
        let known = HeaderMap::from_iter([(IF_NONE_MATCH, cached.headers()[ETAG].clone())]);
        assert_eq!(answer(Some(shared), Some(&known)).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(answer(None, Some(&known)).status(), StatusCode::OK);
        let own = answer(None, None);
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
