//! The read model's engine: redb, as docs/adr/0001 chose it.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use super::journal::JournalPosition;
use super::memtable::Layer;
use crate::model::{ModelError, Pairs, View};

const PAIRS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("read-model-1");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("position-1");

/// What the index has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexPosition {
    /// The journal position whose entries it holds.
    pub(crate) journal: JournalPosition,
    /// The length of the signature log that had been noted by then.
    pub(crate) signatures: u64,
}

/// Ordered keys and values, committed together with a position.
pub(crate) struct Index {
    database: Database,
    /// The pairs as of the last commit. Beginning a transaction and opening the table for every look-up would cost
    /// more than the look-up.
    pairs: ArcSwap<Snapshot>,
}

type Snapshot = ReadOnlyTable<&'static [u8], &'static [u8]>;

impl std::fmt::Debug for Index {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Index").field("database", &self.database).finish_non_exhaustive()
    }
}

fn engine(error: impl std::fmt::Display) -> ModelError {
    ModelError::Engine(error.to_string())
}

impl Index {
    pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Self, ModelError> {
        let database = Database::builder().set_cache_size(cache_bytes).create(path).map_err(engine)?;
        let write = database.begin_write().map_err(engine)?;
        write.open_table(PAIRS).map_err(engine)?;
        write.open_table(META).map_err(engine)?;
        write.commit().map_err(engine)?;
        let pairs = ArcSwap::from_pointee(snapshot(&database)?);
        Ok(Self { database, pairs })
    }

    pub(crate) fn position(&self) -> Result<Option<IndexPosition>, ModelError> {
        let read = self.database.begin_read().map_err(engine)?;
        let meta = read.open_table(META).map_err(engine)?;
        let Some(value) = meta.get("position").map_err(engine)? else { return Ok(None) };
        let words: Vec<u64> = value
            .value()
            .chunks_exact(8)
            .map(|chunk| u64::from_be_bytes(chunk.try_into().unwrap_or_default()))
            .collect();
        let malformed = || ModelError::Malformed { table: "position" };
        let [size, segment, offset, signatures] = words[..] else { return Err(malformed()) };
        let segment = u32::try_from(segment).map_err(|_| malformed())?;
        Ok(Some(IndexPosition { journal: JournalPosition { size, segment, offset }, signatures }))
    }

    /// Applies a layer and moves to a position, durably and at once.
    pub(crate) fn commit(&self, layer: &Layer, position: IndexPosition) -> Result<(), ModelError> {
        let mut write = self.database.begin_write().map_err(engine)?;
        write.set_durability(Durability::Immediate).map_err(engine)?;
        // Without it a crash costs a pass over the whole file at the next start.
        write.set_quick_repair(true);
        {
            let mut pairs = write.open_table(PAIRS).map_err(engine)?;
            for (key, value) in layer {
                match value {
                    Some(value) => drop(pairs.insert(key.as_slice(), value.as_slice()).map_err(engine)?),
                    None => drop(pairs.remove(key.as_slice()).map_err(engine)?),
                }
            }
            let journal = position.journal;
            let words = [journal.size, u64::from(journal.segment), journal.offset, position.signatures];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            let mut meta = write.open_table(META).map_err(engine)?;
            meta.insert("position", bytes.as_slice()).map_err(engine)?;
        }
        write.commit().map_err(engine)?;
        // Before the caller drops the layer: what a reader no longer finds there it must find here.
        self.pairs.store(Arc::new(snapshot(&self.database)?));
        Ok(())
    }
}

fn snapshot(database: &Database) -> Result<Snapshot, ModelError> {
    database.begin_read().map_err(engine)?.open_table(PAIRS).map_err(engine)
}

impl View for Index {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
        let pairs = self.pairs.load();
        let value = pairs.get(key).map_err(engine)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, ModelError> {
        if end <= start {
            return Ok(Vec::new());
        }
        let pairs = self.pairs.load();
        let mut found = Vec::new();
        for pair in pairs.range::<&[u8]>(start..end).map_err(engine)?.take(limit) {
            let (key, value) = pair.map_err(engine)?;
            found.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(found)
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
        if end <= start {
            return Ok(None);
        }
        let pairs = self.pairs.load();
        let last = pairs.range::<&[u8]>(start..end).map_err(engine)?.next_back();
        let last = last.transpose().map_err(engine)?;
        Ok(last.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
    }
}
