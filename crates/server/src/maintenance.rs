//! Looking after the ledger of an authority that does not run.
//!
//! For `chancery ledger`. Both refuse while a server has the directory. Neither issues or records anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chancery_ledger::{EmbeddedLedger, Ledger as _, ModelError, Options};
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
    /// A copy for comparison cannot be made.
    #[error("cannot copy the journal to {path}: {error}; free as much space as the journal takes")]
    Copy {
        /// Where to.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// The index is not what the journal makes of it.
    #[error(
        "the index has the digest {kept}, the journal makes {made}: the index is damaged; `chancery ledger rebuild` \
         makes it anew from the journal"
    )]
    Differs {
        /// The digest of what is kept.
        kept: Digest,
        /// The digest of what it should be.
        made: Digest,
    },
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
    rebuild_at(config, &config.ledger, progress)
}

/// Replays a copy of the journal from its first entry and compares what it makes with what is kept. The copy lies
/// beside the ledger and is removed.
///
/// # Errors
/// [`MaintenanceError::Differs`] when the index is damaged; [`MaintenanceError::Open`] when the journal is.
pub fn check_ledger(
    config: &Config,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Holding, MaintenanceError> {
    let keys = open_keys(config)?;
    let (signer, _) = note_signer(&config.trust_domain, &keys.ledger)?;
    let ledger = EmbeddedLedger::open(&config.ledger, signer, Options::default()).map_err(OpenError::from)?;
    let kept = holding(&ledger)?;
    // Open while it is copied: nobody else can write meanwhile.
    let copy = Copy::of(&config.ledger)?;
    ledger.close();
    drop(ledger);
    let made = rebuild_at(config, &copy.0, progress)?;
    if kept == made {
        Ok(kept)
    } else {
        Err(MaintenanceError::Differs { kept: kept.model, made: made.model })
    }
}

fn rebuild_at(
    config: &Config,
    directory: &Path,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Holding, MaintenanceError> {
    let keys = open_keys(config)?;
    let (signer, _) = note_signer(&config.trust_domain, &keys.ledger)?;
    let ledger =
        EmbeddedLedger::rebuild(directory, signer, Options::default(), progress).map_err(OpenError::from)?;
    let holding = holding(&ledger)?;
    ledger.close();
    Ok(holding)
}

fn holding(ledger: &EmbeddedLedger) -> Result<Holding, MaintenanceError> {
    let head = ledger.head();
    Ok(Holding { entries: head.size, root: head.root, model: ledger.model_digest()? })
}

/// A copy of what is not derived; removed when it is dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(directory: &Path) -> Result<Self, MaintenanceError> {
        let target = directory.with_extension("check");
        let failed = |error| MaintenanceError::Copy { path: target.display().to_string(), error };
        match fs::remove_dir_all(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let copy = Self(target.clone());
        copy_files(directory, &target).map_err(failed)?;
        copy_files(&directory.join("journal"), &target.join("journal")).map_err(failed)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a copy of the journal is left; remove it");
        }
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != "index.redb" && entry.file_name() != "lock" {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
