//! The one door from the command line into the authority itself.
//!
//! Everything here runs on the authority's own machine with its files: making it, serving it, looking after its
//! ledger, testing its policy. No other module of this program imports the server, and this one hands out plain
//! values only, so that all other commands stay on the far side of the wire.

mod backup;
mod health;
pub(crate) mod in_process;
mod ledger;
mod making;
mod roots;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chancery_server::authority::{OnlineRoot, Rules};
use chancery_server::config::Config;
use chancery_server::{Drained, Server};
use chancery_telemetry::TelemetryConfig;
use chancery_types::{SystemClock, SystemRandom};
use tokio::signal::unix::{SignalKind, signal};

use crate::files;

pub(crate) use backup::{BackupOrder, Known, RestoreOrder, RestoredAuthority, backup, restore};
pub(crate) use health::{
    HealthRecord, Seen, Standing, TileExamination, TileWriting, health_record, replicas, tiles,
};
#[cfg(test)]
pub(crate) use health::{LeaseSeen, Presence, Survey, Writer};
pub(crate) use ledger::{LedgerWork, archive_ledger, move_ledger, work_on_ledger};
pub(crate) use making::{Database, Made, Name, Plan, finish, init, listen_at, prepare};
pub(crate) use roots::{add_spares, make_root, make_root_crl, rotate_root, sign_issuer};

/// What a configuration says, once it was found in order.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Summary {
    /// The trust domain.
    pub(crate) trust_domain: String,
    /// What the server answers to.
    pub(crate) names: Vec<String>,
    /// Where the API listens.
    pub(crate) api: SocketAddr,
    /// Where status is served.
    pub(crate) status: SocketAddr,
    /// The profiles.
    pub(crate) profiles: Vec<String>,
    /// The policy's files.
    pub(crate) policies: Vec<String>,
}

/// Checks a configuration with the profiles and the policy that it names.
pub(crate) fn check_config(file: &Path) -> Result<Summary> {
    let config = Config::load(file)?;
    let rules = Rules::load(&config.profiles, &config.policy, &config.trust_domain)?;
    Ok(Summary {
        trust_domain: config.trust_domain.to_string(),
        names: config.names.iter().map(ToString::to_string).collect(),
        api: config.api,
        status: config.status,
        profiles: rules.profiles().map(|profile| profile.name().to_owned()).collect(),
        policies: rules.sources().iter().map(|source| source.name.clone()).collect(),
    })
}

/// How one case of a policy test went.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The file that it stands in.
    pub(crate) file: PathBuf,
    /// Its name.
    pub(crate) name: String,
    /// What was expected and did not come; empty when it passed.
    pub(crate) failures: Vec<String>,
}

/// Runs files of cases against the policy beside a configuration.
pub(crate) fn test_policy(config: &Path, cases: &[PathBuf]) -> Result<Vec<Case>> {
    let config = Config::load(config)?;
    let rules = Rules::load(&config.profiles, &config.policy, &config.trust_domain)?;
    let mut results = Vec::new();
    for file in cases {
        let text = files::read_text(file, 1 << 20)?;
        let found = rules.engine().run_tests(&text).with_context(|| file.display().to_string())?;
        results.extend(found.into_iter().map(|case| Case {
            file: file.clone(),
            name: case.name,
            failures: case.failures,
        }));
    }
    Ok(results)
}

/// A configuration that was read and is in order.
pub(crate) struct Loaded(Config);

impl Loaded {
    /// Where traces go.
    pub(crate) fn telemetry(&self) -> &TelemetryConfig {
        &self.0.telemetry
    }
}

/// Reads and checks the authority's configuration.
pub(crate) fn load(config: &Path) -> Result<Loaded> {
    Ok(Loaded(Config::load(config)?))
}

/// Serves until SIGTERM or SIGINT; SIGHUP puts profiles and policy into force anew, all or nothing. `ready` hears
/// where it listens.
pub(crate) async fn serve(
    Loaded(config): Loaded,
    allow_online_root: bool,
    ready: impl FnOnce(SocketAddr, SocketAddr),
) -> Result<()> {
    let online_root = if allow_online_root { OnlineRoot::Allow } else { OnlineRoot::Refuse };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let server = Server::start(config, online_root, Arc::new(SystemClock), Arc::new(SystemRandom)).await?;
    ready(server.api_address(), server.status_address());
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => match server.site().authority.reload_rules("sighup").await {
                Ok(()) => tracing::info!("profiles and policy were read anew"),
                Err(error) => tracing::error!(%error, "profiles and policy stay as they were"),
            },
        }
    }
    tracing::info!("stopping: finishing what is under way");
    match server.stop().await {
        Drained::Completely => tracing::info!("stopped"),
        Drained::CutOff(tasks) => tracing::warn!(tasks, "stopped while requests were still under way"),
    }
    Ok(())
}
