//! A probe as it stands in the configuration file.

use std::time::Duration;

use chancery_types::HumanDuration;
use rustls::pki_types::ServerName;
use serde::Deserialize;

/// Where to look, as it stands in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeSettings {
    /// `HOST:PORT`.
    pub address: String,
    /// The name to ask for (SNI); the host of the address if not given.
    pub server_name: Option<String>,
    /// Protocols to offer (ALPN).
    #[serde(default)]
    pub alpn: Vec<String>,
    /// How the connection becomes TLS, if it does not begin with it.
    pub starttls: Option<StartTls>,
    /// How long one look may take; `5s` if not given.
    pub timeout: Option<HumanDuration>,
    /// How long a service may take to serve what is new; `10s` if not given.
    pub patience: Option<HumanDuration>,
    /// Whether the files before are put back when the new ones are not served after all.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// How a connection becomes TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartTls {
    /// `SSLRequest` of PostgreSQL.
    Postgres,
}

/// What happens when the new certificate is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is reported, and the hook tried again.
    #[default]
    Report,
    /// After three attempts the files before are put back while they have not ended; then it is tried again.
    RollBack,
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Probe {
    pub(super) address: String,
    pub(super) server_name: ServerName<'static>,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) starttls: Option<StartTls>,
    pub(super) timeout: Duration,
    pub(super) patience: Duration,
    pub(crate) on_failure: OnFailure,
}

impl TryFrom<ProbeSettings> for Probe {
    type Error = String;

    fn try_from(settings: ProbeSettings) -> Result<Self, String> {
        let address = settings.address;
        let (host, port) =
            address.rsplit_once(':').ok_or_else(|| format!("address {address:?} is not HOST:PORT"))?;
        if port.parse::<u16>().map_or(true, |port| port == 0) {
            return Err(format!("port of {address:?} is not from 1 to 65535"));
        }
        let name = settings.server_name.unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
        let server_name = ServerName::try_from(name.clone())
            .map_err(|_| format!("server_name {name:?} is neither a DNS name nor an address"))?;
        if settings.alpn.iter().any(|protocol| protocol.is_empty() || protocol.len() > 255) {
            return Err("a protocol of alpn has 1 to 255 bytes".to_owned());
        }
        let within = |given: Option<HumanDuration>, default, longest| {
            let given = given.map_or(default, |given| given.0);
            let fine = given >= Duration::from_millis(10) && given <= longest;
            fine.then_some(given).ok_or_else(|| format!("timeout and patience are from 10ms to {longest:?}"))
        };
        Ok(Self {
            server_name,
            alpn: settings.alpn.into_iter().map(String::into_bytes).collect(),
            starttls: settings.starttls,
            timeout: within(settings.timeout, Duration::from_secs(5), Duration::from_mins(1))?,
            patience: within(settings.patience, Duration::from_secs(10), Duration::from_mins(10))?,
            on_failure: settings.on_failure,
            address,
        })
    }
}
