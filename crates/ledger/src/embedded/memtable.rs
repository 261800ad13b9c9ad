//! What is durable in the journal but not yet in the index: two sorted layers in memory.
//!
//! The sequencer writes into the active layer; the indexer takes it as a whole, commits it, and drops it.
//! Readers look in the active layer, in the one being committed, and then in the index: in the order in which
//! changes move, so that none is missed on its way.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::index::Index;
use super::journal::JournalPosition;
use super::layer::Layer;
use crate::model::merge::{Changed, last_of, merge};
use crate::model::{Changes, ModelError, Pairs, Table, View, Write};

/// Where the log stands after a layer's last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    /// In the journal.
    pub(crate) journal: JournalPosition,
    /// The tree's root at that size.
    pub(crate) root: chancery_types::Digest,
}

#[derive(Debug, Default)]
struct Layers {
    active: Layer,
    committing: Option<Arc<Layer>>,
}

/// The layers over an index.
#[derive(Debug)]
pub(crate) struct Memtable {
    layers: RwLock<Layers>,
    /// What the active layer has reached. Held while a batch moves in, so that a layer is never taken between.
    reached: Mutex<Reached>,
    /// The highest key under which a certificate is recorded: serials grow, so most are known to be unused.
    highest: Mutex<Option<Vec<u8>>>,
    index: Index,
}

impl Memtable {
    /// No changes yet over an index that has reached this.
    pub(crate) fn new(index: Index, reached: Reached) -> Result<Self, ModelError> {
        let start = Table::Certificate.key(&[]);
        let highest = index.last(&start, &crate::model::prefix_end(&start))?.map(|(key, _)| key);
        Ok(Self {
            layers: RwLock::default(),
            reached: Mutex::new(reached),
            highest: Mutex::new(highest),
            index,
        })
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Adds a batch's changes.
    pub(crate) fn absorb(&self, changes: Changes, reached: Reached) {
        let mut current = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        self.note_highest(&changes.pairs);
        let mut pairs = changes.pairs.into_iter().peekable();
        while pairs.peek().is_some() {
            // In bites, so that no reader waits for a whole batch.
            self.write().active.extend(pairs.by_ref().take(BITE));
        }
        for keys in changes.search.chunks(BITE) {
            self.write().active.add_search_keys(keys);
        }
        *current = reached;
    }

    fn note_highest(&self, changes: &[Write]) {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        let certificates = changes.iter().map(|(key, _)| key).filter(|key| is_certificate(key));
        if let Some(new) = certificates.max().filter(|new| highest.as_ref().is_none_or(|old| old < *new)) {
            *highest = Some(new.clone());
        }
    }

    /// Changes that wait in the active layer.
    pub(crate) fn waiting(&self) -> usize {
        self.read().active.len()
    }

    /// Takes the active layer for committing, with what it reaches. A layer that was taken before and not
    /// committed is given again, with what has come since.
    pub(crate) fn take(&self) -> (Arc<Layer>, Reached) {
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let mut layers = self.write();
        let mut layer = std::mem::take(&mut layers.active);
        if let Some(earlier) = layers.committing.take() {
            let mut whole = Arc::unwrap_or_clone(earlier);
            whole.append(layer);
            layer = whole;
        }
        let layer = Arc::new(layer);
        layers.committing = Some(Arc::clone(&layer));
        (layer, *reached)
    }

    /// Drops the layer that [`Self::take`] gave, now that the index has it.
    pub(crate) fn committed(&self) {
        let layer = self.write().committing.take();
        // Freeing it takes a while: not under the lock.
        drop(layer);
    }

    /// At most `limit` changes in `start .. end`, the newer over the older.
    fn changes(&self, start: &[u8], end: &[u8], limit: usize) -> Changed {
        let layers = self.read();
        let mut merged = Changed::new();
        for layer in [layers.committing.as_deref(), Some(&layers.active)].into_iter().flatten() {
            layer.collect(start, end, limit, &mut merged);
        }
        drop(layers);
        while merged.len() > limit {
            merged.pop_last();
        }
        merged
    }

    fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes that move in at once: a tenth of a millisecond.
const BITE: usize = 256;

fn is_certificate(key: &[u8]) -> bool {
    key.first() == Some(&(Table::Certificate as u8))
}

impl View for Memtable {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
        if is_certificate(key) {
            let highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
            if highest.as_ref().is_none_or(|highest| key > highest.as_slice()) {
                return Ok(None);
            }
        }
        {
            let layers = self.read();
            for layer in [Some(&layers.active), layers.committing.as_deref()].into_iter().flatten() {
                if let Some(value) = layer.get(key) {
                    return Ok(value);
                }
            }
        }
        self.index.value(key)
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, ModelError> {
        merge(start, end, limit, &|start, limit| self.changes(start, end, limit), &self.index)
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
        let highest = |end: &[u8]| {
            let layers = self.read();
            let layers = [Some(&layers.active), layers.committing.as_deref()];
            layers.into_iter().flatten().filter_map(|layer| layer.last(start, end)).max()
        };
        last_of(start, end, &highest, &|key| self.value(key), &self.index)
    }
}
