//! What verifies the authority: from the configuration at first, then as the authority itself last published it.
//!
//! A bundle that came over the stream came from somebody whom the previous one vouched for, so trust follows the
//! authority from root to root, also over a restart. Whoever configures another root ends that: a kept bundle
//! counts only beside the configuration that it grew from.

use std::sync::Arc;

use chancery_api::CertificateDer;
use chancery_client::{Client, ClientError, TrustError};
use chancery_types::Digest;
use chancery_x509::{PemError, read_certificates};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::{Config, TrustConfig};
use crate::link::Link;
use crate::state::{self, StateDirectory, StateError};

const BUNDLE: &str = "bundle.json";
/// Roots that are read.
const MAX_ROOTS: usize = 64;

/// Why nothing is trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustLoadError {
    /// A file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// It holds no certificates.
    #[error("the trust bundle cannot be read: {0}")]
    Pem(#[from] PemError),
    /// The authority was not reached, or shows another root.
    #[error("{0}")]
    Client(#[from] ClientError),
}

impl TrustLoadError {
    /// Whether trying again may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Client(ClientError::Trust(TrustError::Fingerprint { .. })) => false,
            Self::Client(_) => true,
            _ => false,
        }
    }
}

/// How a bundle is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// The digest of what was configured when it was received.
    grown_from: Digest,
    authorities: Vec<CertificateDer>,
}

/// The roots to begin with.
pub(crate) async fn load(
    config: &Config,
    state: Option<&StateDirectory>,
) -> Result<Vec<Vec<u8>>, TrustLoadError> {
    let grown_from = configured(&config.trust)?;
    if let Some(state) = state {
        match state.load::<Kept>(BUNDLE) {
            Ok(Some(kept)) if kept.grown_from == grown_from && !kept.authorities.is_empty() => {
                return Ok(kept.authorities.into_iter().map(CertificateDer::into_der).collect());
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the kept trust bundle cannot be used"),
        }
    }
    match &config.trust {
        TrustConfig::Bundle(path) => Ok(read_certificates(&state::read(path)?, MAX_ROOTS)?),
        TrustConfig::Fingerprint(fingerprint) => {
            let client =
                Client::builder(config.server.clone()).trust_fingerprint(*fingerprint).await?.build()?;
            Ok(read_certificates(&client.bundle().await?, MAX_ROOTS)?)
        }
    }
}

/// Has the link, which believes these roots now, believe what the stream says, and the state directory keep it; for
/// ever.
pub(crate) fn follow(
    trust: TrustConfig,
    state: Option<StateDirectory>,
    link: Arc<Link>,
    mut roots: watch::Receiver<Arc<Vec<Vec<u8>>>>,
) -> impl Future<Output = ()> {
    let mut believed = Arc::clone(&roots.borrow());
    async move {
        while roots.changed().await.is_ok() {
            let roots = Arc::clone(&roots.borrow_and_update());
            // Another belief needs other connections; the same, told again with every stream, does not.
            if roots != believed {
                if let Err(error) = link.use_roots(&roots) {
                    tracing::error!(%error, "the new trust bundle cannot be used for the authority; the old one is");
                    continue;
                }
                believed = Arc::clone(&roots);
            }
            let Some(state) = &state else { continue };
            if let Err(error) = keep(&trust, state, &roots) {
                tracing::error!(%error, "the trust bundle was not kept");
            }
        }
    }
}

fn keep(trust: &TrustConfig, state: &StateDirectory, roots: &[Vec<u8>]) -> Result<(), StateError> {
    let authorities = roots.iter().cloned().map(CertificateDer::from_der).collect();
    state.save(BUNDLE, &Kept { grown_from: configured(trust)?, authorities })
}

fn configured(trust: &TrustConfig) -> Result<Digest, StateError> {
    match trust {
        TrustConfig::Bundle(path) => Ok(Digest::of(&state::read(path)?)),
        TrustConfig::Fingerprint(fingerprint) => Ok(*fingerprint),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use chancery_x509::write_pem;

    use super::*;
    use crate::config::RawConfig;

    fn config(directory: &Path) -> Config {
        let text = "server = \"https://ca.example.org\"\ntrust_bundle = \"roots.pem\"\n\
                    [evidence]\njoin_token_file = \"token\"";
        let raw: RawConfig = toml::from_str(text).unwrap();
        Config::check(raw, directory).unwrap()
    }

    #[tokio::test]
    async fn a_kept_bundle_counts_only_beside_the_configuration_that_it_grew_from() {
        let around = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&around.path().join("state")).unwrap();
        let config = config(around.path());
        let write = |root: &[u8]| {
            std::fs::write(around.path().join("roots.pem"), write_pem("CERTIFICATE", root)).unwrap();
        };
        write(b"first root");
        assert_eq!(load(&config, Some(&state)).await.unwrap(), [b"first root"]);
        keep(&config.trust, &state, &[b"second root".to_vec()]).unwrap();
        assert_eq!(load(&config, Some(&state)).await.unwrap(), [b"second root"]);
        // An operator puts another authority in place.
        write(b"other root");
        assert_eq!(load(&config, Some(&state)).await.unwrap(), [b"other root"]);
    }

    #[tokio::test]
    async fn a_damaged_bundle_is_passed_over_and_a_missing_file_said() {
        let around = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&around.path().join("state")).unwrap();
        let config = config(around.path());
        let error = load(&config, Some(&state)).await.unwrap_err();
        assert!(error.to_string().contains("roots.pem") && !error.is_passing(), "{error}");
        std::fs::write(around.path().join("roots.pem"), write_pem("CERTIFICATE", b"root")).unwrap();
        std::fs::write(around.path().join("state").join(BUNDLE), "{").unwrap();
        assert_eq!(load(&config, Some(&state)).await.unwrap(), [b"root"]);
    }
    #[tokio::test]
    async fn connections_are_given_up_for_another_belief_and_not_for_the_same_told_again() {
        let root = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::default().self_signed(&key).unwrap().der().to_vec()
        };
        let (first, second) = (vec![root()], vec![root()]);
        let around = tempfile::tempdir().unwrap();
        let link = Arc::new(Link::new(config(around.path()).server, &first).unwrap());
        let told = watch::Sender::new(Arc::new(first.clone()));
        let following =
            tokio::spawn(follow(config(around.path()).trust, None, Arc::clone(&link), told.subscribe()));
        let before = link.client();
        for (roots, is_same) in [(first, true), (second, false)] {
            told.send_replace(Arc::new(roots));
            // On one thread this lets the other task come to its next wait.
            tokio::task::yield_now().await;
            assert_eq!(Arc::ptr_eq(&link.client(), &before), is_same);
        }
        following.abort();
    }
}
