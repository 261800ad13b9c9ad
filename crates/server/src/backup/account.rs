//! What a log comes to, counted while it goes by.

use chancery_entry::{Body, Entry, KeyPhase, KeyPurpose};
use chancery_merkle::{Frontier, LogKeys, NoteVerifier, RecordedKey, leaf_hash};
use chancery_types::{Digest, Timestamp};

/// What the first entries of a log come to.
#[derive(Debug, Default)]
pub struct Account {
    /// The tree.
    pub frontier: Frontier,
    /// Certificates promised.
    pub issued: u64,
    /// Revocations.
    pub revocations: u64,
    /// When the last entry was recorded.
    pub last: Option<Timestamp>,
    /// The log's keys: that of its first entry, and those that have followed it.
    pub(super) keys: Option<LogKeys>,
    /// The one of them that leads.
    pub(super) active: Option<NoteVerifier>,
    /// Certificates of the issuers, DER.
    pub(super) issuers: Vec<Vec<u8>>,
    /// The exact sets that were recorded, by where they are right in the log.
    pub(super) sets: Vec<(u64, Digest)>,
}

impl Account {
    /// Takes the next entry in; `emit` hears of the tree's hashes as [`Frontier::append`] tells them.
    ///
    /// # Errors
    /// Why it is no entry.
    pub fn add(&mut self, bytes: &[u8], emit: &mut impl FnMut(u8, u64, Digest)) -> Result<(), String> {
        let entry = Entry::decode(bytes).map_err(|error| error.to_string())?;
        self.last = Some(entry.time);
        match entry.body {
            Body::Genesis(genesis) if self.frontier.size() == 0 => {
                let key = genesis.verifier_key.parse::<NoteVerifier>();
                let key = key.map_err(|error| format!("the log's key: {error}"))?;
                (self.keys, self.active) = (Some(key.clone().into()), Some(key));
            }
            Body::KeyChanged(change)
                if change.purpose == KeyPurpose::Log && change.phase == KeyPhase::Active =>
            {
                if let Some(keys) = &mut self.keys {
                    let recorded = RecordedKey::parse(keys.name(), &change.content.0);
                    let key = recorded.map_err(|error| format!("a key of the log: {error}"))?.key;
                    keys.add(key.clone()).map_err(|error| error.to_string())?;
                    self.active = Some(key);
                }
            }
            Body::Issuance(_) => self.issued += 1,
            Body::Revocation(_) => self.revocations += 1,
            Body::IssuerActivated(issuer) => self.issuers.push(issuer.certificate.0),
            Body::StatusSetPublished(set) => self.sets.push((set.sequence, set.hash)),
            _ => {}
        }
        self.frontier.append(leaf_hash(bytes), emit);
        Ok(())
    }

    /// The keys that sign the log's checkpoints, or have.
    #[must_use]
    pub fn keys(&self) -> Option<&LogKeys> {
        self.keys.as_ref()
    }
}
