//! The read model: a pure function of the entries, kept as ordered keys and values.
//!
//! One byte names the table, the key follows. [`apply`] says what an entry changes, [`check`] whether a
//! precondition holds; both read through a [`View`], so that the sequencer sees what it has accepted but not
//! yet indexed. No value here is worth a backup.

pub(crate) mod apply;
pub(crate) mod batch_view;
pub(crate) mod change;
pub(crate) mod check;
pub(crate) mod merge;
pub(crate) mod query;
pub(crate) mod record;
pub(crate) mod search;
pub(crate) mod taken;
pub(crate) mod tidy;

use std::collections::BTreeMap;

use async_trait::async_trait;
use chancery_types::{CrlShard, Digest, IssuerEpoch, LineageId, SerialNumber, SpiffeId, Timestamp, TokenId};

use change::ChangeRecord;
use query::{IdentityQuery, Page, PageRequest};
use record::{
    CertificateRecord, CrlDivisionRecord, CrlRecord, IdentityRecord, IssuerRecord, KeyRecord, LineageRecord,
    RevokedCertificate, StatusSetRecord, TemplateRecord, TokenRecord, WishRecord,
};
use search::CertificateQuery;

/// Why the read model could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The engine or the disk under it failed.
    #[error("the read model's engine failed: {0}")]
    Engine(String),
    /// A value is not one that this program writes: the index does not belong to this journal or this version.
    #[error("the read model holds a malformed {table} record; run `chancery ledger rebuild`")]
    Malformed {
        /// The table.
        table: &'static str,
    },
}

/// One table of the read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Table {
    /// serial -> record
    Certificate = b'c',
    /// bucket, hash of the identity, serial
    CertificateByIdentity = b'i',
    /// bucket, hash of the key, serial
    CertificateByKey = b'k',
    /// bucket, hash of the node, serial
    CertificateByNode = b'w',
    /// notAfter, serial
    CertificateByExpiry = b'e',
    /// lineage -> head; lineage, serial -> notAfter of a certificate before the latest
    Lineage = b'l',
    Revoked = b'r',
    Identity = b'd',
    Template = b't',
    Token = b'j',
    Issuer = b'n',
    /// purpose, hash -> the last entry about a root or a key
    Key = b'a',
    /// subject -> the last wish
    Wish = b'b',
    /// epoch -> the last full list; epoch, shard -> the last list of that part
    Crl = b'z',
    /// epoch, number of lists, base of their URLs -> index of the entry
    CrlDivision = b'x',
    /// the last version of the exact set
    StatusSet = b's',
    Profile = b'p',
    Policy = b'y',
    Idempotency = b'q',
    /// number -> record
    Change = b'o',
    /// number of a change, serial -> since when the change holds it
    ChangeHeld = b'h',
    /// number of a change -> certificates that it has changed
    ChangeCount = b'm',
    /// who -> certificates taken out of force lately, by environment
    Taken = b'u',
}

impl Table {
    /// The key of a record: the table's byte and these parts, one after the other.
    pub(crate) fn key(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
        key.push(self as u8);
        for part in parts {
            key.extend_from_slice(part);
        }
        key
    }
}

/// A key and what to set it to; `None` deletes.
pub(crate) type Write = (Vec<u8>, Option<Vec<u8>>);

/// What an entry, or several, change.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// In no particular order.
    pub(crate) pairs: Vec<Write>,
    /// Keys that are added to the search indexes: without values, and read by no precondition. What takes one away is
    /// among the pairs, and wins over what adds it.
    pub(crate) search: Vec<search::SearchKey>,
}

impl From<Vec<Write>> for Changes {
    fn from(pairs: Vec<Write>) -> Self {
        Self { pairs, search: Vec::new() }
    }
}

/// Keys and values in order.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Where the read model is read.
pub(crate) trait View {
    /// The value under a key.
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError>;

    /// At most `limit` pairs with `start <= key < end`, in ascending order.
    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, ModelError>;

    /// The last pair with `start <= key < end`.
    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError>;
}

/// The first key after every key that begins with this prefix.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// What can be asked of the ledger's current state.
#[async_trait]
pub trait ReadModel: Send + Sync + 'static {
    /// A certificate by its serial; one that was tidied away comes from the log.
    ///
    /// # Errors
    /// [`ModelError`], as for every method here.
    async fn certificate(&self, serial: SerialNumber) -> Result<Option<CertificateRecord>, ModelError>;

    /// Certificates that match, in the order of their serials; in the order of expiry where the query asks for
    /// nothing but times of expiry.
    async fn certificates(
        &self,
        query: &CertificateQuery,
        page: &PageRequest,
    ) -> Result<Page<CertificateRecord>, ModelError>;

    /// Certificates that ended before this moment and were not tidied away, in the order in which they ended.
    async fn ended(&self, before: Timestamp, page: &PageRequest) -> Result<Page<SerialNumber>, ModelError>;

    /// A lineage.
    async fn lineage(&self, lineage: LineageId) -> Result<Option<LineageRecord>, ModelError>;

    /// A lineage's certificates that had not expired when its latest was issued, the latest last.
    async fn living(&self, lineage: LineageId) -> Result<Vec<SerialNumber>, ModelError>;

    /// An identity by its name.
    async fn identity(&self, id: &SpiffeId) -> Result<Option<IdentityRecord>, ModelError>;

    /// Identities that match, by name.
    async fn identities(
        &self,
        query: &IdentityQuery,
        page: &PageRequest,
    ) -> Result<Page<IdentityRecord>, ModelError>;

    /// A template by its name.
    async fn template(&self, name: &str) -> Result<Option<TemplateRecord>, ModelError>;

    /// All templates, by name.
    async fn templates(&self) -> Result<Vec<TemplateRecord>, ModelError>;

    /// A join token by its public half.
    async fn token(&self, token: TokenId) -> Result<Option<TokenRecord>, ModelError>;

    /// Join tokens.
    async fn tokens(&self, page: &PageRequest) -> Result<Page<TokenRecord>, ModelError>;

    /// A change to many certificates, by its number.
    async fn change(&self, change: u64) -> Result<Option<ChangeRecord>, ModelError>;

    /// Changes to many certificates, in the order in which they were asked for.
    async fn changes(&self, page: &PageRequest) -> Result<Page<ChangeRecord>, ModelError>;

    /// What a change holds, by serial: what was released or revoked since is not among it.
    async fn held_by(&self, change: u64, page: &PageRequest) -> Result<Page<SerialNumber>, ModelError>;

    /// Certificates that this hand has taken out of force since this moment, by environment: revoked or held by its
    /// name, or by a change that it began without anybody's approval. A day back at most; to five minutes, rounded up.
    async fn taken(&self, by: &str, since: Timestamp) -> Result<BTreeMap<String, u64>, ModelError>;

    /// All issuers, by epoch.
    async fn issuers(&self) -> Result<Vec<IssuerRecord>, ModelError>;

    /// All roots and keys that entries speak of, those of one purpose together.
    async fn keys(&self) -> Result<Vec<KeyRecord>, ModelError>;

    /// What operators want of rotations, by subject.
    async fn wishes(&self) -> Result<Vec<WishRecord>, ModelError>;

    /// The highest serial counter that this issuer has recorded.
    async fn last_counter(&self, epoch: IssuerEpoch) -> Result<Option<u64>, ModelError>;

    /// What a full list of this issuer must hold: everything revoked or held and not expired at this time, by
    /// serial.
    async fn revoked(
        &self,
        epoch: IssuerEpoch,
        now: Timestamp,
    ) -> Result<Vec<RevokedCertificate>, ModelError>;

    /// The last full list published for this issuer, or the last of one of its parts.
    async fn last_crl(
        &self,
        epoch: IssuerEpoch,
        shard: Option<CrlShard>,
    ) -> Result<Option<CrlRecord>, ModelError>;

    /// How this issuer's certificates were ever divided among lists, by number of lists.
    async fn crl_divisions(&self, epoch: IssuerEpoch) -> Result<Vec<CrlDivisionRecord>, ModelError>;

    /// The version of the exact set that was recorded last.
    async fn last_status_set(&self) -> Result<Option<StatusSetRecord>, ModelError>;

    /// The certificate that an idempotency hash belongs to.
    async fn idempotent(&self, hash: Digest) -> Result<Option<SerialNumber>, ModelError>;

    /// Index of the entry that brought this profile text into force.
    async fn profile(&self, hash: Digest) -> Result<Option<u64>, ModelError>;

    /// Indexes of the entries that brought this policy set into force.
    async fn policy(&self, hash: Digest) -> Result<Vec<u64>, ModelError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_lies_right_after_it() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(&[1, 255, 255]), vec![2]);
        assert!(prefix_end(&[255, 255]).is_empty());
    }
}
