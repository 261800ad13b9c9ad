//! The read model's engine: redb, as docs/adr/0001 chose it.

mod backend;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use chancery_types::Digest;
use redb::{
    Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase, StorageError, TableDefinition,
};

use super::disk::{Disk, DiskFile, How};
use super::journal::{JournalPosition, LogId};
use super::layer::Layer;
use crate::model::{ModelError, Pairs, View};
use backend::{Backend, Failure, Health};

const PAIRS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("read-model-4");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("position-4");

/// What the index has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexPosition {
    /// The log whose entries it holds.
    pub(crate) log_id: LogId,
    /// The journal position up to which it holds them.
    pub(crate) journal: JournalPosition,
    /// The tree's root at that size.
    pub(crate) root: Digest,
    /// The length of the signature log that had been noted by then.
    pub(crate) signatures: u64,
}

/// Why a commit or an opening failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IndexError {
    /// No room. Reads go on; the commit may be tried again.
    #[error("no room for the index: {0}")]
    Full(String),
    /// The file or the engine failed in another way. Reads go on where they can.
    #[error("{0}")]
    Broken(String),
    /// The file is not an index, or a damaged one: it can be made anew from the journal.
    #[error("the index is damaged: {0}")]
    Damaged(String),
}

impl From<Failure> for IndexError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full(error) => Self::Full(error),
            Failure::Broken(error) => Self::Broken(error),
        }
    }
}

/// Ordered keys and values, committed together with a position.
#[derive(Debug)]
pub(crate) struct Index {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    cache_bytes: usize,
    engine: RwLock<Engine>,
}

/// An open engine and the state that readers see: the last one that was committed to the file.
#[derive(Debug)]
struct Engine {
    // Dropped before the database that it reads.
    pairs: Snapshot,
    database: Database,
    health: Health,
}

struct Snapshot(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Snapshot")
    }
}

fn engine(error: impl std::fmt::Display) -> ModelError {
    ModelError::Engine(error.to_string())
}

fn broken(error: impl std::fmt::Display) -> IndexError {
    IndexError::Broken(error.to_string())
}

impl Index {
    /// Opens the file, or makes an empty one.
    pub(crate) fn open(disk: &Arc<dyn Disk>, path: &Path, cache_bytes: usize) -> Result<Self, IndexError> {
        let engine = Engine::open(disk, path, cache_bytes)?;
        match engine.health.failure() {
            // A full disk is no reason not to answer questions.
            None | Some(Failure::Full(_)) => {}
            Some(Failure::Broken(error)) => return Err(IndexError::Broken(error)),
        }
        Ok(Self { disk: Arc::clone(disk), path: path.to_owned(), cache_bytes, engine: RwLock::new(engine) })
    }

    /// Opens an existing file whose disk takes no writes: recovery happens in memory.
    pub(crate) fn open_to_read(
        disk: &Arc<dyn Disk>,
        path: &Path,
        cache_bytes: usize,
    ) -> Result<Self, IndexError> {
        let engine = Engine::open(disk, path, cache_bytes)?;
        Ok(Self { disk: Arc::clone(disk), path: path.to_owned(), cache_bytes, engine: RwLock::new(engine) })
    }

    pub(crate) fn position(&self) -> Result<Option<IndexPosition>, ModelError> {
        let read = self.engine().database.begin_read().map_err(engine)?;
        let meta = read.open_table(META).map_err(engine)?;
        let Some(value) = meta.get("position").map_err(engine)? else { return Ok(None) };
        IndexPosition::from_bytes(value.value()).map(Some).ok_or(ModelError::Malformed { table: "position" })
    }

    /// Applies a layer and moves to a position, durably and at once.
    pub(crate) fn commit(&self, layer: &Layer, position: &IndexPosition) -> Result<(), IndexError> {
        if self.engine().health.failure().is_some() {
            // The engine believes in commits that the file has not: begin again from the file.
            let anew = Engine::open(&self.disk, &self.path, self.cache_bytes)?;
            anew.check()?;
            *self.engine.write().unwrap_or_else(PoisonError::into_inner) = anew;
        }
        let pairs = {
            let engine = self.engine();
            write(&engine.database, layer, position)?;
            engine.check()?;
            Snapshot::of(&engine.database)?
        };
        self.engine.write().unwrap_or_else(PoisonError::into_inner).pairs = pairs;
        Ok(())
    }

    fn engine(&self) -> RwLockReadGuard<'_, Engine> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    fn open(disk: &Arc<dyn Disk>, path: &Path, cache_bytes: usize) -> Result<Self, IndexError> {
        let backend = Backend::new(DiskFile::open(disk, path, How::Create).map_err(broken)?);
        let health = backend.health();
        let database = Database::builder().set_cache_size(cache_bytes).create_with_backend(backend);
        let database = database.map_err(|error| match error {
            DatabaseError::Storage(StorageError::Io(error))
                if error.kind() != std::io::ErrorKind::InvalidData =>
            {
                broken(error)
            }
            other => IndexError::Damaged(other.to_string()),
        })?;
        if Snapshot::of(&database).is_err() {
            let mut write = database.begin_write().map_err(broken)?;
            write.set_quick_repair(true);
            write.open_table(PAIRS).map_err(broken)?;
            write.open_table(META).map_err(broken)?;
            write.commit().map_err(broken)?;
        }
        Ok(Self { pairs: Snapshot::of(&database)?, database, health })
    }

    /// Whether the file has taken everything.
    fn check(&self) -> Result<(), IndexError> {
        match self.health.failure() {
            None => Ok(()),
            Some(failure) => Err(failure.into()),
        }
    }
}

impl Snapshot {
    fn of(database: &Database) -> Result<Self, IndexError> {
        database.begin_read().map_err(broken)?.open_table(PAIRS).map(Self).map_err(broken)
    }
}

fn write(database: &Database, layer: &Layer, position: &IndexPosition) -> Result<(), IndexError> {
    let mut write = database.begin_write().map_err(broken)?;
    write.set_durability(Durability::Immediate).map_err(broken)?;
    // Without it a crash costs a pass over the whole file at the next start.
    write.set_quick_repair(true);
    {
        let mut pairs = write.open_table(PAIRS).map_err(broken)?;
        for key in layer.search_keys() {
            pairs.insert(key.as_bytes(), [].as_slice()).map_err(broken)?;
        }
        for (key, value) in layer.pairs() {
            match value {
                Some(value) => drop(pairs.insert(key.as_slice(), value.as_slice()).map_err(broken)?),
                None => drop(pairs.remove(key.as_slice()).map_err(broken)?),
            }
        }
        let mut meta = write.open_table(META).map_err(broken)?;
        meta.insert("position", position.to_bytes().as_slice()).map_err(broken)?;
    }
    write.commit().map_err(broken)
}

impl IndexPosition {
    /// log id | size | segment | offset | root | signatures
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.log_id.to_vec();
        bytes.extend_from_slice(&self.journal.size.to_be_bytes());
        bytes.extend_from_slice(&self.journal.segment.to_be_bytes());
        bytes.extend_from_slice(&self.journal.offset.to_be_bytes());
        bytes.extend_from_slice(self.root.as_bytes());
        bytes.extend_from_slice(&self.signatures.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (log_id, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (segment, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (root, rest) = rest.split_first_chunk()?;
        let journal = JournalPosition {
            size: u64::from_be_bytes(*size),
            segment: u32::from_be_bytes(*segment),
            offset: u64::from_be_bytes(*offset),
        };
        let signatures = u64::from_be_bytes(rest.try_into().ok()?);
        Some(Self { log_id: *log_id, journal, root: Digest::from_array(*root), signatures })
    }
}

impl View for Index {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
        let engine_guard = self.engine();
        let value = engine_guard.pairs.0.get(key).map_err(engine)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, ModelError> {
        if end <= start {
            return Ok(Vec::new());
        }
        let engine_guard = self.engine();
        let mut found = Vec::new();
        for pair in engine_guard.pairs.0.range::<&[u8]>(start..end).map_err(engine)?.take(limit) {
            let (key, value) = pair.map_err(engine)?;
            found.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(found)
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
        if end <= start {
            return Ok(None);
        }
        let engine_guard = self.engine();
        let last = engine_guard.pairs.0.range::<&[u8]>(start..end).map_err(engine)?.next_back();
        let last = last.transpose().map_err(engine)?;
        Ok(last.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
    }
}
