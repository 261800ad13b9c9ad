//! What is in force, and what it would decide.

use std::sync::Arc;

use axum::extract::State;
use chancery_api::{
    PolicyCheckRequest, PolicyCheckResponse, PolicyFile, PolicyView, ProblemCode, ProfileView,
};
use chancery_attest::Subject;
use chancery_entry::Entry;
use chancery_policy::{
    Action, CallerFacts, EvidenceFacts, IssueContext, OperatorDecision, OperatorRequest, Requested,
    RequestedKey, ResourceFacts, Supposition,
};
use chancery_types::{AssuranceLevel, Digest, EvidenceKind, KeyAlgorithm};

use super::certificates::{outcome, reductions};
use super::identities::record;
use super::problem_of;
use crate::authority::Rules;
use crate::site::Site;
use crate::{HttpProblem, Json};

pub(super) async fn read(State(site): State<Arc<Site>>) -> Result<Json<PolicyView>, HttpProblem> {
    let rules = site.authority.rules();
    let version = rules.engine().policy_hash();
    let ledger = site.authority.ledger();
    let mut since = Default::default();
    if let Some(index) = ledger.policy(version).await.map_err(problem_of)?.first() {
        let entry = ledger.entry(*index).await.map_err(problem_of)?;
        since =
            entry.and_then(|bytes| Entry::decode(&bytes).ok()).map(|entry| entry.time).unwrap_or_default();
    }
    let mut sources = rules.sources().iter();
    let schema = sources.next().map(|source| source.text.clone()).unwrap_or_default();
    let policies =
        sources.map(|source| PolicyFile { name: source.name.clone(), text: source.text.clone() }).collect();
    let profiles = rules
        .profiles()
        .map(|profile| ProfileView {
            name: profile.name().to_owned(),
            hash: profile.hash(),
            text: profile.text().to_owned(),
        })
        .collect();
    Ok(Json(PolicyView { version, since, schema, policies, profiles }))
}

pub(super) async fn check(
    State(site): State<Arc<Site>>,
    Json(request): Json<PolicyCheckRequest>,
) -> Result<Json<PolicyCheckResponse>, HttpProblem> {
    let rules = site.authority.rules();
    match request.action.as_str() {
        "enroll" | "enrol" | "renew" => check_issue(&site, &rules, request).await.map(Json),
        other => {
            let action: Action = other.parse().map_err(|error: chancery_policy::UnknownAction| {
                HttpProblem::new(ProblemCode::MalformedRequest, error.to_string()).field("/action", "unknown")
            })?;
            check_call(&site, &rules, action, request).await.map(Json)
        }
    }
}

async fn check_issue(
    site: &Site,
    rules: &Rules,
    request: PolicyCheckRequest,
) -> Result<PolicyCheckResponse, HttpProblem> {
    let id = request.identity.ok_or_else(|| {
        HttpProblem::new(ProblemCode::MalformedRequest, "say which identity it is about")
            .field("/identity", "missing")
    })?;
    let record = record(site, &id).await?;
    let name = request.profile.clone().unwrap_or_else(|| {
        record.identity.allowed_profiles().first().map_or_else(String::new, |n| (*n).to_owned())
    });
    let profile = rules.profile(&name).map_err(problem_of)?;
    let requested = Requested {
        names: Vec::new(),
        lifetime: request.lifetime,
        key: RequestedKey {
            algorithm: profile.key_algorithms().first().copied().unwrap_or(KeyAlgorithm::P256),
            fingerprint: Digest::default(),
        },
        audiences: Vec::new(),
    };
    let receipt = rules.engine().consider(Supposition {
        identity: Arc::new(record.identity),
        identity_state: record.state,
        template: None,
        evidence: EvidenceFacts {
            kind: EvidenceKind::Operator,
            subject: Subject::Named(id),
            claims: request.claims,
            assurance: request.assurance.unwrap_or(AssuranceLevel::SharedSecret),
            repeatable: false,
            bound_key: None,
            hash: Digest::default(),
        },
        renewal: None,
        profile: Arc::clone(profile),
        requested,
        context: IssueContext::at(site.authority.clock().now()),
        alternatives: &[],
    });
    let (would_permit, errors) = match receipt.refusal {
        Some(refusal) if refusal.alarm => (None, vec![refusal.reason]),
        Some(refusal) => (refusal.smallest_change.or(Some(refusal.reason)), Vec::new()),
        None => (None, Vec::new()),
    };
    Ok(PolicyCheckResponse {
        outcome: outcome(receipt.outcome),
        determining: receipt.policies,
        reduced: receipt.granted.map(|grant| reductions(grant.reductions)).unwrap_or_default(),
        would_permit,
        errors,
        policy_version: receipt.policy_hash,
    })
}

async fn check_call(
    site: &Site,
    rules: &Rules,
    action: Action,
    request: PolicyCheckRequest,
) -> Result<PolicyCheckResponse, HttpProblem> {
    let caller = match &request.operator {
        Some(operator) => CallerFacts::mtls(operator, request.role),
        None => CallerFacts::anonymous(),
    };
    let resource = match &request.identity {
        Some(id) => ResourceFacts::of("identity", id.as_str(), &record(site, id).await?.identity),
        None => ResourceFacts::the("any"),
    };
    let asked = OperatorRequest::new(caller, action, resource, site.authority.clock().now());
    let policy_version = rules.engine().policy_hash();
    Ok(match rules.engine().decide_operator(asked) {
        OperatorDecision::Permitted(receipt) => PolicyCheckResponse {
            outcome: outcome(receipt.outcome),
            determining: receipt.policies,
            reduced: Vec::new(),
            would_permit: None,
            errors: Vec::new(),
            policy_version,
        },
        OperatorDecision::Denied(denial) => PolicyCheckResponse {
            outcome: outcome(denial.receipt.outcome),
            determining: denial.receipt.policies,
            reduced: Vec::new(),
            would_permit: denial.smallest_change,
            errors: if denial.alarm { vec![denial.reason] } else { Vec::new() },
            policy_version,
        },
    })
}
