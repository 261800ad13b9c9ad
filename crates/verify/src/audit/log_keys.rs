//! The keys of a log as the log itself tells of them: each is named while the one before it signs, and vouched for by
//! a checkpoint of that one.

use std::collections::{HashMap, HashSet};

use chancery_entry::{KeyChange, KeyPhase};
use chancery_merkle::{Checkpoint, LogKeys, NoteVerifier, RecordedKey, VerifiedCheckpoint};
use chancery_types::Digest;

use super::finding::{Check, Finding};

/// Where a log ended once: its size, and its root if that could be computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) size: u64,
    pub(super) root: Option<Digest>,
}

/// What is known of the keys so far.
pub(super) struct KeyHistory {
    /// Those that the log names as its own, from its first entry on.
    named: Option<LogKeys>,
    /// Those that the auditor believes: its own, and whatever these vouch for.
    believed: LogKeys,
    /// Published ones that have not signed yet, and where the log ended with that.
    waiting: HashMap<Digest, End>,
    withdrawn: HashSet<Digest>,
}

impl KeyHistory {
    /// For an auditor who believes these.
    pub(super) fn new(believed: LogKeys) -> Self {
        Self { named: None, believed, waiting: HashMap::new(), withdrawn: HashSet::new() }
    }

    /// The log begins with this key.
    pub(super) fn begin(&mut self, verifier_key: &str) {
        if self.named.is_none() {
            self.named = verifier_key.parse().ok();
        }
    }

    /// Takes in what the log says of a key, in the entry with which it has this end.
    pub(super) fn follow(&mut self, change: &KeyChange, end: End) -> Option<Finding> {
        self.take(change, end).err().map(|why| {
            Finding::new(Check::LogKey, format!("log key {}, {:?}: {why}", change.key, change.phase))
        })
    }

    fn take(&mut self, change: &KeyChange, end: End) -> Result<(), String> {
        let recorded = RecordedKey::parse(self.believed.name(), &change.content.0);
        let recorded = recorded.map_err(|error| error.to_string())?;
        if recorded.id() != change.key {
            return Err("the entry is about another key than it holds".to_owned());
        }
        let is_named = self.names(&recorded.key);
        match change.phase {
            KeyPhase::Published if is_named => Err("it has signed before".to_owned()),
            KeyPhase::Published => {
                self.waiting.insert(change.key, end);
                Ok(())
            }
            KeyPhase::Active if !is_named => self.succeed(change.key, recorded),
            KeyPhase::Active | KeyPhase::Retired if is_named => Ok(()),
            KeyPhase::Withdrawn => {
                self.waiting.remove(&change.key);
                self.withdrawn.insert(change.key);
                Ok(())
            }
            KeyPhase::Active | KeyPhase::Retired => Err("it has never signed".to_owned()),
        }
    }

    /// A key signs for the first time.
    fn succeed(&mut self, id: Digest, recorded: RecordedKey) -> Result<(), String> {
        let published = self.waiting.remove(&id).ok_or("it was not published before")?;
        let note = recorded.vouched.ok_or("no checkpoint of the key before it vouches for it")?;
        let named = self.named.as_mut().ok_or("the log does not say which key was its first")?;
        let vouched = VerifiedCheckpoint::open(&note, named, &[]).map_err(|error| error.to_string())?;
        check_end(vouched.checkpoint(), published)?;
        named.add(recorded.key.clone()).map_err(|error| error.to_string())?;
        if VerifiedCheckpoint::open(&note, &self.believed, &[]).is_ok() {
            self.believed.add(recorded.key).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Whether the log names this key as one that signs or has signed.
    pub(super) fn names(&self, key: &NoteVerifier) -> bool {
        self.named.as_ref().is_some_and(|named| named.as_slice().contains(key))
    }

    /// Every key that the auditor believes, those that sign no more too.
    pub(super) fn believed(&self) -> &LogKeys {
        &self.believed
    }

    /// Those that may sign at the end of what was followed.
    pub(super) fn signing(&self) -> LogKeys {
        let signs = |key: &NoteVerifier| !self.withdrawn.contains(&RecordedKey::from(key.clone()).id());
        self.believed.only(signs).unwrap_or_else(|| self.believed.clone())
    }

    /// The keys that the log names, for people.
    pub(super) fn text(&self) -> String {
        let named = self.named.iter().flat_map(LogKeys::as_slice);
        named.map(NoteVerifier::vkey).collect::<Vec<_>>().join(", ")
    }
}

fn check_end(checkpoint: &Checkpoint, published: End) -> Result<(), String> {
    if checkpoint.size() != published.size {
        let (found, expected) = (checkpoint.size(), published.size);
        return Err(format!(
            "the checkpoint that vouches for it has {found} entries, it was published as {expected}"
        ));
    }
    match published.root {
        Some(root) if root != checkpoint.root() => Err(format!(
            "the checkpoint that vouches for it signs the root {}, the entries hash to {root}: the log was forked",
            checkpoint.root()
        )),
        _ => Ok(()),
    }
}
