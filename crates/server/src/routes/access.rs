//! Policy before every handler: who asks, for which action, and whether they may.
//!
//! Each operation has exactly one action, by a match without wildcard: a route without a policy action does not
//! compile. Handlers that know more about what is asked for ask again, with it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chancery_api::{Operation, ProblemCode};
use chancery_entry::{Body, Document, OperatorAction};
use chancery_policy::{
    Action, CallerFacts, Denial, Factor, NetworkFacts, OperatorDecision, OperatorRequest, ResourceFacts,
};

use crate::callers::not_accepted;
use crate::site::Site;
use crate::{HttpProblem, Peer};

/// The caller, as far as it is proven; every request carries it behind the gate.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    /// For policy.
    pub(crate) facts: CallerFacts,
    /// Where from.
    pub(crate) address: Option<IpAddr>,
    /// The connection's own words.
    pub(crate) peer: Peer,
}

impl Who {
    /// For entries: a SPIFFE ID, `uid:0`, or an address.
    pub(crate) fn name(&self) -> String {
        match (self.facts.factor, self.address) {
            (Factor::None, Some(address)) => address.to_string(),
            _ => self.facts.id.clone(),
        }
    }

    /// The client certificate on the connection, DER.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        self.peer.certificate().and_then(|certificate| certificate.chain().first()).map(|leaf| leaf.as_ref())
    }
}

/// The action that policy is asked about before an operation.
pub(crate) fn action(operation: Operation) -> Action {
    match operation {
        // Whoever holds a leaked key may revoke; everybody else is asked about again in the handler.
        Operation::Enroll | Operation::Revoke => Action::Enrol,
        Operation::EnrollBatch => Action::CertificateEnrolBatch,
        Operation::Nonce => Action::NonceCreate,
        Operation::Renew => Action::CertificateRenew,
        Operation::AgentStream => Action::NodeStream,
        Operation::AgentSvids => Action::NodeEnrol,
        Operation::AgentJwt => Action::NodeJwt,
        Operation::OpenIdConfiguration | Operation::JwtKeys | Operation::SsfConfiguration => {
            Action::BundleRead
        }
        Operation::CreateToken => Action::TokenCreate,
        Operation::ListTokens => Action::TokenList,
        Operation::RevokeToken => Action::TokenRevoke,
        Operation::RegisterIdentity => Action::IdentityRegister,
        Operation::ListIdentities | Operation::ReadIdentity => Action::IdentityRead,
        Operation::ChangeIdentity => Action::IdentityChange,
        Operation::RetireIdentity => Action::IdentityRetire,
        Operation::HoldIdentity => Action::IdentityHold,
        Operation::ReleaseIdentity => Action::IdentityRelease,
        Operation::RegisterTemplate | Operation::ChangeTemplate | Operation::RemoveTemplate => {
            Action::TemplateChange
        }
        Operation::ListTemplates | Operation::ReadTemplate => Action::TemplateRead,
        Operation::ListCertificates | Operation::ReadCertificate => Action::CertificateRead,
        Operation::AskRenewal => Action::CertificateAskRenewal,
        Operation::CaStatus => Action::CaRead,
        Operation::CaRotate | Operation::CaRollback | Operation::CaAddRoot | Operation::CaTaint => {
            Action::CaChange
        }
        Operation::Hold => Action::CertificateHold,
        Operation::Release => Action::CertificateRelease,
        Operation::ListChanges | Operation::ReadChange => Action::ChangeRead,
        Operation::ApproveChange => Action::ChangeApprove,
        Operation::WithdrawChange
        | Operation::PauseChange
        | Operation::ResumeChange
        | Operation::UndoChange => Action::ChangeControl,
        Operation::Status
        | Operation::StatusOfMany
        | Operation::StatusSet
        | Operation::StatusDelta
        | Operation::CrlDer
        | Operation::CrlPem
        | Operation::IssuerCrl
        | Operation::ShardCrl
        | Operation::OcspGet
        | Operation::OcspPost => Action::StatusRead,
        Operation::StatusFeed
        | Operation::PollStatusFeed
        | Operation::FollowStatus
        | Operation::Acknowledge
        | Operation::CreateStream
        | Operation::ReadStream
        | Operation::UpdateStream
        | Operation::ReplaceStream
        | Operation::DeleteStream
        | Operation::ReadStreamStatus
        | Operation::SetStreamStatus
        | Operation::VerifyStream
        | Operation::PollStream => Action::StatusFollow,
        Operation::ListRelyingParties | Operation::ListEventStreams => Action::RelyingPartyRead,
        Operation::Why => Action::DecisionRead,
        Operation::Bundle | Operation::BundleJson | Operation::Issuers | Operation::IssuerCertificate => {
            Action::BundleRead
        }
        Operation::LogCheckpoint | Operation::LogKey | Operation::LogKeys => Action::LogCheckpoint,
        Operation::LogTile | Operation::LogEntries => Action::LogRead,
        Operation::LogProof => Action::LogProof,
        Operation::ExportAudit => Action::AuditExport,
        Operation::ReadPolicy => Action::PolicyRead,
        Operation::CheckPolicy => Action::PolicyCheck,
        Operation::CreateOperator => Action::OperatorCreate,
        Operation::Healthz | Operation::Readyz | Operation::OpenApi => Action::HealthRead,
        Operation::Metrics => Action::MetricsRead,
    }
}

/// Middleware: finds out who asks, asks policy, and lets through or refuses.
pub(crate) async fn authorize(
    State((site, operation)): State<(Arc<Site>, Operation)>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return HttpProblem::internal("the request has no peer").into_response();
    };
    let who = match site.who(peer, operation).await {
        Ok(who) => who,
        Err(problem) => return problem.into_response(),
    };
    let resource = ResourceFacts::the(kind(operation));
    if let Err(problem) = site.permit(&who, action(operation), resource, None).await {
        return problem.into_response();
    }
    request.extensions_mut().insert(who);
    next.run(request).await
}

/// The kind of thing that an operation is about.
fn kind(operation: Operation) -> &'static str {
    let action = action(operation).as_str();
    action.split('.').next().unwrap_or(action)
}

impl Site {
    /// Who is at the other end. Roles come from the registered identity, at this moment.
    async fn who(&self, peer: Peer, operation: Operation) -> Result<Who, HttpProblem> {
        let (facts, address) = match &peer {
            Peer::Admin { uid } => (CallerFacts::local_admin(*uid), None),
            Peer::Network { address, certificate: None } => (CallerFacts::anonymous(), Some(address.ip())),
            Peer::Network { address, certificate: Some(certificate) } => {
                let facts = match certificate.chain().first() {
                    // Its standing is part of the evidence there.
                    Some(_) if operation == Operation::Renew => {
                        CallerFacts::mtls(certificate.spiffe_id(), None)
                    }
                    Some(leaf) => self
                        .authority
                        .caller(leaf)
                        .await
                        .map_err(super::problem_of)?
                        .map(|caller| caller.facts)
                        .ok_or_else(not_accepted)?,
                    None => CallerFacts::anonymous(),
                };
                (facts, Some(address.ip()))
            }
        };
        Ok(Who { facts, address, peer })
    }

    /// Asks policy. What an identified caller is refused is recorded.
    pub(crate) async fn permit(
        &self,
        who: &Who,
        action: Action,
        resource: ResourceFacts,
        affected: Option<u64>,
    ) -> Result<(), HttpProblem> {
        match self.decide(who, action, resource, affected, None) {
            Some(denial) => Err(self.denied(who, denial).await),
            None => Ok(()),
        }
    }

    /// Asks policy, with an approval or without; nothing when it permits.
    pub(super) fn decide(
        &self,
        who: &Who,
        action: Action,
        resource: ResourceFacts,
        affected: Option<u64>,
        approval: Option<String>,
    ) -> Option<Denial> {
        let rules = self.authority.rules();
        if rules.engine().permits_everybody(action) {
            return None;
        }
        let mut request =
            OperatorRequest::new(who.facts.clone(), action, resource, self.authority.clock().now());
        request.affected = affected;
        request.approval = approval;
        request.network = who.address.map(|address| NetworkFacts { address, zone: None });
        match rules.engine().decide_operator(request) {
            OperatorDecision::Permitted(_) => None,
            OperatorDecision::Denied(denial) => Some(*denial),
        }
    }

    pub(super) async fn denied(&self, who: &Who, denial: Denial) -> HttpProblem {
        if denial.alarm {
            tracing::error!(reason = %denial.reason, "POLICY COULD NOT BE EVALUATED; the request was denied");
        }
        if who.facts.factor != Factor::None {
            let refused = OperatorAction {
                by: who.name(),
                action: denial.receipt.request.action.as_str().to_owned(),
                resource: denial.receipt.request.resource.id.clone(),
                decision: Document(denial.receipt.to_json()),
            };
            if let Err(error) = self.authority.record(Body::OperatorAction(refused)).await {
                tracing::warn!(%error, "a refused operation could not be recorded");
            }
        }
        let mut detail = denial.reason;
        if let Some(change) = denial.smallest_change {
            detail.push_str("; it would be permitted if ");
            detail.push_str(&change);
        }
        HttpProblem::new(ProblemCode::NotPermitted, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operation_asks_for_an_action_that_is_decided_with_evidence() {
        for &operation in Operation::ALL {
            assert!(!action(operation).is_issue(), "{}", operation.id());
        }
    }
}
