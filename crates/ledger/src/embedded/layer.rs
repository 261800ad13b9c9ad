//! Changes in memory, in the order of their keys.

use crate::model::Write;
use crate::model::merge::{Changed as Pairs, in_range};
use crate::model::search::SearchKey;

/// The changes of some batches.
#[derive(Debug, Default, Clone)]
pub(crate) struct Layer {
    pairs: Pairs,
    search: Runs,
}

impl Layer {
    /// How many changes there are.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len() + self.search.len()
    }

    pub(crate) fn extend(&mut self, pairs: impl Iterator<Item = Write>) {
        self.pairs.extend(pairs);
    }

    pub(crate) fn add_search_keys(&mut self, keys: &[SearchKey]) {
        self.search.add(keys);
    }

    /// Puts later changes over these.
    pub(crate) fn append(&mut self, mut later: Self) {
        self.pairs.append(&mut later.pairs);
        later.search.runs.iter().for_each(|run| self.search.add(run));
        self.search.add(&later.search.fresh);
    }

    /// The change of one key; the inner `None` is a deletion.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let pair = self.pairs.get(key).cloned();
        if SearchKey::is_one(key) {
            return pair.or_else(|| self.search.contains(key).then(|| Some(Vec::new())));
        }
        pair
    }

    /// Puts the first `limit` changes in `start .. end`, and perhaps some more, over `into`.
    pub(crate) fn collect(&self, start: &[u8], end: &[u8], limit: usize, into: &mut Pairs) {
        for key in self.search.first(start, end, limit) {
            into.insert(key.as_bytes().to_vec(), Some(Vec::new()));
        }
        // What takes a search key away wins: it comes after what added it, and none is added twice.
        let pairs = in_range(&self.pairs, start, end).take(limit);
        into.extend(pairs.map(|(key, value)| (key.clone(), value.clone())));
    }

    /// The last changed key in `start .. end`.
    pub(crate) fn last(&self, start: &[u8], end: &[u8]) -> Option<Vec<u8>> {
        let pair = in_range(&self.pairs, start, end).next_back().map(|(key, _)| key.clone());
        pair.max(self.search.last(start, end).map(|key| key.as_bytes().to_vec()))
    }

    /// All changes but the search keys that are added, in order.
    /// They go over [`Self::search_keys`].
    pub(crate) fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    /// All search keys, in order.
    pub(crate) fn search_keys(&self) -> Vec<SearchKey> {
        let mut keys: Vec<SearchKey> = self.search.runs.concat();
        keys.extend_from_slice(&self.search.fresh);
        // A stable sort merges the runs that it finds.
        keys.sort();
        keys
    }
}

/// Keys in sorted runs, each at least twice as long as the next.
///
/// They come in no order and are looked for seldom. A tree would pay for each of them a walk through memory
/// that is in no cache; merging runs pays a few sequential passes.
#[derive(Debug, Default, Clone)]
struct Runs {
    runs: Vec<Vec<SearchKey>>,
    fresh: Vec<SearchKey>,
}

/// Keys that wait until they are sorted into a run.
const FRESH: usize = 1024;

impl Runs {
    fn len(&self) -> usize {
        self.fresh.len() + self.runs.iter().map(Vec::len).sum::<usize>()
    }

    fn add(&mut self, keys: &[SearchKey]) {
        self.fresh.extend_from_slice(keys);
        if self.fresh.len() < FRESH {
            return;
        }
        let mut run = std::mem::take(&mut self.fresh);
        run.sort_unstable();
        while let Some(before) = self.runs.pop_if(|before| before.len() < 2 * run.len()) {
            run = merged(&before, &run);
        }
        self.runs.push(run);
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.fresh.iter().any(|fresh| fresh.as_bytes() == key)
            || self.runs.iter().any(|run| run.binary_search_by(|probe| probe.as_bytes().cmp(key)).is_ok())
    }

    /// The part of a run with `start <= key < end`.
    fn part<'a>(run: &'a [SearchKey], start: &[u8], end: &[u8]) -> &'a [SearchKey] {
        let from = run.partition_point(|key| key.as_bytes() < start);
        let to = run.partition_point(|key| key.as_bytes() < end).max(from);
        &run[from..to]
    }

    fn fresh_in<'a>(&'a self, start: &'a [u8], end: &'a [u8]) -> impl Iterator<Item = &'a SearchKey> {
        self.fresh.iter().filter(move |key| (start..end).contains(&key.as_bytes()))
    }

    /// The first `limit` keys in a range, in order.
    fn first(&self, start: &[u8], end: &[u8], limit: usize) -> Vec<SearchKey> {
        let mut found: Vec<SearchKey> = self.fresh_in(start, end).copied().collect();
        for run in &self.runs {
            found.extend(Self::part(run, start, end).iter().take(limit));
        }
        found.sort_unstable();
        found.truncate(limit);
        found
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Option<SearchKey> {
        let of_runs = self.runs.iter().filter_map(|run| Self::part(run, start, end).last());
        of_runs.chain(self.fresh_in(start, end)).max().copied()
    }
}

fn merged(left: &[SearchKey], right: &[SearchKey]) -> Vec<SearchKey> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        merged.extend(if a <= b { left.next() } else { right.next() });
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

#[cfg(test)]
mod tests {
    use chancery_types::{IssuerEpoch, SerialNumber, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::model::search::by_expiry;

    fn key(number: u64) -> SearchKey {
        let serial = SerialNumber::compose(IssuerEpoch(1), number, [0; 8]).unwrap();
        by_expiry(Timestamp::from_millis(i64::try_from(number % 9_973).unwrap()), serial)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn runs_are_one_ordered_set(
            numbers in proptest::collection::btree_set(0_u64..100_000, 0..5_000),
            chunk in 1_usize..900,
            from in 0_u64..100_000, to in 0_u64..100_000, limit in 1_usize..50,
        ) {
            let mut runs = Runs::default();
            let keys: Vec<SearchKey> = numbers.iter().rev().map(|number| key(*number)).collect();
            keys.chunks(chunk).for_each(|keys| runs.add(keys));
            let mut sorted = keys;
            sorted.sort_unstable();
            prop_assert_eq!(runs.len(), sorted.len());
            prop_assert!(runs.runs.windows(2).all(|pair| pair[0].len() >= 2 * pair[1].len()));
            let (from, to) = (key(from), key(to));
            let expected: Vec<SearchKey> =
                sorted.iter().filter(|key| **key >= from && **key < to).copied().collect();
            let (start, end) = (from.as_bytes(), to.as_bytes());
            prop_assert_eq!(runs.last(start, end), expected.last().copied());
            prop_assert_eq!(runs.first(start, end, limit), &expected[..expected.len().min(limit)]);
            prop_assert_eq!(runs.contains(start), sorted.contains(&from));
            let layer = Layer { pairs: Pairs::new(), search: runs };
            prop_assert_eq!(layer.search_keys(), sorted);
        }

        #[test]
        fn what_takes_a_search_key_away_wins_in_one_layer_and_over_an_earlier_one(
            numbers in proptest::collection::btree_map(0_u64..100_000, any::<bool>(), 1..3_000),
            from in 0_u64..100_000, to in 0_u64..100_000, limit in 1_usize..50, later in any::<bool>(),
        ) {
            let mut layer = Layer::default();
            let keys: Vec<SearchKey> = numbers.keys().map(|number| key(*number)).collect();
            layer.add_search_keys(&keys);
            let bytes = |number: &u64| key(*number).as_bytes().to_vec();
            let taken = numbers.iter().filter(|(_, is_taken)| **is_taken);
            let taken = taken.map(|(number, _)| (bytes(number), None));
            if later {
                let mut next = Layer::default();
                next.extend(taken);
                layer.append(next);
            } else {
                layer.extend(taken);
            }
            let value = |is_taken: &bool| (!is_taken).then(Vec::new);
            let whole: Pairs =
                numbers.iter().map(|(number, is_taken)| (bytes(number), value(is_taken))).collect();
            for (key, value) in &whole {
                prop_assert_eq!(&layer.get(key), &Some(value.clone()));
            }
            let (start, end) = (bytes(&from), bytes(&to));
            let mut found = Pairs::new();
            layer.collect(&start, &end, limit, &mut found);
            let expected = in_range(&whole, &start, &end);
            prop_assert!(found.iter().take(limit).eq(expected.take(limit)));
            let last = in_range(&whole, &start, &end).next_back().map(|(key, _)| key.clone());
            prop_assert_eq!(layer.last(&start, &end), last);
        }
    }
}
