//! Ledgers that are looked after while nobody, or somebody, serves them.

use std::path::Path;

use anyhow::Result;
use chancery_server::config::{Config, LedgerPlace, RawStorage};
use chancery_server::{maintenance, relocation};
use chancery_types::{Digest, SystemRandom};

use super::Database;

/// What can be done with a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LedgerWork {
    /// Make its index anew.
    Rebuild,
    /// Compare its index with its journal.
    Check,
}

/// What a ledger holds.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Holding {
    /// Entries.
    pub(crate) entries: u64,
    /// The root that they hash to.
    pub(crate) root: Digest,
    /// The digest over the whole read model of a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<Digest>,
}

/// Works on the ledger of an authority that does not run; `progress` hears of entries done and in all.
pub(crate) async fn work_on_ledger(
    work: LedgerWork,
    config: &Path,
    progress: impl Fn(u64, Option<u64>) + Send + 'static,
) -> Result<Holding> {
    let config = Config::load(config)?;
    let holding = match work {
        LedgerWork::Rebuild => maintenance::rebuild_ledger(&config, progress).await?,
        LedgerWork::Check => maintenance::check_ledger(&config, progress).await?,
    };
    Ok(Holding { entries: holding.entries, root: holding.root, model: holding.model })
}

/// What was moved to the archive.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Archived {
    /// Segments moved now.
    pub(crate) moved: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Segments in the archive.
    pub(crate) archived: u64,
    /// Segments in the journal.
    pub(crate) live: u64,
    /// Entries in the archive.
    pub(crate) entries: u64,
}

/// Moves old segments of the journal to an archive; `progress` hears of segments.
pub(crate) fn archive_ledger(
    config: &Path,
    directory: &Path,
    keep: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Archived> {
    let config = Config::load(config)?;
    let done = maintenance::archive_ledger(&config, directory, keep, progress)?;
    let (moved, bytes, archived) = (done.moved, done.bytes, done.archived);
    Ok(Archived { moved, bytes, archived, live: done.live, entries: done.entries })
}

/// A log that was moved.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Moved {
    /// Entries.
    pub(crate) entries: u64,
    /// Their root at both places.
    pub(crate) root: Digest,
    /// How long nothing could be recorded.
    pub(crate) paused_seconds: f64,
    /// What the configuration has to say from now on.
    pub(crate) settings: String,
}

/// Moves the log of an authority; from where its configuration says, unless told otherwise.
pub(crate) async fn move_ledger(
    file: &Path,
    from: Option<&str>,
    to: &Database,
    mut progress: impl FnMut(u64, u64) + Send,
) -> Result<Moved> {
    let config = Config::load(file)?;
    let here = std::env::current_dir()?;
    let wrong = |mistakes: Vec<String>| anyhow::anyhow!(mistakes.join("\n"));
    let named = to.url.strip_prefix("embedded:").map(|name| here.join(name));
    let storage = match &named {
        Some(directory) => RawStorage { ledger: directory.display().to_string(), ..RawStorage::default() },
        None => to.to_storage()?,
    };
    let target = match named {
        Some(directory) => LedgerPlace::Directory(directory),
        None => {
            LedgerPlace::named(&storage.ledger, storage.postgres.clone(), &config.directory).map_err(wrong)?
        }
    };
    let source = match (from, &config.ledger) {
        (None, place) => place.clone(),
        (Some(text), _) if text.starts_with("embedded:") => {
            LedgerPlace::named(text, None, &here).map_err(wrong)?
        }
        (Some(text), LedgerPlace::Postgres(place)) if place.url == text => config.ledger.clone(),
        (Some(text), _) => LedgerPlace::named(text, None, &config.directory).map_err(wrong)?,
    };
    let moved = relocation::relocate(&config, &source, &target, &SystemRandom, &mut progress).await?;
    Ok(Moved {
        entries: moved.entries,
        root: moved.root,
        paused_seconds: moved.pause.as_secs_f64(),
        settings: settings(storage)?,
    })
}

/// What a configuration says of this storage.
pub(super) fn settings(storage: RawStorage) -> Result<String> {
    #[derive(serde::Serialize)]
    struct Settings {
        storage: RawStorage,
    }
    Ok(toml::to_string(&Settings { storage })?)
}
