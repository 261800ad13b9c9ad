//! Revoking, holding, releasing.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use chancery_api::{
    ChangeAction, ChangeResponse, Enforcement, HoldRequest, KeyProof, KeySource, ProblemCode, ReleaseRequest,
    RelyingPartyView, RevokeRequest, Selector as ApiSelector, Waves, WhenUnknown, key_compromise_message,
    limits,
};
use chancery_entry::Step;
use chancery_policy::{Action, Factor, ResourceFacts};
use chancery_revoke::{Aim, Asker, Asking, Hand, Intent, Order, Radius, Scope, Selector};
use chancery_types::{Digest, RevocationReason};
use chancery_x509::{Certificate, PublicKey};

use super::access::Who;
use super::enrolment::read_nonce;
use super::identities::note;
use super::{changes, problem_of};
use crate::site::Site;
use crate::{HttpProblem, Json};

pub(super) async fn revoke(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<RevokeRequest>,
) -> Result<Json<ChangeResponse>, HttpProblem> {
    let note = note(&request.note)?;
    if let ApiSelector::KeyProof(proof) = &request.selector {
        return revoke_with_proof(&site, proof, &request, note).await;
    }
    if request.reason == RevocationReason::CertificateHold {
        let detail = "certificate-hold is not a revocation; use POST /v1/hold";
        return Err(HttpProblem::new(ProblemCode::MalformedRequest, detail).field("/reason", detail));
    }
    let order = Order {
        action: ChangeAction::Revoke,
        scope: scope(request.selector, request.within)?,
        reason: request.reason,
        block: request.block,
        waves: None,
    };
    let asked = Asked {
        dry_run: request.dry_run,
        yes_really: request.yes_really,
        without_approval: request.dangerous_without_approval,
        note,
    };
    carry_out(&site, &who, order, asked).await
}

pub(super) async fn hold(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<HoldRequest>,
) -> Result<Json<ChangeResponse>, HttpProblem> {
    let note = note(&request.note)?;
    let order = Order {
        action: ChangeAction::Hold,
        scope: scope(request.selector, request.within)?,
        reason: RevocationReason::CertificateHold,
        block: request.block,
        waves: request.waves.map(checked).transpose()?,
    };
    let asked = Asked {
        dry_run: request.dry_run,
        yes_really: request.yes_really,
        without_approval: request.dangerous_without_approval,
        note,
    };
    carry_out(&site, &who, order, asked).await
}

pub(super) async fn release(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<ReleaseRequest>,
) -> Result<Json<ChangeResponse>, HttpProblem> {
    let note = note(&request.note)?;
    let scope = scope(request.selector, request.within)?;
    let by = who.name();
    let radius = radius_of(&site, &scope, Aim::Release, looks(&by)).await?;
    let resource = facts(&site, &scope, &radius).await?;
    let affected = Some(radius.blast.certificates);
    site.permit(&who, Action::CertificateRelease, resource, affected).await?;
    if request.dry_run {
        return Ok(Json(counted(radius)));
    }
    let before = site.authority.ledger().head().size;
    let released = site.authority.revoker().release_scope(&scope, Hand::of(&by, note)).await;
    Ok(Json(done(&site, released.map_err(problem_of)?, before)))
}

/// No role is needed: whoever can sign with a key has shown that it is not its owner's alone.
async fn revoke_with_proof(
    site: &Site,
    proof: &KeyProof,
    request: &RevokeRequest,
    note: &str,
) -> Result<Json<ChangeResponse>, HttpProblem> {
    if !request.within.is_empty() || request.block {
        let detail = "a proof of a leaked key ends everything with the key, and nothing else";
        return Err(HttpProblem::new(ProblemCode::MalformedRequest, detail));
    }
    let key = proven_key(site, proof).await?;
    let scope = Scope::from(Selector::Key(key));
    let reason = RevocationReason::KeyCompromise;
    let by = format!("key-holder:{key}");
    let radius = radius_of(site, &scope, Aim::Revoke(reason), looks(&by)).await?;
    if request.dry_run {
        // Whose it is, and what else they have, is nothing for strangers.
        return Ok(Json(ChangeResponse { radius: None, ..counted(radius) }));
    }
    let before = site.authority.ledger().head().size;
    let revoked = site.authority.revoker().revoke(&scope, reason, Hand::of(&by, note)).await;
    Ok(Json(done(site, revoked.map_err(problem_of)?, before)))
}

/// What a caller says besides what is to be done.
struct Asked<'a> {
    dry_run: bool,
    yes_really: bool,
    without_approval: bool,
    note: &'a str,
}

/// Looks at what would be hit, asks policy, and does it at once, records it as a change that runs, or as one that
/// waits for approval.
async fn carry_out(
    site: &Arc<Site>,
    who: &Who,
    order: Order,
    asked: Asked<'_>,
) -> Result<Json<ChangeResponse>, HttpProblem> {
    let by = who.name();
    let intent = if asked.dry_run { Intent::Look } else { Intent::Act };
    let mut radius = radius_of(site, &order.scope, order.aim(), Asker { by: &by, intent }).await?;
    let reason = permit(site, who, &order, &radius).await?;
    radius.blast.needs_approval = radius.blast.needs_approval.take().or(reason);
    if asked.dry_run {
        return Ok(Json(counted(radius)));
    }
    let step = match &radius.blast.needs_approval {
        None => Some(Step::Begun),
        Some(why) if asked.without_approval => {
            if who.facts.factor != Factor::LocalSocket {
                let detail = "only the local administrator can dispense with approval, over the admin socket";
                return Err(HttpProblem::new(ProblemCode::NotPermitted, detail));
            }
            tracing::error!(by = %who.name(), scope = %order.scope, %why, "A LARGE CHANGE RUNS WITHOUT APPROVAL");
            Some(Step::Overridden)
        }
        Some(_) if asked.yes_really => None,
        Some(why) => return Err(HttpProblem::new(ProblemCode::ApprovalNeeded, why)),
    };
    let is_small = radius.blast.certificates <= radius.blast.limits.floor;
    if is_small && order.waves.is_none() && step == Some(Step::Begun) {
        return at_once(site, who, &order, asked.note).await;
    }
    as_change(site, who, &order, radius, &asked, step).await
}

async fn at_once(
    site: &Site,
    who: &Who,
    order: &Order,
    note: &str,
) -> Result<Json<ChangeResponse>, HttpProblem> {
    let before = site.authority.ledger().head().size;
    let (revoker, by) = (site.authority.revoker(), who.name());
    let hand = Hand::of(&by, note);
    if order.block {
        revoker.block_identities(&order.scope, hand).await.map_err(problem_of)?;
    }
    let operation = match order.action {
        ChangeAction::Revoke => revoker.revoke(&order.scope, order.reason, hand).await,
        ChangeAction::Hold => revoker.hold_scope(&order.scope, hand).await,
    };
    Ok(Json(done(site, operation.map_err(problem_of)?, before)))
}

async fn as_change(
    site: &Arc<Site>,
    who: &Who,
    order: &Order,
    mut radius: Radius,
    asked: &Asked<'_>,
    step: Option<Step>,
) -> Result<Json<ChangeResponse>, HttpProblem> {
    let by = who.name();
    let expires = site.authority.clock().now() + site.authority.config().approval_lifetime;
    let asking = Asking { by: &by, note: asked.note, expires };
    let revoker = site.authority.revoker();
    let change = revoker.ask_for_change(order, &radius.blast, asking, step).await.map_err(problem_of)?;
    radius.settle();
    if step.is_some() {
        site.changes.go_on(change);
    } else {
        tracing::warn!(change, %by, scope = %order.scope, "a large change waits for approval");
    }
    let record = site.changes.wait(change, 0, changes::PATIENCE).await.map_err(problem_of)?;
    let record = record.ok_or_else(|| HttpProblem::internal("a change that was recorded is not there"))?;
    let view = changes::view(site, &record)?;
    Ok(Json(ChangeResponse {
        count: view.changed,
        serials: if view.changed > 0 { radius.serials } else { Vec::new() },
        operation: (view.changed > 0).then_some(change),
        sequence: Some(view.sequence),
        dry_run: false,
        radius: Some(radius.blast),
        change: Some(view),
    }))
}

/// What an aim would hit, and who will enforce it.
pub(super) async fn radius_of(
    site: &Site,
    scope: &Scope,
    aim: Aim,
    asker: Asker<'_>,
) -> Result<Radius, HttpProblem> {
    let limits = site.authority.config().change_limits;
    let mut radius = site.authority.revoker().preview(scope, aim, limits, asker).await.map_err(problem_of)?;
    radius.blast.enforcement = Some(enforcement(site.feed.relying_parties().relying_parties));
    Ok(radius)
}

/// Somebody who only looks.
pub(super) fn looks(by: &str) -> Asker<'_> {
    Asker { by, intent: Intent::Look }
}

fn enforcement(parties: Vec<RelyingPartyView>) -> Enforcement {
    let mut enforcement = Enforcement::default();
    for party in parties {
        match (party.connected, party.acknowledgement.when_unknown) {
            (true, _) => enforcement.at_once += 1,
            (false, WhenUnknown::Closed) => enforcement.when_too_old += 1,
            (false, WhenUnknown::Open) => enforcement.not_at_all += 1,
        }
        if !party.connected && enforcement.silent.len() < limits::LISTED_PARTS {
            enforcement.silent.push(party);
        }
    }
    enforcement
}

/// Whether policy permits it; if only with an approval, why.
async fn permit(
    site: &Site,
    who: &Who,
    order: &Order,
    radius: &Radius,
) -> Result<Option<String>, HttpProblem> {
    let resource = facts(site, &order.scope, radius).await?;
    let affected = Some(radius.blast.certificates);
    if order.block {
        site.permit(who, Action::IdentityHold, resource.clone(), Some(radius.blast.identities)).await?;
    }
    let action = match order.action {
        ChangeAction::Revoke => Action::CertificateRevoke,
        ChangeAction::Hold => Action::CertificateHold,
    };
    let Some(denial) = site.decide(who, action, resource.clone(), affected, None) else { return Ok(None) };
    match site.decide(who, action, resource, affected, Some("asked for".to_owned())) {
        None => Ok(Some(denial.reason)),
        Some(_) => Err(site.denied(who, denial).await),
    }
}

/// Policy hears whose certificates they are when they are all of one identity, how many, and the mightiest role of
/// anybody who is hit.
pub(super) async fn facts(site: &Site, scope: &Scope, radius: &Radius) -> Result<ResourceFacts, HttpProblem> {
    let mut resource =
        ResourceFacts { kind: "certificate".into(), id: scope.to_string(), ..Default::default() };
    if let Some(only) = radius.only_identity.as_ref().or(scope.identity())
        && let Some(record) = site.authority.ledger().identity(only).await.map_err(problem_of)?
    {
        resource = ResourceFacts::of("certificate", &scope.to_string(), &record.identity);
    }
    resource.role = radius.role.or(resource.role);
    Ok(resource)
}

fn counted(radius: Radius) -> ChangeResponse {
    ChangeResponse {
        count: radius.blast.certificates,
        serials: radius.serials,
        operation: None,
        sequence: None,
        dry_run: true,
        radius: Some(radius.blast),
        change: None,
    }
}

fn done(site: &Site, operation: chancery_revoke::Operation, before: u64) -> ChangeResponse {
    ChangeResponse {
        count: operation.changed as u64,
        operation: (operation.changed > 0).then_some(before),
        sequence: Some(site.authority.ledger().head().size),
        serials: operation.serials,
        dry_run: false,
        radius: None,
        change: None,
    }
}

fn scope(first: ApiSelector, within: Vec<ApiSelector>) -> Result<Scope, HttpProblem> {
    if within.len() >= limits::SELECTORS {
        let detail = format!("{} selectors, at most {} are taken", within.len() + 1, limits::SELECTORS);
        return Err(HttpProblem::new(ProblemCode::TooManyItems, &detail).field("/within", detail));
    }
    let within = within.into_iter().map(selector).collect::<Result<Vec<_>, _>>()?;
    Ok(Scope::new(selector(first)?, within))
}

/// Waves that rise to 100, with a pause that somebody can wait for.
fn checked(waves: Waves) -> Result<Waves, HttpProblem> {
    let rises = waves.shares.windows(2).all(|pair| pair[0] < pair[1]);
    let is_whole = waves.shares.last() == Some(&100) && waves.shares.first().is_some_and(|first| *first > 0);
    if !rises || !is_whole || waves.shares.len() > limits::WAVES {
        let detail = format!("waves rise from 1 to 100 percent and end with 100, at most {}", limits::WAVES);
        return Err(HttpProblem::new(ProblemCode::MalformedRequest, &detail).field("/waves/shares", detail));
    }
    if waves.pause.0.as_secs() > limits::WAVE_PAUSE_SECONDS {
        let detail = "a pause lasts a day at most";
        return Err(HttpProblem::new(ProblemCode::MalformedRequest, detail).field("/waves/pause", detail));
    }
    Ok(waves)
}

fn selector(selector: ApiSelector) -> Result<Selector, HttpProblem> {
    let malformed = |detail: String, pointer: &str| {
        HttpProblem::new(ProblemCode::MalformedRequest, &detail).field(pointer, detail)
    };
    Ok(match selector {
        ApiSelector::Serial(serial) => Selector::Serial(serial),
        ApiSelector::Identity(identity) => Selector::Identity(identity),
        ApiSelector::Under(above) => Selector::Under(above),
        ApiSelector::Lineage(lineage) => Selector::Lineage(lineage),
        ApiSelector::Key(KeySource::PublicKey(key)) => Selector::Key(Digest::of(key.as_der())),
        ApiSelector::Key(KeySource::Certificate(certificate)) => {
            let certificate = Certificate::from_der(certificate.as_der())
                .map_err(|error| malformed(format!("not a certificate: {error}"), "/selector/key"))?;
            Selector::Key(Digest::of(certificate.tbs().spki_der()))
        }
        ApiSelector::Node(node) => Selector::Node(node),
        ApiSelector::Claim(claim) => Selector::Claim(claim),
        ApiSelector::Owner(owner) => Selector::Owner(named(owner)?),
        ApiSelector::Team(team) => Selector::Team(named(team)?),
        ApiSelector::Environment(environment) => Selector::Environment(named(environment)?),
        ApiSelector::Issuer(epoch) => Selector::Issuer(epoch),
        ApiSelector::KeyProof(_) => {
            let detail = "a proof of a leaked key stands alone, and revokes for good";
            return Err(HttpProblem::new(ProblemCode::MalformedRequest, detail));
        }
    })
}

/// A name that an identity can have.
fn named(name: String) -> Result<String, HttpProblem> {
    if name.is_empty() || name.chars().count() > 256 {
        let detail = "a name has 1 to 256 characters";
        return Err(HttpProblem::new(ProblemCode::MalformedRequest, detail).field("/selector", detail));
    }
    Ok(name)
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
