//! How the agent stands: what `chancery agent status` prints, and what health and metrics are made of.

use chancery_types::{SerialNumber, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

/// Everything that an operator wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its version.
    pub version: String,
    /// Whether workloads can be served.
    pub health: AgentHealth,
    /// The node.
    pub node: NodeStatus,
    /// The authority.
    pub server: ServerStatus,
    /// The size of the log up to which everything was taken in.
    pub revision: Option<u64>,
    /// Workloads that are told of changes.
    pub workloads: usize,
    /// Identities that this node may serve, by name.
    pub identities: Vec<IdentityStatus>,
    /// File sinks, in the order of the configuration.
    #[serde(default)]
    pub sinks: Vec<SinkStatus>,
}

/// Whether workloads can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentHealth {
    /// Everything is as it should be.
    Ok,
    /// What is held is served; something needs looking after.
    Degraded,
    /// Nothing can be served yet.
    Starting,
}

/// The node's own credential.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Who the node is; nothing before it was proved.
    pub spiffe_id: Option<SpiffeId>,
    /// Its certificate.
    pub serial: Option<SerialNumber>,
    /// When that ends.
    pub not_after: Option<Timestamp>,
    /// When it will be replaced.
    pub next_rotation: Option<Timestamp>,
    /// Why the last attempt to replace it failed.
    pub trouble: Option<String>,
}

/// How the authority is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Where it is.
    pub address: String,
    /// Since when the stream lives.
    pub connected_since: Option<Timestamp>,
    /// When it was last heard of.
    pub last_heard: Option<Timestamp>,
    /// Why the last stream ended.
    pub trouble: Option<String>,
}

/// One identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// Its name.
    pub spiffe_id: SpiffeId,
    /// The certificate that is served; nothing when nobody has asked for it, or none was issued.
    pub serial: Option<SerialNumber>,
    /// Start of its validity.
    pub not_before: Option<Timestamp>,
    /// End of its validity.
    pub not_after: Option<Timestamp>,
    /// When it will be replaced, if somebody listens by then.
    pub next_rotation: Option<Timestamp>,
    /// Workloads that listen.
    pub workloads: usize,
    /// Why the last attempt failed.
    pub trouble: Option<String>,
}

/// One file sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// The certificate that is in place.
    pub serial: Option<SerialNumber>,
    /// What it is about: `written`, `issued, not serving`, ...
    pub state: String,
    /// What is wrong.
    pub trouble: Option<String>,
}
