//! `authz.toml`: what an operator writes, checked as a whole.

use std::path::Path;

use serde::Deserialize;

use crate::mistakes::{ConfigError, Mistakes, load};
use crate::peers::Peers;
use crate::source::{RawAuthority, RawCredentials, RawStatus, SourceConfig};
use crate::tunnel::Address;

/// The file as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAuthz {
    /// `[authority]`
    pub authority: RawAuthority,
    /// `[identity]`
    pub identity: RawCredentials,
    /// `[status]`
    #[serde(default)]
    pub status: RawStatus,
    /// Who is let through: SPIFFE IDs, or all below one as `spiffe://example.org/ns/prod/*`.
    pub allow: Vec<String>,
    /// Where metrics and health are served: `127.0.0.1:9466` or `unix:/path`.
    #[serde(default)]
    pub metrics: Option<String>,
    /// Envoy asks here.
    #[serde(default)]
    pub envoy: Option<RawPlace>,
    /// nginx asks here.
    #[serde(default)]
    pub nginx: Option<RawPlace>,
}

/// `[envoy]`, `[nginx]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPlace {
    /// `unix:/path`, or a loopback address.
    pub listen: String,
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct AuthzConfig {
    pub(super) source: SourceConfig,
    pub(super) allow: Peers,
    pub(super) metrics: Option<Address>,
    pub(super) envoy: Option<Address>,
    pub(super) nginx: Option<Address>,
}

impl AuthzConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, Self::check)
    }

    /// Checks a configuration whose paths are relative to this directory.
    ///
    /// # Errors
    /// One line for each mistake.
    pub fn check(raw: RawAuthz, directory: &Path) -> Result<Self, Vec<String>> {
        let mut mistakes = Mistakes::default();
        let source = SourceConfig::check(raw.authority, raw.identity, raw.status, directory, &mut mistakes);
        let allow = mistakes.keep("allow", Peers::parse(&raw.allow));
        let metrics = raw.metrics.and_then(|text| mistakes.keep("metrics", Address::parse(&text, directory)));
        let mut local = |field: &str, place: Option<RawPlace>| {
            let address = mistakes.keep(field, Address::parse(&place?.listen, directory))?;
            if !address.is_local() || (address.socket().is_none() && matches!(address, Address::Tcp { .. })) {
                mistakes.add(format!(
                    "{field}: is a UNIX socket or a loopback address; whoever can ask is believed"
                ));
            }
            Some(address)
        };
        let (envoy, nginx) = (local("envoy.listen", raw.envoy), local("nginx.listen", raw.nginx));
        if envoy.is_none() && nginx.is_none() {
            mistakes.add("envoy, nginx: say where one of them asks");
        }
        let config = source.zip(allow).map(|(source, allow)| Self { source, allow, metrics, envoy, nginx });
        mistakes.into_result(config)
    }
}
