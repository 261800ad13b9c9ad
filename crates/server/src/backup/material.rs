//! Which files of an authority's directory belong into a backup.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use chancery_keys::KeyLocation;

use super::make::KeysIn;
use super::{BackupError, FILES};
use crate::bootstrap::ROOT_KEY;
use crate::config::{Config, LedgerPlace, TilePlace};

/// Larger files are none of an authority's.
const MAX_FILE: u64 = 64 << 20;
/// Directories below each other.
const MAX_DEPTH: usize = 8;

/// A file that goes along.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its name in the backup.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its permission bits.
    pub(super) mode: u32,
}

/// What goes along, and what does not.
#[derive(Debug, Default)]
pub(super) struct Material {
    pub(super) pieces: Vec<Piece>,
    pub(super) left_out: Vec<String>,
}

impl Material {
    /// Looks through the directory of an authority.
    pub(super) fn gather(config: &Config, keys: KeysIn) -> Result<Self, BackupError> {
        let mut gathered = Self::default();
        Walk { config, keys, found: &mut gathered }.directory(&config.directory, 0)?;
        gathered.note_what_lies_outside(config, keys);
        Ok(gathered)
    }

    fn note_what_lies_outside(&mut self, config: &Config, keys: KeysIn) {
        let directory = &config.directory;
        let rules = [&config.profiles, &config.policy, &config.root_certificate];
        for path in rules.into_iter().filter(|path| !path.starts_with(directory)) {
            self.left_out.push(format!("{}: it lies outside of {}", path.display(), directory.display()));
        }
        if keys == KeysIn::LeftOut {
            self.left_out.push("the keys: keep them otherwise, or say --with-keys".to_owned());
            return;
        }
        for location in config.keys() {
            match location {
                KeyLocation::File(path) if path.starts_with(directory) => {}
                KeyLocation::File(path) => {
                    self.left_out.push(format!(
                        "{}: it lies outside of {}",
                        path.display(),
                        directory.display()
                    ));
                }
                KeyLocation::Pkcs11(_) => {
                    self.left_out.push(format!(
                        "{location}: it never leaves its token; back that up by its maker's means"
                    ));
                }
            }
        }
    }
}

struct Walk<'a> {
    config: &'a Config,
    keys: KeysIn,
    found: &'a mut Material,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path, depth: usize) -> Result<(), BackupError> {
        let failed = |path: &Path, error| BackupError::File { path: path.display().to_string(), error };
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))? {
            paths.push(entry.map_err(|error| failed(directory, error))?.path());
        }
        paths.sort();
        for path in paths {
            let kind = match fs::symlink_metadata(&path) {
                // Files come and go beside a running server.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|error| failed(&path, error))?,
            };
            if self.is_made_again(&path) {
                continue;
            }
            if kind.is_dir() && depth < MAX_DEPTH {
                self.directory(&path, depth + 1)?;
            } else if kind.is_file() && kind.len() <= MAX_FILE {
                self.file(&path, kind.mode() & 0o777).map_err(|error| failed(&path, error))?;
            } else {
                let what = if kind.is_file() { "it is too large" } else { "it is no file" };
                self.found.left_out.push(format!("{}: {what}", path.display()));
            }
        }
        Ok(())
    }

    /// What follows from the log, or lives only while the server runs.
    fn is_made_again(&self, path: &Path) -> bool {
        let config = self.config;
        let run = config.admin_socket.parent().filter(|run| *run != config.directory);
        let status = config.directory.join("status");
        Some(path) == config.ledger.directory()
            || path == status
            || config.tiles.as_ref().and_then(TilePlace::directory) == Some(path)
            || matches!(&config.ledger, LedgerPlace::Postgres(place) if place.checkpoints == path)
            || Some(path) == run
            || path == config.admin_socket
    }

    fn file(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let is_first = matches!(&self.config.root_key, Some(KeyLocation::File(root)) if root == path);
        // Those of roots that followed are where nobody has told the server.
        if is_first || path.file_name().is_some_and(|name| name == ROOT_KEY) {
            let what = "a root's key never goes into a backup of what runs; keep it by itself";
            self.found.left_out.push(format!("{}: {what}", path.display()));
            return Ok(());
        }
        if self.keys == KeysIn::LeftOut && self.is_secret(path)? {
            return Ok(());
        }
        let inside = path.strip_prefix(&self.config.directory).unwrap_or(path);
        let parts = inside.components().map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        });
        match parts.collect::<Option<Vec<_>>>() {
            Some(parts) => {
                let name = format!("{FILES}{}", parts.join("/"));
                self.found.pieces.push(Piece { name, path: path.to_owned(), mode });
            }
            None => self.found.left_out.push(format!("{}: its name is not text", path.display())),
        }
        Ok(())
    }

    fn is_secret(&self, path: &Path) -> io::Result<bool> {
        let config = self.config;
        if config.keys().into_iter().any(|location| location.file() == Some(path))
            || config.secret_files().contains(&path)
            || ["keys", "secrets"].iter().any(|name| path.starts_with(config.directory.join(name)))
        {
            return Ok(true);
        }
        let content = zeroize::Zeroizing::new(fs::read(path)?);
        Ok(content.windows(MARK.len()).any(|window| window == MARK))
    }
}

/// What every private key in PEM has in its first line.
const MARK: &[u8] = b"PRIVATE KEY-----";
