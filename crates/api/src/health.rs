//! Whether the server lives, and whether it can work.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The state of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthResponse {
    /// The worst of the checks.
    pub state: HealthState,
    /// The program's version.
    pub version: String,
    /// What was looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<HealthCheck>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthCheck {
    /// What.
    pub name: String,
    /// How it is.
    pub state: HealthState,
    /// What is wrong, and what to do; empty when nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How something is. Ordered: the worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Works.
    Ok,
    /// Works, and somebody should look at it.
    Degraded,
    /// Does not work.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_state_is_the_greatest() {
        assert!(HealthState::Failed > HealthState::Degraded && HealthState::Degraded > HealthState::Ok);
        assert_eq!(serde_json::to_string(&HealthState::Ok).unwrap(), "\"ok\"");
    }
}
