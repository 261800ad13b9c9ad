//! Other trust domains: their bundles, fetched, checked, kept, and passed on to the agents.
//!
//! One task for each. What was fetched last is kept in the directory `federation`, so that a server that starts while
//! the other side is away has it; a fetch that fails, or brings a bundle that is older, changes nothing. Nothing of
//! another trust domain is believed by this server itself: bundles are for the workloads that deal with its members.

mod document;
mod endpoint;
mod fetch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_api::BundleView;
use chancery_types::TrustDomain;

use crate::agents::Agents;
use crate::config::{BundleSource, FederationConfig};

pub(crate) use endpoint::web;

/// How long after a failure to try again, when the bundle says a longer time.
const AGAIN: Duration = Duration::from_secs(60);
/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What keeps one bundle fresh.
struct Follower {
    config: FederationConfig,
    agents: Arc<Agents>,
    kept: PathBuf,
    current: Option<BundleView>,
}

/// Keeps the bundle of another trust domain fresh, for ever.
pub(crate) async fn follow(config: FederationConfig, directory: PathBuf, agents: Arc<Agents>) {
    let kept = directory.join("federation").join(format!("{}.json", config.trust_domain));
    let mut follower = Follower { config, agents, kept, current: None };
    follower.begin();
    loop {
        let wait = match follower.look().await {
            Ok(wait) => wait,
            Err(error) => {
                let has_one = follower.current.is_some();
                let domain = &follower.config.trust_domain;
                tracing::warn!(%domain, error, has_one, "the bundle of another trust domain was not fetched");
                follower.regularly().min(AGAIN)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

impl Follower {
    /// Takes what was kept, or what an operator gave to begin with.
    fn begin(&mut self) {
        let first = match &self.config.source {
            BundleSource::File(_) => return,
            BundleSource::Web { .. } => None,
            BundleSource::Spiffe { first, .. } => Some(first),
        };
        let read = |path: &Path| read_file(&self.config.trust_domain, path);
        let found = match (read(&self.kept), first) {
            (Ok(kept), _) => Ok(kept),
            (Err(_), Some(first)) => read(first),
            // Nothing was fetched before.
            (Err(_), None) => return,
        };
        match found {
            Ok(bundle) => self.take(bundle),
            Err(error) => tracing::error!(error, "the first bundle of another trust domain cannot be used"),
        }
    }

    /// Looks once; how long until the next time.
    async fn look(&mut self) -> Result<Duration, String> {
        let bytes = match &self.config.source {
            BundleSource::File(path) => {
                self.take(read_file(&self.config.trust_domain, path)?);
                return Ok(LOOK);
            }
            BundleSource::Web { url, roots } => fetch::get(url, Arc::new(endpoint::web(roots)?)).await,
            BundleSource::Spiffe { url, endpoint, .. } => {
                let current =
                    self.current.as_ref().ok_or("there is no bundle to verify the endpoint with")?;
                let authorities: Vec<Vec<u8>> =
                    current.x509_authorities.iter().map(|root| root.as_der().to_vec()).collect();
                fetch::get(url, Arc::new(endpoint::spiffe(endpoint, &authorities)?)).await
            }
        };
        let bytes = bytes.map_err(|error| error.to_string())?;
        let bundle = document::read(&self.config.trust_domain, &bytes).map_err(|error| error.to_string())?;
        if let Some(current) = self.current.as_ref().filter(|current| bundle.sequence < current.sequence) {
            return Err(format!(
                "it has number {}, and {} is known already",
                bundle.sequence, current.sequence
            ));
        }
        keep(&self.kept, &bytes).map_err(|error| format!("{}: {error}", self.kept.display()))?;
        self.take(bundle);
        Ok(self.regularly())
    }

    fn take(&mut self, bundle: BundleView) {
        if self.current.as_ref() == Some(&bundle) {
            return;
        }
        tracing::info!(
            domain = %bundle.trust_domain, sequence = bundle.sequence, roots = bundle.x509_authorities.len(),
            jwt_keys = bundle.jwt_keys.keys.len(), "the bundle of another trust domain is new"
        );
        self.agents.use_federated(bundle.clone());
        self.current = Some(bundle);
    }

    fn regularly(&self) -> Duration {
        Duration::from_secs(
            self.current.as_ref().map_or(AGAIN.as_secs(), |bundle| bundle.refresh_hint_seconds),
        )
    }
}

fn read_file(domain: &TrustDomain, path: &Path) -> Result<BundleView, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let length = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
    if length > fetch::MAX_BUNDLE as u64 {
        return Err(failed(&format_args!("{length} bytes, at most {} are read", fetch::MAX_BUNDLE)));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    document::read(domain, &bytes).map_err(|error| failed(&error))
}

/// The old content or the new, whatever happens.
fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if std::fs::read(path).is_ok_and(|kept| kept == bytes) {
        return Ok(());
    }
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, bytes)?;
    std::fs::File::open(&temporary)?.sync_all()?;
    std::fs::rename(&temporary, path)
}
