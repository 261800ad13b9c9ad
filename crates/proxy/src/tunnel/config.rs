//! `proxy.toml`: what an operator writes, checked as a whole.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chancery_types::HumanDuration;
use chancery_x509::IpNetwork;
use serde::Deserialize;

use super::address::Address;
use super::header::ProxyVersion;
use crate::mistakes::{ConfigError, Mistakes, load};
use crate::peers::Peers;
use crate::source::{RawAuthority, RawCredentials, RawStatus, SourceConfig};

/// The file as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawProxy {
    /// `[authority]`
    pub authority: RawAuthority,
    /// `[identity]`
    pub identity: RawCredentials,
    /// `[status]`
    #[serde(default)]
    pub status: RawStatus,
    /// Where metrics and health are served: `127.0.0.1:9465` or `unix:/path`.
    #[serde(default)]
    pub metrics: Option<String>,
    /// `[limits]`
    #[serde(default)]
    pub limits: RawLimits,
    /// `[[listeners]]`
    #[serde(default)]
    pub listeners: Vec<RawListener>,
}

/// `[limits]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Connections of a listener at once; more wait to be accepted. `10000` if not given.
    pub connections: Option<usize>,
    /// What a TLS handshake and a PROXY header may take; `10s` if not given.
    pub handshake: Option<HumanDuration>,
    /// What connecting to a backend may take, its TLS handshake included; `5s` if not given.
    pub connect: Option<HumanDuration>,
    /// After how long without a byte in either direction a connection ends; never if not given.
    pub idle: Option<HumanDuration>,
    /// How long connections may go on after SIGTERM; `30s` if not given.
    pub drain: Option<HumanDuration>,
}

/// `[[listeners]]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawListener {
    /// How it is called in metrics and logs.
    pub name: String,
    /// Where it listens.
    pub listen: String,
    /// Where it connects to.
    pub to: String,
    /// Takes TLS, from these peers: SPIFFE IDs, or all below one as `spiffe://example.org/ns/prod/*`.
    #[serde(default)]
    pub allow_clients: Option<Vec<String>>,
    /// Makes TLS, to these peers.
    #[serde(default)]
    pub allow_servers: Option<Vec<String>>,
    /// Protocols offered (ALPN), the preferred one first; TLS to a backend offers the one that the client chose.
    #[serde(default)]
    pub alpn: Vec<String>,
    /// Load balancers that connect here and say in a PROXY header for whom: all connections must be theirs.
    #[serde(default)]
    pub proxy_header_from: Vec<String>,
    /// Begins each connection to the backend with a PROXY header.
    #[serde(default)]
    pub send_proxy_header: Option<ProxyVersion>,
    /// Takes or makes plain connections beyond this machine.
    #[serde(default)]
    pub dangerous_plain_beyond_this_machine: bool,
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// The authority, who we are, and what is done about status.
    pub source: SourceConfig,
    /// Where metrics and health are served.
    pub metrics: Option<Address>,
    /// Limits.
    pub limits: Limits,
    /// Listeners, with what was written of each: what has not changed is left alone when the file is read again.
    pub listeners: Vec<(RawListener, ListenerConfig)>,
}

/// What a listener allows at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of a listener at once.
    pub connections: usize,
    /// What a handshake may take.
    pub handshake: Duration,
    /// What connecting to a backend may take.
    pub connect: Duration,
    /// After how long without a byte a connection ends.
    pub idle: Option<Duration>,
    /// How long connections may go on after SIGTERM.
    pub drain: Duration,
}

/// One checked listener.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    pub(super) name: String,
    pub(super) listen: Address,
    pub(super) to: Address,
    pub(super) clients: Option<Peers>,
    pub(super) servers: Option<Peers>,
    pub(super) alpn: Vec<String>,
    pub(super) header_from: Vec<IpNetwork>,
    pub(super) send_header: Option<ProxyVersion>,
}

impl ProxyConfig {
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
    pub fn check(raw: RawProxy, directory: &Path) -> Result<Self, Vec<String>> {
        let mut mistakes = Mistakes::default();
        let source = SourceConfig::check(raw.authority, raw.identity, raw.status, directory, &mut mistakes);
        let metrics = raw.metrics.and_then(|text| mistakes.keep("metrics", Address::parse(&text, directory)));
        let limits = Limits::check(&raw.limits, &mut mistakes);
        if raw.listeners.is_empty() {
            mistakes.add("listeners: name at least one");
        }
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        let mut listeners = Vec::with_capacity(raw.listeners.len());
        for listener in raw.listeners {
            if !names.insert(listener.name.clone()) {
                mistakes.add(format!("listeners: two are called {:?}", listener.name));
            }
            let Some(checked) = ListenerConfig::check(&listener, directory, &mut mistakes) else { continue };
            let any_port = matches!(checked.listen, Address::Tcp { port: 0, .. });
            if !any_port && !places.insert(checked.listen.clone()) {
                mistakes.add(format!("listeners: two listen at {}", checked.listen));
            }
            listeners.push((listener, checked));
        }
        mistakes.into_result(source.map(|source| Self { source, metrics, limits, listeners }))
    }
}

impl Limits {
    fn check(raw: &RawLimits, mistakes: &mut Mistakes) -> Self {
        let mut duration = |field: &str, given: Option<HumanDuration>, usual: u64, most: u64| {
            let value = given.map_or(Duration::from_secs(usual), |given| given.0);
            if value.is_zero() || value > Duration::from_secs(most) {
                mistakes.add(format!("limits.{field}: is from 1ms to {most} s"));
            }
            value
        };
        let handshake = duration("handshake", raw.handshake, 10, 300);
        let connect = duration("connect", raw.connect, 5, 300);
        let drain = duration("drain", raw.drain, 30, 3600);
        let idle = raw.idle.map(|idle| duration("idle", Some(idle), 0, 7 * 86_400));
        let connections = raw.connections.unwrap_or(10_000);
        if !(1..=1_000_000).contains(&connections) {
            mistakes.add("limits.connections: is from 1 to 1000000");
        }
        Self { connections, handshake, connect, idle, drain }
    }
}

impl ListenerConfig {
    fn check(raw: &RawListener, directory: &Path, mistakes: &mut Mistakes) -> Option<Self> {
        let field = |field: &str| format!("listeners.{}.{field}", raw.name);
        if raw.name.is_empty() || raw.name.len() > 64 {
            mistakes.add("listeners: a name has 1 to 64 bytes");
        }
        let listen = mistakes.keep(&field("listen"), Address::parse(&raw.listen, directory));
        if let Some(Address::Tcp { .. }) = &listen
            && listen.as_ref().and_then(Address::socket).is_none()
        {
            mistakes.add(format!("{}: listen at an address, not at a name", field("listen")));
        }
        let to = mistakes.keep(&field("to"), Address::parse(&raw.to, directory));
        let mut peers = |name: &str, given: &Option<Vec<String>>| match given {
            None => Some(None),
            Some(peers) => mistakes.keep(&field(name), Peers::parse(peers)).map(Some),
        };
        let (clients, servers) =
            (peers("allow_clients", &raw.allow_clients), peers("allow_servers", &raw.allow_servers));
        if raw.allow_clients.is_none() && raw.allow_servers.is_none() {
            mistakes.add(format!("listeners.{}: without allow_clients (TLS in) and allow_servers (TLS out) there is nothing to do", raw.name));
        }
        for (plain, place, name) in
            [(raw.allow_clients.is_none(), &listen, "listen"), (raw.allow_servers.is_none(), &to, "to")]
        {
            if plain
                && !raw.dangerous_plain_beyond_this_machine
                && place.as_ref().is_some_and(|place| !place.is_local())
            {
                mistakes.add(format!(
                    "{}: is plain and leaves this machine; use a loopback address or a UNIX socket (or set dangerous_plain_beyond_this_machine)",
                    field(name)
                ));
            }
        }
        if raw.alpn.iter().any(|name| name.is_empty() || name.len() > 255) {
            mistakes.add(format!("{}: a name has 1 to 255 bytes", field("alpn")));
        }
        let networks = raw.proxy_header_from.iter().map(|text| text.parse::<IpNetwork>());
        let header_from = mistakes.keep(&field("proxy_header_from"), networks.collect::<Result<Vec<_>, _>>());
        if !raw.proxy_header_from.is_empty() && matches!(listen, Some(Address::Unix(_))) {
            mistakes
                .add(format!("{}: who connects to a UNIX socket has no address", field("proxy_header_from")));
        }
        Some(Self {
            name: raw.name.clone(),
            listen: listen?,
            to: to?,
            clients: clients?,
            servers: servers?,
            alpn: raw.alpn.clone(),
            header_from: header_from?,
            send_header: raw.send_proxy_header,
        })
    }
}
