//! What a deployment consists of, and how its replicas and places stand.

use std::path::{Path, PathBuf};

use anyhow::Result;
use chancery_server::config::Config;
use chancery_server::presence;

use super::check_config;
use crate::place::roots_beside;

#[cfg(test)]
pub(crate) use chancery_server::presence::{LeaseSeen, Presence, Survey, Writer};
pub(crate) use chancery_server::presence::{Seen, Standing};
pub(crate) use chancery_server::tiles::{Examination as TileExamination, Writing as TileWriting};

/// Where the parts of a deployment lie, for who looks after its health.
#[derive(Debug, Clone)]
pub(crate) struct HealthRecord {
    /// The authority's directory.
    pub(crate) directory: PathBuf,
    /// Its ledger.
    pub(crate) ledger: PathBuf,
    /// Its profiles.
    pub(crate) profiles: PathBuf,
    /// Its policy.
    pub(crate) policy: PathBuf,
    /// The root's certificate.
    pub(crate) root_certificate: PathBuf,
    /// Keys that lie in files.
    pub(crate) key_files: Vec<PathBuf>,
    /// Keys that lie in tokens.
    pub(crate) tokens: usize,
    /// The file with the keys' passphrase.
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Every other file whose content is secret, and that one.
    pub(crate) secret_files: Vec<PathBuf>,
    /// Whether the root's key can be read from here.
    pub(crate) root_readable: bool,
    /// The base of the URLs in certificates.
    pub(crate) status_url: String,
    /// Seconds after which the exact set is made anew.
    pub(crate) set_refresh: u64,
}

/// Reads a configuration with its rules, and where its parts lie.
pub(crate) fn health_record(file: &Path) -> Result<HealthRecord> {
    check_config(file)?;
    let config = Config::load(file)?;
    let keys = config.keys();
    let key_files: Vec<PathBuf> = keys.iter().filter_map(|key| key.file().map(Path::to_owned)).collect();
    Ok(HealthRecord {
        tokens: keys.len() - key_files.len(),
        key_files,
        root_readable: config.root_is_readable(),
        secret_files: config.secret_files().into_iter().map(Path::to_owned).collect(),
        status_url: config.status_url.clone(),
        set_refresh: config.set_refresh.as_secs(),
        // Of a log in a database, what it leaves outside.
        ledger: config.ledger.directory().map_or_else(|| config.directory.clone(), Path::to_owned),
        directory: config.directory,
        profiles: config.profiles,
        policy: config.policy,
        root_certificate: roots_beside(config.root_certificate),
        passphrase_file: config.passphrase_file,
    })
}

/// How the replicas on this configuration's database stand; nothing when its ledger is in a directory.
pub(crate) async fn replicas(file: &Path) -> Result<Option<Standing>> {
    Ok(presence::look(&Config::load(file)?).await?)
}

/// Whether the place of full tiles can be read and written; nothing when they are kept nowhere.
pub(crate) async fn tiles(file: &Path) -> Result<Option<TileExamination>> {
    Ok(chancery_server::tiles::examine(&Config::load(file)?).await)
}
