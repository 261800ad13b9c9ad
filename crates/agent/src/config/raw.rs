//! `agent.toml` as it is written.

use serde::Deserialize;

use chancery_telemetry::RawTelemetry;

use super::Limits;
use crate::attest::RawAttestorConfig;
use crate::sink::SinkSettings;

/// The file as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// The authority, as https://host:port.
    pub server: String,
    /// PEM file with its roots.
    #[serde(default)]
    pub trust_bundle: Option<String>,
    /// SHA-256 of its root.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// How the node proves itself.
    #[serde(default)]
    pub evidence: RawEvidence,
    /// What is kept.
    #[serde(default)]
    pub state: RawState,
    /// What workloads reach.
    #[serde(default)]
    pub workload_api: RawWorkloadApi,
    /// How they are attested.
    #[serde(default)]
    pub attestation: RawAttestorConfig,
    /// What operators reach.
    #[serde(default)]
    pub status: RawStatus,
    /// File sinks.
    #[serde(default)]
    pub sinks: Vec<SinkSettings>,
    /// What is logged: `info`, or `info,chancery_agent=debug`; what the environment says in `CHANCERY_LOG` goes first.
    #[serde(default)]
    pub log: Option<String>,
    /// Where traces go; read at the start alone.
    #[serde(default)]
    pub telemetry: RawTelemetry,
    /// Limits.
    #[serde(default)]
    pub limits: RawLimits,
}

/// `[evidence]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawEvidence {
    /// A file whose first line is a join token.
    pub join_token_file: Option<String>,
    /// A foreign certificate with its issuers, PEM.
    pub x509_pop_certificate: Option<String>,
    /// Its key, PKCS #8 PEM.
    pub x509_pop_key: Option<String>,
}

/// `[state]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawState {
    /// A directory that the agent alone can read; made if need be.
    pub directory: Option<String>,
    /// Whether the node's credential is kept in it.
    pub keep_credential: bool,
    /// A file with at least 32 random bytes that seal what is kept, or `credential:NAME` for one that the service
    /// manager has; absent: it is kept in the clear, for its owner alone.
    pub sealing_key: Option<String>,
}

/// `[workload_api]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWorkloadApi {
    /// The socket.
    pub socket: String,
    /// Whether processes without an identity may have bundles, to verify those who have one.
    pub anybody_may_verify: bool,
}

/// Where workloads look unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/chancery-agent/public/api.sock";

impl Default for RawWorkloadApi {
    fn default() -> Self {
        Self { socket: DEFAULT_SOCKET.into(), anybody_may_verify: false }
    }
}

/// `[status]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawStatus {
    /// The socket that `chancery agent status` asks.
    pub socket: String,
    /// Where metrics and health are served besides: `127.0.0.1:9464` or `unix:/path`.
    pub metrics: Option<String>,
}

impl Default for RawStatus {
    fn default() -> Self {
        Self { socket: DEFAULT_STATUS_SOCKET.into(), metrics: None }
    }
}

/// Where `chancery agent status` looks unless told otherwise.
pub const DEFAULT_STATUS_SOCKET: &str = "/run/chancery-agent/status.sock";

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// X.509-SVIDs held.
    pub svids: usize,
    /// Workloads told of changes.
    pub workloads: usize,
    /// JWT-SVIDs cached.
    pub tokens: usize,
}

impl Default for RawLimits {
    fn default() -> Self {
        let Limits { svids, workloads, tokens } = Limits::default();
        Self { svids, workloads, tokens }
    }
}
