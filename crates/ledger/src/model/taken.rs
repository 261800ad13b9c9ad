//! How much each hand has taken out of force lately: what a limit within a window of time is measured by.
//!
//! What a change does, which somebody else approved, counts for nobody; a change that its asker began alone counts
//! for the asker, whole, from then on. What was released again stays counted.

use std::collections::BTreeMap;

use chancery_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::change::change_number;
use super::record::{from_json, to_json};
use super::{ModelError, Table, View, Write};

/// The grain of the count: five minutes, in milliseconds.
const SLOT: i64 = 5 * 60 * 1000;
/// Slots that are remembered: a day.
const KEPT: i64 = 24 * 60 / 5;

/// Whether anybody asks how much was done in this name: not of a change, nor of the authority itself, nor of whoever
/// has proved possession of a key.
pub(super) fn is_counted(by: &str) -> bool {
    change_number(by).is_none() && by != AUTHORITY && !by.starts_with(KEY_HOLDER)
}

const AUTHORITY: &str = "chancery";
const KEY_HOLDER: &str = "key-holder:";

/// Certificates by environment and slot.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Taken(BTreeMap<String, BTreeMap<i64, u64>>);

/// Counts what this hand takes of each environment now.
pub(super) fn count(
    by: &str,
    time: Timestamp,
    parts: impl IntoIterator<Item = (String, u64)>,
    view: &dyn View,
) -> Result<Write, ModelError> {
    let mut taken = read(view, by)?;
    let slot = time.millis().div_euclid(SLOT);
    for (environment, certificates) in parts {
        *taken.0.entry(environment).or_default().entry(slot).or_default() += certificates;
    }
    taken.0.retain(|_, slots| {
        slots.retain(|kept, _| *kept > slot - KEPT);
        !slots.is_empty()
    });
    Ok((key(by), Some(to_json(&taken))))
}

/// Certificates that this hand has taken out of force since, by environment; what is older than a day is forgotten.
pub(crate) fn taken(
    view: &dyn View,
    by: &str,
    since: Timestamp,
) -> Result<BTreeMap<String, u64>, ModelError> {
    let first = since.millis().div_euclid(SLOT);
    let sum = |slots: BTreeMap<i64, u64>| slots.range(first..).map(|(_, count)| count).sum();
    Ok(read(view, by)?.0.into_iter().map(|(environment, slots)| (environment, sum(slots))).collect())
}

fn read(view: &dyn View, by: &str) -> Result<Taken, ModelError> {
    let bytes = view.value(&key(by))?;
    bytes.map_or_else(|| Ok(Taken::default()), |bytes| from_json("taken", &bytes))
}

fn key(by: &str) -> Vec<u8> {
    Table::Taken.key(&[by.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Changes;
    use crate::model::Pairs;
    use crate::model::batch_view::BatchView;

    struct Nothing;

    impl View for Nothing {
        fn value(&self, _: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
            Ok(None)
        }

        fn scan(&self, _: &[u8], _: &[u8], _: usize) -> Result<Pairs, ModelError> {
            Ok(Pairs::new())
        }

        fn last(&self, _: &[u8], _: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
            Ok(None)
        }
    }

    #[test]
    fn operators_are_counted_and_nobody_else() {
        for (by, counted) in [
            ("spiffe://example.org/operator/ada", true),
            ("uid:0", true),
            ("change:12", false),
            ("chancery", false),
            ("key-holder:00ff", false),
        ] {
            assert_eq!(is_counted(by), counted, "{by}");
        }
    }

    #[test]
    fn what_a_hand_takes_adds_up_within_the_window_and_is_forgotten_after_a_day() {
        let mut view = BatchView::new(&Nothing);
        let at = |seconds| Timestamp::from_seconds(1_800_000_000 + seconds);
        let take =
            |view: &mut BatchView<'_>, by: &str, seconds: i64, environment: &str, certificates: u64| {
                let write = count(by, at(seconds), [(environment.to_owned(), certificates)], view).unwrap();
                view.add(Changes::from(vec![write]));
            };
        take(&mut view, "ada", 0, "prod", 3);
        take(&mut view, "ada", 10, "prod", 4);
        take(&mut view, "ada", 1800, "test", 5);
        take(&mut view, "ada", 3600, "prod", 6);
        take(&mut view, "bob", 3600, "prod", 100);
        let of = |view: &BatchView<'_>, by: &str, since: i64, environment: &str| {
            taken(view, by, at(since)).unwrap().get(environment).copied().unwrap_or(0)
        };
        assert_eq!((of(&view, "ada", 0, "prod"), of(&view, "ada", 0, "test")), (13, 5));
        assert_eq!((of(&view, "ada", 600, "prod"), of(&view, "ada", 3601, "test")), (6, 0));
        assert_eq!((of(&view, "bob", 0, "prod"), of(&view, "eve", 0, "prod")), (100, 0));
        take(&mut view, "ada", 25 * 3600, "dev", 1);
        assert_eq!(of(&view, "ada", 0, "prod"), 0);
        assert_eq!(of(&view, "ada", 0, "dev"), 1);
    }
}
