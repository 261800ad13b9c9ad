//! `agent.toml`: what an operator writes, checked as a whole.
//!
//! The raw form mirrors the file; [`Config`] is what is left once everything was found in order. Paths are
//! relative to the file's directory. Secrets are named by path, never written here. Most agents need no file at
//! all: the flags of `chancery agent` make the same raw form.

mod raw;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chancery_client::Endpoint;
use chancery_telemetry::TelemetryConfig;
use chancery_types::Digest;

pub use raw::{
    DEFAULT_SOCKET, DEFAULT_STATUS_SOCKET, RawConfig, RawEvidence, RawLimits, RawState, RawStatus,
    RawWorkloadApi,
};

use crate::attest::{AttestorConfig, RawAttestorConfig};
use crate::doors::Verifiers;
use crate::sink::{SinkConfig, SinkSettings};
pub use crate::state::SealingKey;

/// How the node proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidenceConfig {
    /// A single-use token in the first line of a file: it works once, so an agent without a kept credential needs a
    /// new one after each restart.
    JoinToken(PathBuf),
    /// A certificate of a foreign authority and its key: it works again and again.
    X509Pop {
        /// The certificate with its issuers, PEM.
        certificate: PathBuf,
        /// Its key, PKCS #8 PEM.
        key: PathBuf,
    },
}

/// How the authority is recognised at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustConfig {
    /// By these roots, PEM.
    Bundle(PathBuf),
    /// By the SHA-256 of its root.
    Fingerprint(Digest),
}

/// What one agent holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// X.509-SVIDs, those that nobody uses at the moment included.
    pub svids: usize,
    /// Workloads that are told of changes at once.
    pub workloads: usize,
    /// JWT-SVIDs in the cache.
    pub tokens: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { svids: 20_000, workloads: 20_000, tokens: 4096 }
    }
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the authority is.
    pub server: Endpoint,
    /// How it is recognised.
    pub trust: TrustConfig,
    /// How the node proves itself.
    pub evidence: EvidenceConfig,
    /// Where the trust bundle and, if asked for, the node's credential are kept.
    pub state: Option<PathBuf>,
    /// What files in it are sealed with; nothing: they are plain, 0600.
    pub sealing_key: Option<SealingKey>,
    /// Whether the node's credential is kept, so that a restart needs no new evidence.
    pub credential: Keep,
    /// The Workload API's socket, which SDS shares.
    pub socket: PathBuf,
    /// Who may have bundles.
    pub verifiers: Verifiers,
    /// How processes are attested, and what was written of it.
    pub attestor: AttestorConfig,
    /// See `attestor`.
    pub attestation: RawAttestorConfig,
    /// What is logged, as `CHANCERY_LOG` says it.
    pub log: Option<String>,
    /// Where traces go.
    pub telemetry: TelemetryConfig,
    /// The status socket, for `chancery agent status`.
    pub status_socket: PathBuf,
    /// Where metrics and health are served besides.
    pub metrics: Option<MetricsAddress>,
    /// File sinks, with what was written of each: what has not changed is left alone when the file is read again.
    pub sinks: Vec<(SinkSettings, SinkConfig)>,
    /// Limits.
    pub limits: Limits,
}

/// Whether a credential outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// In memory alone.
    #[default]
    InMemory,
    /// In a file that its owner alone can read.
    OnDisk,
}

/// Where metrics and health are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAddress {
    /// TCP: whoever can connect can read.
    Tcp(SocketAddr),
    /// A UNIX socket.
    Unix(PathBuf),
}

/// Everything that is wrong with a configuration, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} cannot be used:{}", .mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect::<String>())]
pub struct ConfigError {
    /// The file.
    pub path: String,
    /// One line each.
    pub mistakes: Vec<String>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fail = |mistakes| ConfigError { path: path.display().to_string(), mistakes };
        let text = std::fs::read_to_string(path).map_err(|error| fail(vec![error.to_string()]))?;
        let raw: RawConfig = toml::from_str(&text).map_err(|error| fail(vec![error.to_string()]))?;
        // The parent of a bare file name is the empty path.
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = std::path::absolute(directory).map_err(|error| fail(vec![error.to_string()]))?;
        Self::check(raw, &directory).map_err(fail)
    }

    /// Checks a configuration whose paths are relative to this directory.
    ///
    /// # Errors
    /// One line for each mistake.
    pub fn check(raw: RawConfig, directory: &Path) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let server = keep(&mut mistakes, "server", raw.server.parse::<Endpoint>());
        if matches!(server, Some(Endpoint::Unix(_))) {
            mistakes.push("server: an agent proves itself over TLS; write https://host:port".into());
        }
        let trust = trust(&raw, directory, &mut mistakes);
        let evidence = evidence(&raw.evidence, directory, &mut mistakes);
        let state = raw.state.directory.map(|path| directory.join(path));
        let sealing_key = raw.state.sealing_key.as_deref();
        let sealing_key = sealing_key
            .and_then(|text| keep(&mut mistakes, "state.sealing_key", SealingKey::parse(text, directory)));
        let credential = if raw.state.keep_credential { Keep::OnDisk } else { Keep::InMemory };
        if credential == Keep::OnDisk && state.is_none() {
            mistakes.push("state.keep_credential: name state.directory, where it is to be kept".into());
        }
        let metrics = raw
            .status
            .metrics
            .as_deref()
            .and_then(|text| keep(&mut mistakes, "status.metrics", metrics_address(text, directory)));
        let socket = directory.join(&raw.workload_api.socket);
        let status_socket = directory.join(&raw.status.socket);
        if socket == status_socket {
            mistakes.push("status.socket: is the same as workload_api.socket".into());
        }
        let limits = check_limits(&raw.limits, &mut mistakes);
        let attestor = AttestorConfig::check(&raw.attestation, directory);
        let attestor = attestor
            .map_err(|found| mistakes.extend(found.iter().map(|mistake| format!("attestation: {mistake}"))));
        let telemetry = TelemetryConfig::check(raw.telemetry, directory, &mut mistakes);
        let sinks = sinks(raw.sinks, &mut mistakes);
        let verifiers =
            if raw.workload_api.anybody_may_verify { Verifiers::Anybody } else { Verifiers::Entitled };
        match (server, trust, evidence, attestor) {
            (Some(server), Some(trust), Some(evidence), Ok(attestor)) if mistakes.is_empty() => Ok(Self {
                server,
                trust,
                evidence,
                state,
                sealing_key,
                credential,
                socket,
                verifiers,
                attestor,
                attestation: raw.attestation,
                status_socket,
                log: raw.log,
                telemetry,
                metrics,
                sinks,
                limits,
            }),
            _ => Err(mistakes),
        }
    }
}

fn trust(raw: &RawConfig, directory: &Path, mistakes: &mut Vec<String>) -> Option<TrustConfig> {
    match (&raw.trust_bundle, &raw.fingerprint) {
        (Some(path), None) => Some(TrustConfig::Bundle(directory.join(path))),
        (None, Some(hex)) => {
            keep(mistakes, "fingerprint", hex.parse::<Digest>()).map(TrustConfig::Fingerprint)
        }
        _ => {
            mistakes
                .push("trust_bundle: name the roots, or give the root's fingerprint: one of the two".into());
            None
        }
    }
}

fn evidence(raw: &RawEvidence, directory: &Path, mistakes: &mut Vec<String>) -> Option<EvidenceConfig> {
    match (&raw.join_token_file, &raw.x509_pop_certificate, &raw.x509_pop_key) {
        (Some(token), None, None) => Some(EvidenceConfig::JoinToken(directory.join(token))),
        (None, Some(certificate), Some(key)) => Some(EvidenceConfig::X509Pop {
            certificate: directory.join(certificate),
            key: directory.join(key),
        }),
        _ => {
            mistakes.push(
                "evidence: give join_token_file, or x509_pop_certificate and x509_pop_key: one of the two ways"
                    .into(),
            );
            None
        }
    }
}

fn metrics_address(text: &str, directory: &Path) -> Result<MetricsAddress, String> {
    match text.strip_prefix("unix:") {
        Some(path) => Ok(MetricsAddress::Unix(directory.join(path))),
        None => text
            .parse()
            .map(MetricsAddress::Tcp)
            .map_err(|error| format!("{text:?}: {error}; write 127.0.0.1:9464 or unix:/path")),
    }
}

fn sinks(settings: Vec<SinkSettings>, mistakes: &mut Vec<String>) -> Vec<(SinkSettings, SinkConfig)> {
    let mut names = BTreeSet::new();
    let mut directories = BTreeSet::new();
    for sink in &settings {
        if !names.insert(sink.name.as_str()) {
            mistakes.push(format!("sinks: two are called {:?}", sink.name));
        }
        if !directories.insert(sink.directory.as_path()) {
            mistakes.push(format!("sinks: two write to {}", sink.directory.display()));
        }
    }
    settings
        .iter()
        .filter_map(|sink| Some((sink.clone(), keep(mistakes, "sinks", SinkConfig::try_from(sink.clone()))?)))
        .collect()
}

fn check_limits(raw: &RawLimits, mistakes: &mut Vec<String>) -> Limits {
    for (field, value) in [("svids", raw.svids), ("workloads", raw.workloads), ("tokens", raw.tokens)] {
        if value == 0 {
            mistakes.push(format!("limits.{field}: must be at least 1"));
        }
    }
    Limits { svids: raw.svids, workloads: raw.workloads, tokens: raw.tokens }
}

fn keep<T, E: std::fmt::Display>(mistakes: &mut Vec<String>, field: &str, result: Result<T, E>) -> Option<T> {
    result.map_err(|error| mistakes.push(format!("{field}: {error}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        server = "https://ca.example.org:8443"
        trust_bundle = "roots.pem"
        [evidence]
        join_token_file = "join.token"
    "#;

    fn check(text: &str) -> Result<Config, Vec<String>> {
        let raw = toml::from_str(text).map_err(|error| vec![error.to_string()])?;
        Config::check(raw, Path::new("/etc/chancery"))
    }

    #[test]
    fn the_least_is_enough_and_paths_are_relative_to_the_file() {
        let config = check(MINIMAL).unwrap();
        assert_eq!(config.trust, TrustConfig::Bundle("/etc/chancery/roots.pem".into()));
        assert_eq!(config.evidence, EvidenceConfig::JoinToken("/etc/chancery/join.token".into()));
        assert_eq!((config.state, config.credential), (None, Keep::InMemory));
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text = r#"
            server = "http://ca.example.org"
            trust_bundle = "roots.pem"
            fingerprint = "00"
            [evidence]
            x509_pop_certificate = "machine.crt"
            [state]
            keep_credential = true
            [status]
            metrics = "nowhere"
            [limits]
            svids = 0
        "#;
        let mistakes = check(text).unwrap_err();
        let fields =
            ["server", "trust_bundle", "evidence", "state.keep_credential", "status.metrics", "limits.svids"];
        for field in fields {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(field)), "{field}: {mistakes:?}");
        }
    }

    #[test]
    fn refuses_unknown_fields_and_the_admin_socket() {
        assert!(check(&format!("sever = 1\n{MINIMAL}")).is_err());
        let socket = MINIMAL.replace("https://ca.example.org:8443", "unix:/run/admin.sock");
        assert!(check(&socket).unwrap_err()[0].contains("https://"));
    }

    #[test]
    fn the_sample_file_is_in_order() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ca-config/agent.toml");
        Config::load(&sample).unwrap();
    }
}
