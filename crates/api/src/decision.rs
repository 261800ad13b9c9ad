//! Policy: what is in force, what it decided, and what it would decide.

use chancery_types::{
    AssuranceLevel, Claims, Digest, HumanDuration, Role, SerialNumber, SpiffeId, Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Reduction;

/// The decision behind one certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionView {
    /// Which certificate.
    #[schema(value_type = String)]
    pub serial: SerialNumber,
    /// Where the decision is recorded.
    pub log_index: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What was decided.
    pub outcome: Outcome,
    /// The policies that decided it, by id.
    pub determining: Vec<String>,
    /// The version of the policy set: the digest of its texts.
    #[schema(value_type = String)]
    pub policy_version: Digest,
    /// What was asked for and granted in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reduced: Vec<Reduction>,
    /// Everything that the decision was made from.
    #[schema(value_type = Object)]
    pub inputs: serde_json::Value,
}

/// What policy decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As asked.
    Grant,
    /// Less than asked.
    Reduce,
    /// Nothing.
    Deny,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// The digest of its texts.
    #[schema(value_type = String)]
    pub version: Digest,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The Cedar schema.
    pub schema: String,
    /// The policies.
    pub policies: Vec<PolicyFile>,
    /// The profiles.
    pub profiles: Vec<ProfileView>,
}

/// One file of policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyFile {
    /// Its name.
    pub name: String,
    /// Its text, in Cedar.
    pub text: String,
}

/// One profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfileView {
    /// Its name.
    pub name: String,
    /// The digest that entries record.
    #[schema(value_type = String)]
    pub hash: Digest,
    /// Its text, in TOML.
    pub text: String,
}

/// Asks what policy would decide. Nothing is done or recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyCheckRequest {
    /// The action: `enroll`, `renew`, `revoke`, ...
    pub action: String,
    /// The identity that a certificate is for, or that the action is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "spiffe://example.org/web")]
    pub identity: Option<SpiffeId>,
    /// The profile; the identity's first one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The lifetime; the profile's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub lifetime: Option<HumanDuration>,
    /// How strongly the identity is proved; AL0 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "AL2")]
    pub assurance: Option<AssuranceLevel>,
    /// What is proved.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub claims: Claims,
    /// For operators' actions: who acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub operator: Option<SpiffeId>,
    /// For operators' actions: their role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "operator")]
    pub role: Option<Role>,
}

/// What policy would decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyCheckResponse {
    /// What it would decide.
    pub outcome: Outcome,
    /// The policies that would decide it, by id.
    pub determining: Vec<String>,
    /// What would be granted in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reduced: Vec<Reduction>,
    /// The smallest change that would permit it, when it is denied and there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_permit: Option<String>,
    /// Errors while deciding; any error denies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// The version that was asked.
    #[schema(value_type = String)]
    pub policy_version: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_needs_only_an_action_and_refuses_unknown_facts() {
        let request: PolicyCheckRequest = serde_json::from_str(r#"{"action":"enroll"}"#).unwrap();
        assert_eq!(request.claims, Claims::new());
        assert!(serde_json::from_str::<PolicyCheckRequest>(r#"{"action":"enroll","claim":{}}"#).is_err());
        assert!(serde_json::from_str::<PolicyCheckRequest>("{}").is_err());
    }
}
