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

/// Has the link believe, and the state directory keep, what the stream says; for ever.
pub(crate) async fn follow(
    trust: TrustConfig,
    state: Option<StateDirectory>,
    link: Arc<Link>,
    mut roots: watch::Receiver<Arc<Vec<Vec<u8>>>>,
) {
    while roots.changed().await.is_ok() {
        let roots = Arc::clone(&roots.borrow_and_update());
        if let Err(error) = link.use_roots(&roots) {
            tracing::error!(%error, "the new trust bundle cannot be used for the authority; the old one is");
            continue;
        }
        let Some(state) = &state else { continue };
        if let Err(error) = keep(&trust, state, &roots) {
            tracing::error!(%error, "the trust bundle was not kept");
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
