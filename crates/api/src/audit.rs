//! The export that an auditor takes away.

use chancery_types::{SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What to export. The answer is a stream, in the log's order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditExportQuery {
    /// The format; JSON lines if absent.
    #[serde(default)]
    #[param(inline)]
    pub format: AuditFormat,
    /// Only entries from this moment on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Only entries before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Only entries about this identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub identity: Option<SpiffeId>,
    /// Only entries about this owner's identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// How an export is written by the server. Other formats are made from it on the auditor's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuditFormat {
    /// One JSON object a line, with the exact bytes of each entry.
    #[default]
    Jsonl,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_an_unknown_filter_rather_than_exporting_everything() {
        assert_eq!(serde_json::from_str::<AuditExportQuery>("{}").unwrap(), AuditExportQuery::default());
        assert!(serde_json::from_str::<AuditExportQuery>(r#"{"from":"2026-01-01T00:00:00Z"}"#).is_err());
        assert!(serde_json::from_str::<AuditExportQuery>(r#"{"format":"xml"}"#).is_err());
    }
}
