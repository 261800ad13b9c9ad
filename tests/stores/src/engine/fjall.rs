//! fjall: log-structured merge trees, one keyspace for each table, with a journal of its own under them.

use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Durability, Engine, cache};
use crate::certificate::{Batch, Digest, Serial, Summary};

pub(super) struct Fjall {
    database: Database,
    serials: Keyspace,
    identities: Keyspace,
    keys: Keyspace,
    lineages: Keyspace,
    expiries: Keyspace,
    meta: Keyspace,
}

impl Fjall {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder(dir)
            .cache_size(cache() as u64)
            .worker_threads(1)
            .max_journaling_size(128 << 20)
            .open()?;
        // Small enough that six of them fit beside the cache.
        let options = || KeyspaceCreateOptions::default().max_memtable_size(16 << 20);
        let keyspace = |name| database.keyspace(name, options);
        Ok(Self {
            serials: keyspace("serials")?,
            identities: keyspace("identities")?,
            keys: keyspace("keys")?,
            lineages: keyspace("lineages")?,
            expiries: keyspace("expiries")?,
            meta: keyspace("meta")?,
            database,
        })
    }
}

impl Engine for Fjall {
    fn apply(&self, batch: &Batch, position: u64, durability: Durability) -> Result<()> {
        let mut writes = self.database.batch();
        for (serial, summary) in &batch.serials {
            writes.insert(&self.serials, *serial, *summary);
        }
        for key in &batch.identities {
            writes.insert(&self.identities, *key, []);
        }
        for (key, counter) in &batch.keys {
            writes.insert(&self.keys, *key, counter.to_be_bytes());
        }
        for (lineage, state) in &batch.lineages {
            writes.insert(&self.lineages, *lineage, *state);
        }
        for key in &batch.expiries {
            writes.insert(&self.expiries, *key, []);
        }
        writes.insert(&self.meta, "position", position.to_be_bytes());
        writes
            .durability(match durability {
                Durability::Later => None,
                Durability::Now => Some(PersistMode::SyncAll),
            })
            .commit()?;
        Ok(())
    }

    fn position(&self) -> Result<u64> {
        Ok(match self.meta.get("position")? {
            Some(value) => u64::from_be_bytes(value.as_ref().try_into()?),
            None => 0,
        })
    }

    fn by_serial(&self, serial: &Serial) -> Result<Option<Summary>> {
        Ok(self.serials.get(serial)?.map(|value| value.as_ref().try_into()).transpose()?)
    }

    fn by_key(&self, key: &Digest) -> Result<Option<u64>> {
        let value = self.keys.get(key)?;
        Ok(value.map(|value| value.as_ref().try_into()).transpose()?.map(u64::from_be_bytes))
    }

    fn by_lineage(&self, lineage: &Digest) -> Result<Option<Digest>> {
        Ok(self.lineages.get(lineage)?.map(|value| value.as_ref().try_into()).transpose()?)
    }

    fn by_identity(&self, identity: &Digest, limit: usize) -> Result<Vec<u64>> {
        let mut counters = Vec::new();
        for entry in self.identities.prefix(identity).take(limit) {
            counters.push(u64::from_be_bytes(entry.key()?[16..].try_into()?));
        }
        Ok(counters)
    }

    fn expiries(&self) -> Result<u64> {
        Ok(self.expiries.iter().try_fold(0, |count, entry| entry.key().map(|_| count + 1))?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        // What is still in memory goes to its tree, so that the next open has no journal to read.
        for keyspace in
            [&self.serials, &self.identities, &self.keys, &self.lineages, &self.expiries, &self.meta]
        {
            keyspace.rotate_memtable_and_wait()?;
        }
        self.database.persist(PersistMode::SyncAll)?;
        Ok(())
    }
}
