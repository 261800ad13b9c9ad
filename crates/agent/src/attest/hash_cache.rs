//! Hashes of executables, so that a program that runs a thousand times is read once. Bounded.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chancery_types::{Digest, Timestamp};

use super::executable::Version;

/// The hashes of the versions of files that were asked for last.
#[derive(Debug)]
pub(super) struct HashCache {
    entries: Mutex<Entries>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Entries {
    hashes: HashMap<Version, (Digest, u64)>,
    /// Counts the questions: the entry with the smallest count has not been asked for the longest.
    turn: u64,
}

impl HashCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: Mutex::default(), capacity }
    }

    pub(super) fn find(&self, version: &Version) -> Option<Digest> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.turn += 1;
        let turn = entries.turn;
        let (digest, used) = entries.hashes.get_mut(version)?;
        *used = turn;
        Some(*digest)
    }

    /// Keeps a hash, unless the file changed so shortly before `now` that another change could have had the same
    /// time: the kernel's time stamps move in steps.
    pub(super) fn keep(&self, version: Version, digest: Digest, now: Timestamp) {
        if now.seconds().saturating_sub(version.changed_seconds()) < SETTLED_SECONDS {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.hashes.len() >= self.capacity && !entries.hashes.contains_key(&version) {
            let oldest =
                entries.hashes.iter().min_by_key(|(_, (_, used))| *used).map(|(version, _)| *version);
            oldest.and_then(|oldest| entries.hashes.remove(&oldest));
        }
        entries.turn += 1;
        let turn = entries.turn;
        entries.hashes.insert(version, (digest, turn));
    }
}

const SETTLED_SECONDS: i64 = 2;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use chancery_types::{Clock, SystemClock};

    use super::*;
    use crate::attest::executable::Executable;

    fn version(path: &Path) -> Version {
        let handle = std::fs::File::open(path).unwrap();
        Executable::new(handle.into()).unwrap().content(1 << 20).unwrap().unwrap().version()
    }

    fn later() -> Timestamp {
        SystemClock.now() + std::time::Duration::from_secs(10)
    }

    #[test]
    fn forgets_a_file_that_was_replaced_or_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tool");
        std::fs::write(&path, "one").unwrap();
        let cache = HashCache::new(4);
        cache.keep(version(&path), Digest::of(b"one"), later());
        assert_eq!(cache.find(&version(&path)), Some(Digest::of(b"one")));

        std::fs::write(&path, "four").unwrap();
        assert_eq!(cache.find(&version(&path)), None);
        cache.keep(version(&path), Digest::of(b"four"), later());

        let new = directory.path().join("new");
        std::fs::write(&new, "five").unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert_eq!(cache.find(&version(&path)), None);
    }

    #[test]
    fn does_not_keep_the_hash_of_a_file_that_changed_just_now() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tool");
        std::fs::write(&path, "one").unwrap();
        let cache = HashCache::new(4);
        cache.keep(version(&path), Digest::of(b"one"), SystemClock.now());
        assert_eq!(cache.find(&version(&path)), None);
    }

    #[test]
    fn drops_what_was_not_asked_for_the_longest() {
        let directory = tempfile::tempdir().unwrap();
        let versions: Vec<_> = (0..3)
            .map(|number| {
                let path = directory.path().join(number.to_string());
                std::fs::write(&path, "x").unwrap();
                version(&path)
            })
            .collect();
        let cache = HashCache::new(2);
        cache.keep(versions[0], Digest::of(b"0"), later());
        cache.keep(versions[1], Digest::of(b"1"), later());
        assert!(cache.find(&versions[0]).is_some());
        cache.keep(versions[2], Digest::of(b"2"), later());
        assert!(cache.find(&versions[0]).is_some());
        assert!(cache.find(&versions[1]).is_none());
        assert!(cache.find(&versions[2]).is_some());
    }
}
