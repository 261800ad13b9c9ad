//! The decision about everything that is not a certificate: who may ask the server for what.

use std::fmt;
use std::sync::Arc;

use chancery_types::{Digest, Identity, Role, Sensitivity, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Verdict, entities_of};
use crate::inputs::NetworkFacts;
use crate::{Action, Engine, Outcome, RefusalCode};

/// How a caller proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Factor {
    /// A client certificate of ours, in good standing.
    Mtls,
    /// The local administration socket, by user id.
    LocalSocket,
    /// Not at all.
    None,
}

impl Factor {
    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::LocalSocket => "local-socket",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerFacts {
    /// A SPIFFE ID, `uid:1000`, or `anonymous`.
    pub id: String,
    /// The roles; none for workloads and strangers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// How that was proved.
    pub factor: Factor,
    /// The profile of the certificate, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

impl CallerFacts {
    /// Somebody who proved nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { id: "anonymous".to_owned(), roles: Vec::new(), factor: Factor::None, profile: None }
    }

    /// The holder of a client certificate of ours, with the role of its identity, if it has one.
    #[must_use]
    pub fn mtls(identity: &SpiffeId, role: Option<Role>) -> Self {
        Self {
            id: identity.to_string(),
            roles: role.into_iter().collect(),
            factor: Factor::Mtls,
            profile: None,
        }
    }

    /// With the profile of the certificate.
    #[must_use]
    pub fn under(mut self, profile: &str) -> Self {
        self.profile = Some(profile.to_owned());
        self
    }

    /// A local user who may administer: whoever may use the socket could read the server's keys, so an admin.
    #[must_use]
    pub fn local_admin(uid: u32) -> Self {
        Self {
            id: format!("uid:{uid}"),
            roles: vec![Role::Admin],
            factor: Factor::LocalSocket,
            profile: None,
        }
    }
}

/// What it is about. Leave absent what has no meaning there or differs between several things at once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResourceFacts {
    /// What kind of thing: `identity`, `certificate`, `token`, `log`, `policy`, ...
    pub kind: String,
    /// Which one: a SPIFFE ID, a serial, a token's id; the kind itself for a thing that there is only one of.
    pub id: String,
    /// The identity that it is, or belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SpiffeId>,
    /// That identity's owner.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// That identity's team.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub team: String,
    /// That identity's environment.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub environment: String,
    /// How bad abuse of it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<Sensitivity>,
    /// The role that it has, or would get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

impl ResourceFacts {
    /// The one thing of its kind: `log`, `policy`, `bundle`.
    #[must_use]
    pub fn the(kind: &str) -> Self {
        Self { kind: kind.to_owned(), id: kind.to_owned(), ..Self::default() }
    }

    /// An identity, or something that belongs to it.
    #[must_use]
    pub fn of(kind: &str, id: &str, identity: &Identity) -> Self {
        Self {
            kind: kind.to_owned(),
            id: id.to_owned(),
            identity: Some(identity.spiffe_id.clone()),
            owner: identity.owner.clone(),
            team: identity.team.clone(),
            environment: identity.environment.clone(),
            sensitivity: Some(identity.sensitivity),
            role: identity.role,
        }
    }
}

/// Something that a caller asks the server to do or show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRequest {
    /// Who asks.
    pub caller: CallerFacts,
    /// For what.
    pub action: Action,
    /// About what.
    pub resource: ResourceFacts,
    /// The moment.
    pub now: Timestamp,
    /// The ticket or approval that the caller named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// How many things it would change, where that is known beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affected: Option<u64>,
    /// Where it came from, if over a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkFacts>,
}

impl OperatorRequest {
    /// A request with nothing but the necessary.
    #[must_use]
    pub fn new(caller: CallerFacts, action: Action, resource: ResourceFacts, now: Timestamp) -> Self {
        Self { caller, action, resource, now, approval: None, affected: None, network: None }
    }
}

/// What the ledger keeps of such a decision, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorReceipt {
    /// Grant or deny.
    pub outcome: Outcome,
    /// The policies that decided, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// The policies in force: [`Engine::policy_hash`].
    pub policy_hash: Digest,
    /// What was asked.
    pub request: OperatorRequest,
}

impl OperatorReceipt {
    /// The receipt as it is recorded: JSON on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a receipt has only text keys and finite numbers")
    }
}

/// Why a caller may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// `policy-denied` or `policy-error`.
    pub code: RefusalCode,
    /// For people.
    pub reason: String,
    /// The smallest change that would permit it, when there is one.
    pub smallest_change: Option<String>,
    /// Whether the policies could not be evaluated: somebody should be woken.
    pub alarm: bool,
    /// The receipt.
    pub receipt: OperatorReceipt,
}

/// A decision about something that is not a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a decision that nobody looks at permits everything"]
pub enum OperatorDecision {
    /// The caller may.
    Permitted(Box<OperatorReceipt>),
    /// The caller may not.
    Denied(Box<Denial>),
}

impl OperatorDecision {
    /// Whether the caller may.
    #[must_use]
    pub fn is_permitted(&self) -> bool {
        matches!(self, Self::Permitted(_))
    }
}

impl Engine {
    /// Decides whether the caller may.
    pub fn decide_operator(&self, request: OperatorRequest) -> OperatorDecision {
        let verdict = self.judge_call(&request);
        let outcome = if verdict.permitted { Outcome::Grant } else { Outcome::Deny };
        let receipt = |request| OperatorReceipt {
            outcome,
            policies: verdict.policies.clone(),
            policy_hash: self.policy_hash(),
            request,
        };
        if verdict.permitted {
            return OperatorDecision::Permitted(Box::new(receipt(request)));
        }
        let alarm = !verdict.errors.is_empty();
        let smallest_change = if alarm { None } else { self.smallest_call_change(&request) };
        OperatorDecision::Denied(Box::new(Denial {
            code: if alarm { RefusalCode::PolicyError } else { RefusalCode::PolicyDenied },
            reason: denial_reason(&verdict, &request),
            smallest_change,
            alarm,
            receipt: receipt(request),
        }))
    }

    fn judge_call(&self, request: &OperatorRequest) -> Verdict {
        if request.action.is_issue() {
            return Verdict::failed(format!("{} is decided with its evidence", request.action));
        }
        self.ask_call(request).unwrap_or_else(Verdict::failed)
    }

    fn ask_call(&self, request: &OperatorRequest) -> Result<Verdict, String> {
        let vocabulary = &self.vocabulary;
        let caller = vocabulary.caller(&request.caller);
        let resource = vocabulary.resource(&request.resource);
        let (principal, target) = (caller.uid().clone(), resource.uid().clone());
        let context = vocabulary.call_context(
            request.now,
            request.approval.as_deref(),
            request.affected,
            request.network.as_ref(),
        )?;
        let action = self.action_entity(request.action);
        let entities = entities_of([Arc::new(caller), Arc::new(resource), action])?;
        Ok(self.ask(request.action, principal, target, context, &entities))
    }

    fn smallest_call_change(&self, request: &OperatorRequest) -> Option<String> {
        let mut changes: Vec<(String, OperatorRequest)> = Vec::new();
        if request.approval.is_none() {
            let approval = Some("approval".to_owned());
            changes.push(("name an approval".to_owned(), OperatorRequest { approval, ..request.clone() }));
        }
        if request.caller.factor == Factor::None {
            let mut changed = request.clone();
            changed.caller.factor = Factor::Mtls;
            changes.push(("use a client certificate of this authority".to_owned(), changed));
        }
        for role in Role::ALL.into_iter().rev() {
            let mut changed = request.clone();
            changed.caller.roles = vec![role];
            if changed.caller.factor == Factor::None {
                changed.caller.factor = Factor::Mtls;
            }
            let article =
                if matches!(role, Role::Admin | Role::Operator | Role::Auditor) { "an" } else { "a" };
            changes.push((format!("ask {article} {role}, or be one"), changed));
        }
        changes.into_iter().find(|(_, changed)| self.judge_call(changed).permitted).map(|(text, _)| text)
    }
}

fn denial_reason(verdict: &Verdict, request: &OperatorRequest) -> String {
    if !verdict.errors.is_empty() {
        return format!("the policies could not be evaluated: {}", verdict.errors.join("; "));
    }
    match (&verdict.message, verdict.policies.is_empty()) {
        (Some(message), _) => message.clone(),
        (None, true) => format!("no policy permits {} to {}", request.action, request.caller.id),
        (None, false) => format!("policy {} forbids it", verdict.policies.join(", ")),
    }
}

#[cfg(test)]
mod tests;
