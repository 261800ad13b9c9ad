//! What one batch sees and changes.

use std::cell::RefCell;
use std::collections::HashMap;

use super::merge::{Changed, in_range, last_of, merge};
use super::search::SearchKey;
use super::{Changes, ModelError, Pairs, Table, View, Write};

/// The identities and issuers that proposals ask about again and again, as of everything accepted.
///
/// It belongs to the sequencer alone: who decides the order also knows every change.
#[derive(Debug, Default)]
pub(crate) struct Familiar(HashMap<Vec<u8>, Vec<u8>>);

/// A few megabytes.
const MOST_FAMILIAR: usize = 16_384;

impl Familiar {
    fn is_wanted(key: &[u8]) -> bool {
        key.first().is_some_and(|table| [Table::Identity as u8, Table::Issuer as u8].contains(table))
    }

    fn remember(&mut self, key: Vec<u8>, value: Vec<u8>) {
        if self.0.len() >= MOST_FAMILIAR {
            self.0.clear();
        }
        self.0.insert(key, value);
    }

    /// Takes over what a batch changed.
    pub(crate) fn update(&mut self, changes: &[Write]) {
        for (key, value) in changes.iter().filter(|(key, _)| Self::is_wanted(key)) {
            match value {
                Some(value) => self.remember(key.clone(), value.clone()),
                None => drop(self.0.remove(key)),
            }
        }
    }
}

/// What a batch has accepted so far, over everything before it.
pub(crate) struct BatchView<'a> {
    changes: Changed,
    search: Vec<SearchKey>,
    /// What was read from below, so that a check and the change after it read once.
    seen: RefCell<HashMap<Vec<u8>, Option<Vec<u8>>>>,
    familiar: Option<RefCell<&'a mut Familiar>>,
    below: &'a dyn View,
}

impl<'a> BatchView<'a> {
    pub(crate) fn new(below: &'a dyn View) -> Self {
        Self { changes: Changed::new(), search: Vec::new(), seen: RefCell::default(), familiar: None, below }
    }

    /// With the help of what the sequencer remembers.
    pub(crate) fn with(below: &'a dyn View, familiar: &'a mut Familiar) -> Self {
        Self { familiar: Some(RefCell::new(familiar)), ..Self::new(below) }
    }

    pub(crate) fn add(&mut self, changes: Changes) {
        self.changes.extend(changes.pairs);
        self.search.extend(changes.search);
    }

    pub(crate) fn into_changes(self) -> Changes {
        Changes { pairs: self.changes.into_iter().collect(), search: self.search }
    }

    fn below(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
        let Some(familiar) = self.familiar.as_ref().filter(|_| Familiar::is_wanted(key)) else {
            return self.below.value(key);
        };
        if let Some(value) = familiar.borrow().0.get(key) {
            return Ok(Some(value.clone()));
        }
        let value = self.below.value(key)?;
        if let Some(value) = &value {
            familiar.borrow_mut().remember(key.to_vec(), value.clone());
        }
        Ok(value)
    }
}

/// The search indexes are not read inside a batch: what it adds to them is not seen here.
impl View for BatchView<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
        if let Some(value) = self.changes.get(key) {
            return Ok(value.clone());
        }
        if let Some(value) = self.seen.borrow().get(key) {
            return Ok(value.clone());
        }
        let value = self.below(key)?;
        self.seen.borrow_mut().insert(key.to_vec(), value.clone());
        Ok(value)
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, ModelError> {
        let changes = |from: &[u8], limit: usize| {
            let range = in_range(&self.changes, from, end).take(limit);
            range.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        merge(start, end, limit, &changes, self.below)
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
        let highest =
            |end: &[u8]| in_range(&self.changes, start, end).next_back().map(|(key, _)| key.clone());
        last_of(start, end, &highest, &|key| self.value(key), self.below)
    }
}
