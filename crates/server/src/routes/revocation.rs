//! Revoking, holding, releasing.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use chancery_api::{
    ChangeResponse, HoldRequest, KeyProof, KeySource, ProblemCode, ReleaseRequest, RevokeRequest,
    Selector as ApiSelector, key_compromise_message, limits,
};
use chancery_attest::Nonces as _;
use chancery_entry::HoldTarget;
use chancery_ledger::CertificateState;
use chancery_policy::{Action, ResourceFacts};
use chancery_revoke::{Selection, Selector};
use chancery_types::{Digest, RevocationReason, SerialNumber};
use chancery_x509::{Certificate, PublicKey};

use super::access::Who;
use super::enrolment::read_nonce;
use super::identities::note;
use super::problem_of;
use crate::site::Site;
use crate::{HttpProblem, Json};

pub(super) async fn revoke(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<RevokeRequest>,
) -> Result<Json<ChangeResponse>, HttpProblem> {
    let note = note(&request.note)?;
    let (selector, reason, by) = match request.selector {
        // No role is needed: whoever can sign with a key has shown that it is not its owner's alone.
        ApiSelector::KeyProof(proof) => {
            let key = proven_key(&site, &proof).await?;
            (Selector::Key(key), RevocationReason::KeyCompromise, format!("key-holder:{key}"))
        }
        other => {
            let selector = selector(other)?;
            let selection = preview(&site, &selector).await?;
            permit(&site, &who, Action::CertificateRevoke, &selector, &selection).await?;
            (selector, request.reason, who.name())
        }
    };
    if reason == RevocationReason::CertificateHold {
        let detail = "certificate-hold is not a revocation; use POST /v1/hold";
        return Err(HttpProblem::new(ProblemCode::MalformedRequest, detail).field("/reason", detail));
    }
    if request.dry_run {
        let serials = preview(&site, &selector).await?.revocable().map(|record| record.serial).collect();
        return Ok(Json(changed(serials, None, true)));
    }
    let before = site.authority.ledger().head().size;
    let operation =
        site.authority.revoker().revoke(&selector, reason, &by, note).await.map_err(problem_of)?;
    Ok(Json(changed(operation.serials, Some(before), false)))
}

pub(super) async fn hold(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<HoldRequest>,
) -> Result<Json<ChangeResponse>, HttpProblem> {
    let note = note(&request.note)?;
    let selector = selector(request.selector)?;
    let selection = preview(&site, &selector).await?;
    permit(&site, &who, Action::CertificateHold, &selector, &selection).await?;
    let wanted = in_state(&selection, |state| matches!(state, CertificateState::Good));
    if request.dry_run {
        return Ok(Json(changed(wanted, None, true)));
    }
    let before = site.authority.ledger().head().size;
    let revoker = site.authority.revoker();
    match selector {
        Selector::Lineage(lineage) => {
            let target = HoldTarget::Lineage(lineage);
            revoker.hold(target, "operator", &who.name(), note).await.map_err(problem_of)?;
        }
        _ => {
            for serial in &wanted {
                let target = HoldTarget::Certificate(*serial);
                revoker.hold(target, "operator", &who.name(), note).await.map_err(problem_of)?;
            }
        }
    }
    Ok(Json(changed(wanted, Some(before), false)))
}

pub(super) async fn release(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<ReleaseRequest>,
) -> Result<Json<ChangeResponse>, HttpProblem> {
    let note = note(&request.note)?;
    let selector = selector(request.selector)?;
    let selection = preview(&site, &selector).await?;
    permit(&site, &who, Action::CertificateRelease, &selector, &selection).await?;
    let wanted = in_state(&selection, |state| matches!(state, CertificateState::Held { .. }));
    if request.dry_run {
        return Ok(Json(changed(wanted, None, true)));
    }
    let before = site.authority.ledger().head().size;
    let revoker = site.authority.revoker();
    match selector {
        Selector::Lineage(lineage) => {
            revoker.release(HoldTarget::Lineage(lineage), &who.name(), note).await.map_err(problem_of)?;
        }
        _ => {
            for serial in &wanted {
                let target = HoldTarget::Certificate(*serial);
                revoker.release(target, &who.name(), note).await.map_err(problem_of)?;
            }
        }
    }
    Ok(Json(changed(wanted, Some(before), false)))
}

async fn preview(site: &Site, selector: &Selector) -> Result<Selection, HttpProblem> {
    site.authority.revoker().preview(selector).await.map_err(problem_of)
}

/// Policy hears whose certificates they are when they are all of one identity, and how many.
async fn permit(
    site: &Site,
    who: &Who,
    action: Action,
    selector: &Selector,
    selection: &Selection,
) -> Result<(), HttpProblem> {
    let mut resource =
        ResourceFacts { kind: "certificate".into(), id: selector.to_string(), ..Default::default() };
    if let [only] = selection.identities().as_slice()
        && let Some(record) = site.authority.ledger().identity(only).await.map_err(problem_of)?
    {
        resource = ResourceFacts::of("certificate", &selector.to_string(), &record.identity);
    }
    site.permit(who, action, resource, Some(selection.certificates.len() as u64)).await
}

fn in_state(selection: &Selection, wanted: impl Fn(&CertificateState) -> bool) -> Vec<SerialNumber> {
    let matching = selection.certificates.iter().filter(|record| wanted(&record.state));
    matching.map(|record| record.serial).collect()
}

fn selector(selector: ApiSelector) -> Result<Selector, HttpProblem> {
    Ok(match selector {
        ApiSelector::Serial(serial) => Selector::Serial(serial),
        ApiSelector::Identity(identity) => Selector::Identity(identity),
        ApiSelector::Lineage(lineage) => Selector::Lineage(lineage),
        ApiSelector::Key(KeySource::PublicKey(key)) => Selector::Key(Digest::of(key.as_der())),
        ApiSelector::Key(KeySource::Certificate(certificate)) => {
            let certificate = Certificate::from_der(certificate.as_der()).map_err(|error| {
                HttpProblem::new(ProblemCode::MalformedRequest, error.to_string())
                    .field("/selector/key", "not a certificate")
            })?;
            Selector::Key(Digest::of(certificate.tbs().spki_der()))
        }
        ApiSelector::Node(node) => Selector::Node(node),
        ApiSelector::KeyProof(_) => {
            let detail = "a proof of a leaked key revokes for good; it neither holds nor releases";
            return Err(HttpProblem::new(ProblemCode::MalformedRequest, detail));
        }
    })
}

/// The key whose holder signed our nonce with it.
async fn proven_key(site: &Site, proof: &KeyProof) -> Result<Digest, HttpProblem> {
    let refused = |detail: String| HttpProblem::new(ProblemCode::KeyProofRefused, detail);
    let now = site.authority.clock().now();
    let nonce = read_nonce(&proof.nonce)?;
    let is_ours = site
        .authority
        .nonces()
        .consume(&nonce, now)
        .await
        .map_err(|error| problem_of(chancery_attest::AttestError::from(error)))?;
    if !is_ours {
        return Err(HttpProblem::new(ProblemCode::NonceUnknown, "fetch a nonce and sign that one"));
    }
    let key =
        PublicKey::from_spki_der(proof.public_key.as_der()).map_err(|error| refused(error.to_string()))?;
    let message =
        key_compromise_message(nonce.as_bytes(), &site.authority.config().trust_domain, &key.fingerprint());
    key.verify(key.algorithm().signature_algorithm(), &message, &proof.signature.0)
        .map_err(|error| refused(error.to_string()))?;
    Ok(key.fingerprint())
}

fn changed(serials: Vec<SerialNumber>, operation: Option<u64>, dry_run: bool) -> ChangeResponse {
    let count = serials.len() as u64;
    let mut serials = serials;
    serials.truncate(limits::LISTED_SERIALS);
    ChangeResponse { count, serials, operation: operation.filter(|_| count > 0), dry_run }
}
