//! Backups and what comes of them, in plain values.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_server::backup::{self, Evidence, KeysIn, RestoreError, RestorePlan, StatusEvidence};
use chancery_server::config::{Config, LedgerPlace, PostgresPlace, RawStorage};
use chancery_types::{Digest, SystemRandom, Timestamp};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Database;
use super::ledger::settings;
use crate::failure::verification;

/// What is to be backed up, and for whom.
#[derive(Debug)]
pub(crate) struct BackupOrder<'a> {
    /// The configuration.
    pub(crate) config: &'a Path,
    /// Who can open it, as age writes recipients.
    pub(crate) recipients: Vec<String>,
    /// Whether the keys go along.
    pub(crate) with_keys: bool,
    /// A checkpoint that the running server has just signed.
    pub(crate) checkpoint: Option<String>,
    /// Now.
    pub(crate) now: Timestamp,
}

/// What was backed up.
#[derive(Debug, Serialize)]
pub(crate) struct BackedUp {
    /// Entries of the log.
    pub(crate) entries: u64,
    /// What they hash to.
    pub(crate) root: Digest,
    /// Certificates among them.
    pub(crate) issued: u64,
    /// Revocations among them.
    pub(crate) revocations: u64,
    /// Whether the keys are in it.
    pub(crate) keys: bool,
    /// What is not, and why.
    pub(crate) left_out: Vec<String>,
}

/// Writes a backup.
pub(crate) fn backup(
    order: &BackupOrder<'_>,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackedUp> {
    let config = Config::load(order.config)?;
    let recipients = order.recipients.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
    let checkpoint = order.checkpoint.as_ref().map(|text| text.parse()).transpose();
    let name = order.config.file_name().and_then(|name| name.to_str()).context("the configuration's name")?;
    let plan = backup::BackupPlan {
        config: &config,
        config_name: name,
        recipients: &recipients,
        keys: if order.with_keys { KeysIn::Backup } else { KeysIn::LeftOut },
        checkpoint: checkpoint.context("the server's checkpoint")?,
        program: env!("CARGO_PKG_VERSION"),
        now: order.now,
    };
    let (manifest, account) = backup::make(&plan, &SystemRandom, output, progress)?;
    Ok(BackedUp {
        entries: manifest.entries,
        root: account.frontier.root(),
        issued: account.issued,
        revocations: account.revocations,
        keys: manifest.keys,
        left_out: manifest.left_out,
    })
}

/// Something that was published, from where.
#[derive(Debug)]
pub(crate) struct Known {
    /// A file or a URL.
    pub(crate) name: String,
    /// Its content.
    pub(crate) bytes: Vec<u8>,
}

/// Where entries come from: their indexes, bytes and signatures.
pub(crate) type NextEntry<'a> = &'a mut dyn FnMut() -> Result<Option<backup::More>, String>;

/// What is to be restored, and what is known of the log.
pub(crate) struct RestoreOrder<'a> {
    /// Where it goes.
    pub(crate) target: &'a Path,
    /// The text of the identity file.
    pub(crate) identities: Zeroizing<Vec<u8>>,
    /// Checkpoints that were published.
    pub(crate) checkpoints: Vec<Known>,
    /// Exact sets that were published.
    pub(crate) sets: Vec<Known>,
    /// Whether it may go on without knowing any.
    pub(crate) dangerous_without_checkpoint: bool,
    /// The database that is to have the log.
    pub(crate) database: Option<Database>,
    /// Entries that the backup does not have, and where they are from.
    pub(crate) more: Option<(String, NextEntry<'a>)>,
}

/// What was restored.
#[derive(Debug, Serialize)]
pub(crate) struct RestoredAuthority {
    /// The trust domain.
    pub(crate) trust_domain: String,
    /// When the backup was made.
    pub(crate) made: Timestamp,
    /// Entries of the log.
    pub(crate) entries: u64,
    /// How many of them were not in the backup.
    pub(crate) added: u64,
    /// Entries that the latest known checkpoint covers.
    pub(crate) published: Option<u64>,
    /// What the entries hash to.
    pub(crate) root: Digest,
    /// Certificates among them.
    pub(crate) issued: u64,
    /// Revocations among them.
    pub(crate) revocations: u64,
    /// Whether the keys were in it.
    pub(crate) keys: bool,
    /// What is missing, and why.
    pub(crate) left_out: Vec<String>,
    /// The ledger.
    pub(crate) ledger: String,
    /// What the configuration has to say from now on, where the ledger is not where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) settings: Option<String>,
    /// The configuration.
    pub(crate) config: PathBuf,
}

/// The database that these settings name, with files relative to this directory.
fn place_in(storage: &RawStorage, directory: &Path) -> Result<PostgresPlace> {
    let place = LedgerPlace::named(&storage.ledger, storage.postgres.clone(), directory);
    match place.map_err(|mistakes| anyhow::anyhow!(mistakes.join("\n")))? {
        LedgerPlace::Postgres(place) => Ok(*place),
        LedgerPlace::Directory(_) => {
            anyhow::bail!("{}: name a database, postgres://USER@HOST/DATABASE", storage.ledger)
        }
    }
}

/// Makes an authority's directory from a backup.
pub(crate) fn restore(
    order: RestoreOrder<'_>,
    input: impl Read,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RestoredAuthority> {
    let identities = std::str::from_utf8(&order.identities).context("the identity file is not text")?;
    let identities = chancery_server::backup::read_identities(identities).context("the identity file")?;
    let evidence = |known: Known| {
        let text = String::from_utf8(known.bytes).ok();
        let note = text.and_then(|text| text.parse().ok());
        let note = note.with_context(|| format!("{} is no checkpoint", known.name))?;
        Ok(Evidence { source_name: known.name, note })
    };
    let set = |known: Known| StatusEvidence { source_name: known.name, bytes: known.bytes };
    let target = std::path::absolute(order.target)?;
    let storage = order.database.as_ref().map(Database::to_storage).transpose()?;
    let plan = RestorePlan {
        target: order.target,
        database: storage.as_ref().map(|storage| place_in(storage, &target)).transpose()?,
        identities: &identities,
        checkpoints: order.checkpoints.into_iter().map(evidence).collect::<Result<_>>()?,
        sets: order.sets.into_iter().map(set).collect(),
        dangerous_without_checkpoint: order.dangerous_without_checkpoint,
        more: order.more,
    };
    let restored = backup::restore(plan, &SystemRandom, input, progress).map_err(|error| match error {
        RestoreError::WouldUnrevoke { .. } | RestoreError::Forked { .. } | RestoreError::Evidence { .. } => {
            verification(error)
        }
        error => error.into(),
    })?;
    let (manifest, account) = (restored.manifest, restored.account);
    Ok(RestoredAuthority {
        trust_domain: manifest.trust_domain,
        made: manifest.made,
        entries: account.frontier.size(),
        added: restored.added,
        published: restored.published,
        root: account.frontier.root(),
        issued: account.issued,
        revocations: account.revocations,
        keys: manifest.keys,
        left_out: manifest.left_out,
        ledger: match restored.ledger.directory() {
            Some(directory) => directory.display().to_string(),
            None => restored.ledger.to_string(),
        },
        settings: match (storage, manifest.database) {
            (Some(storage), _) => Some(settings(storage)?),
            (None, Some(_)) => Some(settings(RawStorage::default())?),
            (None, None) => None,
        },
        config: restored.config,
    })
}
