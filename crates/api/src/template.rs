//! Templates: identities that come into being when somebody enrols, in a shape fixed beforehand.

use std::collections::BTreeMap;

use chancery_types::{AssuranceLevel, HumanDuration, Selectors, Sensitivity, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::identity::selectors_schema;

/// The document that registers a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateDocument {
    /// Its name: lower-case letters, digits and hyphens.
    #[schema(example = "ci-job")]
    pub name: String,
    /// The path of the SPIFFE IDs that it makes; `{name}` stands for a parameter and fills one segment.
    #[schema(example = "/ci/{repository}/{job}")]
    pub path: String,
    /// For parameters that may not be just anything: the values allowed, with `*` for any rest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Vec<String>>,
    /// Who answers for what it makes. No owner, no issuance.
    #[serde(default)]
    pub owner: String,
    /// The owner's team.
    #[serde(default)]
    pub team: String,
    /// What it is for, in a sentence.
    #[serde(default)]
    pub purpose: String,
    /// `prod`, `staging`, ...
    #[serde(default)]
    pub environment: String,
    /// How bad abuse is.
    #[serde(default)]
    #[schema(value_type = String, example = "medium")]
    pub sensitivity: Sensitivity,
    /// Profiles that what it makes may use, the default first; empty: `workload` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// A lifetime of certificates shorter than the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub max_lifetime: Option<HumanDuration>,
    /// The least assurance of evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "AL1")]
    pub minimum_assurance: Option<AssuranceLevel>,
    /// How long an identity made from it lives; for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "24h")]
    pub identity_lifetime: Option<HumanDuration>,
    /// Claims that a process must fulfil to become one of its identities: all. A template with these is for
    /// processes: its parameters are claims, such as `{k8s.ns}`, and no token is made for it.
    #[serde(default, skip_serializing_if = "Selectors::is_empty")]
    #[schema(schema_with = selectors_schema)]
    pub selectors: Selectors,
    /// For processes: nodes whose agents may ask for what it makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub parents: Vec<SpiffeId>,
    /// For processes: claims that make any node that fulfils them such a parent.
    #[serde(default, skip_serializing_if = "Selectors::is_empty")]
    #[schema(schema_with = selectors_schema)]
    pub node_selectors: Selectors,
}

/// A registered template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateView {
    /// What was registered.
    pub template: TemplateDocument,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub changed: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_path_are_enough_and_unknown_fields_are_refused() {
        let text = r#"{"name":"ci","path":"/ci/{job}"}"#;
        let document: TemplateDocument = serde_json::from_str(text).unwrap();
        assert_eq!(document.path, "/ci/{job}");
        assert!(
            serde_json::from_str::<TemplateDocument>(r#"{"name":"ci","path":"/x","max_ttl":"1h"}"#).is_err()
        );
    }
}
