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
    /// Where it writes.
    pub directory: String,
    /// How it is: `current`, `hook_failed`, `issued_not_serving`, ... as [`crate::sink::Phase`] has them.
    pub phase: String,
    /// Whether somebody should look.
    pub is_failing: bool,
    /// In words, with the next step; empty when all is well.
    pub detail: String,
    /// Serial number of the certificate it was last given.
    pub issued: Option<String>,
    /// Serial number of the certificate whose files are in place.
    pub in_place: Option<String>,
    /// How the last hook ended.
    pub hook: Option<serde_json::Value>,
    /// What the last probe saw.
    pub probe: Option<serde_json::Value>,
    /// How many attempts in a row have failed.
    pub failed_attempts: u32,
    /// When it tries again, if it does.
    pub next_attempt: Option<Timestamp>,
}

impl SinkStatus {
    /// Before anything has happened.
    pub(crate) fn begun(config: &crate::sink::SinkConfig) -> Self {
        Self {
            name: config.name().to_owned(),
            directory: config.directory().display().to_string(),
            phase: "waiting".into(),
            is_failing: false,
            detail: String::new(),
            issued: None,
            in_place: None,
            hook: None,
            probe: None,
            failed_attempts: 0,
            next_attempt: None,
        }
    }

    pub(crate) fn cannot_open(&mut self, why: &str) {
        self.phase = "not_opened".into();
        self.is_failing = true;
        self.detail = why.to_owned();
        self.failed_attempts = self.failed_attempts.saturating_add(1);
    }
}

impl From<&crate::sink::SinkStatus> for SinkStatus {
    fn from(status: &crate::sink::SinkStatus) -> Self {
        Self {
            name: status.name.clone(),
            directory: status.directory.display().to_string(),
            phase: word(&status.phase),
            is_failing: status.phase.is_failing(),
            detail: status.detail.clone(),
            issued: status.issued.as_ref().map(|certificate| certificate.serial.clone()),
            in_place: status.in_place.as_ref().map(|certificate| certificate.serial.clone()),
            hook: status.hook.as_ref().map(json),
            probe: status.probe.as_ref().map(json),
            failed_attempts: status.failed_attempts,
            next_attempt: status.next_attempt,
        }
    }
}

fn json<T: Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).expect("an outcome is plain JSON")
}

fn word<T: Serialize>(value: &T) -> String {
    json(value).as_str().unwrap_or_default().to_owned()
}
