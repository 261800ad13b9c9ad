//! Decides: attested evidence, identity, profile and request in; an approval or a refusal that teaches out.
//!
//! What for: every certificate and every action of an operator is decided here, at the moment it is asked for
//! and from everything known then. [`Approved`] has no public constructor and cannot be cloned, so nothing can
//! be issued without a decision, and nothing twice from one. What code forbids ([`RefusalCode`]) no policy can
//! permit; policies, written in Cedar, narrow what is left. Every decision leaves a receipt from which it can
//! be explained and made again ([`replay`]).
//!
//! What not: there is no I/O and no clock here; the same inputs and policies always give the same decision.
//! Cedar's types do not leave this crate.
//!
//! Who calls it: the server, for every route and before every issuance; the command line, to check and test
//! policies. What it trusts: `chancery-attest` for the claims, the caller for the identity's record and the
//! circumstances.

mod action;
mod cases;
mod counterfactual;
mod decision;
mod engine;
mod inputs;
mod issue;
mod jwt;
mod load;
mod mistake;
mod operator;
mod receipt;
mod rules;
mod template;
mod vocabulary;

pub use action::{Action, UnknownAction};
pub use cases::{CaseFileError, CaseResult};
pub use decision::{Approved, Decision, Grant, Outcome, Reduction, Refusal, RefusalCode, Refused};
pub use engine::Engine;
pub use inputs::{
    EvidenceFacts, HistoryFacts, IssueContext, IssueInputs, NameFacts, NetworkFacts, ProfileFacts,
    RenewalFacts, Requested, RequestedKey,
};
pub use issue::{IssueRequest, Supposition};
pub use jwt::{ApprovedJwt, JwtDecision, JwtRequest};
pub use mistake::{PolicyErrors, PolicyMistake, PolicySource};
pub use operator::{
    CallerFacts, Denial, Factor, OperatorDecision, OperatorReceipt, OperatorRequest, ResourceFacts,
};
pub use receipt::{DecisionReceipt, Replay, replay};
pub use template::{IdentityTemplate, TemplateError};

#[cfg(test)]
mod test_support;
