//! The one way to change durable state: propose entries to the ledger.
//!
//! [`Ledger::commit`] decides the order, checks what each proposal requires at that moment, makes the accepted
//! entries durable and only then answers. Everything that can be asked of the authority (who has which
//! certificate, which token is spent, what is revoked) is a pure function of the entries, kept as the read
//! model: a set of ordered keys and values that can be thrown away and rebuilt.
//!
//! [`embedded`] is the backend for one process and one directory, [`postgres`] the one for many replicas on one
//! database. The crate does not know what makes a
//! certificate valid or who may ask for one; it trusts its caller to propose only what was decided, and its
//! directory to nobody else: see docs/TRUST.md.

// The tests' workload names this crate as others do.
#[cfg(test)]
extern crate self as chancery_ledger;

mod copy;
pub mod embedded;
mod lease;
mod model;
pub mod postgres;
mod proposal;
mod scratch;
mod sequence;

pub use copy::{CopyError, copy_log};
pub use embedded::{CheckError, CheckReport, EmbeddedLedger, OpenError, Options};
pub use lease::{Lease, Leases, Turn, Turns};
pub use model::change::{ChangeRecord, ChangeState, change_name, change_number};
pub use model::query::{IdentityQuery, Page, PageRequest};
pub use model::record::{
    CertificateRecord, CertificateState, CrlDivisionRecord, CrlRecord, IdentityRecord, IssuerRecord,
    IssuerState, IssuerTaintRecord, KeyRecord, LineageRecord, RevokedCertificate, StatusSetRecord,
    TemplateRecord, TokenRecord, TokenState, WishRecord,
};
pub use model::search::{CertificateQuery, StateFilter};
pub use model::{ModelError, ReadModel};
pub use postgres::{
    Fence, PostgresError, PostgresLedger, PostgresLogWriter, PostgresOptions, PostgresReport, check_address,
};
pub use proposal::{CommitError, Conflict, Outcome, Precondition, Proposal, Standing};
pub use scratch::Scratch;

use std::sync::Arc;

use async_trait::async_trait;
use chancery_entry::Entry;
use chancery_merkle::SignedNote;
use chancery_types::{Digest, IssuerEpoch};

/// The size and the root of the log at a moment when everything in it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Entries.
    pub size: u64,
    /// RFC 6962 root hash.
    pub root: Digest,
}

/// A signature that was made over a recorded TBS, to be kept beside its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedSignature {
    /// Index of the issuance entry.
    pub index: u64,
    /// The signature's bytes as they stand in the certificate.
    pub signature: Vec<u8>,
}

/// A committed entry that changes how something stands.
#[derive(Debug, Clone)]
pub struct News {
    /// Its place in the log.
    pub index: u64,
    /// What it says.
    pub entry: Arc<Entry>,
}

/// Why a read from the ledger failed: the disk or its contents, never the question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ledger cannot be read: {0}")]
pub struct ReadError(pub String);

pub(crate) fn read_error(error: impl std::fmt::Display) -> ReadError {
    ReadError(error.to_string())
}

/// The ledger as its callers see it. Every backend passes the same conformance suite.
#[async_trait]
pub trait Ledger: ReadModel + Leases {
    /// Appends what still holds, in order; refuses the rest with a reason. Durable on return.
    ///
    /// # Errors
    /// [`CommitError`] when nothing could be made durable; then none of the proposals was accepted.
    async fn commit(&self, proposals: Vec<Proposal>) -> Result<Vec<Outcome>, CommitError>;

    /// Keeps signatures beside the entries that promised them. Best effort: written at once, synced soon.
    ///
    /// # Errors
    /// [`CommitError`] when they could not be written.
    async fn keep_signatures(&self, signatures: Vec<IssuedSignature>) -> Result<(), CommitError>;

    /// Serial counters of an issuer that nobody else has or will get, above every recorded one: so many from this one
    /// on. What is not recorded afterwards is lost, which the revocation set can bear.
    ///
    /// # Errors
    /// [`CommitError`] when they could not be reserved.
    async fn reserve_counters(&self, epoch: IssuerEpoch, count: u64) -> Result<u64, CommitError>;

    /// The durable head.
    fn head(&self) -> Head;

    /// A number that moves, before the commit returns, whenever something that was recorded earlier may have come to
    /// stand otherwise: a revocation, a hold, a release, a change to an identity. What was read of certificates and
    /// identities after asking for it (but for the generation of a lineage) holds as long as it is the same.
    fn standing_epoch(&self) -> u64;

    /// What changes from now on in how things stand, in the log's order; by the time it is told, the read model has
    /// it, and by the time [`Self::head`] has it, it is told. Who listens too slowly is told that it missed some, and
    /// looks for itself.
    fn news(&self) -> tokio::sync::broadcast::Receiver<News>;

    /// The signed checkpoint of a durable head, the current one.
    ///
    /// # Errors
    /// [`ReadError`] when the checkpoint key fails.
    fn checkpoint(&self) -> Result<SignedNote, ReadError>;

    /// The bytes of one entry.
    ///
    /// # Errors
    /// [`ReadError`]; an index at or past the head is `None`.
    async fn entry(&self, index: u64) -> Result<Option<Vec<u8>>, ReadError>;

    /// Entries `start .. start + count`, fewer at the end of the log.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn entries(&self, start: u64, count: usize) -> Result<Vec<Vec<u8>>, ReadError>;

    /// The same for an export: perhaps from a copy of the log that others do not wait for.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn entries_at_leisure(&self, start: u64, count: usize) -> Result<Vec<Vec<u8>>, ReadError> {
        self.entries(start, count).await
    }

    /// The signature kept beside an issuance entry.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn signature(&self, index: u64) -> Result<Option<Vec<u8>>, ReadError>;

    /// The signatures kept beside entries `start .. start + count`, by rising index.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn signatures(&self, start: u64, count: usize) -> Result<Vec<IssuedSignature>, ReadError> {
        let end = self.head().size.min(start.saturating_add(count as u64));
        let mut found = Vec::new();
        for index in start..end {
            if let Some(signature) = self.signature(index).await? {
                found.push(IssuedSignature { index, signature });
            }
        }
        Ok(found)
    }

    /// Hashes `start .. start + count` of a tile level: see [`chancery_merkle::HashReader`].
    ///
    /// # Errors
    /// [`ReadError`], also when the range is not complete yet.
    async fn hashes(&self, level: u8, start: u64, count: usize) -> Result<Vec<Digest>, ReadError>;

    /// The inclusion proof of an entry in the tree of this size.
    ///
    /// # Errors
    /// [`ReadError`], also when `index < size <= head` does not hold.
    async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, ReadError>;

    /// The proof that the tree of one size is a prefix of the tree of another.
    ///
    /// # Errors
    /// [`ReadError`], also when `old <= new <= head` does not hold.
    async fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Digest>, ReadError>;

    /// What this process shares with others on the same ledger beside it; nothing where it is alone.
    fn scratch(&self) -> Option<&dyn Scratch>;

    /// Why nothing can be recorded at this moment: for ever in this process ([`CommitError::Halted`]), or for now.
    fn trouble(&self) -> Option<CommitError>;

    /// How often this process has made something durable since the ledger was opened.
    fn syncs(&self) -> u64;

    /// How many questions copies of the ledger have answered in its stead since it was opened.
    fn answered_by_standbys(&self) -> u64 {
        0
    }

    /// Ends the log at this place: from the returned head on nothing is recorded here any more, by whichever process,
    /// now or later. For a log that goes on elsewhere; `why` is what is told to those who try.
    ///
    /// # Errors
    /// [`CommitError`] when that could not be made durable.
    async fn end(&self, why: &str) -> Result<Head, CommitError>;

    /// Waits until everything accepted is answered and safe, then stops. Dropping does the same.
    fn close(&self);
}
