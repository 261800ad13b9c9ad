//! What has changed lately, so that a stream can go on where it broke off.

use std::collections::VecDeque;
use std::sync::Arc;

use chancery_policy::IdentityTemplate;
use chancery_types::{Identity, SerialNumber, SpiffeId};

use super::renewals::Renewal;

/// Changes that are remembered: an agent that was away for fewer is told these, and for more everything.
const REMEMBERED: usize = 16_384;

/// Something that concerns some nodes.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// An identity is new, gone, or not what it was. Absent: nobody's.
    Identity {
        /// What it was.
        before: Option<Arc<Identity>>,
        /// What it is.
        after: Option<Arc<Identity>>,
        /// Milliseconds over which to spread what follows.
        spread: u64,
    },
    /// Certificates are not good any more.
    Revoked {
        /// Through which node they were issued, or whose they are.
        node: SpiffeId,
        /// Which.
        serials: Vec<SerialNumber>,
    },
    /// Certificates are to be renewed.
    Renewal {
        /// Which.
        renewal: Renewal,
        /// The identity that it is about, if it is about one.
        identity: Option<Arc<Identity>>,
    },
    /// A template is new, gone, or not what it was.
    Template {
        /// What it was.
        before: Option<Arc<IdentityTemplate>>,
        /// What it is.
        after: Option<Arc<IdentityTemplate>>,
    },
    /// What verifies the members of the trust domain.
    Bundle,
}

/// The latest changes, each with the size of the log that has it.
#[derive(Debug)]
pub(super) struct History {
    changes: VecDeque<(u64, Change)>,
    /// Everything that changed after this size is in `changes`.
    floor: u64,
}

impl History {
    /// Nothing has happened since the log had this size.
    pub(super) fn from(revision: u64) -> Self {
        Self { changes: VecDeque::new(), floor: revision }
    }

    pub(super) fn add(&mut self, revision: u64, change: Change) {
        if self.changes.len() == REMEMBERED
            && let Some((oldest, _)) = self.changes.pop_front()
        {
            self.floor = oldest;
        }
        self.changes.push_back((revision, change));
    }

    /// Whether everything that changed after this revision is known.
    pub(super) fn covers(&self, revision: u64) -> bool {
        revision >= self.floor
    }

    pub(super) fn after(&self, revision: u64) -> impl Iterator<Item = &(u64, Change)> {
        let start = self.changes.partition_point(|(at, _)| *at <= revision);
        self.changes.range(start..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_and_knows_that_it_did() {
        let mut history = History::from(10);
        assert!(history.covers(10) && !history.covers(9));
        for revision in 11..=(11 + REMEMBERED as u64) {
            history.add(revision, Change::Bundle);
        }
        assert!(!history.covers(10) && history.covers(11));
        assert_eq!(history.after(11).count(), REMEMBERED);
        assert_eq!(history.after(11 + REMEMBERED as u64).count(), 0);
        assert_eq!(history.after(REMEMBERED as u64).next().unwrap().0, REMEMBERED as u64 + 1);
    }
}
