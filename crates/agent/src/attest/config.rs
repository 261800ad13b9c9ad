//! How processes are attested, as an operator writes it.
//!
//! The raw form mirrors the file; [`AttestorConfig`] is what is left once everything was found in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_types::HumanDuration;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct AttestorConfig {
    pub(super) hash: Hashing,
    pub(super) hash_limit: u64,
    pub(super) hash_cache: usize,
    pub(super) concurrent: usize,
    pub(super) concurrent_per_party: usize,
    pub(super) timeout: Duration,
    pub(super) host_root: PathBuf,
    pub(super) systemd_units: PathBuf,
    pub(super) docker: Option<EngineConfig>,
    pub(super) podman: Option<EngineConfig>,
    pub(super) kubelet: Option<KubeletConfig>,
}

/// How a container engine is asked.
#[derive(Debug, Clone)]
pub(super) struct EngineConfig {
    pub(super) socket: PathBuf,
    pub(super) timeout: Duration,
}

/// How the kubelet is asked.
#[derive(Debug, Clone)]
pub(super) struct KubeletConfig {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) timeout: Duration,
    pub(super) wait: Duration,
}

/// When executables are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hashing {
    /// As long as anything that this node may serve asks for `unix:sha256`.
    #[default]
    WhenAsked,
    /// Whether or not it is asked for: the authority is told with every request, decides by it and records it.
    Always,
}

/// The section as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAttestorConfig {
    /// When executables are hashed: `when_asked` or `always`.
    pub hash: Hashing,
    /// The largest executable that is hashed, in bytes; 0: none is. Processes of larger ones have no `unix.sha256`.
    pub hash_limit: u64,
    /// How many hashes are kept.
    pub hash_cache: usize,
    /// How many processes are attested at once.
    pub concurrent: usize,
    /// How many of them may be of one user, or in one container.
    pub concurrent_per_party: usize,
    /// How long finding out about a process may take, a container engine's answer included.
    pub timeout: HumanDuration,
    /// Where the machine's own root directory is seen: `/proc/1/root` for an agent in a container.
    pub host_root: String,
    /// Where systemd publishes the state of its units.
    pub systemd_units: String,
    /// Docker, if it is to be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker: Option<RawEngine>,
    /// Podman, if it is to be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub podman: Option<RawEngine>,
    /// The kubelet, if it is to be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<RawKubelet>,
}

/// `[docker]` and `[podman]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawEngine {
    /// Its UNIX socket: `/run/docker.sock`, `/run/podman/podman.sock`.
    pub socket: String,
}

/// `[kubelet]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawKubelet {
    /// `https://HOST:10250`, or `http://127.0.0.1:10255` for the read-only port.
    pub url: String,
    /// PEM file with the authorities that its certificate may be of; needed with https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The token of a service account that may read `nodes/proxy`; only with https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// How long a container that was just started may be missing from its list.
    #[serde(default = "default_wait")]
    pub wait: HumanDuration,
}

impl Default for RawAttestorConfig {
    fn default() -> Self {
        Self {
            hash: Hashing::WhenAsked,
            hash_limit: 512 << 20,
            hash_cache: 4096,
            concurrent: 32,
            concurrent_per_party: 8,
            timeout: HumanDuration(Duration::from_secs(5)),
            host_root: "/".into(),
            systemd_units: "/run/systemd/units".into(),
            docker: None,
            podman: None,
            kubelet: None,
        }
    }
}

fn default_wait() -> HumanDuration {
    HumanDuration(Duration::from_secs(10))
}

impl Default for AttestorConfig {
    /// What an empty section means: the kernel and systemd are asked, nobody else.
    fn default() -> Self {
        Self::check(&RawAttestorConfig::default(), Path::new("/")).expect("the defaults are in order")
    }
}

impl AttestorConfig {
    /// Checks a configuration whose paths are relative to this directory, and reads the authorities it names.
    ///
    /// # Errors
    /// One line for each mistake.
    pub fn check(raw: &RawAttestorConfig, directory: &Path) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        for (field, value) in [
            ("hash_cache", raw.hash_cache),
            ("concurrent", raw.concurrent),
            ("concurrent_per_party", raw.concurrent_per_party),
        ] {
            if !(1..=MAX_COUNT).contains(&value) {
                mistakes.push(format!("{field}: {value} does not lie between 1 and {MAX_COUNT}"));
            }
        }
        if raw.concurrent_per_party > raw.concurrent {
            mistakes.push(format!(
                "concurrent_per_party: {} is more than all of concurrent, {}; one user could keep all others waiting",
                raw.concurrent_per_party, raw.concurrent
            ));
        }
        check_duration("timeout", raw.timeout, &mut mistakes);
        let engine =
            |raw: &RawEngine| EngineConfig { socket: directory.join(&raw.socket), timeout: ENGINE_TIMEOUT };
        let kubelet =
            raw.kubelet.as_ref().and_then(|kubelet| check_kubelet(kubelet, directory, &mut mistakes));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            hash: raw.hash,
            hash_limit: raw.hash_limit,
            hash_cache: raw.hash_cache,
            concurrent: raw.concurrent,
            concurrent_per_party: raw.concurrent_per_party,
            timeout: raw.timeout.0,
            host_root: directory.join(&raw.host_root),
            systemd_units: directory.join(&raw.systemd_units),
            docker: raw.docker.as_ref().map(engine),
            podman: raw.podman.as_ref().map(engine),
            kubelet,
        })
    }
}

fn check_kubelet(raw: &RawKubelet, directory: &Path, mistakes: &mut Vec<String>) -> Option<KubeletConfig> {
    check_duration("kubelet.wait", raw.wait, mistakes);
    let url: hyper::Uri = match raw.url.parse() {
        Ok(url) => url,
        Err(error) => {
            mistakes.push(format!("kubelet.url: {error}; write it like https://127.0.0.1:10250"));
            return None;
        }
    };
    let (Some(scheme @ ("http" | "https")), Some(host)) = (url.scheme_str(), url.host()) else {
        mistakes.push(format!("kubelet.url: {:?} is not like https://127.0.0.1:10250", raw.url));
        return None;
    };
    let with_tls = scheme == "https";
    if !with_tls && raw.token_file.is_some() {
        mistakes.push(
            "kubelet.token_file: a token is not sent over http; use https and the kubelet's port 10250"
                .into(),
        );
    }
    let tls = match (&raw.ca, with_tls) {
        (Some(ca), true) => match client_config(&directory.join(ca)) {
            Ok(config) => Some(Arc::new(config)),
            Err(mistake) => {
                mistakes.push(format!("kubelet.ca: {mistake}"));
                None
            }
        },
        (None, true) => {
            mistakes.push("kubelet.ca: name the file with the authorities of the kubelet's certificate; if it made its own, \
                 that is /var/lib/kubelet/pki/kubelet.crt"
                    .into(),
            );
            None
        }
        (_, false) => None,
    };
    Some(KubeletConfig {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port_u16().unwrap_or(if with_tls { 10250 } else { 10255 }),
        tls,
        token_file: raw.token_file.as_ref().map(|file| directory.join(file)),
        timeout: KUBELET_TIMEOUT,
        wait: raw.wait.0,
    })
}

fn client_config(ca: &Path) -> Result<rustls::ClientConfig, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", ca.display());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| failed(&error))? {
        roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() {
        return Err(failed(&"no certificate in it"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn check_duration(field: &str, duration: HumanDuration, mistakes: &mut Vec<String>) {
    let bounds = Duration::from_millis(100)..=Duration::from_secs(120);
    if !bounds.contains(&duration.0) {
        mistakes.push(format!("{field}: {duration} does not lie between 100 ms and 2 minutes"));
    }
}

const MAX_COUNT: usize = 65_536;
const ENGINE_TIMEOUT: Duration = Duration::from_secs(2);
const KUBELET_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<AttestorConfig, Vec<String>> {
        AttestorConfig::check(&toml::from_str(text).unwrap(), Path::new("/etc/chancery"))
    }

    #[test]
    fn an_empty_section_asks_the_kernel_alone() {
        let config = check("").unwrap();
        assert!(config.docker.is_none() && config.podman.is_none() && config.kubelet.is_none());
        assert_eq!(config.host_root, Path::new("/"));
    }

    #[test]
    fn reads_every_field() {
        let config = check(
            "hash = \"always\"\nhash_limit = 0\nconcurrent = 4\nconcurrent_per_party = 2\ntimeout = \"1s\"\n\
             [docker]\nsocket = \"/run/docker.sock\"\n[podman]\nsocket = \"podman.sock\"\n\
             [kubelet]\nurl = \"http://[::1]\"\nwait = \"2s\"\n",
        )
        .unwrap();
        assert_eq!(config.hash, Hashing::Always);
        assert_eq!(config.podman.unwrap().socket, Path::new("/etc/chancery/podman.sock"));
        let kubelet = config.kubelet.unwrap();
        assert_eq!((kubelet.host.as_str(), kubelet.port), ("::1", 10255));
    }

    #[test]
    fn tells_every_mistake_at_once() {
        let mistakes = check(
            "hash_cache = 0\nconcurrent = 1\nconcurrent_per_party = 2\ntimeout = \"1h\"\n\
             [kubelet]\nurl = \"http://127.0.0.1\"\ntoken_file = \"t\"\n",
        )
        .unwrap_err();
        let fields: Vec<_> = mistakes.iter().map(|mistake| mistake.split(':').next().unwrap()).collect();
        assert_eq!(fields, ["hash_cache", "concurrent_per_party", "timeout", "kubelet.token_file"]);
    }

    #[test]
    fn refuses_a_kubelet_that_could_be_anybody() {
        for (kubelet, field) in [
            ("url = \"https://127.0.0.1:10250\"", "kubelet.ca"),
            ("url = \"https://127.0.0.1:10250\"\nca = \"none.pem\"", "kubelet.ca"),
            ("url = \"127.0.0.1:10250\"", "kubelet.url"),
            ("url = \"ftp://127.0.0.1\"", "kubelet.url"),
            ("url = \"\"", "kubelet.url"),
        ] {
            let mistakes = check(&format!("[kubelet]\n{kubelet}\n")).unwrap_err();
            assert!(mistakes.len() == 1 && mistakes[0].starts_with(field), "{mistakes:?}");
        }
    }

    #[test]
    fn refuses_fields_it_does_not_know() {
        assert!(toml::from_str::<RawAttestorConfig>("environment = true").is_err());
    }
}
