//! Looking after the ledger of an authority.
//!
//! For `chancery ledger`. Rebuilding and checking refuse while a server has the directory. Nothing here issues or records
//! anything.

use std::path::Path;

use chancery_ledger::embedded::Archived;
use chancery_ledger::{CheckError, EmbeddedLedger, Ledger as _, ModelError, Options};
use chancery_types::Digest;

use crate::authority::{OpenError, note_signer, open_keys};
use crate::config::Config;

/// What a ledger holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Entries.
    pub entries: u64,
    /// The root that they hash to.
    pub root: Digest,
    /// The digest over the whole read model.
    pub model: Digest,
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
    /// Something in it is not in order.
    #[error(transparent)]
    Check(#[from] CheckError),
}

/// Makes the index and the derived files anew from the journal. `progress` hears of entries done and, where it is
/// known, entries in all.
///
/// # Errors
/// [`MaintenanceError`].
pub fn rebuild_ledger(
    config: &Config,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Holding, MaintenanceError> {
    let keys = open_keys(config)?;
    let (signer, _) = note_signer(&config.trust_domain, &keys.ledger)?;
    let ledger = EmbeddedLedger::rebuild(&config.ledger, signer, Options::default(), progress)
        .map_err(OpenError::from)?;
    let holding = holding(&ledger)?;
    ledger.close();
    Ok(holding)
}

/// Computes everything that follows from the journal again and compares it with what is kept.
///
/// # Errors
/// [`MaintenanceError::Check`] names the first thing that is wrong, and what to do.
pub fn check_ledger(
    config: &Config,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Holding, MaintenanceError> {
    EmbeddedLedger::check_everything(&config.ledger, progress)?;
    let keys = open_keys(config)?;
    let (signer, _) = note_signer(&config.trust_domain, &keys.ledger)?;
    let ledger = EmbeddedLedger::open(&config.ledger, signer, Options::default()).map_err(OpenError::from)?;
    let holding = holding(&ledger)?;
    ledger.close();
    Ok(holding)
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
    let moved = chancery_ledger::embedded::archive(&config.ledger, directory, keep, progress);
    Ok(moved.map_err(OpenError::from)?)
}

fn holding(ledger: &EmbeddedLedger) -> Result<Holding, MaintenanceError> {
    let head = ledger.head();
    Ok(Holding { entries: head.size, root: head.root, model: ledger.model_digest()? })
}
