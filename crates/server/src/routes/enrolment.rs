//! Enrolment, renewal, batches, nonces.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use chancery_api::{
    Base64Bytes, BatchEnrollRequest, BatchEnrollResponse, BatchItem, BatchResult, CsrDer, EnrollRequest,
    EnrollResponse, Evidence as ApiEvidence, Ignored as ApiIgnored, KeyMaterial, NonceResponse, ProblemCode,
    Reduction as ApiReduction, RenewRequest, TimeWindow, limits,
};
use chancery_attest::{
    Evidence, Nonce, OperatorChannel, OperatorEvidence, PopEvidence, RenewalEvidence, TokenEvidence,
};
use chancery_issue::Issued;
use chancery_policy::{Action, ResourceFacts};
use chancery_types::{Digest, SpiffeId};
use chancery_x509::{Certificate, ProvenRequest, PublicKey, write_pem};
use serde::Serialize;
use zeroize::Zeroizing;

use super::access::Who;
use super::{log, problem_of};
use crate::authority::{Enrolled, Enrolment, Requester, Wish};
use crate::site::Site;
use crate::{HttpProblem, IdempotencyKey, Json};

pub(super) async fn enroll(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    key: Option<IdempotencyKey>,
    Json(request): Json<EnrollRequest>,
) -> Result<Json<EnrollResponse>, HttpProblem> {
    let idempotency = idempotency(&who, key.as_ref(), &request);
    let wants_receipt = request.receipt;
    let enrolment = Enrolment {
        request: prove(&site, &request.csr)?,
        evidence: evidence(request.evidence, request.identity.clone())?,
        wish: Wish { profile: request.profile, lifetime: request.lifetime, identity: request.identity },
        requester: requester(&who),
        idempotency,
    };
    let enrolled = site.authority.enroll(enrolment).await.map_err(problem_of)?;
    response(&site, enrolled, wants_receipt).await.map(Json)
}

pub(super) async fn renew(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    key: Option<IdempotencyKey>,
    Json(request): Json<RenewRequest>,
) -> Result<Json<EnrollResponse>, HttpProblem> {
    let idempotency = idempotency(&who, key.as_ref(), &request);
    let certificate = who.certificate().ok_or_else(no_certificate)?.to_vec();
    let enrolment = Enrolment {
        request: prove(&site, &request.csr)?,
        evidence: Evidence::Renewal(RenewalEvidence { certificate }),
        wish: Wish { lifetime: request.lifetime, ..Wish::default() },
        requester: requester(&who),
        idempotency,
    };
    let enrolled = site.authority.enroll(enrolment).await.map_err(problem_of)?;
    response(&site, enrolled, request.receipt).await.map(Json)
}

pub(super) async fn enroll_batch(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<BatchEnrollRequest>,
) -> Result<Json<BatchEnrollResponse>, HttpProblem> {
    check_batch(request.items.len())?;
    let certificate = who.certificate().ok_or_else(no_certificate)?.to_vec();
    let mut items = Vec::with_capacity(request.items.len());
    for item in request.items {
        let receipt = item.receipt;
        items.push((batch_item(&site, &who, &certificate, item).await, receipt));
    }
    Ok(Json(issue_each(&site, items).await))
}

/// Whether a batch may have so many items.
pub(super) fn check_batch(count: usize) -> Result<(), HttpProblem> {
    if count <= limits::BATCH_ITEMS {
        return Ok(());
    }
    let detail = format!("a batch has at most {} items, this one has {count}", limits::BATCH_ITEMS);
    Err(HttpProblem::new(ProblemCode::TooManyItems, detail).field("/items", "too many"))
}

/// Issues to the items that are enrolments, with one commit; beside each stands whether it wants a receipt. One result
/// for each item, in their order.
pub(super) async fn issue_each(
    site: &Site,
    items: Vec<(Result<Enrolment, HttpProblem>, bool)>,
) -> BatchEnrollResponse {
    let mut enrolments = Vec::with_capacity(items.len());
    let mut waiting = Vec::with_capacity(items.len());
    for (item, wants_receipt) in items {
        waiting.push((item.map(|enrolment| enrolments.push(enrolment)), wants_receipt));
    }
    let mut enrolled = site.authority.enroll_batch(enrolments).await.into_iter();
    let mut results = Vec::with_capacity(waiting.len());
    for (item, wants_receipt) in waiting {
        let result = match item {
            Err(problem) => Err(problem),
            Ok(()) => match enrolled.next().expect("one result for each enrolment") {
                Ok(enrolled) => response(site, enrolled, wants_receipt).await,
                Err(error) => Err(problem_of(error)),
            },
        };
        results.push(match result {
            Ok(response) => BatchResult::Issued(Box::new(response)),
            Err(problem) => BatchResult::Refused(Box::new(problem.into_problem())),
        });
    }
    BatchEnrollResponse { results }
}

/// An item that policy lets this caller vouch for.
async fn batch_item(
    site: &Site,
    who: &Who,
    certificate: &[u8],
    item: BatchItem,
) -> Result<Enrolment, HttpProblem> {
    let known = site.authority.identity(&item.identity).await.map_err(problem_of)?;
    let (identity, _) = known.ok_or_else(|| {
        HttpProblem::new(ProblemCode::NotFound, format!("there is no identity {}", item.identity))
    })?;
    let resource = ResourceFacts::of("identity", item.identity.as_str(), &identity);
    site.permit(who, Action::CertificateRequest, resource, None).await?;
    let request = match item.key {
        KeyMaterial::Csr(csr) => prove(site, &csr)?,
        KeyMaterial::PublicKey(key) => {
            let key = PublicKey::from_spki_der(key.as_der()).map_err(problem_of)?;
            // What stands for possession is the caller's own certificate, which the evidence records.
            let evidence = Digest::of(certificate);
            ProvenRequest::dangerous_key_vouched_by_attested_agent(key, Vec::new(), evidence)
        }
    };
    let channel = OperatorChannel::Mtls { certificate: certificate.to_vec(), peer: who.address };
    let evidence = OperatorEvidence { channel, identity: item.identity, approval: None };
    Ok(Enrolment {
        request,
        evidence: Evidence::Operator(evidence),
        wish: Wish { profile: item.profile, lifetime: item.lifetime, identity: None },
        requester: requester(who),
        idempotency: None,
    })
}

pub(super) async fn nonce(State(site): State<Arc<Site>>) -> Result<Json<NonceResponse>, HttpProblem> {
    let now = site.authority.clock().now();
    let nonce = site
        .authority
        .nonces()
        .issue(now)
        .await
        .map_err(|error| problem_of(chancery_attest::AttestError::from(error)))?;
    let expires = now + std::time::Duration::from_secs(limits::NONCE_SECONDS);
    Ok(Json(NonceResponse { nonce: Base64Bytes(nonce.as_bytes().to_vec()), expires }))
}

pub(super) fn prove(site: &Site, csr: &CsrDer) -> Result<ProvenRequest, HttpProblem> {
    site.authority.prove(csr.as_der()).map_err(|error| problem_of(error).field("/csr", "not usable"))
}

pub(super) fn requester(who: &Who) -> Requester {
    Requester { name: who.name(), address: who.address }
}

fn no_certificate() -> HttpProblem {
    HttpProblem::new(ProblemCode::CertificateRequired, "there is no client certificate on the connection")
}

fn evidence(evidence: ApiEvidence, identity: Option<SpiffeId>) -> Result<Evidence, HttpProblem> {
    Ok(match evidence {
        ApiEvidence::JoinToken { token } => Evidence::JoinToken(TokenEvidence { token }),
        ApiEvidence::X509Pop { chain, nonce, signature } => Evidence::X509Pop(PopEvidence {
            chain: chain.into_iter().map(chancery_api::CertificateDer::into_der).collect(),
            nonce: read_nonce(&nonce)?,
            signature: signature.0,
            wanted: identity,
        }),
    })
}

pub(super) fn read_nonce(nonce: &Base64Bytes) -> Result<Nonce, HttpProblem> {
    let bytes: [u8; 32] = nonce
        .0
        .as_slice()
        .try_into()
        .map_err(|_| HttpProblem::new(ProblemCode::NonceUnknown, "a nonce of ours has 32 bytes"))?;
    Ok(Nonce::from_array(bytes))
}

/// Hash over the caller, its key and the whole request: the same request again finds the first one's result.
fn idempotency(who: &Who, key: Option<&IdempotencyKey>, request: &impl Serialize) -> Option<Digest> {
    let key = &key?.0;
    // The request may hold a token's secret.
    let body = Zeroizing::new(serde_json::to_vec(request).ok()?);
    let certificate = who.certificate().map(Digest::of).unwrap_or_default();
    let mut transcript = b"chancery idempotency v1\0".to_vec();
    transcript.extend_from_slice(certificate.as_bytes());
    transcript.extend_from_slice(Digest::of(key.as_bytes()).as_bytes());
    transcript.extend_from_slice(Digest::of(&body).as_bytes());
    Some(Digest::of(&transcript))
}

pub(super) async fn response(
    site: &Site,
    enrolled: Enrolled,
    wants_receipt: bool,
) -> Result<EnrollResponse, HttpProblem> {
    let Enrolled { issued, assurance, reductions, ignored } = enrolled;
    let receipt = match wants_receipt {
        true => Some(log::receipt(site, issued.index()).await?),
        false => None,
    };
    Ok(EnrollResponse {
        serial: issued.serial(),
        spiffe_id: issued.identity().clone(),
        profile: issued.profile().to_owned(),
        certificate: write_pem("CERTIFICATE", issued.der()),
        chain: chain_pem(site, issued.issuer_der()),
        not_before: issued.not_before(),
        not_after: issued.not_after(),
        renew_after: renewal_window(&issued),
        lineage: issued.lineage(),
        generation: issued.generation(),
        assurance,
        reduced: reductions
            .into_iter()
            .map(|reduction| ApiReduction {
                what: reduction.what,
                asked: reduction.asked,
                granted: reduction.granted,
                because: reduction.because,
            })
            .collect(),
        ignored: ignored
            .iter()
            .map(|ignored| ApiIgnored {
                what: ignored.to_string(),
                because: "this authority does not take it from requests".to_owned(),
            })
            .collect(),
        log_index: issued.index(),
        receipt,
    })
}

/// The issuer, and what stands above it up to the oldest root that is trusted, without that.
pub(super) fn chain_pem(site: &Site, issuer: &[u8]) -> String {
    let mut pem = write_pem("CERTIFICATE", issuer);
    let roots = site.authority.roots();
    if let Ok(issuer) = Certificate::from_der(issuer) {
        pem.extend(roots.above(&issuer).iter().map(|one| write_pem("CERTIFICATE", one.der())));
    }
    pem
}

/// From a fifth of the life to 45 %: load is spread, and whoever keeps to it lives through an authority that is away
/// for half of a life, whenever that begins.
fn renewal_window(issued: &Issued) -> TimeWindow {
    let life = issued.not_after().since(issued.not_before());
    TimeWindow { start: issued.not_before() + life / 5, end: issued.not_before() + life * 9 / 20 }
}
