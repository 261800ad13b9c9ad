//! Entries in batches, so that what needs no order runs on all processors.

use std::num::NonZeroUsize;

use chancery_entry::{DecodeError, Entry};

use super::auditor::clip;
use super::compare::first_difference;
use super::finding::{Check, Finding};
use super::source::{ExportSource, ExportedEntry, RawEntry, SourceError};

/// An entry with everything that was checked about it alone.
pub(super) struct CheckedEntry {
    pub(super) exported: ExportedEntry,
    pub(super) entry: Result<Entry, DecodeError>,
    /// Without their index, which only the order of entries can tell.
    pub(super) problems: Vec<Finding>,
}

impl CheckedEntry {
    /// Parses, hashes and decodes an entry; an error is what to say about one that cannot be parsed.
    pub(super) fn check(raw: &RawEntry) -> Result<Self, String> {
        let exported = ExportedEntry::parse(raw)?;
        let mut problems = Vec::new();
        let hash = exported.leaf_hash.to_string();
        if let Some(stated) = exported.stated_hash.as_ref().filter(|stated| **stated != hash) {
            let detail = format!("field leaf: it hashes to {hash}, beside it stands {:?}", clip(stated));
            problems.push(Finding::new(Check::LeafHash, detail));
        }
        let entry = Entry::decode(&exported.leaf);
        if let (Ok(entry), Some(view)) = (&entry, &exported.view) {
            problems.extend(compare_view(entry, view));
        }
        Ok(Self { exported, entry, problems })
    }
}

fn compare_view(entry: &Entry, view: &str) -> Option<Finding> {
    let expected = serde_json::to_string(entry).expect("an entry has a JSON form");
    // Nearly always equal to the letter; a newer exporter may have ordered the fields differently.
    if expected == view {
        return None;
    }
    let expected = serde_json::to_value(entry).expect("an entry has a JSON form");
    let difference = match serde_json::from_str(view) {
        Ok(found) => first_difference(&expected, &found)?,
        Err(error) => format!("not readable: {error}"),
    };
    Some(Finding::new(Check::ViewMismatch, difference))
}

/// The next entries, as many as memory should hold; none at the end.
pub(super) fn read_batch(source: &mut dyn ExportSource) -> Result<Vec<RawEntry>, SourceError> {
    let (mut batch, mut bytes) = (Vec::with_capacity(BATCH_ENTRIES), 0);
    while batch.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
        let Some(entry) = source.next_entry()? else { break };
        bytes += entry.length();
        batch.push(entry);
    }
    Ok(batch)
}

/// Maps in the order of the items, on as many threads.
pub(super) fn in_parallel<T: Sync, R: Send>(threads: NonZeroUsize, items: &[T], map: fn(&T) -> R) -> Vec<R> {
    let share = items.len().div_ceil(threads.get()).max(MIN_SHARE);
    if items.len() <= share {
        return items.iter().map(map).collect();
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> = items
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(map).collect::<Vec<R>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("checks do not panic")).collect()
    })
}

/// Entries that are in memory at once, and their bytes.
const BATCH_ENTRIES: usize = 4_096;
const BATCH_BYTES: usize = 16 << 20;
/// Below this, starting a thread costs more than it brings.
const MIN_SHARE: usize = 64;
