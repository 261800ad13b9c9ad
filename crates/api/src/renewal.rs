//! Asking for certificates to be renewed before their time.

use chancery_types::{HumanDuration, IssuerEpoch, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks that the agents replace certificates which were issued until now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewalRequest {
    /// Which certificates.
    pub scope: RenewalScope,
    /// The time over which the renewals are spread; five minutes if absent, a day at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10m")]
    pub over: Option<HumanDuration>,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

/// Whose certificates are to be renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RenewalScope {
    /// Everybody's.
    All,
    /// This identity's.
    #[schema(value_type = String, example = "spiffe://example.org/web")]
    Identity(SpiffeId),
    /// Those of the workloads on this node, and its own.
    #[schema(value_type = String, example = "spiffe://example.org/node/a")]
    Node(SpiffeId),
    /// Those that this issuer signed.
    #[schema(value_type = u16)]
    Issuer(IssuerEpoch),
    /// Those of this profile.
    Profile(String),
}

impl std::fmt::Display for RenewalScope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => formatter.write_str("all"),
            Self::Identity(identity) => identity.fmt(formatter),
            Self::Node(node) => node.fmt(formatter),
            Self::Issuer(epoch) => write!(formatter, "issuer {}", epoch.0),
            Self::Profile(name) => write!(formatter, "profile {name}"),
        }
    }
}

/// What was asked for, and of whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RenewalResponse {
    /// Certificates that the log has before this position are meant.
    pub recorded_before: u64,
    /// By when all of them are to be replaced.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Agents that are connected at this moment; the others hear of it when they connect.
    pub connected_agents: u64,
}
