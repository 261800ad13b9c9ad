//! From a directory that a backup was laid into, and found right, into a database.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chancery_ledger::embedded::{KeptSignatures, read_log};
use chancery_ledger::{IssuedSignature, PostgresLogWriter};
use chancery_merkle::SignedNote;
use chancery_types::Random;
use tokio::runtime::Handle;

use super::{Account, RestoreError};
use crate::config::PostgresPlace;
use crate::storage::postgres_options;

/// Bytes of entries that are recorded at once.
const BATCH_BYTES: usize = 1 << 20;
/// Signatures that are kept at once.
const SIGNATURES: usize = 1024;

/// What is laid into a database, and what is noted beside it.
pub(super) struct Move<'a> {
    pub(super) place: &'a PostgresPlace,
    /// Where the log lies now.
    pub(super) log: PathBuf,
    /// Where its last checkpoint is to be kept.
    pub(super) checkpoints: PathBuf,
    /// What the log comes to.
    pub(super) account: &'a Account,
    /// What was published of it.
    pub(super) published: &'a SignedNote,
}

impl Move<'_> {
    /// Into a fresh schema, or behind the beginning of this log that a schema has; the directory is gone afterwards.
    pub(super) fn go(
        self,
        random: &dyn Random,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), RestoreError> {
        let runtime = Handle::current();
        let keys = self.account.keys().ok_or_else(|| RestoreError::malformed("it is empty"))?;
        forget(&self.checkpoints)?;
        let mut options = postgres_options(self.place)?;
        options.directory.clone_from(&self.checkpoints);
        let mut writer = runtime.block_on(PostgresLogWriter::begin(options, keys.name(), random))?;
        let size = self.account.frontier.size();
        let (mut batch, mut bytes, mut done) = (Vec::new(), 0, 0);
        read_log(&self.log, size, &mut |entry| {
            bytes += entry.len();
            done += 1;
            batch.push(entry.to_vec());
            if bytes >= BATCH_BYTES || done == size {
                runtime.block_on(writer.append(&batch))?;
                (batch, bytes) = (Vec::new(), 0);
                progress(done, size);
            }
            Ok::<_, RestoreError>(())
        })?;
        let mut signatures = Vec::new();
        KeptSignatures::find(&self.log, size)?.each(&mut |index, signature| {
            signatures.push(IssuedSignature { index, signature: signature.to_vec() });
            if signatures.len() >= SIGNATURES {
                runtime.block_on(writer.sign(std::mem::take(&mut signatures)))?;
            }
            Ok::<_, RestoreError>(())
        })?;
        runtime.block_on(writer.sign(signatures))?;
        runtime.block_on(writer.finish(self.published))?;
        forget(&self.log)
    }
}

/// Removes a directory that may be there.
fn forget(directory: &Path) -> Result<(), RestoreError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RestoreError::write(directory, error)),
        _ => Ok(()),
    }
}
