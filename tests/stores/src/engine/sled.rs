//! sled 0.34: one tree, since a batch is atomic within a tree only; the first byte of a key names the table. Its
//! own flush every half second stays on, as it comes.

use std::fs::File;
use std::path::Path;

use anyhow::Result;
use sled::{Db, IVec};

use super::{Durability, Engine, cache};
use crate::certificate::{Batch, Digest, Serial, Summary};

/// What a durable commit does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// `flush()`, which on Linux ends in `sync_file_range`
    AsItComes,
    /// `flush()`, then an `fdatasync` of sled's file from outside
    ThenFdatasync,
}

pub(super) struct Sled {
    database: Db,
    file: Option<File>,
}

impl Sled {
    pub(super) fn open(dir: &Path, flush: Flush) -> Result<Self> {
        let config = sled::Config::new().path(dir).cache_capacity(cache() as u64);
        let database = config.open()?;
        let file = match flush {
            Flush::AsItComes => None,
            Flush::ThenFdatasync => {
                File::open(dir)?.sync_all()?;
                Some(File::options().read(true).write(true).open(dir.join("db"))?)
            }
        };
        Ok(Self { database, file })
    }

    fn get(&self, table: u8, key: &[u8]) -> Result<Option<IVec>> {
        Ok(self.database.get(prefixed(table, key))?)
    }
}

impl Engine for Sled {
    fn apply(&self, batch: &Batch, position: u64, durability: Durability) -> Result<()> {
        let mut writes = sled::Batch::default();
        for (serial, summary) in &batch.serials {
            writes.insert(prefixed(b's', serial), &summary[..]);
        }
        for key in &batch.identities {
            writes.insert(prefixed(b'i', key), &[]);
        }
        for (key, counter) in &batch.keys {
            writes.insert(prefixed(b'k', key), &counter.to_be_bytes());
        }
        for (lineage, state) in &batch.lineages {
            writes.insert(prefixed(b'l', lineage), state);
        }
        for key in &batch.expiries {
            writes.insert(prefixed(b'e', key), &[]);
        }
        writes.insert(b"position", &position.to_be_bytes());
        self.database.apply_batch(writes)?;
        if durability == Durability::Now {
            self.database.flush()?;
            if let Some(file) = &self.file {
                file.sync_data()?;
            }
        }
        Ok(())
    }

    fn position(&self) -> Result<u64> {
        Ok(match self.database.get("position")? {
            Some(value) => u64::from_be_bytes(value.as_ref().try_into()?),
            None => 0,
        })
    }

    fn by_serial(&self, serial: &Serial) -> Result<Option<Summary>> {
        Ok(self.get(b's', serial)?.map(|value| value.as_ref().try_into()).transpose()?)
    }

    fn by_key(&self, key: &Digest) -> Result<Option<u64>> {
        let value = self.get(b'k', key)?;
        Ok(value.map(|value| value.as_ref().try_into()).transpose()?.map(u64::from_be_bytes))
    }

    fn by_lineage(&self, lineage: &Digest) -> Result<Option<Digest>> {
        Ok(self.get(b'l', lineage)?.map(|value| value.as_ref().try_into()).transpose()?)
    }

    fn by_identity(&self, identity: &Digest, limit: usize) -> Result<Vec<u64>> {
        let mut counters = Vec::new();
        for entry in self.database.scan_prefix(prefixed(b'i', identity)).take(limit) {
            counters.push(u64::from_be_bytes(entry?.0[17..].try_into()?));
        }
        Ok(counters)
    }

    fn expiries(&self) -> Result<u64> {
        Ok(self.database.scan_prefix(b"e").try_fold(0, |count, entry| entry.map(|_| count + 1))?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.database.flush()?;
        Ok(())
    }
}

fn prefixed(table: u8, key: &[u8]) -> Vec<u8> {
    let mut prefixed = Vec::with_capacity(key.len() + 1);
    prefixed.push(table);
    prefixed.extend_from_slice(key);
    prefixed
}
