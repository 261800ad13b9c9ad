//! What the agent keeps on disk: the trust bundle, and the node's credential if that was asked for. Never a key of
//! a workload.
//!
//! The directory is 0700, its files 0600, and each is written beside itself, synced and renamed into place: a crash
//! leaves the old content or the new. Whoever can read it passes for the node until the credential ends, unless it is
//! sealed with a key that lies elsewhere.

mod seal;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

pub use seal::SealingKey;
pub(crate) use seal::{Seal, SealError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Bytes of a file that are read.
const MAX_FILE: u64 = 4 << 20;

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct StateError {
    /// Which.
    pub path: String,
    /// Why not.
    pub why: String,
}

impl StateError {
    fn new(path: &Path, why: impl ToString) -> Self {
        Self { path: path.display().to_string(), why: why.to_string() }
    }
}

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    seal: Option<Seal>,
}

impl StateDirectory {
    /// Makes it if need be; refuses one that others can look into.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| StateError::new(path, error))?;
        let mode = fs::metadata(path).map_err(|error| StateError::new(path, error))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(StateError::new(
                path,
                format_args!("others can look into it (mode {:o}); run `chmod 700` on it", mode & 0o777),
            ));
        }
        Ok(Self { path: path.to_owned(), seal: None })
    }

    /// Seals what is written from now on.
    pub(crate) fn sealed_with(self, seal: Seal) -> Self {
        Self { seal: Some(seal), ..self }
    }

    /// What was kept under this name; nothing if nothing was.
    pub(crate) fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.path.join(name);
        let Some(bytes) = read_if_there(&path).map_err(|error| StateError::new(&path, error))? else {
            return Ok(None);
        };
        let bytes = match (&self.seal, seal::is_sealed(&bytes)) {
            (Some(seal), true) => seal.open(name, &bytes),
            (None, true) => Err(SealError::Sealed),
            (Some(_), false) => {
                tracing::warn!(path = %path.display(), "it is not sealed yet; the next one will be");
                Ok(bytes)
            }
            (None, false) => Ok(bytes),
        };
        let bytes = bytes.map_err(|error| StateError::new(&path, error))?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StateError::new(&path, format_args!("{error}; remove it if nothing else helps")))
    }

    /// Keeps a value under this name.
    pub(crate) fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.path.join(name);
        let bytes = serde_json::to_vec_pretty(value).map_err(|error| StateError::new(&path, error))?;
        let mut bytes = Zeroizing::new(bytes);
        if let Some(seal) = &self.seal {
            bytes = Zeroizing::new(seal.seal(name, &bytes).map_err(|error| StateError::new(&path, error))?);
        }
        replace(&path, &bytes).map_err(|error| StateError::new(&path, error))
    }

    /// Forgets what was kept under this name.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StateError::new(&path, error)),
            _ => Ok(()),
        }
    }
}

/// Reads a file that an operator named, within limits.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, StateError> {
    read_if_there(path)
        .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|error| StateError::new(path, error))
}

fn read_if_there(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(Some(bytes))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    // One that a crash left behind may have had another mode.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_for_its_owner_alone() {
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("state");
        let state = StateDirectory::open(&path).unwrap();
        assert_eq!(state.load::<Vec<u8>>("node.json").unwrap(), None);
        state.save("node.json", &vec![1, 2]).unwrap();
        assert_eq!(state.load::<Vec<u8>>("node.json").unwrap(), Some(vec![1, 2]));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("node.json"))), (0o700, 0o600));
        state.remove("node.json").unwrap();
        state.remove("node.json").unwrap();
        assert_eq!(state.load::<Vec<u8>>("node.json").unwrap(), None);
    }

    #[test]
    fn a_sealed_file_says_nothing_without_its_key_and_a_plain_one_is_sealed_next_time() {
        let around = tempfile::tempdir().unwrap();
        let key = around.path().join("key");
        fs::write(&key, [1; 32]).unwrap();
        let random = std::sync::Arc::new(chancery_types::SystemRandom);
        let seal = Seal::load(&SealingKey::File(key), None, random).unwrap();
        let path = around.path().join("state");
        let plain = StateDirectory::open(&path).unwrap();
        plain.save("node.json", &"the key").unwrap();
        let sealed = StateDirectory::open(&path).unwrap().sealed_with(seal);
        assert_eq!(sealed.load::<String>("node.json").unwrap().as_deref(), Some("the key"));
        sealed.save("node.json", &"the key").unwrap();
        let bytes = fs::read(path.join("node.json")).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"the key"));
        assert_eq!(sealed.load::<String>("node.json").unwrap().as_deref(), Some("the key"));
        assert!(plain.load::<String>("node.json").unwrap_err().to_string().contains("sealing_key"));
    }

    #[test]
    fn refuses_a_directory_that_others_can_look_into_and_files_that_are_damaged() {
        let around = tempfile::tempdir().unwrap();
        fs::set_permissions(around.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(StateDirectory::open(around.path()).unwrap_err().to_string().contains("chmod 700"));
        fs::set_permissions(around.path(), Permissions::from_mode(0o700)).unwrap();
        let state = StateDirectory::open(around.path()).unwrap();
        fs::write(around.path().join("node.json"), "{").unwrap();
        assert!(state.load::<Vec<u8>>("node.json").unwrap_err().to_string().contains("remove it"));
    }
}
