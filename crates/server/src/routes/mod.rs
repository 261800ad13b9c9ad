//! From requests to the authority and back: one module for each noun, errors to problems in one place.

mod access;
mod agents;
mod audit;
mod certificates;
mod changes;
mod enrolment;
mod feed;
mod identities;
mod log;
mod openid;
mod operators;
mod policy;
mod renewals;
mod revocation;
mod rotation;
mod ssf;
mod status;
mod status_set;
mod templates;
mod tokens;
mod trust;

#[cfg(test)]
pub(crate) use log::read_tile;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;
use chancery_api::{Operation, ProblemCode};
use chancery_attest::{AttestError, Fault, NonceError, PopError, RenewalError, TokenError, WorkloadError};
use chancery_issue::{IssueError, PrepareError, RecordError};
use chancery_ledger::{CommitError, Conflict, Precondition, Standing};
use chancery_policy::RefusalCode;
use chancery_revoke::OperationError;
use chancery_x509::RequestError;

use crate::authority::AuthorityError;
use crate::router::{assemble, chassis_route, handle};
use crate::site::Site;
use crate::{Chassis, HttpProblem};

pub(crate) use status::status;
pub(crate) use status_set::{DELTA_MEDIA_TYPE, SET_MEDIA_TYPE};

/// Every operation, each behind its gate and its policy action.
pub(crate) fn all(site: &Site) -> Router {
    let site = Arc::new(site.clone());
    assemble(&site.chassis, Arc::clone(&site), |operation| authorized(&site, operation))
}

/// The route of an operation, behind its policy action.
pub(crate) fn authorized(site: &Arc<Site>, operation: Operation) -> MethodRouter<Arc<Site>> {
    route(operation, &site.chassis)
        .route_layer(from_fn_with_state((Arc::clone(site), operation), access::authorize))
}

fn route(operation: Operation, chassis: &Arc<Chassis>) -> MethodRouter<Arc<Site>> {
    match operation {
        Operation::Enroll => handle(operation, enrolment::enroll),
        Operation::EnrollBatch => handle(operation, enrolment::enroll_batch),
        Operation::Nonce => handle(operation, enrolment::nonce),
        Operation::Renew => handle(operation, enrolment::renew),
        Operation::AgentStream => handle(operation, agents::stream),
        Operation::AgentSvids => handle(operation, agents::svids),
        Operation::AgentJwt => handle(operation, agents::jwt),
        Operation::OpenIdConfiguration => handle(operation, openid::configuration),
        Operation::JwtKeys => handle(operation, openid::keys),
        Operation::CreateToken => handle(operation, tokens::create),
        Operation::ListTokens => handle(operation, tokens::list),
        Operation::RevokeToken => handle(operation, tokens::revoke),
        Operation::RegisterIdentity => handle(operation, identities::register),
        Operation::ListIdentities => handle(operation, identities::list),
        Operation::ReadIdentity => handle(operation, identities::read),
        Operation::ChangeIdentity => handle(operation, identities::change),
        Operation::RetireIdentity => handle(operation, identities::retire),
        Operation::HoldIdentity => handle(operation, identities::hold),
        Operation::ReleaseIdentity => handle(operation, identities::release),
        Operation::RegisterTemplate => handle(operation, templates::register),
        Operation::ListTemplates => handle(operation, templates::list),
        Operation::ReadTemplate => handle(operation, templates::read),
        Operation::ChangeTemplate => handle(operation, templates::change),
        Operation::RemoveTemplate => handle(operation, templates::remove),
        Operation::ListCertificates => handle(operation, certificates::list),
        Operation::ReadCertificate => handle(operation, certificates::read),
        Operation::Why => handle(operation, certificates::why),
        Operation::Revoke => handle(operation, revocation::revoke),
        Operation::Hold => handle(operation, revocation::hold),
        Operation::Release => handle(operation, revocation::release),
        Operation::ListChanges => handle(operation, changes::list),
        Operation::ReadChange => handle(operation, changes::read),
        Operation::ApproveChange => handle(operation, changes::approve),
        Operation::WithdrawChange => handle(operation, changes::withdraw),
        Operation::PauseChange => handle(operation, changes::pause),
        Operation::ResumeChange => handle(operation, changes::resume),
        Operation::UndoChange => handle(operation, changes::undo),
        Operation::AskRenewal => handle(operation, renewals::ask),
        Operation::CaStatus => handle(operation, rotation::status),
        Operation::CaRotate => handle(operation, rotation::rotate),
        Operation::CaRollback => handle(operation, rotation::roll_back),
        Operation::CaAddRoot => handle(operation, rotation::add_root),
        Operation::CaTaint => handle(operation, rotation::taint),
        Operation::StatusOfMany => handle(operation, status::of_many),
        Operation::Status => handle(operation, status::certificate),
        Operation::StatusSet => handle(operation, status_set::current),
        Operation::StatusDelta => handle(operation, status_set::delta),
        Operation::StatusFeed => handle(operation, feed::follow),
        Operation::PollStatusFeed => handle(operation, feed::poll),
        Operation::FollowStatus => handle(operation, feed::grpc),
        Operation::Acknowledge => handle(operation, feed::acknowledge),
        Operation::ListRelyingParties => handle(operation, feed::relying_parties),
        Operation::SsfConfiguration => handle(operation, ssf::configuration),
        Operation::CreateStream => handle(operation, ssf::create),
        Operation::ReadStream => handle(operation, ssf::read),
        Operation::UpdateStream => handle(operation, ssf::update),
        Operation::ReplaceStream => handle(operation, ssf::replace),
        Operation::DeleteStream => handle(operation, ssf::delete),
        Operation::ReadStreamStatus => handle(operation, ssf::status),
        Operation::SetStreamStatus => handle(operation, ssf::set_status),
        Operation::VerifyStream => handle(operation, ssf::verify),
        Operation::PollStream => handle(operation, ssf::poll),
        Operation::ListEventStreams => handle(operation, ssf::list),
        Operation::CrlDer => handle(operation, status::crl_der),
        Operation::CrlPem => handle(operation, status::crl_pem),
        Operation::IssuerCrl => handle(operation, status::issuer_crl),
        Operation::ShardCrl => handle(operation, status::shard_crl),
        Operation::OcspGet => handle(operation, status::ocsp_get),
        Operation::OcspPost => handle(operation, status::ocsp_post),
        Operation::Bundle => handle(operation, trust::bundle),
        Operation::BundleJson => handle(operation, trust::bundle_json),
        Operation::Issuers => handle(operation, trust::issuers),
        Operation::IssuerCertificate => handle(operation, trust::issuer_certificate),
        Operation::LogCheckpoint => handle(operation, log::checkpoint),
        Operation::LogTile => handle(operation, log::tile),
        Operation::LogEntries => handle(operation, log::entries),
        Operation::LogProof => handle(operation, log::proof),
        Operation::LogKey => handle(operation, log::key),
        Operation::LogKeys => handle(operation, log::keys),
        Operation::ExportAudit => handle(operation, audit::export),
        Operation::ReadPolicy => handle(operation, policy::read),
        Operation::CheckPolicy => handle(operation, policy::check),
        Operation::CreateOperator => handle(operation, operators::create),
        Operation::Healthz | Operation::Readyz | Operation::Metrics | Operation::OpenApi => {
            chassis_route(operation, chassis).expect("the chassis serves these four")
        }
    }
}

/// Seconds after which a request that failed for want of disk or of a working process may be tried again.
const RETRY: u64 = 5;

/// What the caller is told about an error of the authority.
pub(crate) fn problem_of(error: impl Into<AuthorityError>) -> HttpProblem {
    let error = error.into();
    let text = error.to_string();
    match error {
        AuthorityError::Request(error) => {
            let code = match &error {
                RequestError::PublicKey(_) => ProblemCode::KeyRefused,
                RequestError::ExtensionCritical(_) => ProblemCode::ExtensionRefused,
                _ => ProblemCode::InvalidCsr,
            };
            HttpProblem::new(code, text)
        }
        AuthorityError::PublicKey(_) | AuthorityError::WeakKey(_) => {
            HttpProblem::new(ProblemCode::KeyRefused, text)
        }
        AuthorityError::Attest(error) => attest_problem(&error),
        AuthorityError::Fork(_) => HttpProblem::new(ProblemCode::LineageForked, text),
        AuthorityError::Refused(refused) => {
            let mut detail = refused.refusal.reason.clone();
            if let Some(change) = &refused.refusal.smallest_change {
                detail.push_str("; it would be permitted if ");
                detail.push_str(change);
            }
            HttpProblem::new(refusal_code(refused.refusal.code), detail)
                .field("policy", refused.refusal.code.as_str())
        }
        AuthorityError::NoIdentity => HttpProblem::new(ProblemCode::NoMatchingIdentity, text),
        AuthorityError::Ambiguous(_) => HttpProblem::new(ProblemCode::AmbiguousIdentity, text),
        AuthorityError::NotFound { kind: "profile", .. } => {
            HttpProblem::new(ProblemCode::UnknownProfile, text)
        }
        AuthorityError::NotFound { .. } => HttpProblem::new(ProblemCode::NotFound, text),
        AuthorityError::Invalid { field, why } => {
            let code = match field {
                "identity" | "spiffe_id" | "profiles" => ProblemCode::InvalidIdentity,
                "template" | "parameters" => ProblemCode::InvalidTemplate,
                _ => ProblemCode::MalformedRequest,
            };
            HttpProblem::new(code, format!("{field}: {why}")).field(format!("/{field}"), why)
        }
        AuthorityError::Conflict(conflict) => conflict_problem(&conflict),
        AuthorityError::Operation(error) => match error {
            OperationError::NothingFound(_) => HttpProblem::new(ProblemCode::NotFound, text),
            OperationError::Conflict(conflict) => conflict_problem(&conflict),
            OperationError::Commit { error, .. } => commit_problem(&error),
            OperationError::Model(error) => unreadable(error),
            OperationError::TooLong(_) => HttpProblem::new(ProblemCode::MalformedRequest, text),
            OperationError::Unreadable { .. } => HttpProblem::internal(text),
        },
        AuthorityError::Issue(error) => issue_problem(error),
        AuthorityError::Sign(error) => HttpProblem::new(
            ProblemCode::KeyUnavailable,
            "the certificate is recorded and could not be signed",
        )
        .retry_after(RETRY)
        .because(error),
        AuthorityError::Jwt(error) => {
            HttpProblem::new(ProblemCode::KeyUnavailable, "the token could not be signed")
                .retry_after(RETRY)
                .because(error)
        }
        AuthorityError::Commit(error) => commit_problem(&error),
        AuthorityError::Model(error) => unreadable(error),
        AuthorityError::Read(error) => unreadable(error),
        AuthorityError::Random(error) => HttpProblem::internal(error),
    }
}

/// The records cannot be read: at this moment, as far as anybody knows.
fn unreadable(error: impl std::fmt::Display) -> HttpProblem {
    let text = error.to_string();
    HttpProblem::new(ProblemCode::LedgerUnavailable, &text).retry_after(RETRY).because(text)
}

fn attest_problem(error: &AttestError) -> HttpProblem {
    let text = error.to_string();
    if error.fault() == Fault::Internal {
        return match error {
            AttestError::Nonces(NonceError::TooMany { .. }) => {
                HttpProblem::new(ProblemCode::Overloaded, text).retry_after(RETRY)
            }
            _ => unreadable(text),
        };
    }
    let code = match error {
        AttestError::Token(TokenError::Spent) => ProblemCode::TokenSpent,
        AttestError::Token(TokenError::Expired { .. }) => ProblemCode::EvidenceExpired,
        AttestError::Pop(PopError::Nonce) => ProblemCode::NonceUnknown,
        AttestError::Renewal(RenewalError::NotGood { .. }) => ProblemCode::CertificateRevoked,
        AttestError::Renewal(RenewalError::LineageFork { .. }) => ProblemCode::LineageForked,
        AttestError::Workload(WorkloadError::NotGood { .. }) => ProblemCode::CertificateNotAccepted,
        AttestError::Workload(WorkloadError::NotANode { .. }) => ProblemCode::NotPermitted,
        AttestError::Workload(WorkloadError::NotServed { .. } | WorkloadError::Selectors { .. }) => {
            ProblemCode::NoMatchingIdentity
        }
        AttestError::Renewal(RenewalError::Expired { .. }) => ProblemCode::EvidenceExpired,
        _ => ProblemCode::EvidenceRefused,
    };
    HttpProblem::new(code, text)
}

fn refusal_code(code: RefusalCode) -> ProblemCode {
    match code {
        RefusalCode::IdentityHeld => ProblemCode::IdentityHeld,
        RefusalCode::IdentityRetired => ProblemCode::IdentityRetired,
        RefusalCode::EvidenceOfAnother => ProblemCode::NoMatchingIdentity,
        RefusalCode::KeyNotBound | RefusalCode::KeyNotAllowed => ProblemCode::KeyRefused,
        RefusalCode::ProfileNotAllowed
        | RefusalCode::NameNotOwned
        | RefusalCode::NameNotInProfile
        | RefusalCode::LifetimeTooShort => ProblemCode::OutsideProfile,
        RefusalCode::IdentityExpired
        | RefusalCode::NoOwner
        | RefusalCode::AssuranceTooLow
        | RefusalCode::NotRenewable
        | RefusalCode::PolicyDenied
        | RefusalCode::PolicyError => ProblemCode::PolicyDenied,
    }
}

fn conflict_problem(conflict: &Conflict) -> HttpProblem {
    if let Precondition::IssuerActive(_) = conflict.precondition {
        // Another process has just let the next issuer sign; this one hears of it in a moment.
        return HttpProblem::new(ProblemCode::NotReady, conflict.to_string()).retry_after(RETRY);
    }
    let code = match (&conflict.precondition, conflict.standing) {
        (Precondition::TokenUsable { .. }, Standing::Spent) => ProblemCode::TokenSpent,
        (Precondition::LineageAt { .. }, Standing::Generation(_)) => ProblemCode::LineageForked,
        (Precondition::LineageAt { .. }, Standing::Held) => ProblemCode::CertificateRevoked,
        (Precondition::IdentityActive(_), Standing::Held) => ProblemCode::IdentityHeld,
        (Precondition::InForce(_), _) => ProblemCode::CertificateRevoked,
        (Precondition::ChangeAt { .. }, Standing::Steps(_)) => ProblemCode::VersionConflict,
        (_, Standing::Unknown) => ProblemCode::NotFound,
        (_, Standing::Exists) => ProblemCode::AlreadyExists,
        (_, Standing::Retired) => ProblemCode::IdentityRetired,
        _ => ProblemCode::NotInThisState,
    };
    HttpProblem::new(code, conflict.to_string())
}

fn commit_problem(error: &CommitError) -> HttpProblem {
    let code = match error {
        CommitError::DiskFull | CommitError::Halted { .. } | CommitError::Unavailable { .. } => {
            ProblemCode::LedgerUnavailable
        }
        CommitError::Closing => ProblemCode::ShuttingDown,
    };
    HttpProblem::new(code, error.to_string()).retry_after(RETRY)
}

fn issue_problem(error: IssueError) -> HttpProblem {
    let text = error.to_string();
    match error {
        IssueError::Prepare(error) => match error {
            PrepareError::OtherKey | PrepareError::AuthorityKey => {
                HttpProblem::new(ProblemCode::KeyRefused, text)
            }
            PrepareError::AsksForAuthority => HttpProblem::new(ProblemCode::OutsideProfile, text),
            PrepareError::Lint(failures) => {
                let problem = HttpProblem::new(ProblemCode::LintFailed, text);
                failures
                    .into_iter()
                    .fold(problem, |problem, failure| problem.field(failure.lint, failure.detail))
            }
            PrepareError::IssuerExpired(_) => HttpProblem::new(ProblemCode::NotReady, text),
            other => HttpProblem::internal(other),
        },
        IssueError::Record(RecordError::Conflict { conflict, .. }) => conflict_problem(&conflict),
        IssueError::Record(RecordError::Commit(error)) => commit_problem(&error),
        IssueError::Sign(error) => HttpProblem::new(
            ProblemCode::KeyUnavailable,
            "the certificate is recorded and could not be signed",
        )
        .retry_after(RETRY)
        .because(error),
    }
}
