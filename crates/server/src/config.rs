//! `chancery.toml`: what an operator writes, checked as a whole.
//!
//! The raw form mirrors the file; [`Config`] is what is left once everything was found in order. Paths are
//! relative to the file's directory. Secrets are named by path, never written here.

mod federation;
mod raw;
mod rotation;
mod ssf;
mod storage;
mod tiles;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chancery_api::ChangeLimits;
use chancery_keys::KeyLocation;
use chancery_telemetry::TelemetryConfig;
use chancery_types::{CrlShard, DnsName, TrustDomain};

pub use federation::{BundleSource, FederationConfig, RawFederation};
pub use raw::{
    RawAttestation, RawConfig, RawForeignAuthority, RawKeys, RawLimits, RawListen, RawRevocation, RawRoot,
    RawStatus,
};
pub use rotation::{RawRotation, RotationConfig};
pub use ssf::{EventPushConfig, RawSsf};
pub use storage::{DatabaseTls, LedgerPlace, PostgresPlace, RawPostgres, RawStorage};
pub use tiles::{BucketPlace, TilePlace};
pub(crate) use tiles::{endpoint, region};

/// A name that clients reach the server under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// A DNS name.
    Dns(DnsName),
    /// An address.
    Ip(IpAddr),
}

impl ServerName {
    /// Reads an address or, failing that, a DNS name.
    ///
    /// # Errors
    /// What is wrong with it as a DNS name.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(address) => Ok(Self::Ip(address)),
            Err(_) => DnsName::parse(text).map(Self::Dns).map_err(|error| error.to_string()),
        }
    }
}

impl std::fmt::Display for ServerName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => name.fmt(formatter),
            Self::Ip(IpAddr::V4(address)) => address.fmt(formatter),
            Self::Ip(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
        }
    }
}

/// A foreign authority whose certificates count as evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignAuthorityConfig {
    /// Its name in claims (`x509.ca`).
    pub name: String,
    /// PEM file with its roots.
    pub roots: PathBuf,
    /// PEM or DER files with its revocation lists; `None`: revocation is not checked.
    pub crls: Option<Vec<PathBuf>>,
    /// Extended key usages that a leaf must have one of; empty: any.
    pub purposes: Vec<String>,
}

/// Limits on what strangers can send, per process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_address: usize,
    /// Requests worked on at once.
    pub concurrent_requests: usize,
    /// Requests a second from one caller, sustained.
    pub requests_per_second: u32,
    /// Requests at once from one caller that had been quiet.
    pub burst: u32,
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory that paths are relative to.
    pub directory: PathBuf,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// What the server is reached under; the first stands in URLs.
    pub names: Vec<ServerName>,
    /// The API, TLS.
    pub api: SocketAddr,
    /// Status over plain HTTP (CRL, OCSP, CA certificates), as relying parties expect it.
    pub status: SocketAddr,
    /// The URL under which others reach the API; tokens name it as their issuer.
    pub url: String,
    /// The local administration socket.
    pub admin_socket: PathBuf,
    /// Users who may use it besides the one that the server runs as.
    pub admin_users: Vec<u32>,
    /// Whether TLS 1.2 is spoken too.
    pub tls12: bool,
    /// The base of the URLs that go into certificates.
    pub status_url: String,
    /// Where the ledger is.
    pub ledger: LedgerPlace,
    /// How long after their end certificates leave what searches find; `None` for never.
    pub tidy_after: Option<Duration>,
    /// Where full tiles of the log are kept and served from; `None`: they are made as they are asked for.
    pub tiles: Option<TilePlace>,
    /// Where the issuer's key is.
    pub issuer_key: KeyLocation,
    /// Where the keys of issuers before it are: they sign the status of what they issued.
    pub former_issuer_keys: Vec<KeyLocation>,
    /// Where the checkpoint key is.
    pub ledger_key: KeyLocation,
    /// Where the JWT key is.
    pub jwt_key: KeyLocation,
    /// The file with the passphrase of the keys above; `None`: they are plain, or in a token.
    pub passphrase_file: Option<PathBuf>,
    /// The root certificate, PEM.
    pub root_certificate: PathBuf,
    /// Where the root's key was made: the server refuses to start while it can read it.
    pub root_key: Option<KeyLocation>,
    /// The profiles' directory.
    pub profiles: PathBuf,
    /// The policy's directory.
    pub policy: PathBuf,
    /// Foreign authorities.
    pub x509_pop: Vec<ForeignAuthorityConfig>,
    /// Other trust domains.
    pub federation: Vec<FederationConfig>,
    /// Where security events may be pushed to; nowhere if absent.
    pub event_push: Option<EventPushConfig>,
    /// Whether the same key may be renewed.
    pub renew_same_key: bool,
    /// How long a list is good for: the longest outage that relying parties survive.
    pub crl_validity: Duration,
    /// Among how many lists new certificates are divided.
    pub crl_shards: u16,
    /// How long an OCSP answer is good for.
    pub ocsp_validity: Duration,
    /// From where on a revocation or a hold needs a second operator's approval.
    pub change_limits: ChangeLimits,
    /// How long a change waits for approval.
    pub approval_lifetime: Duration,
    /// How old the exact set gets while nothing changes.
    pub set_refresh: Duration,
    /// How issuers and keys follow each other.
    pub rotation: RotationConfig,
    /// Where traces go.
    pub telemetry: TelemetryConfig,
    /// Limits.
    pub limits: Limits,
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
        let fail =
            |mistake: String| ConfigError { path: path.display().to_string(), mistakes: vec![mistake] };
        let text = std::fs::read_to_string(path)
            .map_err(|error| fail(format!("{error}; run `chancery init`, or name the file with --config")))?;
        let raw: RawConfig = toml::from_str(&text).map_err(|error| fail(error.to_string()))?;
        // The parent of a bare file name is the empty path.
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = std::path::absolute(directory).map_err(|error| fail(error.to_string()))?;
        Self::check(raw, &directory)
            .map_err(|mistakes| ConfigError { path: path.display().to_string(), mistakes })
    }

    /// Where the keys are that the server holds.
    #[must_use]
    pub fn keys(&self) -> Vec<&KeyLocation> {
        let own = [&self.issuer_key, &self.ledger_key, &self.jwt_key];
        own.into_iter().chain(&self.former_issuer_keys).collect()
    }

    /// Files beside the keys whose content is secret: passphrases, PINs, passwords and credentials.
    #[must_use]
    pub fn secret_files(&self) -> Vec<&Path> {
        let pins = self.keys().into_iter().filter_map(|location| match location {
            KeyLocation::Pkcs11(uri) => uri.pin_source.as_deref(),
            KeyLocation::File(_) => None,
        });
        let database = match &self.ledger {
            LedgerPlace::Postgres(place) => Some(place),
            LedgerPlace::Directory(_) => None,
        };
        let database = database.into_iter().flat_map(|place| {
            let certificate = place.tls.as_ref().and_then(|tls| tls.credential.as_ref());
            place.password_file.as_deref().into_iter().chain(certificate.map(|(_, key)| key.as_path()))
        });
        let store = self.tiles.as_ref().and_then(TilePlace::credentials);
        self.passphrase_file.as_deref().into_iter().chain(pins).chain(database).chain(store).collect()
    }

    /// Whether the root's key can be read from here.
    #[must_use]
    pub fn root_is_readable(&self) -> bool {
        self.root_key.as_ref().is_some_and(chancery_keys::store::is_readable)
    }

    /// Checks a configuration whose paths are relative to this directory.
    ///
    /// # Errors
    /// One line for each mistake.
    pub fn check(raw: RawConfig, directory: &Path) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let trust_domain = keep(&mut mistakes, "trust_domain", TrustDomain::parse(&raw.trust_domain));
        let names: Vec<ServerName> = raw
            .names
            .iter()
            .filter_map(|name| keep(&mut mistakes, "names", ServerName::parse(name)))
            .collect();
        if raw.names.is_empty() {
            mistakes.push(
                "names: name at least one DNS name or address that clients reach the server under".into(),
            );
        }
        let api: Option<SocketAddr> = keep(&mut mistakes, "listen.api", raw.listen.api.parse());
        let status: Option<SocketAddr> = keep(&mut mistakes, "listen.status", raw.listen.status.parse());
        let mut key = |field: &str, text: &str| keep(&mut mistakes, field, key_location(text, directory));
        let issuer_key = key("keys.issuer", &raw.keys.issuer);
        let former = raw.keys.former_issuers.iter();
        let former_issuer_keys = former.filter_map(|text| key("keys.former_issuers", text)).collect();
        let ledger_key = key("keys.ledger", &raw.keys.ledger);
        let jwt_key = key("keys.jwt", &raw.keys.jwt);
        let root_key = raw.root.key.as_deref().and_then(|text| key("root.key", text));
        let x509_pop = raw
            .attestation
            .x509_pop
            .iter()
            .map(|(name, authority)| ForeignAuthorityConfig {
                name: name.clone(),
                roots: directory.join(&authority.roots),
                crls: authority
                    .crls
                    .as_ref()
                    .map(|files| files.iter().map(|file| directory.join(file)).collect()),
                purposes: authority.purposes.clone(),
            })
            .collect();
        let limits = check_limits(&raw.limits, &mut mistakes);
        let storage = raw.storage;
        let tidy_after = storage::check_tidy(&storage, raw.status.crl_validity.0, &mut mistakes);
        let tiles = TilePlace::check(&storage, directory, &mut mistakes);
        let ledger = LedgerPlace::check(&storage.ledger, storage.postgres, directory, &mut mistakes);
        if !(1..=100).contains(&raw.revocation.limit_share) {
            let share = raw.revocation.limit_share;
            mistakes.push(format!("revocation.limit_share: {share} is no percentage from 1 to 100"));
        }
        if raw.revocation.limit_window.0 > Duration::from_secs(24 * 3600) {
            let window = raw.revocation.limit_window;
            mistakes.push(format!("revocation.limit_window: {window} is more than a day"));
        }
        let federation = federation::check(raw.federation, trust_domain.as_ref(), directory, &mut mistakes);
        let event_push = ssf::check(raw.ssf, directory, &mut mistakes);
        for (field, duration, least) in [
            ("revocation.approval_lifetime", raw.revocation.approval_lifetime.0, 1),
            ("status.crl_validity", raw.status.crl_validity.0, 60),
            ("status.ocsp_validity", raw.status.ocsp_validity.0, 60),
        ] {
            if duration < Duration::from_secs(least) || duration > Duration::from_secs(90 * 24 * 3600) {
                mistakes.push(format!("{field}: must lie between {least} s and 90 days"));
            }
        }
        let shards = raw.status.crl_shards;
        if !(1..=CrlShard::MOST).contains(&shards) {
            mistakes
                .push(format!("status.crl_shards: must lie between 1 and {}, not {shards}", CrlShard::MOST));
        }
        let set_refresh = raw.status.set_refresh.0;
        if !(Duration::from_secs(5)..=Duration::from_secs(3600)).contains(&set_refresh) {
            mistakes.push("status.set_refresh: must lie between 5 s and 1 hour".into());
        }
        let (Some(trust_domain), Some(api), Some(status)) = (trust_domain, api, status) else {
            return Err(mistakes);
        };
        let (Some(issuer_key), Some(ledger_key), Some(jwt_key)) = (issuer_key, ledger_key, jwt_key) else {
            return Err(mistakes);
        };
        let status_url = match (&raw.status.url, names.first()) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(name)) => format!("http://{name}:{}", status.port()),
            (None, None) => String::new(),
        };
        if !status_url.is_empty() && !status_url.starts_with("http://") {
            mistakes.push(format!(
                "status.url: {status_url:?} must begin with http:// (RFC 5280 section 4.2.1.13: fetching status \
                 over https would need status)"
            ));
        }
        let url = match (&raw.listen.url, names.first()) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(name)) => format!("https://{name}:{}", api.port()),
            (None, None) => String::new(),
        };
        if !url.is_empty() && !url.starts_with("https://") {
            mistakes
                .push(format!("listen.url: {url:?} must begin with https:// (OpenID Connect Discovery 1.0)"));
        }
        let rotation = RotationConfig::check(&raw.rotation, &mut mistakes);
        let telemetry = TelemetryConfig::check(raw.telemetry, directory, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            rotation,
            telemetry,
            directory: directory.to_owned(),
            trust_domain,
            names,
            api,
            status,
            url,
            admin_socket: directory.join(&raw.listen.admin_socket),
            admin_users: raw.listen.admin_users,
            tls12: raw.listen.tls12,
            status_url,
            ledger,
            tidy_after,
            tiles,
            issuer_key,
            former_issuer_keys,
            ledger_key,
            jwt_key,
            passphrase_file: raw.keys.passphrase_file.map(|file| directory.join(file)),
            root_certificate: directory.join(&raw.root.certificate),
            root_key,
            profiles: directory.join(&storage.profiles),
            policy: directory.join(&storage.policy),
            x509_pop,
            federation,
            event_push,
            renew_same_key: raw.attestation.renew_same_key,
            crl_validity: raw.status.crl_validity.0,
            crl_shards: raw.status.crl_shards,
            ocsp_validity: raw.status.ocsp_validity.0,
            change_limits: ChangeLimits {
                share: raw.revocation.limit_share,
                floor: raw.revocation.limit_floor,
                window_seconds: raw.revocation.limit_window.0.as_secs(),
            },
            approval_lifetime: raw.revocation.approval_lifetime.0,
            set_refresh: raw.status.set_refresh.0,
            limits,
        })
    }
}

fn check_limits(raw: &RawLimits, mistakes: &mut Vec<String>) -> Limits {
    for (field, value) in [
        ("connections", raw.connections),
        ("connections_per_address", raw.connections_per_address),
        ("concurrent_requests", raw.concurrent_requests),
        ("requests_per_second", raw.requests_per_second as usize),
        ("burst", raw.burst as usize),
    ] {
        if value == 0 {
            mistakes.push(format!("limits.{field}: must be at least 1"));
        }
    }
    Limits {
        connections: raw.connections,
        connections_per_address: raw.connections_per_address,
        concurrent_requests: raw.concurrent_requests,
        requests_per_second: raw.requests_per_second,
        burst: raw.burst,
    }
}

/// A key's place; a file's path is relative to the configuration.
fn key_location(text: &str, directory: &Path) -> Result<KeyLocation, String> {
    match text.parse::<KeyLocation>().map_err(|error| error.to_string())? {
        KeyLocation::File(path) => Ok(KeyLocation::File(directory.join(path))),
        token @ KeyLocation::Pkcs11(_) => Ok(token),
    }
}

fn keep<T, E: std::fmt::Display>(mistakes: &mut Vec<String>, field: &str, result: Result<T, E>) -> Option<T> {
    result.map_err(|error| mistakes.push(format!("{field}: {error}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        trust_domain = "example.org"
        names = ["ca.example.org", "127.0.0.1"]
        [root]
        certificate = "certs/root.crt"
        [keys]
        issuer = "keys/issuer-1.key"
        ledger = "keys/ledger.key"
        jwt = "keys/jwt.key"
    "#;

    fn check(text: &str) -> Result<Config, Vec<String>> {
        Config::check(
            toml::from_str(text).map_err(|error| vec![error.to_string()])?,
            Path::new("/etc/chancery"),
        )
    }

    #[test]
    fn the_least_is_enough_and_paths_are_relative_to_the_file() {
        let config = check(MINIMAL).unwrap();
        assert_eq!(config.status_url, "http://ca.example.org:8080");
        assert_eq!(config.ledger, LedgerPlace::Directory("/etc/chancery/ledger".into()));
        assert!(matches!(&config.issuer_key, KeyLocation::File(path) if path.starts_with("/etc/chancery")));
        assert!(!config.tls12);
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text = MINIMAL
            .replace("example.org\"\n", "exa mple\"\n")
            .replace("\"ca.example.org\", \"127.0.0.1\"", "\"-bad-\"")
            + "\n[listen]\napi = \"nowhere\"\n[limits]\nburst = 0\n";
        let mistakes = check(&text).unwrap_err();
        for field in ["trust_domain", "names", "listen.api", "limits.burst"] {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(field)), "{field}: {mistakes:?}");
        }
    }

    #[test]
    fn refuses_unknown_fields_and_status_over_https() {
        assert!(check(&format!("lisen = 1\n{MINIMAL}")).is_err());
        let mistakes = check(&format!("{MINIMAL}\n[status]\nurl = \"https://x\"\n")).unwrap_err();
        assert!(mistakes[0].starts_with("status.url"));
    }
}
