//! Answers that are given again.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chancery_ledger::CertificateState;
use chancery_types::{Digest, SerialNumber, Timestamp};

/// An answer, and when it was last known to be right.
#[derive(Debug)]
pub(super) struct Hot {
    pub(super) serial: SerialNumber,
    /// What it says.
    pub(super) state: Option<CertificateState>,
    pub(super) der: Bytes,
    pub(super) tag: Digest,
    pub(super) made: Timestamp,
    pub(super) next_update: Timestamp,
    /// The ledger's standing epoch at which it was right.
    generation: AtomicU64,
}

impl Hot {
    pub(super) fn new(
        serial: SerialNumber,
        state: Option<CertificateState>,
        generation: u64,
        der: Bytes,
        tag: Digest,
        (made, next_update): (Timestamp, Timestamp),
    ) -> Self {
        Self { serial, state, der, tag, made, next_update, generation: AtomicU64::new(generation) }
    }

    /// Whether most of its life lies ahead, also for a clock that was set back.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        self.made <= now && now < self.made + self.next_update.since(self.made) / 4
    }

    pub(super) fn was_right_at(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }

    pub(super) fn is_right_at(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
    }
}

type Answers = HashMap<Box<[u8]>, Arc<Hot>>;

/// Two generations of a map: when the younger is full, it becomes the elder, and what was elder is forgotten. What is
/// asked for again moves over.
#[derive(Debug, Default)]
struct Ages {
    young: Answers,
    old: Answers,
}

/// The answers of late, by the CertID that was asked about.
#[derive(Debug, Default)]
pub(super) struct HotAnswers {
    hasher: RandomState,
    parts: [Mutex<Ages>; PARTS],
}

/// Locks, so that processors seldom wait for each other.
const PARTS: usize = 16;
/// Answers in one generation of one part: 16 thousand in all, and as many of the generation before, of about a
/// kilobyte each.
const MOST: usize = 1024;

impl HotAnswers {
    pub(super) fn find(&self, id: &[u8]) -> Option<Arc<Hot>> {
        let mut ages = self.part(id);
        if let Some(found) = ages.young.get(id) {
            return Some(Arc::clone(found));
        }
        let (id, found) = ages.old.remove_entry(id)?;
        ages.add(id, Arc::clone(&found));
        Some(found)
    }

    pub(super) fn keep(&self, id: &[u8], answer: Hot) {
        self.part(id).add(id.into(), Arc::new(answer));
    }

    fn part(&self, id: &[u8]) -> std::sync::MutexGuard<'_, Ages> {
        let part = usize::try_from(self.hasher.hash_one(id) % PARTS as u64).unwrap_or(0);
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ages {
    fn add(&mut self, id: Box<[u8]>, answer: Arc<Hot>) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, answer);
    }
}
