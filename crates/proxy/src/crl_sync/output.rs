//! Where lists are put: one PEM file of all, or a directory with a file for each. Each file is the old one or the new
//! one at any moment, also after a crash.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chancery_agent::hook::{HookOutcome, Occasion, Reason};
use chancery_x509::write_pem;

use super::SyncError;
use super::config::{FileForm, OutputConfig};
use super::held::{LABEL, documents};
use super::list::RevocationList;
use super::report::OutputReport;

/// Why a file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {path}: {error}")]
    Write {
        /// Which.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// Somebody else could change what is written.
    #[error(
        "{path} can be written by others: let it belong to root or to this user, writable by nobody else"
    )]
    Untrusted {
        /// The directory.
        path: String,
    },
}

/// One place for lists, and the program that reads them there.
pub(super) struct Output {
    config: OutputConfig,
    /// Files were written and the program was not told yet.
    untold: bool,
}

impl Output {
    pub(super) fn new(config: OutputConfig) -> Self {
        Self { config, untold: false }
    }

    /// The lists that are there, unverified.
    pub(super) fn in_place(&self) -> Vec<Vec<u8>> {
        let files = match self.config.form {
            FileForm::Bundle => vec![self.config.path.clone()],
            _ => self.files_there(),
        };
        files.iter().filter_map(|path| fs::read(path).ok()).flat_map(documents).collect()
    }

    /// Puts these lists in place, and has the program read them if they are others than before.
    pub(super) async fn put(&mut self, lists: &[Arc<RevocationList>]) -> Result<OutputReport, SyncError> {
        let changed = self.write(&self.render(lists))?;
        self.untold |= changed;
        let told = self.untold && self.config.hook.is_some();
        if self.untold {
            self.tell().await?;
            self.untold = false;
        }
        let OutputConfig { name, path, .. } = self.config.clone();
        Ok(OutputReport { name, path, changed, told })
    }

    async fn tell(&self) -> Result<(), SyncError> {
        let Some(hook) = &self.config.hook else { return Ok(()) };
        let directory = self.config.directory().to_owned();
        let sink = self.config.name.clone();
        let how =
            match hook.run(&Occasion { reason: Reason::Revoked, sink, directory, certificate: None }).await {
                HookOutcome::Done { .. } => return Ok(()),
                HookOutcome::NotStarted { why } | HookOutcome::NoProcess { why } => why,
                HookOutcome::Failed { how, output } => format!("{how}: {output}"),
                HookOutcome::TimedOut { after_seconds, output } => {
                    format!("no end after {after_seconds} s: {output}")
                }
            };
        Err(SyncError::Hook { output: self.config.name.clone(), how })
    }

    /// What each file should hold.
    fn render(&self, lists: &[Arc<RevocationList>]) -> BTreeMap<PathBuf, Vec<u8>> {
        if self.config.form == FileForm::Bundle {
            let all: String = lists.iter().map(|list| write_pem(LABEL, list.der())).collect();
            return [(self.config.path.clone(), all.into_bytes())].into();
        }
        let mut files = BTreeMap::new();
        for list in lists {
            let same_name = |number: &usize| {
                let path = self.config.path.join(file_name(self.config.form, list, *number));
                (!files.contains_key(&path)).then_some(path)
            };
            let path =
                (0..).find_map(|number| same_name(&number)).expect("there are fewer lists than numbers");
            let bytes = match self.config.form {
                FileForm::Der => list.der().to_vec(),
                _ => write_pem(LABEL, list.der()).into_bytes(),
            };
            files.insert(path, bytes);
        }
        files
    }

    /// Writes what differs; whether anything did.
    fn write(&self, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<bool, OutputError> {
        let mut changed = false;
        for (path, bytes) in files {
            if fs::read(path).is_ok_and(|there| there == *bytes) {
                continue;
            }
            self.check_directory()?;
            let error = |error| OutputError::Write { path: path.display().to_string(), error };
            self.replace(path, bytes).map_err(error)?;
            changed = true;
        }
        if self.config.form != FileForm::Bundle {
            for old in self.files_there().into_iter().filter(|path| !files.contains_key(path)) {
                let error = |error| OutputError::Write { path: old.display().to_string(), error };
                fs::remove_file(&old).map_err(error)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Files in the directory whose names are of our making.
    fn files_there(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.config.path) else { return Vec::new() };
        let names = entries.filter_map(|entry| Some(entry.ok()?.path()));
        names
            .filter(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| is_ours(self.config.form, name))
            })
            .collect()
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.new"));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // `create_new` follows no link that somebody put there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        let owner = self.config.ownership;
        std::os::unix::fs::fchown(&file, owner.uid, owner.gid)?;
        file.set_permissions(fs::Permissions::from_mode(self.config.mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(self.config.directory())?.sync_all()
    }

    fn check_directory(&self) -> Result<(), OutputError> {
        let path = self.config.directory();
        let error = |error| OutputError::Write { path: path.display().to_string(), error };
        let data = match fs::metadata(path) {
            Ok(data) => data,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(path).map_err(error)?;
                fs::metadata(path).map_err(error)?
            }
            Err(other) => return Err(error(other)),
        };
        let own = rustix::process::geteuid().as_raw();
        if (data.uid() != 0 && data.uid() != own) || data.mode() & 0o022 != 0 {
            return Err(OutputError::Untrusted { path: path.display().to_string() });
        }
        Ok(())
    }
}

fn file_name(form: FileForm, list: &RevocationList, number: usize) -> String {
    let hash = list.name_hash();
    match form {
        FileForm::Pem => format!("{hash:08x}-{number}.crl.pem"),
        FileForm::Der => format!("{hash:08x}-{number}.crl"),
        _ => format!("{hash:08x}.r{number}"),
    }
}

fn is_ours(form: FileForm, name: &str) -> bool {
    let Some((hash, rest)) = name.split_at_checked(8) else { return false };
    let (before, after) = match form {
        FileForm::Pem => ("-", ".crl.pem"),
        FileForm::Der => ("-", ".crl"),
        _ => (".r", ""),
    };
    let number = rest.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        && number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
