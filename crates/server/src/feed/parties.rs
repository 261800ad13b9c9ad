//! Who enforces status, by its own word, and how far.
//!
//! Kept in memory alone: after a restart each relying party is back with its next acknowledgement. What one says is
//! shown to operators as what it said; nothing is decided by it here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chancery_api::{FeedAcknowledgement, RelyingPartyView};
use chancery_types::{SpiffeId, Timestamp};

/// Bounds of what is remembered; past them who has been silent longest is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartyLimits {
    /// All together.
    pub(crate) total: usize,
    /// Instances of one identity.
    pub(crate) per_identity: usize,
    /// Silence after which one is forgotten.
    pub(crate) silence: Duration,
}

impl Default for PartyLimits {
    fn default() -> Self {
        Self { total: 16_384, per_identity: 2048, silence: Duration::from_secs(3600) }
    }
}

/// Characters of the name of an instance.
const INSTANCE_CHARACTERS: usize = 128;

/// Why an acknowledgement is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AcknowledgeError {
    /// The instance cannot be told from others.
    #[error("an instance is 1 to {INSTANCE_CHARACTERS} visible ASCII characters")]
    Instance,
    /// Nobody can have enforced what has not happened.
    #[error(
        "position {claimed} is confirmed, and this authority is at {reached}; follow its feed from the position that it gives"
    )]
    Ahead {
        /// What was confirmed.
        claimed: u64,
        /// Where the log is.
        reached: u64,
    },
}

#[derive(Debug)]
struct Party {
    word: FeedAcknowledgement,
    at: Timestamp,
    /// The highest position that it has confirmed.
    highest: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Parties {
    limits: PartyLimits,
    by_identity: Mutex<HashMap<SpiffeId, BTreeMap<String, Party>>>,
}

/// Whether a text can be the name of an instance.
pub(crate) fn is_instance(text: &str) -> bool {
    (1..=INSTANCE_CHARACTERS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Parties {
    /// Takes the latest word of an instance when the log has `reached` this size.
    pub(super) fn acknowledge(
        &self,
        id: &SpiffeId,
        word: FeedAcknowledgement,
        reached: u64,
        now: Timestamp,
    ) -> Result<RelyingPartyView, AcknowledgeError> {
        if !is_instance(&word.instance) {
            return Err(AcknowledgeError::Instance);
        }
        if word.sequence > reached {
            return Err(AcknowledgeError::Ahead { claimed: word.sequence, reached });
        }
        let mut parties = self.lock();
        let before = parties.get(id).and_then(|instances| instances.get(&word.instance));
        let highest = before.map_or(word.sequence, |before| before.highest.max(word.sequence));
        if before.is_none() {
            self.make_room(&mut parties, id, now);
        }
        let party = Party { word: word.clone(), at: now, highest };
        let view = party.view(id);
        parties.entry(id.clone()).or_default().insert(word.instance, party);
        Ok(view)
    }

    /// Everybody who is not forgotten, by name and instance; whether they are connected is not known here.
    pub(super) fn list(&self, now: Timestamp) -> Vec<RelyingPartyView> {
        let mut parties = self.lock();
        self.forget(&mut parties, now);
        let mut views: Vec<RelyingPartyView> = parties
            .iter()
            .flat_map(|(id, instances)| instances.values().map(|party| party.view(id)))
            .collect();
        views.sort_by(|left, right| {
            let key =
                |view: &RelyingPartyView| (view.spiffe_id.clone(), view.acknowledgement.instance.clone());
            key(left).cmp(&key(right))
        });
        views
    }

    fn make_room(
        &self,
        parties: &mut HashMap<SpiffeId, BTreeMap<String, Party>>,
        id: &SpiffeId,
        now: Timestamp,
    ) {
        if let Some(instances) = parties.get_mut(id)
            && instances.len() >= self.limits.per_identity
            && let Some(oldest) = oldest(instances).map(|(instance, _)| instance.clone())
        {
            instances.remove(&oldest);
        }
        if parties.values().map(BTreeMap::len).sum::<usize>() < self.limits.total {
            return;
        }
        self.forget(parties, now);
        while parties.values().map(BTreeMap::len).sum::<usize>() >= self.limits.total {
            let silent = parties.iter().filter_map(|(id, instances)| {
                oldest(instances).map(|(instance, at)| (at, id.clone(), instance.clone()))
            });
            let Some((_, id, instance)) = silent.min() else { return };
            let is_last = parties.get_mut(&id).is_some_and(|instances| {
                instances.remove(&instance);
                instances.is_empty()
            });
            if is_last {
                parties.remove(&id);
            }
        }
    }

    fn forget(&self, parties: &mut HashMap<SpiffeId, BTreeMap<String, Party>>, now: Timestamp) {
        for instances in parties.values_mut() {
            instances.retain(|_, party| now.since(party.at) < self.limits.silence);
        }
        parties.retain(|_, instances| !instances.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SpiffeId, BTreeMap<String, Party>>> {
        self.by_identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn oldest(instances: &BTreeMap<String, Party>) -> Option<(&String, Timestamp)> {
    instances.iter().map(|(instance, party)| (instance, party.at)).min_by_key(|(_, at)| *at)
}

impl Party {
    fn view(&self, id: &SpiffeId) -> RelyingPartyView {
        RelyingPartyView {
            spiffe_id: id.clone(),
            acknowledgement: self.word.clone(),
            acknowledged_at: self.at,
            connected: false,
            went_back_from: (self.word.sequence < self.highest).then_some(self.highest),
        }
    }
}

#[cfg(test)]
mod tests {
    use chancery_api::{RelyingPartyKind, WhenUnknown};

    use super::*;

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://example.org/{name}").parse().unwrap()
    }

    fn word(instance: &str, sequence: u64) -> FeedAcknowledgement {
        FeedAcknowledgement {
            instance: instance.into(),
            kind: RelyingPartyKind::Library,
            when_unknown: WhenUnknown::Closed,
            maximum_age_seconds: 60,
            sequence,
            connections_closed: 0,
            connections_open: 0,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    fn names(parties: &Parties, now: i64) -> Vec<String> {
        let name =
            |view: RelyingPartyView| format!("{}#{}", view.spiffe_id.path(), view.acknowledgement.instance);
        parties.list(at(now)).into_iter().map(name).collect()
    }

    #[test]
    fn nobody_is_ahead_of_the_log_and_who_goes_back_is_shown_to() {
        let parties = Parties::default();
        let ahead = parties.acknowledge(&id("a"), word("x", 8), 7, at(1)).unwrap_err();
        assert_eq!(ahead, AcknowledgeError::Ahead { claimed: 8, reached: 7 });
        assert!(parties.list(at(1)).is_empty());
        assert_eq!(parties.acknowledge(&id("a"), word("x", 7), 7, at(1)).unwrap().went_back_from, None);
        assert_eq!(parties.acknowledge(&id("a"), word("x", 3), 7, at(2)).unwrap().went_back_from, Some(7));
        let [shown] = parties.list(at(2)).try_into().unwrap();
        assert_eq!((shown.acknowledgement.sequence, shown.went_back_from), (3, Some(7)));
        assert_eq!(parties.acknowledge(&id("a"), word("x", 9), 9, at(3)).unwrap().went_back_from, None);
    }

    #[test]
    fn refuses_instances_that_are_no_names() {
        let parties = Parties::default();
        for name in ["", "two words", "\u{e9}", &"x".repeat(129)] {
            let refused = parties.acknowledge(&id("a"), word(name, 0), 0, at(1)).unwrap_err();
            assert_eq!(refused, AcknowledgeError::Instance);
        }
    }

    #[test]
    fn who_has_been_silent_longest_makes_room() {
        let limits = PartyLimits { total: 3, per_identity: 2, silence: Duration::from_secs(100) };
        let parties = Parties { limits, ..Parties::default() };
        let add = |name: &str, instance: &str, second: i64| {
            parties.acknowledge(&id(name), word(instance, 0), 0, at(second)).unwrap();
        };
        add("a", "x", 1);
        add("a", "y", 2);
        add("a", "z", 3);
        assert_eq!(names(&parties, 3), ["/a#y", "/a#z"], "one identity does not crowd others out");
        add("b", "x", 4);
        add("a", "y", 5);
        add("c", "x", 6);
        assert_eq!(names(&parties, 6), ["/a#y", "/b#x", "/c#x"]);
        assert_eq!(names(&parties, 105), ["/c#x"]);
    }
}
