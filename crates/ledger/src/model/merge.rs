//! Reading ordered pairs through changes that lie over them.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound;

use super::{ModelError, Pairs, View};

/// Changes by key; `None` is a deletion.
pub(crate) type Changed = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Changes with `start <= key < end`.
pub(crate) fn in_range<'a>(
    pairs: &'a Changed,
    start: &[u8],
    end: &[u8],
) -> Range<'a, Vec<u8>, Option<Vec<u8>>> {
    pairs.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end.max(start))))
}

/// At most `limit` pairs with `start <= key < end`, as `below` has them under the changes.
///
/// `changes` gives the first so many changes from a key on. They are read before what lies below: what moves
/// from above to below meanwhile is then seen twice with the same value, and never missed.
pub(crate) fn merge(
    start: &[u8],
    end: &[u8],
    limit: usize,
    changes: &dyn Fn(&[u8], usize) -> Changed,
    below: &dyn View,
) -> Result<Pairs, ModelError> {
    let mut found = Pairs::new();
    let mut from = start.to_vec();
    while found.len() < limit && from.as_slice() < end {
        let wanted = (limit - found.len()).clamp(LEAST, MOST);
        let upper = changes(&from, wanted);
        if upper.is_empty() {
            found.extend(below.scan(&from, end, limit - found.len())?);
            break;
        }
        // Where changes were cut off, what lies below is read as far only; and the other way round.
        let upper_end = upper.last_key_value().filter(|_| upper.len() == wanted).map(|(key, _)| after(key));
        let lower = below.scan(&from, upper_end.as_deref().unwrap_or(end), wanted)?;
        let lower_end = lower.last().filter(|_| lower.len() == wanted).map(|(key, _)| after(key));
        let reached = lower_end.or(upper_end);
        let mut merged: Changed = lower.into_iter().map(|(key, value)| (key, Some(value))).collect();
        merged.extend(upper.into_iter().filter(|(key, _)| reached.as_ref().is_none_or(|end| key < end)));
        found.extend(merged.into_iter().filter_map(|(key, value)| Some((key, value?))));
        match reached {
            Some(reached) => from = reached,
            None => break,
        }
    }
    found.truncate(limit);
    Ok(found)
}

/// Pairs read at once: few for a short look, not too many for a long walk.
const LEAST: usize = 16;
const MOST: usize = 4096;

/// The last pair with `start <= key < end`; `highest` gives the highest changed key below a bound.
pub(crate) fn last_of(
    start: &[u8],
    end: &[u8],
    highest: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
    value: &dyn Fn(&[u8]) -> Result<Option<Vec<u8>>, ModelError>,
    below: &dyn View,
) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
    let mut end = end.to_vec();
    loop {
        let upper = highest(&end);
        let lower = below.last(start, &end)?.map(|(key, _)| key);
        let Some(key) = upper.max(lower) else { return Ok(None) };
        if let Some(value) = value(&key)? {
            return Ok(Some((key, value)));
        }
        // Deleted by a change: look further down.
        end = key;
    }
}

/// The first key after this one.
fn after(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A view of plain pairs.
    struct Plain(Changed);

    impl View for Plain {
        fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
            Ok(self.0.get(key).cloned().flatten())
        }

        fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, ModelError> {
            let pairs = self.0.range(start.to_vec()..end.to_vec());
            Ok(pairs.filter_map(|(key, value)| Some((key.clone(), value.clone()?))).take(limit).collect())
        }

        fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
            Ok(self.scan(start, end, usize::MAX)?.pop())
        }
    }

    fn keys(most: usize) -> impl Strategy<Value = Vec<(u16, bool)>> {
        proptest::collection::vec((0_u16..200, any::<bool>()), 0..most)
    }

    proptest! {
        #[test]
        fn reading_through_changes_equals_reading_the_changed(
            lower in keys(150), upper in keys(150), start in 0_u16..200, length in 0_u16..200, limit in 1_usize..60,
        ) {
            let pair = |key: u16, value: u8| (key.to_be_bytes().to_vec(), Some(vec![value]));
            let below = Plain(lower.iter().map(|(key, _)| pair(*key, 1)).collect());
            let changes: Changed = upper
                .iter()
                .map(|(key, is_deletion)| {
                    let (key, value) = pair(*key, 2);
                    (key, value.filter(|_| !is_deletion))
                })
                .collect();
            let mut whole = below.0.clone();
            whole.extend(changes.clone());
            let whole = Plain(whole);
            let (start, end) = (start.to_be_bytes().to_vec(), (start + length).to_be_bytes().to_vec());
            let first = |from: &[u8], count: usize| -> Changed {
                let range = changes.range(from.to_vec()..end.clone());
                range.take(count).map(|(key, value)| (key.clone(), value.clone())).collect()
            };
            prop_assert_eq!(
                merge(&start, &end, limit, &first, &below).unwrap(),
                whole.scan(&start, &end, limit).unwrap()
            );
            let highest = |end: &[u8]| {
                let range = changes.range(start.clone()..end.to_vec().max(start.clone()));
                range.map(|(key, _)| key.clone()).next_back()
            };
            let value = |key: &[u8]| match changes.get(key) {
                Some(value) => Ok(value.clone()),
                None => below.value(key),
            };
            prop_assert_eq!(
                last_of(&start, &end, &highest, &value, &below).unwrap(),
                whole.last(&start, &end).unwrap()
            );
        }
    }
}
