//! What is durable in the journal but not yet in the index: two sorted layers in memory.
//!
//! The sequencer writes into the active layer; the indexer takes it as a whole, commits it, and drops it.
//! Readers look in the active layer, in the one being committed, and then in the index.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::index::Index;
use super::journal::JournalPosition;
use crate::model::{ModelError, Pairs, View, Write};

/// Changes by key; `None` is a deletion.
pub(crate) type Layer = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

#[derive(Debug, Default)]
struct Layers {
    active: Layer,
    committing: Option<Arc<Layer>>,
}

/// The layers over an index.
#[derive(Debug)]
pub(crate) struct Memtable {
    layers: RwLock<Layers>,
    /// The journal position that the active layer has reached.
    position: Mutex<JournalPosition>,
    index: Index,
}

impl Memtable {
    pub(crate) fn new(index: Index, position: JournalPosition) -> Self {
        Self { layers: RwLock::default(), position: Mutex::new(position), index }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Adds a batch's changes.
    pub(crate) fn absorb(&self, changes: Layer, position: JournalPosition) {
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        layers.active.extend(changes);
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    /// Changes that wait in the active layer.
    pub(crate) fn waiting(&self) -> usize {
        self.layers.read().unwrap_or_else(PoisonError::into_inner).active.len()
    }

    /// Takes the active layer for committing, with the position that it reaches.
    pub(crate) fn take(&self) -> (Arc<Layer>, JournalPosition) {
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        let layer = Arc::new(std::mem::take(&mut layers.active));
        layers.committing = Some(Arc::clone(&layer));
        (layer, *self.position.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Drops the layer that [`Self::take`] gave, now that the index has it.
    pub(crate) fn committed(&self) {
        self.layers.write().unwrap_or_else(PoisonError::into_inner).committing = None;
    }

    /// Overlays `upper` on what the layers hold in `start .. end`.
    fn overlay(&self, start: &[u8], end: &[u8]) -> Layer {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        let mut merged = Layer::new();
        for layer in layers.committing.iter().map(Arc::as_ref).chain([&layers.active]) {
            merged.extend(in_range(layer, start, end).map(|(key, value)| (key.clone(), value.clone())));
        }
        merged
    }
}

impl View for Memtable {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
        {
            let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
            for layer in [Some(&layers.active), layers.committing.as_deref()].into_iter().flatten() {
                if let Some(value) = layer.get(key) {
                    return Ok(value.clone());
                }
            }
        }
        self.index.value(key)
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, ModelError> {
        // The layers are read before the index: what moves from one to the other meanwhile is then seen twice
        // with the same value, never missed.
        merge(self.overlay(start, end), start, end, limit, &self.index)
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
        last_of(self.overlay(start, end), start, end, &self.index)
    }
}

/// What a batch has accepted so far, over everything before it.
pub(crate) struct BatchView<'a> {
    changes: Layer,
    below: &'a Memtable,
}

impl<'a> BatchView<'a> {
    pub(crate) fn new(below: &'a Memtable) -> Self {
        Self { changes: Layer::new(), below }
    }

    pub(crate) fn add(&mut self, writes: Vec<Write>) {
        self.changes.extend(writes);
    }

    pub(crate) fn into_changes(self) -> Layer {
        self.changes
    }
}

impl View for BatchView<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below.value(key),
        }
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, ModelError> {
        merge(copy_range(&self.changes, start, end), start, end, limit, self.below)
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
        last_of(copy_range(&self.changes, start, end), start, end, self.below)
    }
}

fn in_range<'a>(
    layer: &'a Layer,
    start: &[u8],
    end: &[u8],
) -> impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)> {
    layer.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end.max(start))))
}

fn copy_range(layer: &Layer, start: &[u8], end: &[u8]) -> Layer {
    in_range(layer, start, end).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Pairs of `below` with the changes of `upper` over them, at most `limit`.
fn merge(
    upper: Layer,
    start: &[u8],
    end: &[u8],
    limit: usize,
    below: &dyn View,
) -> Result<Pairs, ModelError> {
    if upper.is_empty() {
        return below.scan(start, end, limit);
    }
    // Each deletion above may hide one pair below.
    let deletions = upper.values().filter(|value| value.is_none()).count();
    let wanted = limit.saturating_add(deletions);
    let lower = below.scan(start, end, wanted)?;
    let bound = if lower.len() == wanted { lower.last().map(|(key, _)| key.clone()) } else { None };
    let mut merged: Layer = lower.into_iter().map(|(key, value)| (key, Some(value))).collect();
    merged.extend(upper.into_iter().filter(|(key, _)| bound.as_ref().is_none_or(|bound| key <= bound)));
    Ok(merged.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).take(limit).collect())
}

fn last_of(
    upper: Layer,
    start: &[u8],
    end: &[u8],
    below: &dyn View,
) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
    let highest = upper.iter().rev().find_map(|(key, value)| Some((key.clone(), value.clone()?)));
    let mut end = end.to_vec();
    let lower = loop {
        match below.last(start, &end)? {
            // Deleted above: look further down.
            Some((key, _)) if upper.get(&key).is_some_and(Option::is_none) => end = key,
            other => break other,
        }
    };
    Ok(match (highest, lower) {
        (Some(highest), Some(lower)) if lower.0 > highest.0 => Some(lower),
        (Some(highest), _) => Some(highest),
        (None, lower) => lower,
    })
}
