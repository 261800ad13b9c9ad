//! Moving the log of a living authority: from a directory into a database, from one database into another, and back.
//!
//! ```text
//! copy      while replicas work on a database; a directory is closed to everybody else
//! end       the log at the old place: whoever has it open signs nothing more, nobody opens it again
//! copy      what was recorded meanwhile: moments
//! compare   every entry by its hash, the whole by its root
//! ```
//! Entries and signatures are copied to the byte; everything else follows from them. A copy that broke off goes on where
//! it stopped, and until the old log is ended nothing has happened.

use std::sync::Arc;
use std::time::Duration;

use chancery_ledger::{CommitError, CopyError, PostgresError, copy_log};
use chancery_types::{Digest, Random};

use crate::authority::{OpenError, open_log_signers};
use crate::config::{Config, LedgerPlace};
use crate::storage::{create_ledger, open_ledger, open_to_read};

/// How long the old log may take to show its end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocated {
    /// Entries.
    pub entries: u64,
    /// The root that they hash to, at both places.
    pub root: Digest,
    /// Of those, how many were recorded while the others were copied.
    pub late: u64,
    /// How long nothing could be recorded before the new place was ready.
    pub pause: Duration,
}

/// Why a log was not moved. Unless it says so, the old place is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RelocationError {
    /// One of the places does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The old log cannot be ended.
    #[error("the log at the old place was not ended: {0}")]
    End(CommitError),
    /// The old log was ended, and the rest of it was not copied.
    #[error(
        "the log at the old place was ended at {size} entries, and the copy has {copied}: {why}. Nobody signs now; \
         repeat the command with the same places"
    )]
    Unfinished {
        /// Entries at the old place.
        size: u64,
        /// Entries at the new one.
        copied: u64,
        /// Why.
        why: String,
    },
}

/// Moves the log of the authority that a configuration describes. `progress` hears of entries done and in all.
///
/// # Errors
/// [`RelocationError`].
pub async fn relocate(
    config: &Config,
    from: &LedgerPlace,
    to: &LedgerPlace,
    random: &dyn Random,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Relocated, RelocationError> {
    let signers = open_log_signers(config)?;
    let source = open_to_read(from, Arc::clone(&signers), random).await?;
    let target = match open_ledger(to, Arc::clone(&signers), random).await {
        Err(error) if is_missing(to, &error) => create_ledger(to, signers, random).await?,
        opened => opened?,
    };
    let first = copy_log(source.as_ref(), target.as_ref(), progress).await?;
    let paused = tokio::time::Instant::now();
    let ended = source.end(&format!("it goes on at {to}")).await.map_err(RelocationError::End)?;
    let unfinished = |why: String| {
        let (size, copied) = (ended.size, target.head().size);
        RelocationError::Unfinished { size, copied, why }
    };
    while source.head().size < ended.size {
        if paused.elapsed() > PATIENCE {
            return Err(unfinished("its end cannot be read".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let whole = copy_log(source.as_ref(), target.as_ref(), progress).await;
    let whole = whole.map_err(|error| unfinished(error.to_string()))?;
    if whole != ended {
        return Err(unfinished(format!("the copy hashes to {}, not {}", whole.root, ended.root)));
    }
    let pause = paused.elapsed();
    source.close();
    target.close();
    Ok(Relocated { entries: whole.size, root: whole.root, late: whole.size - first.size, pause })
}

/// Whether there is nothing at the place yet.
fn is_missing(place: &LedgerPlace, error: &OpenError) -> bool {
    match (place, error) {
        (LedgerPlace::Directory(directory), _) => !directory.join("journal").exists(),
        (LedgerPlace::Postgres(_), OpenError::Postgres(PostgresError::Missing { .. })) => true,
        (LedgerPlace::Postgres(_), _) => false,
    }
}
