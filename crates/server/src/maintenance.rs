//! Looking after the ledger of an authority.
//!
//! For `chancery ledger`. A directory is refused while a server has it; a database may be at work, and is held only
//! while its read model is made anew. Neither issues or records anything.

use std::path::Path;

use chancery_ledger::embedded::Archived;
use chancery_ledger::{
    CheckError, EmbeddedLedger, Ledger as _, ModelError, Options, PostgresLedger, PostgresReport,
};
use chancery_types::Digest;

use crate::authority::{OpenError, open_log_signers};
use crate::config::{Config, LedgerPlace};
use crate::storage::postgres_options;

/// What a ledger holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Entries.
    pub entries: u64,
    /// The root that they hash to.
    pub root: Digest,
    /// The digest over the whole read model of a directory; a database compares its own.
    pub model: Option<Digest>,
}

/// Why a ledger was not looked after.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its index cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// It is in a database, which has no segments.
    #[error(
        "the log is in a database, which keeps it in partitions of its own; there are no segments to archive"
    )]
    Database,
    /// The thread that worked on it is gone.
    #[error("the work was broken off")]
    BrokenOff,
    /// Something in it is not in order.
    #[error(transparent)]
    Check(#[from] CheckError),
}

/// Makes everything that follows from the entries anew. `progress` hears of entries done and, where it is known,
/// entries in all.
///
/// # Errors
/// [`MaintenanceError`].
pub async fn rebuild_ledger(
    config: &Config,
    progress: impl Fn(u64, Option<u64>) + Send + 'static,
) -> Result<Holding, MaintenanceError> {
    let signers = open_log_signers(config)?;
    match &config.ledger {
        LedgerPlace::Directory(directory) => {
            let directory = directory.clone();
            aside(move || {
                let mut told = |done, of| progress(done, of);
                let ledger = EmbeddedLedger::rebuild(&directory, signers, Options::default(), &mut told);
                holding(&ledger.map_err(OpenError::from)?)
            })
            .await
        }
        LedgerPlace::Postgres(place) => {
            let (options, told) = (postgres_options(place)?, move |done, of| progress(done, Some(of)));
            PostgresLedger::rebuild(&options, &signers, told).await.map_err(OpenError::from)?;
            let report = PostgresLedger::check_everything(&options, &signers, |_, _| {}).await;
            Ok(Holding::of(&report.map_err(OpenError::from)?))
        }
    }
}

/// Computes everything that follows from the entries again and compares it with what is kept.
///
/// # Errors
/// [`MaintenanceError::Check`] names the first thing that is wrong, and what to do.
pub async fn check_ledger(
    config: &Config,
    progress: impl Fn(u64, Option<u64>) + Send + 'static,
) -> Result<Holding, MaintenanceError> {
    let signers = open_log_signers(config)?;
    match &config.ledger {
        LedgerPlace::Directory(directory) => {
            let directory = directory.clone();
            aside(move || {
                EmbeddedLedger::check_everything(&directory, &mut |done, of| progress(done, of))?;
                let ledger = EmbeddedLedger::open(&directory, signers, Options::default());
                holding(&ledger.map_err(OpenError::from)?)
            })
            .await
        }
        LedgerPlace::Postgres(place) => {
            let (options, told) = (postgres_options(place)?, move |done, of| progress(done, Some(of)));
            let report = PostgresLedger::check_everything(&options, &signers, told).await;
            Ok(Holding::of(&report.map_err(OpenError::from)?))
        }
    }
}

/// On a thread that may take its time.
async fn aside(
    work: impl FnOnce() -> Result<Holding, MaintenanceError> + Send + 'static,
) -> Result<Holding, MaintenanceError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| MaintenanceError::BrokenOff)?
}

impl Holding {
    fn of(report: &PostgresReport) -> Self {
        Self { entries: report.entries, root: report.root, model: None }
    }
}

/// Moves old segments of the journal to an archive, also while a server has the ledger.
///
/// # Errors
/// [`MaintenanceError`].
pub fn archive_ledger(
    config: &Config,
    directory: &Path,
    keep: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Archived, MaintenanceError> {
    let ledger = config.ledger.directory().ok_or(MaintenanceError::Database)?;
    let moved = chancery_ledger::embedded::archive(ledger, directory, keep, progress);
    Ok(moved.map_err(OpenError::from)?)
}

fn holding(ledger: &EmbeddedLedger) -> Result<Holding, MaintenanceError> {
    let head = ledger.head();
    let model = Some(ledger.model_digest()?);
    ledger.close();
    Ok(Holding { entries: head.size, root: head.root, model })
}
