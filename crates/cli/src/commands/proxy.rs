//! `chancery proxy` and `chancery authz`: live status for programs that cannot ask for it themselves.

use std::path::{Path, PathBuf};

use anyhow::Result;
use chancery_proxy::ConfigError;
use chancery_proxy::authz::{self, AuthzConfig};
use chancery_proxy::source::{RawAuthority, RawCredentials, RawStatus};
use chancery_proxy::tunnel::header::ProxyVersion;
use chancery_proxy::tunnel::{self, ProxyConfig, RawListener, RawProxy};
use chancery_telemetry::TelemetryConfig;
use chancery_types::HumanDuration;
use clap::{Args, ValueEnum};

use crate::failure::usage;
use crate::flags::Globals;
use crate::log::{LogFormat, start_log};
use crate::terminal::Terminal;

/// Passes connections on, with TLS on one side or both, and cuts those of peers that are revoked.
///
/// TLS comes in where --allow-client says from whom, and goes out where --allow-server says to whom; the other side is
/// plain and stays on this machine. Until SIGTERM, after which connections may finish; SIGHUP reads the configuration
/// again. All is said by --config proxy.toml, or by flags for one listener.
#[derive(Debug, Args)]
#[command(after_help = PROXY_EXAMPLES)]
pub(crate) struct ProxyCommand {
    /// The authority, as https://host:port.
    #[arg(long, env = "CHANCERY_SERVER", value_name = "URL")]
    server: Option<String>,
    /// The agent's socket, as unix:///path.
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_name = "SOCKET")]
    workload_api: Option<String>,
    /// Its certificate and issuers, PEM, instead of an agent.
    #[arg(long, value_name = "FILE", requires = "key", requires = "trust_bundle")]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The roots, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    trust_bundle: Option<PathBuf>,
    /// Where to listen: address:port or unix:/path.
    #[arg(long, value_name = "PLACE", requires = "to")]
    listen: Option<String>,
    /// Where to connect to: host:port or unix:/path.
    #[arg(long, value_name = "PLACE", requires = "listen")]
    to: Option<String>,
    /// Take TLS, from this SPIFFE ID, or from all below it with /* at the end. May be given again.
    #[arg(long, value_name = "ID")]
    allow_client: Vec<String>,
    /// Make TLS, to this SPIFFE ID, or to all below it. May be given again.
    #[arg(long, value_name = "ID")]
    allow_server: Vec<String>,
    /// Protocols to offer, the preferred one first.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    alpn: Vec<String>,
    /// Begin connections to the backend with a PROXY header; v2 names the peer.
    #[arg(long, value_enum, value_name = "VERSION")]
    send_proxy_header: Option<Version>,
    /// How long any connection may live.
    #[arg(long, value_name = "DURATION")]
    maximum_connection_age: Option<HumanDuration>,
    /// Where to serve metrics and health: 127.0.0.1:9465, or unix:/path.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// How to write the log to standard error.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

/// Answers Envoy (ext_authz) and nginx (auth_request) whether a client may, by identity and live status.
///
/// Until SIGTERM. All is said by --config authz.toml.
#[derive(Debug, Args)]
pub(crate) struct AuthzCommand {
    /// How to write the log to standard error.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Version {
    /// A line of text.
    V1,
    /// Binary, with the peer's SPIFFE ID.
    V2,
}

impl ProxyCommand {
    pub(crate) async fn run(&self, globals: &Globals) -> Result<()> {
        let file = named_file(globals);
        let here = std::env::current_dir()?;
        let raw = self.listen.is_some().then(|| self.raw()).transpose()?;
        if file.is_none() && raw.is_none() {
            return Err(usage(
                "nothing says what to pass on; give --listen and --to, or --config proxy.toml",
            ));
        }
        if file.is_some() && raw.is_some() {
            return Err(usage("say it in the file or by flags: --config excludes --listen"));
        }
        let _log = start_log(self.log_format, globals, "chancery-proxy", &TelemetryConfig::default())?;
        let load = || match (&file, &raw) {
            (Some(file), _) => ProxyConfig::load(file),
            (None, raw) => ProxyConfig::check(raw.clone().unwrap_or_default(), &here)
                .map_err(|mistakes| ConfigError { path: "the command line".into(), mistakes }),
        };
        Ok(tunnel::run(load).await?)
    }

    /// The file that says the same as these flags.
    fn raw(&self) -> Result<RawProxy> {
        let (Some(server), Some(listen), Some(to)) = (&self.server, &self.listen, &self.to) else {
            return Err(usage(
                "no authority is known; say --server https://host:port (or set CHANCERY_SERVER)",
            ));
        };
        let given = |peers: &Vec<String>| (!peers.is_empty()).then(|| peers.clone());
        Ok(RawProxy {
            authority: RawAuthority { server: server.clone(), ..RawAuthority::default() },
            identity: RawCredentials {
                certificate: self.cert.clone(),
                key: self.key.clone(),
                trust_bundle: self.trust_bundle.clone(),
                // What the environment says of an agent yields to files that were named.
                workload_api: self.workload_api.clone().filter(|_| self.cert.is_none()),
                spiffe_id: None,
            },
            status: RawStatus { maximum_connection_age: self.maximum_connection_age, ..RawStatus::default() },
            metrics: self.metrics.clone(),
            listeners: vec![RawListener {
                name: "proxy".into(),
                listen: listen.clone(),
                to: to.clone(),
                allow_clients: given(&self.allow_client),
                allow_servers: given(&self.allow_server),
                alpn: self.alpn.clone(),
                send_proxy_header: self.send_proxy_header.map(|version| match version {
                    Version::V1 => ProxyVersion::V1,
                    Version::V2 => ProxyVersion::V2,
                }),
                ..RawListener::default()
            }],
            ..RawProxy::default()
        })
    }
}

impl AuthzCommand {
    pub(crate) async fn run(&self, globals: &Globals) -> Result<()> {
        let Some(file) = named_file(globals) else {
            return Err(usage("nothing says who may; give --config authz.toml"));
        };
        let config = AuthzConfig::load(&file)?;
        let _log = start_log(self.log_format, globals, "chancery-authz", &TelemetryConfig::default())?;
        Ok(authz::run(config).await?)
    }
}

/// The file that was named. What $CHANCERY_CONFIG names is the authority's, where an operator's shell exports it.
pub(crate) fn named_file(globals: &Globals) -> Option<PathBuf> {
    let exported = std::env::var_os("CHANCERY_CONFIG").map(PathBuf::from);
    globals.config.clone().filter(|file| Some(file) != exported.as_ref())
}

/// Checks a configuration of the proxy.
pub(crate) fn check_proxy(file: &Path, terminal: &Terminal) -> Result<()> {
    let config = ProxyConfig::load(file)?;
    let names: Vec<_> = config.listeners.iter().map(|(raw, _)| raw.name.clone()).collect();
    terminal.data(&serde_json::json!({ "listeners": names }), || format!("{} is in order.", file.display()))
}

/// Checks a configuration of the authorization service.
pub(crate) fn check_authz(file: &Path, terminal: &Terminal) -> Result<()> {
    AuthzConfig::load(file)?;
    terminal.data(&serde_json::json!({ "ok": true }), || format!("{} is in order.", file.display()))
}

const PROXY_EXAMPLES: &str = "\
Examples:
  chancery proxy --server https://ca.example.org:8443 --workload-api unix:///run/chancery-agent/public/api.sock \\
      --listen 0.0.0.0:8443 --to 127.0.0.1:8080 --allow-client 'spiffe://example.org/ns/prod/*' --alpn h2,http/1.1
  chancery proxy ... --listen 127.0.0.1:5433 --to db.example.org:5433 --allow-server spiffe://example.org/db
  chancery proxy --config /etc/chancery/proxy.toml";
