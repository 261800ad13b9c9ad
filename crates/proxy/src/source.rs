//! What a relying party stands on: the authority, who it is itself, and what it does about status.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_api::RelyingPartyKind;
use chancery_client::{Client, ClientError, Endpoint, TrustAnchors};
use chancery_merkle::LogKeys;
use chancery_types::{HumanDuration, SpiffeId, TrustDomain};
use chancery_verify::live::{
    Allowed, Authority, CredentialError, CredentialFiles, Credentials, Follower, Following, Judge, LogKey,
    Rules, Status, StatusView, Trust, WhenUnknown,
};
use serde::Deserialize;

use crate::mistakes::Mistakes;

/// `[authority]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAuthority {
    /// The authority, as https://host:port.
    pub server: String,
    /// The key of its log, as `chancery log key` prints it; fetched over verified TLS if not given.
    #[serde(default)]
    pub log_key: Option<String>,
    /// A file in which what is known of status survives a restart.
    #[serde(default)]
    pub keep: Option<PathBuf>,
}

/// `[identity]`: three files, or a socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCredentials {
    /// The certificate and its issuers, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM, unencrypted.
    pub key: Option<PathBuf>,
    /// The roots of its trust domain, PEM.
    pub trust_bundle: Option<PathBuf>,
    /// The agent's socket, as `unix:///run/chancery-agent/public/api.sock`, which has all three.
    pub workload_api: Option<String>,
    /// With `workload_api`: which identity; the default one if not given.
    pub spiffe_id: Option<SpiffeId>,
}

/// `[status]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawStatus {
    /// What is done with peers of whom nothing is known: `closed` if not given.
    pub when_unknown: Option<WhenUnknown>,
    /// How old the authority's last word may be; `5m` if not given.
    pub maximum_age: Option<HumanDuration>,
    /// Whether open connections end, too, when nothing is known any more.
    pub end_when_unknown: bool,
    /// How long any connection may live; as long as its peer's certificate if not given.
    pub maximum_connection_age: Option<HumanDuration>,
}

/// All three, checked.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    server: Endpoint,
    log_key: LogKey,
    keep: Option<PathBuf>,
    credentials: CredentialSource,
    rules: Rules,
    /// As it was written, to tell whether it has changed.
    written: (RawAuthority, RawCredentials, RawStatus),
}

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// Files that somebody renews.
    Files(CredentialFiles),
    /// The agent.
    WorkloadApi {
        /// Its socket.
        socket: PathBuf,
        /// Which identity; the default one if not given.
        wanted: Option<SpiffeId>,
    },
}

/// Why there is nothing to stand on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// We have no credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// They name nobody, or come without roots.
    #[error("the credentials name nobody, or bring no roots")]
    Nobody,
    /// The roots cannot be used.
    #[error(transparent)]
    Bundle(#[from] chancery_verify::live::BundleError),
}

/// What a relying party stands on, kept up to date for as long as it is held.
#[derive(Debug)]
pub struct Source {
    /// What it shows.
    pub credentials: Credentials,
    server: Endpoint,
    domain: TrustDomain,
    follower: Follower,
    trust: Trust,
    roots: tokio::task::AbortHandle,
}

impl SourceConfig {
    pub(crate) fn check(
        authority: RawAuthority,
        identity: RawCredentials,
        status: RawStatus,
        directory: &Path,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let written = (authority.clone(), identity.clone(), status.clone());
        let server = mistakes.keep("authority.server", authority.server.parse::<Endpoint>());
        if matches!(server, Some(Endpoint::Unix(_))) {
            mistakes.add("authority.server: a relying party asks over TLS; write https://host:port");
        }
        let log_key = match &authority.log_key {
            None => Some(LogKey::Fetched),
            Some(text) => mistakes.keep("authority.log_key", text.parse::<LogKeys>()).map(LogKey::Pinned),
        };
        let credentials = CredentialSource::check(identity, directory, mistakes);
        let rules = rules(&status, mistakes);
        Some(Self {
            server: server?,
            log_key: log_key?,
            keep: authority.keep.map(|path| directory.join(path)),
            credentials: credentials?,
            rules,
            written,
        })
    }

    /// Whether nothing of it was written otherwise.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.written == other.written
    }

    /// Obtains credentials and begins to follow the authority.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn start(&self, kind: RelyingPartyKind, name: &str) -> Result<Source, SourceError> {
        let credentials = self.credentials.open().await?;
        let own = credentials.id().ok_or(SourceError::Nobody)?.trust_domain();
        let follower = Follower::start(Following {
            authority: Authority::new(self.server.clone(), own.clone(), &credentials),
            key: self.log_key.clone(),
            rules: self.rules,
            keep: self.keep.clone(),
            instance: instance(name),
            kind,
        });
        let (trust, domain) = (Trust::default(), own.clone());
        let status = follower.status();
        let foreign = Status::not_followed(self.rules);
        let take = {
            let (trust, credentials) = (trust.clone(), credentials.clone());
            move || {
                for (domain, roots) in credentials.bundles().iter() {
                    let status = if *domain == own { status.clone() } else { foreign.clone() };
                    trust.add(domain, roots, status)?;
                }
                Ok::<_, SourceError>(())
            }
        };
        take()?;
        let mut changes = credentials.changes();
        let roots = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                if let Err(error) = take() {
                    tracing::error!(%error, "the new roots cannot be used; those in use stay");
                }
            }
        });
        Ok(Source {
            credentials,
            server: self.server.clone(),
            domain,
            follower,
            trust,
            roots: roots.abort_handle(),
        })
    }
}

impl Source {
    /// Judges by everything that is known, and allows these.
    #[must_use]
    pub fn judge(&self, allowed: Allowed) -> Judge {
        Judge::new(self.trust.clone(), allowed)
    }

    /// A client of the authority that trusts the newest roots, for what everybody may ask.
    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        let roots = self.credentials.bundles().get(&self.domain).cloned().unwrap_or_default();
        Client::builder(self.server.clone()).trust(TrustAnchors::from_certificates(roots)?).build()
    }

    /// What is known and enforced.
    #[must_use]
    pub fn view(&self) -> StatusView {
        self.follower.status().view()
    }

    /// Whether what is known is fresh enough to let anybody in by it.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        let status = self.follower.status();
        status.view().age.is_some_and(|age| age <= status.rules().maximum_age)
    }

    /// Waits until everything is known that there is to know.
    pub async fn ready(&self) {
        self.follower.ready().await;
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.roots.abort();
    }
}

impl CredentialSource {
    /// The credentials, kept up to date for as long as they are held.
    ///
    /// # Errors
    /// [`CredentialError`] when there are none now.
    pub async fn open(&self) -> Result<Credentials, CredentialError> {
        match self {
            Self::Files(files) => Credentials::from_files(files.clone()).await,
            Self::WorkloadApi { socket, wanted } => {
                Credentials::from_workload_api(socket, wanted.clone()).await
            }
        }
    }

    pub(crate) fn check(raw: RawCredentials, directory: &Path, mistakes: &mut Mistakes) -> Option<Self> {
        match raw {
            RawCredentials {
                certificate: Some(chain),
                key: Some(key),
                trust_bundle: Some(bundle),
                workload_api: None,
                spiffe_id: None,
            } => Some(Self::Files(CredentialFiles {
                chain: directory.join(chain),
                key: directory.join(key),
                bundle: directory.join(bundle),
            })),
            RawCredentials {
                certificate: None,
                key: None,
                trust_bundle: None,
                workload_api: Some(socket),
                spiffe_id,
            } => {
                let socket = chancery_agent::workload_api::client::socket_path(&socket);
                let socket = mistakes.keep("identity.workload_api", socket)?;
                Some(Self::WorkloadApi { socket, wanted: spiffe_id })
            }
            _ => {
                mistakes.add(
                    "identity: give certificate, key and trust_bundle, or workload_api (and spiffe_id): one of the two ways",
                );
                None
            }
        }
    }
}

fn rules(raw: &RawStatus, mistakes: &mut Mistakes) -> Rules {
    let usual = Rules::default();
    let rules = Rules {
        when_unknown: raw.when_unknown.unwrap_or(usual.when_unknown),
        maximum_age: raw.maximum_age.map_or(usual.maximum_age, |age| age.0),
        end_when_unknown: raw.end_when_unknown,
        maximum_connection_age: raw.maximum_connection_age.map(|age| age.0),
    };
    // Three heartbeats, or an ordinary hiccup is taken for an outage.
    if rules.maximum_age < Duration::from_secs(15) {
        mistakes.add("status.maximum_age: is 15s or more; the authority speaks every 5s");
    }
    if rules.maximum_connection_age.is_some_and(|age| age < Duration::from_secs(1)) {
        mistakes.add("status.maximum_connection_age: is 1s or more");
    }
    rules
}

/// Tells programs of one identity apart.
pub(crate) fn instance(name: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = format!("{}/{name}/{}", host.trim(), std::process::id());
    text.chars().filter(char::is_ascii_graphic).take(128).collect()
}

/// Held in common by everything that a program serves.
pub(crate) type SharedSource = Arc<Source>;
