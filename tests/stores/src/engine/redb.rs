//! redb: copy-on-write B-trees in one file; five typed tables, one transaction.

use std::path::Path;

use anyhow::Result;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::{Durability, Engine, cache};
use crate::certificate::{Batch, Digest, Serial, Summary};

const SERIALS: TableDefinition<&Serial, &Summary> = TableDefinition::new("serials");
const IDENTITIES: TableDefinition<&[u8; 24], ()> = TableDefinition::new("identities");
const KEYS: TableDefinition<&Digest, u64> = TableDefinition::new("keys");
const LINEAGES: TableDefinition<&Digest, &Digest> = TableDefinition::new("lineages");
const EXPIRIES: TableDefinition<&[u8; 16], ()> = TableDefinition::new("expiries");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

pub(super) struct Redb(Database);

impl Redb {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder().set_cache_size(cache()).create(dir.join("index.redb"))?;
        std::fs::File::open(dir)?.sync_all()?;
        let store = Self(database);
        if store.0.begin_read()?.list_tables()?.next().is_none() {
            // Readers find every table from the start.
            store.apply(&Batch::default(), 0, Durability::Now)?;
        }
        Ok(store)
    }
}

impl Engine for Redb {
    fn apply(&self, batch: &Batch, position: u64, durability: Durability) -> Result<()> {
        let mut transaction = self.0.begin_write()?;
        match durability {
            Durability::Later => transaction.set_durability(redb::Durability::None)?,
            Durability::Now => transaction.set_quick_repair(true),
        }
        {
            let mut table = transaction.open_table(SERIALS)?;
            for (serial, summary) in &batch.serials {
                table.insert(serial, summary)?;
            }
            let mut table = transaction.open_table(IDENTITIES)?;
            for key in &batch.identities {
                table.insert(key, ())?;
            }
            let mut table = transaction.open_table(KEYS)?;
            for (key, counter) in &batch.keys {
                table.insert(key, counter)?;
            }
            let mut table = transaction.open_table(LINEAGES)?;
            for (lineage, state) in &batch.lineages {
                table.insert(lineage, state)?;
            }
            let mut table = transaction.open_table(EXPIRIES)?;
            for key in &batch.expiries {
                table.insert(key, ())?;
            }
            transaction.open_table(META)?.insert("position", position)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn position(&self) -> Result<u64> {
        let table = self.0.begin_read()?.open_table(META)?;
        Ok(table.get("position")?.map_or(0, |value| value.value()))
    }

    fn by_serial(&self, serial: &Serial) -> Result<Option<Summary>> {
        let table = self.0.begin_read()?.open_table(SERIALS)?;
        Ok(table.get(serial)?.map(|value| *value.value()))
    }

    fn by_key(&self, key: &Digest) -> Result<Option<u64>> {
        let table = self.0.begin_read()?.open_table(KEYS)?;
        Ok(table.get(key)?.map(|value| value.value()))
    }

    fn by_lineage(&self, lineage: &Digest) -> Result<Option<Digest>> {
        let table = self.0.begin_read()?.open_table(LINEAGES)?;
        Ok(table.get(lineage)?.map(|value| *value.value()))
    }

    fn by_identity(&self, identity: &Digest, limit: usize) -> Result<Vec<u64>> {
        let table = self.0.begin_read()?.open_table(IDENTITIES)?;
        let (first, last) = (bound(identity, 0), bound(identity, u64::MAX));
        let mut counters = Vec::new();
        for entry in table.range::<&[u8; 24]>(&first..=&last)?.take(limit) {
            let (key, ()) = (entry?.0, ());
            counters.push(u64::from_be_bytes(key.value()[16..].try_into()?));
        }
        Ok(counters)
    }

    fn expiries(&self) -> Result<u64> {
        let table = self.0.begin_read()?.open_table(EXPIRIES)?;
        let walked = table.iter()?.try_fold(0, |count, entry| entry.map(|_| count + 1))?;
        anyhow::ensure!(
            walked == table.len()?,
            "a walk finds {walked} expiries, the table says {}",
            table.len()?
        );
        Ok(walked)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.close()?;
        Ok(())
    }
}

fn bound(identity: &Digest, counter: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(identity);
    key[16..].copy_from_slice(&counter.to_be_bytes());
    key
}
