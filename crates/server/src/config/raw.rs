//! The file as it is written: the sections that have no file of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use chancery_api::ChangeLimits;
use chancery_telemetry::RawTelemetry;
use chancery_types::HumanDuration;
use serde::{Deserialize, Serialize};

use super::{RawFederation, RawRotation, RawSsf, RawStorage};

/// The file as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// The trust domain.
    pub trust_domain: String,
    /// Names and addresses of the server.
    pub names: Vec<String>,
    /// Where it listens.
    #[serde(default)]
    pub listen: RawListen,
    /// The root.
    pub root: RawRoot,
    /// The keys.
    pub keys: RawKeys,
    /// What is kept where.
    #[serde(default)]
    pub storage: RawStorage,
    /// How status is published.
    #[serde(default)]
    pub status: RawStatus,
    /// How much may be revoked or held by one operator alone.
    #[serde(default)]
    pub revocation: RawRevocation,
    /// What counts as evidence.
    #[serde(default)]
    pub attestation: RawAttestation,
    /// Other trust domains, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub federation: BTreeMap<String, RawFederation>,
    /// How issuers and keys follow each other.
    #[serde(default)]
    pub rotation: RawRotation,
    /// Streams of security events.
    #[serde(default, skip_serializing_if = "RawSsf::is_default")]
    pub ssf: RawSsf,
    /// Where traces go.
    #[serde(default, skip_serializing_if = "RawTelemetry::is_default")]
    pub telemetry: RawTelemetry,
    /// Limits.
    #[serde(default)]
    pub limits: RawLimits,
}

/// `[listen]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawListen {
    /// The API, TLS.
    pub api: String,
    /// Status, plain HTTP.
    pub status: String,
    /// The administration socket.
    pub admin_socket: String,
    /// The URL under which others reach the API; by default `https://` and the first name with the API's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Other users who may use it.
    pub admin_users: Vec<u32>,
    /// Whether TLS 1.2 is spoken too.
    pub tls12: bool,
}

impl Default for RawListen {
    fn default() -> Self {
        Self {
            api: "127.0.0.1:8443".into(),
            status: "127.0.0.1:8080".into(),
            admin_socket: "run/admin.sock".into(),
            url: None,
            admin_users: Vec::new(),
            tls12: false,
        }
    }
}

/// `[root]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRoot {
    /// The certificate, PEM.
    pub certificate: String,
    /// Where its key was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `[keys]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawKeys {
    /// The issuer's.
    pub issuer: String,
    /// Those of issuers before it, which still sign the status of what they issued.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_issuers: Vec<String>,
    /// The checkpoints'.
    pub ledger: String,
    /// The JWTs'.
    pub jwt: String,
    /// The file with their passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<String>,
}

/// `[status]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawStatus {
    /// The base of the URLs in certificates; by default `http://` and the first name with the status port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How long a list is good for.
    pub crl_validity: HumanDuration,
    /// Among how many lists new certificates are divided. May be changed at any time: those that certificates
    /// already name stay published.
    pub crl_shards: u16,
    /// How long an OCSP answer is good for.
    pub ocsp_validity: HumanDuration,
    /// How old the exact set gets while nothing changes; relying parties judge its age.
    pub set_refresh: HumanDuration,
}

impl Default for RawStatus {
    fn default() -> Self {
        Self {
            url: None,
            crl_validity: HumanDuration(Duration::from_secs(24 * 3600)),
            crl_shards: 16,
            ocsp_validity: HumanDuration(Duration::from_secs(3600)),
            set_refresh: HumanDuration(Duration::from_secs(60)),
        }
    }
}

/// `[revocation]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRevocation {
    /// Percent of an environment's certificates above which a second operator has to approve; 100 for never.
    pub limit_share: u8,
    /// Certificates of an environment that may always be revoked or held.
    pub limit_floor: u64,
    /// What one operator revokes and holds within this time is added up; at most a day, 0s for each change alone.
    pub limit_window: HumanDuration,
    /// How long a change waits for approval.
    pub approval_lifetime: HumanDuration,
}

impl Default for RawRevocation {
    fn default() -> Self {
        let ChangeLimits { share, floor, window_seconds } = ChangeLimits::default();
        Self {
            limit_share: share,
            limit_floor: floor,
            limit_window: HumanDuration(Duration::from_secs(window_seconds)),
            approval_lifetime: HumanDuration(Duration::from_secs(3600)),
        }
    }
}

/// `[attestation]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAttestation {
    /// Whether a renewal may keep its key.
    pub renew_same_key: bool,
    /// Foreign authorities by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub x509_pop: BTreeMap<String, RawForeignAuthority>,
}

/// `[attestation.x509_pop.NAME]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawForeignAuthority {
    /// PEM file with its roots.
    pub roots: String,
    /// Files with its revocation lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crls: Option<Vec<String>>,
    /// Extended key usages that a leaf must have one of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purposes: Vec<String>,
}

/// `[limits]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_address: usize,
    /// Requests worked on at once.
    pub concurrent_requests: usize,
    /// Requests a second from one caller.
    pub requests_per_second: u32,
    /// Requests at once from one caller that had been quiet.
    pub burst: u32,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: 10_000,
            concurrent_requests: 1024,
            requests_per_second: 2000,
            burst: 4000,
        }
    }
}
