//! Where a backup reads the log: in its directory, beside the server that has it open, or in the database.

use std::path::PathBuf;
use std::sync::Arc;

use chancery_ledger::embedded::{KeptSignatures, published_checkpoint, read_log};
use chancery_ledger::{EmbeddedLedger, IssuedSignature, Ledger, Options, PostgresLedger, PostgresOptions};
use chancery_merkle::SignedNote;
use chancery_types::Random;
use tokio::runtime::Handle;

use super::BackupError;
use crate::authority::{OpenError, open_log_signers};
use crate::config::{Config, LedgerPlace};
use crate::storage::postgres_options;

/// Entries or signatures that a database is asked for at once: some megabytes.
const CHUNK: u64 = 1024;

/// A log that is read up to a checkpoint.
pub(super) enum Source<'a> {
    Directory { config: &'a Config, directory: PathBuf },
    Database(Database),
}

/// A log in a database, which proves at the opening that it goes on from what was published.
#[derive(Clone)]
pub(super) struct Database {
    ledger: Arc<dyn Ledger>,
    runtime: Handle,
}

impl<'a> Source<'a> {
    /// The log of an authority.
    pub(super) fn open(config: &'a Config, random: &dyn Random) -> Result<Self, BackupError> {
        let place = match &config.ledger {
            LedgerPlace::Directory(directory) => {
                return Ok(Self::Directory { config, directory: directory.clone() });
            }
            LedgerPlace::Postgres(place) => place,
        };
        let signers = open_log_signers(config)?;
        // What is published from here is the business of the server that runs beside it.
        let options = PostgresOptions { may_have_ended: true, publishes: false, ..postgres_options(place)? };
        let runtime = Handle::current();
        let ledger = runtime.block_on(PostgresLedger::open(options, signers, random));
        let ledger = Arc::new(ledger.map_err(OpenError::from)?);
        Ok(Self::Database(Database { ledger, runtime }))
    }

    /// A checkpoint that nobody gave: signed for the occasion, or, where that is not possible, the last one published.
    pub(super) fn checkpoint(&self) -> Result<SignedNote, BackupError> {
        let failed = |error: chancery_ledger::ReadError| BackupError::Checkpoint(error.to_string());
        match self {
            Self::Database(database) => database.ledger.checkpoint().map_err(failed),
            Self::Directory { config, directory } => {
                let signed = || {
                    let signers = open_log_signers(config)?;
                    let ledger = EmbeddedLedger::open(directory, signers, Options::default());
                    let ledger = ledger.map_err(OpenError::from)?;
                    let note = ledger.checkpoint().map_err(failed);
                    ledger.close();
                    note
                };
                match signed() {
                    Ok(note) => Ok(note),
                    // A server has it and did not answer, or the keys are not at hand: what was published is good.
                    Err(error) => {
                        tracing::warn!(%error, "the backup reaches to the last published checkpoint");
                        published_checkpoint(directory)?.ok_or(BackupError::Empty)
                    }
                }
            }
        }
    }

    /// Hands over the first `size` entries, in order.
    pub(super) fn read(
        &self,
        size: u64,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let database = match self {
            Self::Directory { directory, .. } => return read_log(directory, size, visit),
            Self::Database(database) => database,
        };
        for (start, count) in chunks(size) {
            let entries = database.runtime.block_on(database.ledger.entries_at_leisure(start, count))?;
            if entries.len() != count {
                let why = format!("it has {} of the entries {start} and {count} on", entries.len());
                return Err(chancery_ledger::ReadError(why).into());
            }
            entries.iter().try_for_each(|entry| visit(entry))?;
        }
        Ok(())
    }

    /// The signatures beside the first `size` entries, as far as they are kept now.
    pub(super) fn signatures(&self, size: u64) -> Result<Signatures, BackupError> {
        match self {
            Self::Directory { directory, .. } => {
                Ok(Signatures::Directory(KeptSignatures::find(directory, size)?))
            }
            Self::Database(database) => {
                let mut lengths = Vec::new();
                for (start, count) in chunks(size) {
                    let found = database.signatures(start, count)?;
                    lengths.extend(found.iter().map(|kept| (kept.index, kept.signature.len() as u64)));
                }
                Ok(Signatures::Database { database: database.clone(), size, lengths })
            }
        }
    }
}

impl Database {
    fn signatures(&self, start: u64, count: usize) -> Result<Vec<IssuedSignature>, BackupError> {
        Ok(self.runtime.block_on(self.ledger.signatures(start, count))?)
    }
}

/// Signatures whose number and lengths are known before they are read: 16 bytes of memory for each in a database.
pub(super) enum Signatures {
    Directory(KeptSignatures),
    Database { database: Database, size: u64, lengths: Vec<(u64, u64)> },
}

impl Signatures {
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Directory(kept) => kept.count(),
            Self::Database { lengths, .. } => lengths.len() as u64,
        }
    }

    /// The bytes of all of them together.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Directory(kept) => kept.bytes(),
            Self::Database { lengths, .. } => lengths.iter().map(|(_, length)| length).sum(),
        }
    }

    /// Hands over each with its entry's index, without those that came meanwhile.
    pub(super) fn each(
        &self,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let (database, size, lengths) = match self {
            Self::Directory(kept) => return kept.each(visit),
            Self::Database { database, size, lengths } => (database, *size, lengths),
        };
        for (start, count) in chunks(size) {
            for kept in database.signatures(start, count)? {
                if lengths.binary_search_by_key(&kept.index, |(index, _)| *index).is_ok() {
                    visit(kept.index, &kept.signature)?;
                }
            }
        }
        Ok(())
    }
}

/// Starts and counts.
fn chunks(size: u64) -> impl Iterator<Item = (u64, usize)> {
    let starts = (0..size).step_by(usize::try_from(CHUNK).unwrap_or(1));
    starts.map(move |start| (start, usize::try_from(CHUNK.min(size - start)).unwrap_or_default()))
}
