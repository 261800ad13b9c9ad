//! Tests of policies, written beside them: what is given, and what must come out.
//!
//! A file is TOML with `[[case]]` tables. A case has a `name`, an `expect` table, and either `issue` (a
//! certificate is asked for) or `call` (somebody asks the server for something). Everything that a case does
//! not say has an unremarkable default, so that it shows only what matters.

use std::collections::BTreeMap;
use std::sync::Arc;

use chancery_attest::{RenewedFrom, Subject};
use chancery_types::{
    AssuranceLevel, ClaimValue, Claims, Digest, EvidenceKind, Generation, HumanDuration, Identity,
    IdentityState, IssuerEpoch, KeyAlgorithm, LineageId, Role, Sensitivity, SerialNumber, SubjectName,
    Timestamp,
};
use serde::Deserialize;

use crate::inputs::{
    EvidenceFacts, HistoryFacts, IssueContext, IssueInputs, NameFacts, NetworkFacts, ProfileFacts,
    RenewalFacts, Requested, RequestedKey,
};
use crate::{
    Action, CallerFacts, Engine, Factor, OperatorDecision, OperatorRequest, Outcome, RefusalCode,
    ResourceFacts,
};

/// Largest file that is read, in bytes.
const MAX_FILE: usize = 1024 * 1024;

/// A file of cases that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaseFileError {
    /// Not TOML, or not of the form of cases.
    #[error("not a file of policy cases: {0}")]
    Form(String),
    /// A case has both `issue` and `call`, or neither.
    #[error("case {0:?} needs either an issue or a call table")]
    Subject(String),
    /// The file is too large.
    #[error("the file has {size} bytes, at most {limit} are read; split it")]
    Size {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// How one case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    /// The case's name.
    pub name: String,
    /// What came out.
    pub outcome: Outcome,
    /// The policies that decided, by id.
    pub policies: Vec<String>,
    /// Everything that was expected and did not come; empty: passed.
    pub failures: Vec<String>,
}

impl CaseResult {
    /// Whether all expectations were met.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl Engine {
    /// Runs a file of cases against these policies.
    ///
    /// # Errors
    /// [`CaseFileError`] when the file itself is wrong; a case that fails is a result, not an error.
    pub fn run_tests(&self, text: &str) -> Result<Vec<CaseResult>, CaseFileError> {
        if text.len() > MAX_FILE {
            return Err(CaseFileError::Size { size: text.len(), limit: MAX_FILE });
        }
        let file: File = toml::from_str(text).map_err(|error| CaseFileError::Form(error.to_string()))?;
        file.case.into_iter().map(|case| self.run_case(case)).collect()
    }

    fn run_case(&self, case: Case) -> Result<CaseResult, CaseFileError> {
        let seen = match (case.issue, case.call) {
            (Some(issue), None) => self.see_issue(issue.inputs(&case.name)?),
            (None, Some(call)) => self.see_call(call.request()),
            _ => return Err(CaseFileError::Subject(case.name)),
        };
        let failures = case.expect.failures(&seen);
        Ok(CaseResult { name: case.name, outcome: seen.outcome, policies: seen.policies, failures })
    }

    fn see_issue(&self, inputs: IssueInputs) -> Seen {
        let ruling = self.rule(&inputs);
        Seen {
            outcome: ruling.outcome(),
            lifetime: ruling.result.as_ref().ok().map(|grant| grant.lifetime),
            code: ruling.result.as_ref().err().map(|refusal| refusal.code),
            reason: ruling.result.err().map(|refusal| refusal.reason),
            policies: ruling.policies,
        }
    }

    fn see_call(&self, request: OperatorRequest) -> Seen {
        let (outcome, receipt, denial) = match self.decide_operator(request) {
            OperatorDecision::Permitted(receipt) => (Outcome::Grant, *receipt, None),
            OperatorDecision::Denied(denial) => {
                (Outcome::Deny, denial.receipt.clone(), Some((denial.code, denial.reason)))
            }
        };
        let (code, reason) = denial.unzip();
        Seen { outcome, lifetime: None, code, reason, policies: receipt.policies }
    }
}

/// What came out of a case.
struct Seen {
    outcome: Outcome,
    lifetime: Option<HumanDuration>,
    code: Option<RefusalCode>,
    reason: Option<String>,
    policies: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    issue: Option<Issue>,
    call: Option<Call>,
    expect: Expect,
}

/// What must come out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    outcome: Outcome,
    /// Exactly this.
    lifetime: Option<HumanDuration>,
    /// Exactly this.
    code: Option<RefusalCode>,
    /// All of these, by id.
    #[serde(default)]
    policies: Vec<String>,
}

impl Expect {
    fn failures(&self, seen: &Seen) -> Vec<String> {
        let mut failures = Vec::new();
        if self.outcome != seen.outcome {
            let reason = seen.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            failures.push(format!("expected {}, got {}{reason}", self.outcome, seen.outcome));
        }
        if let Some(lifetime) = self.lifetime
            && seen.lifetime != Some(lifetime)
        {
            let got = seen.lifetime.map_or("none".to_owned(), |lifetime| lifetime.to_string());
            failures.push(format!("expected a lifetime of {lifetime}, got {got}"));
        }
        if let Some(code) = self.code
            && seen.code != Some(code)
        {
            let got = seen.code.map_or("none", RefusalCode::as_str);
            failures.push(format!("expected code {code}, got {got}"));
        }
        for policy in self.policies.iter().filter(|policy| !seen.policies.contains(policy)) {
            let got = seen.policies.join(", ");
            failures.push(format!("expected policy {policy} to decide, got [{got}]"));
        }
        failures
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Issue {
    /// An identity's document; `spiffe_id` and `owner` have defaults.
    #[serde(default)]
    identity: toml::Table,
    #[serde(default = "active")]
    state: IdentityState,
    #[serde(default)]
    evidence: Evidence,
    #[serde(default)]
    profile: ProfileCase,
    #[serde(default)]
    requested: RequestedCase,
    renewal: Option<RenewalCase>,
    now: Option<Timestamp>,
    network: Option<NetworkFacts>,
    history: Option<HistoryFacts>,
}

fn active() -> IdentityState {
    IdentityState::Active
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Evidence {
    kind: EvidenceKind,
    assurance: AssuranceLevel,
    repeatable: Option<bool>,
    claims: BTreeMap<String, ClaimValue>,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            kind: EvidenceKind::JoinToken,
            assurance: AssuranceLevel::SharedSecret,
            repeatable: None,
            claims: BTreeMap::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProfileCase {
    name: String,
    purpose: Option<String>,
    sensitivity: Sensitivity,
    default_lifetime: HumanDuration,
    max_lifetime: HumanDuration,
    min_lifetime: HumanDuration,
}

impl Default for ProfileCase {
    fn default() -> Self {
        let hours = |hours: u64| HumanDuration(std::time::Duration::from_secs(hours * 3600));
        Self {
            name: "workload".to_owned(),
            purpose: None,
            sensitivity: Sensitivity::Medium,
            default_lifetime: hours(1),
            max_lifetime: hours(24),
            min_lifetime: HumanDuration(std::time::Duration::from_secs(60)),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RequestedCase {
    names: Vec<SubjectName>,
    lifetime: Option<HumanDuration>,
    key: KeyAlgorithm,
    /// A JWT-SVID for these is asked for, not a certificate.
    audiences: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenewalCase {
    /// Time since the enrolment.
    age: HumanDuration,
    #[serde(default)]
    generation: u32,
    #[serde(default = "join_token")]
    enrolled_by: EvidenceKind,
}

fn join_token() -> EvidenceKind {
    EvidenceKind::JoinToken
}

/// 2026-01-01T00:00:00Z: cases that do not say when happen then.
const NOW_SECONDS: i64 = 1_767_225_600;

impl Issue {
    fn inputs(self, case: &str) -> Result<IssueInputs, CaseFileError> {
        let identity = read_identity(self.identity)
            .map_err(|error| CaseFileError::Form(format!("case {case:?}, identity: {error}")))?;
        let now = self.now.unwrap_or(Timestamp::from_seconds(NOW_SECONDS));
        let wanted = if self.requested.names.is_empty() {
            identity.subject_names()
        } else {
            self.requested.names.clone()
        };
        Ok(IssueInputs {
            evidence: self.evidence.facts(&identity),
            identity: Arc::new(identity),
            identity_state: self.state,
            template: None,
            renewal: self.renewal.map(|renewal| renewal.facts(now)),
            profile: self.profile.facts(),
            requested: Requested {
                names: self.requested.names,
                lifetime: self.requested.lifetime,
                key: RequestedKey { algorithm: self.requested.key, fingerprint: Digest::default() },
                audiences: self.requested.audiences,
            },
            names: NameFacts { wanted, ..NameFacts::default() },
            context: IssueContext { now, network: self.network, history: self.history },
        })
    }
}

/// An identity's document in which `spiffe_id` and `owner` may be missing; an empty owner is written `""`.
fn read_identity(mut document: toml::Table) -> Result<Identity, toml::de::Error> {
    let default = |text: &str| toml::Value::String(text.to_owned());
    document.entry("spiffe_id").or_insert_with(|| default("spiffe://example.org/web"));
    document.entry("owner").or_insert_with(|| default("ada@example.org"));
    Identity::deserialize(toml::Value::Table(document))
}

impl Evidence {
    fn facts(self, identity: &Identity) -> EvidenceFacts {
        let mut claims = Claims::new();
        for (name, value) in self.claims {
            claims.insert(name, value);
        }
        EvidenceFacts {
            kind: self.kind,
            subject: Subject::Named(identity.spiffe_id.clone()),
            claims,
            assurance: self.assurance,
            repeatable: self.repeatable.unwrap_or(self.assurance >= AssuranceLevel::Repeatable),
            bound_key: None,
            hash: Digest::default(),
        }
    }
}

impl ProfileCase {
    fn facts(self) -> ProfileFacts {
        ProfileFacts {
            purpose: self.purpose.unwrap_or_else(|| self.name.clone()),
            name: self.name,
            hash: Digest::default(),
            sensitivity: self.sensitivity,
            requires_owner: true,
            minimum_assurance: AssuranceLevel::SharedSecret,
            renewable: true,
            default_lifetime: self.default_lifetime,
            max_lifetime: self.max_lifetime,
            min_lifetime: self.min_lifetime,
            key_algorithms: KeyAlgorithm::ALL.to_vec(),
        }
    }
}

impl RenewalCase {
    fn facts(self, now: Timestamp) -> RenewalFacts {
        let serial =
            SerialNumber::compose(IssuerEpoch(1), 1, [0; 8]).expect("the counter is below its limit");
        RenewalFacts {
            from: RenewedFrom {
                lineage: LineageId::from_array([1; 16]),
                generation: Generation(self.generation),
                serial,
            },
            enrolled_by: self.enrolled_by,
            enrolled_at: now - self.age.0,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    action: Action,
    #[serde(default = "anonymous")]
    id: String,
    #[serde(default)]
    roles: Vec<Role>,
    factor: Option<Factor>,
    profile: Option<String>,
    #[serde(default)]
    resource: ResourceCase,
    approval: Option<String>,
    affected: Option<u64>,
    network: Option<NetworkFacts>,
    now: Option<Timestamp>,
}

fn anonymous() -> String {
    "anonymous".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ResourceCase {
    kind: String,
    owner: String,
    team: String,
    environment: String,
    sensitivity: Option<Sensitivity>,
    role: Option<Role>,
}

impl Default for ResourceCase {
    fn default() -> Self {
        let text = String::new;
        let kind = "thing".to_owned();
        Self { kind, owner: text(), team: text(), environment: text(), sensitivity: None, role: None }
    }
}

impl Call {
    /// Whoever has a role shows it by mTLS, unless the case says otherwise.
    fn request(self) -> OperatorRequest {
        let factor = self.factor.unwrap_or(if self.roles.is_empty() { Factor::None } else { Factor::Mtls });
        OperatorRequest {
            caller: CallerFacts { id: self.id, roles: self.roles, factor, profile: self.profile },
            action: self.action,
            resource: ResourceFacts {
                id: self.resource.kind.clone(),
                kind: self.resource.kind,
                identity: None,
                owner: self.resource.owner,
                team: self.resource.team,
                environment: self.resource.environment,
                sensitivity: self.resource.sensitivity,
                role: self.resource.role,
            },
            now: self.now.unwrap_or(Timestamp::from_seconds(NOW_SECONDS)),
            approval: self.approval,
            affected: self.affected,
            network: self.network,
        }
    }
}

#[cfg(test)]
mod tests;
