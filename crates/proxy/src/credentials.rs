//! Who we are, now and at every change: from files, or from the Workload API of the agent.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_agent::identities::X509State;
use chancery_agent::workload_api::{client::socket_path, follow};
use chancery_client::TlsIdentity;
use chancery_types::SpiffeId;
use chancery_x509::{Certificate, read_certificates};
use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use tokio::sync::watch;

use crate::mistakes::Mistakes;

/// `[identity]`, as it stands in a configuration file: two files, or a socket.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawIdentity {
    /// The certificate and its issuers, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM, unencrypted.
    pub key: Option<PathBuf>,
    /// The agent's socket, as `unix:///run/chancery-agent/public/api.sock`.
    pub workload_api: Option<String>,
    /// With `workload_api`: which identity; the default one if not given.
    pub spiffe_id: Option<SpiffeId>,
}

/// Where a credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// Two files that somebody replaces.
    Files {
        /// The certificate and its issuers, PEM.
        certificate: PathBuf,
        /// Its key, PEM.
        key: PathBuf,
    },
    /// The agent.
    WorkloadApi {
        /// Its socket.
        socket: PathBuf,
        /// Which identity; the default one if not given.
        spiffe_id: Option<SpiffeId>,
    },
}

/// A certificate with its issuers and its key, which fit.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Whom it names, if it names anybody.
    pub spiffe_id: Option<SpiffeId>,
    /// For TLS.
    pub certified: Arc<CertifiedKey>,
    /// For the authority's client.
    pub identity: TlsIdentity,
    /// Roots that came with it, DER; none from files.
    pub roots: Vec<Vec<u8>>,
}

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        why: String,
    },
    /// Key and certificate do not belong together, or one cannot be used.
    #[error("key and certificate do not fit: {0}")]
    Unfit(String),
}

impl CredentialSource {
    pub(crate) fn check(raw: RawIdentity, directory: &Path, mistakes: &mut Mistakes) -> Option<Self> {
        match raw {
            RawIdentity {
                certificate: Some(certificate),
                key: Some(key),
                workload_api: None,
                spiffe_id: None,
            } => Some(Self::Files { certificate: directory.join(certificate), key: directory.join(key) }),
            RawIdentity { certificate: None, key: None, workload_api: Some(socket), spiffe_id } => {
                let socket = mistakes.keep("identity.workload_api", socket_path(&socket))?;
                Some(Self::WorkloadApi { socket, spiffe_id })
            }
            _ => {
                mistakes.add("identity: give certificate and key, or workload_api (and spiffe_id): one of the two ways");
                None
            }
        }
    }

    /// The credential, now and at every change. Nothing until there is one; a bad one never replaces a good one. The
    /// task that follows ends when nobody listens any more.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Credential>>> {
        let (sender, receiver) = watch::channel(None);
        match self.clone() {
            Self::Files { certificate, key } => {
                if let Ok(first) = Credential::from_files(&certificate, &key) {
                    sender.send_replace(Some(Arc::new(first)));
                }
                tokio::spawn(follow_files(certificate, key, sender));
            }
            Self::WorkloadApi { socket, spiffe_id } => {
                tokio::spawn(follow_agent(socket, spiffe_id, sender));
            }
        }
        receiver
    }
}

impl Credential {
    /// Reads two files.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, CredentialError> {
        let unreadable =
            |path: &Path, why: String| CredentialError::File { path: path.display().to_string(), why };
        let pem = std::fs::read(certificate).map_err(|error| unreadable(certificate, error.to_string()))?;
        let chain = read_certificates(&pem, MOST_CERTIFICATES)
            .map_err(|error| unreadable(certificate, error.to_string()))?;
        let key_pem =
            zeroize::Zeroizing::new(std::fs::read(key).map_err(|error| unreadable(key, error.to_string()))?);
        let secret =
            PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| unreadable(key, error.to_string()))?;
        Self::new(chain, &secret, Vec::new())
    }

    /// From what the agent serves: the identity that was asked for, or the default one.
    fn from_state(state: &X509State, wanted: Option<&SpiffeId>) -> Option<Result<Self, CredentialError>> {
        let svid = match wanted {
            None => state.svids.first(),
            Some(id) => state.svids.iter().find(|svid| svid.spiffe_id == *id),
        }?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key.expose_secret()));
        let roots = state.bundles.get(&svid.spiffe_id.trust_domain());
        let roots = roots.map(|bundle| bundle.x509_authorities.clone()).unwrap_or_default();
        Some(Self::new(svid.chain.clone(), &key, roots))
    }

    fn new(
        chain: Vec<Vec<u8>>,
        key: &PrivateKeyDer<'_>,
        roots: Vec<Vec<u8>>,
    ) -> Result<Self, CredentialError> {
        let unfit = |error: &dyn std::fmt::Display| CredentialError::Unfit(error.to_string());
        let leaf = chain.first().ok_or_else(|| unfit(&"there is no certificate"))?;
        let leaf = Certificate::from_der(leaf).map_err(|error| unfit(&error))?;
        let spiffe_id = leaf.tbs().spiffe_id();
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(CertificateDer::from).collect();
        let certified = CertifiedKey::from_der(chain.clone(), key.clone_key(), &default_provider())
            .map_err(|error| unfit(&error))?;
        let identity = TlsIdentity::from_der(chain, key.clone_key());
        Ok(Self { spiffe_id, certified: Arc::new(certified), identity, roots })
    }
}

async fn follow_files(certificate: PathBuf, key: PathBuf, sender: watch::Sender<Option<Arc<Credential>>>) {
    let mut seen = sender.borrow().is_some().then(|| (stamp(&certificate), stamp(&key)));
    loop {
        let now = (stamp(&certificate), stamp(&key));
        if seen.as_ref() != Some(&now) {
            match Credential::from_files(&certificate, &key) {
                Ok(credential) => {
                    seen = Some(now);
                    sender.send_replace(Some(Arc::new(credential)));
                }
                // One of the two may be in place before the other.
                Err(error) => tracing::warn!(%error, "the credential cannot be used; the one in use stays"),
            }
        }
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(LOOK_AT_FILES) => {}
        }
    }
}

/// Tells one content of a path from the next, also behind links.
fn stamp(path: &Path) -> Option<(u64, i64, i64, u64)> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.ino(), data.mtime(), data.mtime_nsec(), data.size()))
}

async fn follow_agent(
    socket: PathBuf,
    wanted: Option<SpiffeId>,
    sender: watch::Sender<Option<Arc<Credential>>>,
) {
    let (states, mut news) = watch::channel(Arc::new(X509State::default()));
    let listening = tokio::spawn(follow(socket, states));
    loop {
        tokio::select! {
            () = sender.closed() => break,
            changed = news.changed() => if changed.is_err() { break },
        }
        let state = Arc::clone(&news.borrow_and_update());
        match Credential::from_state(&state, wanted.as_ref()) {
            Some(Ok(credential)) => drop(sender.send_replace(Some(Arc::new(credential)))),
            Some(Err(error)) => {
                tracing::error!(%error, "the agent's credential cannot be used; the one in use stays")
            }
            None => tracing::warn!(
                "the agent has no such identity for this process; what is in use stays until it ends"
            ),
        }
    }
    listening.abort();
}

/// How often files are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(1);
/// Certificates of a chain that are read.
const MOST_CERTIFICATES: usize = 16;
