//! Certificates for the people who operate the authority.

use chancery_types::{HumanDuration, Role};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::CsrDer;

/// Asks for an operator's client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorRequest {
    /// The operator's name: the last part of the SPIFFE ID under `/operator/`.
    #[schema(example = "ada")]
    pub name: String,
    /// What the operator may do.
    #[schema(value_type = String, example = "operator")]
    pub role: Role,
    /// The operator's key.
    pub csr: CsrDer,
    /// A lifetime shorter than the profile's, such as `8h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "8h")]
    pub lifetime: Option<HumanDuration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_has_a_role_that_exists() {
        let request = |role: &str| {
            serde_json::from_str::<OperatorRequest>(&format!(
                r#"{{"name":"ada","role":"{role}","csr":"AQID"}}"#
            ))
        };
        assert_eq!(request("auditor").unwrap().role, Role::Auditor);
        assert!(request("root").is_err());
        assert!(serde_json::from_str::<OperatorRequest>(r#"{"name":"ada","csr":"AQID"}"#).is_err());
    }
}
