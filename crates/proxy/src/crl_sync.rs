//! Revocation lists in files, for programs that read them: nginx, HAProxy, whatever is built on OpenSSL.
//!
//! The lists of every issuer of the authority are fetched, judged ([`list`]: signed by an issuer under the configured
//! roots, complete, not ended, with a number that never goes back), written whole and renamed into place
//! (`output`), and the programs are told ([`chancery_agent::hook`]). With a client certificate the status feed
//! wakes it at every change and the authority is told how far everything is in force, after the last hook came to a
//! good end; without, it asks from time to time.
//!
//! What cannot be fetched or is not as it should be leaves what is in place where it is. A program whose list has
//! ended refuses everybody: that is how it should be, and it is said loudly long before.

mod config;
mod follow;
mod health;
mod held;
pub mod list;
mod output;
mod pending;
mod report;

use std::sync::Arc;
use std::time::Duration;

use chancery_agent::notify::Supervisor;
use chancery_client::{Client, ClientError};
use chancery_types::{Clock, Timestamp};
use chancery_x509::PemError;

pub use self::config::{CrlSyncConfig, FileForm, OutputConfig, RawCrlSync, RawOutput};
use self::health::Health;
use self::held::Held;
use self::list::ListError;
use self::output::Output;
pub use self::output::OutputError;
pub use self::report::{ListReport, OutputReport, Report};
use crate::console;
use crate::signals::{Signals, feed};
use crate::upstream::UpstreamError;

/// Why the lists are not in place as they should be; what was in place stays.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The authority cannot be asked at all.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The authority does not answer.
    #[error("the authority's lists cannot be fetched: {0}")]
    Client(#[from] ClientError),
    /// The roots that it names cannot be read.
    #[error("the authority's trust bundle cannot be read: {0}")]
    Bundle(#[source] PemError),
    /// It names an issuer that no root vouches for.
    #[error("issuer {0} is under none of the roots in the trust bundle")]
    Stranger(String),
    /// It has no issuer at all.
    #[error("the authority names no issuer")]
    NoIssuer,
    /// A list is not as it should be.
    #[error("the list of {issuer}: {error}")]
    List {
        /// Whose.
        issuer: String,
        /// What is wrong.
        error: ListError,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A program was not told.
    #[error("{output}: the hook failed: {how}")]
    Hook {
        /// Which output.
        output: String,
        /// How it ended.
        how: String,
    },
}

/// Keeps the files of one configuration.
pub struct CrlSync {
    config: CrlSyncConfig,
    client: Client,
    clock: Arc<dyn Clock>,
    held: Held,
    outputs: Vec<Output>,
    health: Arc<Health>,
}

impl CrlSync {
    /// Connects nowhere yet; with a Workload API it waits for the first credential.
    ///
    /// # Errors
    /// [`SyncError::Upstream`].
    pub async fn new(config: CrlSyncConfig, clock: Arc<dyn Clock>) -> Result<Self, SyncError> {
        let client = config.upstream.client().await?;
        let roots = config.upstream.roots()?;
        let outputs: Vec<Output> = config.outputs.iter().cloned().map(Output::new).collect();
        let in_place = outputs.iter().flat_map(Output::in_place).collect();
        let held = Held::new(roots, config.also.clone(), in_place);
        let health = Arc::new(Health::new(Arc::clone(&clock), config.maximum_age));
        Ok(Self { config, client, clock, held, outputs, health })
    }

    /// Fetches, judges, writes and tells, once.
    ///
    /// # Errors
    /// [`SyncError`], the first of what went wrong; what could be done was done.
    pub async fn once(&mut self) -> Result<Report, SyncError> {
        let now = self.clock.now();
        let fetched = self.held.refresh(&self.client, now).await;
        // One list that cannot be had does not keep the others from being put in place.
        let lists = self.held.lists();
        let mut failure = fetched.err();
        let mut reports = Vec::with_capacity(self.outputs.len());
        if let Some(lists) = &lists {
            for output in &mut self.outputs {
                match output.put(lists).await {
                    Ok(report) => reports.push(report),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        let lists = self.held.report();
        self.health.round(failure.is_none(), &lists);
        match failure {
            Some(error) => Err(error),
            None => Ok(Report { lists, outputs: reports }),
        }
    }

    /// Keeps them until it is dropped. `looked` is called after the first round, however it ended.
    pub async fn run(mut self, looked: impl FnOnce()) {
        follow::run(&mut self, looked).await;
    }

    /// Keeps them until SIGTERM or SIGINT; SIGHUP does nothing. Serves metrics and health meanwhile, where that is
    /// configured.
    ///
    /// # Errors
    /// When signals cannot be received, or metrics cannot be served.
    pub async fn run_until_told(self) -> std::io::Result<()> {
        let _console = match &self.config.metrics {
            Some(address) => Some(console::serve(address, Arc::clone(&self.health) as _).await?),
            None => None,
        };
        let supervisor = Supervisor::from_environment();
        let mut signals = Signals::new()?;
        tokio::select! {
            () = self.run(|| supervisor.ready("keeping revocation lists")) => {}
            () = feed(&supervisor) => {}
            () = signals.stop() => supervisor.stopping(),
        }
        Ok(())
    }

    /// When the first of the lists in place ends.
    fn first_end(&self) -> Option<Timestamp> {
        self.held.first_end()
    }
}

/// How far the clock of the authority may be ahead of ours.
const SKEW: Duration = Duration::from_mins(5);
