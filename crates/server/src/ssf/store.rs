//! Streams on disk: a file for each, the old one or the new one whatever happens.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::record::Record;

/// The directory of the streams.
#[derive(Debug, Clone)]
pub(super) struct Store(PathBuf);

impl Store {
    /// Makes the directory where there is none; it is its owner's alone.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self(directory))
    }

    /// Every stream. A file that cannot be read is left where it is, and said so.
    pub(super) fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a stream of security events cannot be read; it is not served");
                }
            }
        }
        Ok(records)
    }

    /// Durable on return.
    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        let path = self.path(&record.stream_id);
        let temporary = path.with_extension("tmp");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.0)?.sync_all()
    }

    /// Gone on return.
    pub(super) fn remove(&self, stream_id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(stream_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(&self.0)?.sync_all(),
        }
    }

    fn path(&self, stream_id: &str) -> PathBuf {
        self.0.join(format!("{stream_id}.json"))
    }
}

fn read(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
