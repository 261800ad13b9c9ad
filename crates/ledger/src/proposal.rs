//! What is asked of the ledger, and what it answers.

use std::fmt;

use chancery_entry::{Body, Entry, HoldTarget, KeyPurpose, TooLong};
use chancery_merkle::leaf_hash;
use chancery_types::{
    CrlShard, Digest, Generation, Identity, IssuerEpoch, LineageId, RevocationReason, SerialNumber, SpiffeId,
    Timestamp, TokenId,
};

/// Entries that become durable together or not at all, if everything they require still holds.
///
/// Encoding and leaf hashing happen here, on the proposer's thread: the sequencer only checks, writes and syncs.
#[derive(Debug, Clone)]
pub struct Proposal {
    pub(crate) requires: Vec<Precondition>,
    pub(crate) entries: Vec<ProposedEntry>,
}

/// One entry with the bytes and the leaf hash that it will have.
#[derive(Debug, Clone)]
pub(crate) struct ProposedEntry {
    pub(crate) entry: Entry,
    pub(crate) bytes: Vec<u8>,
    pub(crate) leaf: Digest,
}

impl Proposal {
    /// Encodes the entries.
    ///
    /// # Errors
    /// [`TooLong`] when one of them cannot be a leaf.
    pub fn new(requires: Vec<Precondition>, entries: Vec<Entry>) -> Result<Self, TooLong> {
        let entries = entries.into_iter().map(ProposedEntry::new).collect::<Result<_, _>>()?;
        Ok(Self { requires, entries })
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of its entries.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.bytes.len()).sum()
    }

    /// Whether it has no entries: it then only asks whether its preconditions hold.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Most bytes of entries in one call: they become durable in one piece.
pub(crate) const MAX_CALL: usize = 256 << 20;

/// Refuses an identity's document that is not one of that identity: a mistake of the caller's, and not one that
/// the read model could take.
pub(crate) fn check_documents(proposal: &Proposal) -> Option<Conflict> {
    let unfit = |entry: &ProposedEntry| match &entry.entry.body {
        Body::IdentityRegistered(registration) | Body::IdentityChanged(registration) => {
            let name = &registration.identity;
            let problem = match serde_json::from_str::<Identity>(&registration.document.0) {
                Ok(identity) if identity.spiffe_id == *name => return None,
                Ok(identity) => format!("it is about {}", identity.spiffe_id),
                Err(error) => error.to_string(),
            };
            tracing::error!(identity = %name, %problem, "the document proposed for an identity is not one of it");
            Some(Conflict {
                precondition: Precondition::IdentityRegistered(name.clone()),
                standing: Standing::Unknown,
            })
        }
        _ => None,
    };
    proposal.entries.iter().find_map(unfit)
}

impl ProposedEntry {
    fn new(entry: Entry) -> Result<Self, TooLong> {
        let bytes = entry.encode()?;
        let leaf = leaf_hash(&bytes);
        Ok(Self { entry, bytes, leaf })
    }
}

/// What must be true at the moment when the order is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// The ledger has no entries.
    Empty,
    /// No certificate has this serial.
    SerialUnused(SerialNumber),
    /// The token exists and is not spent, revoked or expired at this time.
    TokenUsable {
        /// Which.
        token: TokenId,
        /// The time to judge expiry by.
        now: Timestamp,
    },
    /// The token exists and is neither spent nor revoked.
    TokenOpen(TokenId),
    /// No lineage has this id.
    LineageUnused(LineageId),
    /// The lineage stands at this generation and is not held.
    LineageAt {
        /// Which.
        lineage: LineageId,
        /// The generation that the renewing certificate has.
        generation: Generation,
    },
    /// The identity is registered and active.
    IdentityActive(SpiffeId),
    /// The identity is registered and not retired.
    IdentityRegistered(SpiffeId),
    /// The identity is held.
    IdentityHeld(SpiffeId),
    /// No identity has, or ever had, this name.
    IdentityUnused(SpiffeId),
    /// The template exists.
    TemplateExists(String),
    /// The issuer signs.
    IssuerActive(IssuerEpoch),
    /// No issuer has this epoch.
    IssuerUnused(IssuerEpoch),
    /// The last entry about an issuer is this one; nothing: no issuer has this epoch.
    IssuerAt {
        /// The issuer.
        epoch: IssuerEpoch,
        /// Index of the entry.
        index: Option<u64>,
    },
    /// The last entry about a root or a key is this one; nothing: there is none.
    KeyAt {
        /// What it is for.
        purpose: KeyPurpose,
        /// Its hash.
        key: Digest,
        /// Index of the entry.
        index: Option<u64>,
    },
    /// The certificate is recorded, and is not revoked, or may still move to this reason.
    Revocable {
        /// Which.
        serial: SerialNumber,
        /// The reason proposed.
        reason: RevocationReason,
    },
    /// The certificate is recorded and neither revoked nor held.
    InForce(SerialNumber),
    /// The target is recorded and neither revoked nor held.
    Holdable(HoldTarget),
    /// The target is held.
    Releasable(HoldTarget),
    /// No issuance carries this idempotency hash.
    IdempotencyUnused(Digest),
    /// The last published list of an issuer, or of a part of its certificates, is the one that the proposer knows,
    /// and has a lower number than its own.
    CrlFollows {
        /// The issuer.
        epoch: IssuerEpoch,
        /// The part; `None`: its full list.
        shard: Option<CrlShard>,
        /// The last number that the proposer knows; `None`: there was no list.
        previous: Option<u64>,
        /// The number proposed.
        number: u64,
    },
    /// The change has taken this many steps.
    ChangeAt {
        /// Its number.
        change: u64,
        /// The steps.
        steps: u32,
    },
    /// This version of the exact set was the last to be recorded, and is older.
    StatusSetFollows {
        /// SHA-256 of the last one; nothing where there is none.
        previous: Option<Digest>,
        /// The sequence proposed.
        sequence: u64,
    },
}

/// What became of one proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Durable. Its entries have consecutive indexes from here on.
    Accepted {
        /// Index of its first entry.
        first_index: u64,
    },
    /// Something that it requires does not hold; nothing of it was recorded. A document that is not one of the
    /// identity it is proposed for is refused as if the identity had to be registered and were unknown.
    Refused(Conflict),
}

/// Why a proposal was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The precondition that fails.
    pub precondition: Precondition,
    /// How things stand instead.
    pub standing: Standing,
}

/// How things stand where a precondition fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is no such thing.
    Unknown,
    /// It exists already.
    Exists,
    /// The token was spent.
    Spent,
    /// It was revoked or withdrawn.
    Revoked,
    /// It has expired.
    Expired,
    /// It is held.
    Held,
    /// It is not held.
    NotHeld,
    /// It was retired.
    Retired,
    /// The lineage has gone on to this generation.
    Generation(Generation),
    /// The last list has this number, the last exact set this sequence.
    Number(u64),
    /// The idempotency hash belongs to this certificate.
    Issued(SerialNumber),
    /// It does not sign yet.
    NotActive,
    /// It has gone on to this entry.
    Moved(u64),
    /// The ledger has entries.
    NotEmpty,
    /// The change has taken this many steps.
    Steps(u32),
}

impl fmt::Display for Standing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => formatter.write_str("there is no such thing"),
            Self::Exists => formatter.write_str("it exists already"),
            Self::Spent => formatter.write_str("it was spent"),
            Self::Revoked => formatter.write_str("it was revoked"),
            Self::Expired => formatter.write_str("it has expired"),
            Self::Held => formatter.write_str("it is held"),
            Self::NotHeld => formatter.write_str("it is not held"),
            Self::Retired => formatter.write_str("it was retired"),
            Self::Generation(generation) => write!(formatter, "it stands at generation {generation}"),
            Self::Number(number) => write!(formatter, "the last number is {number}"),
            Self::Issued(serial) => write!(formatter, "it belongs to certificate {serial}"),
            Self::NotActive => formatter.write_str("it does not sign yet"),
            Self::Moved(index) => write!(formatter, "it has gone on by entry {index}"),
            Self::NotEmpty => formatter.write_str("the ledger has entries already"),
            Self::Steps(_) => formatter.write_str("it has gone on meanwhile"),
        }
    }
}

impl fmt::Display for Precondition {
    /// What it is about, for people; how things stand follows in a [`Conflict`].
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = |target: &HoldTarget| match target {
            HoldTarget::Certificate(serial) => format!("certificate {serial}"),
            HoldTarget::Lineage(lineage) => format!("lineage {lineage}"),
        };
        match self {
            Self::Empty => write!(formatter, "a new ledger"),
            Self::SerialUnused(serial) => write!(formatter, "serial {serial}"),
            Self::TokenUsable { token, .. } | Self::TokenOpen(token) => {
                write!(formatter, "join token {token}")
            }
            Self::LineageUnused(lineage) => write!(formatter, "lineage {lineage}"),
            Self::LineageAt { lineage, generation } => {
                write!(formatter, "lineage {lineage} at generation {generation}")
            }
            Self::IdentityActive(id)
            | Self::IdentityRegistered(id)
            | Self::IdentityHeld(id)
            | Self::IdentityUnused(id) => write!(formatter, "identity {id}"),
            Self::TemplateExists(name) => write!(formatter, "template {name:?}"),
            Self::IssuerActive(epoch) | Self::IssuerUnused(epoch) | Self::IssuerAt { epoch, .. } => {
                write!(formatter, "issuer {epoch}")
            }
            Self::KeyAt { purpose: KeyPurpose::Jwt, key, .. } => write!(formatter, "JWT key {key}"),
            Self::KeyAt { purpose: KeyPurpose::Root, key, .. } => write!(formatter, "root {key}"),
            Self::KeyAt { purpose: KeyPurpose::Log, key, .. } => write!(formatter, "log key {key}"),
            Self::InForce(serial) | Self::Revocable { serial, .. } => {
                write!(formatter, "certificate {serial}")
            }
            Self::Holdable(target) | Self::Releasable(target) => formatter.write_str(&held(target)),
            Self::IdempotencyUnused(_) => write!(formatter, "this idempotency key"),
            Self::CrlFollows { epoch, shard: None, number, .. } => {
                write!(formatter, "list {number} of issuer {epoch}")
            }
            Self::ChangeAt { change, .. } => write!(formatter, "change {change}"),
            Self::CrlFollows { epoch, shard: Some(shard), number, .. } => {
                write!(formatter, "list {number} of issuer {epoch}, part {shard}")
            }
            Self::StatusSetFollows { sequence, .. } => write!(formatter, "status set {sequence}"),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.precondition, self.standing)
    }
}

/// Nothing of the call was recorded, or nothing can be known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The disk is full. Everything acknowledged is safe; commits work again when there is room.
    #[error("no room left on the ledger's disk; free some, writes are refused until then")]
    DiskFull,
    /// A write or sync failed in a way after which nothing written may be trusted. Reads go on.
    #[error(
        "the ledger has stopped accepting writes: {reason}; restart the process, it will check the journal"
    )]
    Halted {
        /// What happened.
        reason: String,
    },
    /// The ledger's database cannot be reached, or did not take it. It may work again at any moment.
    #[error("the ledger's database is not available: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// The process is shutting down.
    #[error("the ledger is closing; try again on the next process")]
    Closing,
}
