//! Searching certificates.

use std::collections::HashMap;

use chancery_types::{Digest, IssuerEpoch, LineageId, SerialNumber, SpiffeId, Timestamp};

use super::query::{self, Page, PageRequest, Walk, serial_at_end};
use super::record::{CertificateRecord, CertificateState};
use super::{ModelError, Table, View, prefix_end};

/// Which certificates are meant: everything given must hold.
#[derive(Debug, Clone, Default)]
pub struct CertificateQuery {
    /// Those that name this identity.
    pub identity: Option<SpiffeId>,
    /// Those of this lineage.
    pub lineage: Option<LineageId>,
    /// Those with this public key (SHA-256 of the SPKI).
    pub key: Option<Digest>,
    /// Those that the agent of this node asked for on behalf of processes.
    pub node: Option<SpiffeId>,
    /// Those of this issuer.
    pub issuer: Option<IssuerEpoch>,
    /// Those whose counter is higher than that of this serial, of the same issuer.
    pub issued_after: Option<SerialNumber>,
    /// Those whose identity has this owner. Needs the identities' documents, so it is the slow one.
    pub owner: Option<String>,
    /// Those that stand so.
    pub state: Option<StateFilter>,
    /// Those with notAfter before this.
    pub expires_before: Option<Timestamp>,
    /// Those with notAfter at or after this.
    pub expires_after: Option<Timestamp>,
    /// Whether an answer will do that is a moment old. Never where something is decided by it.
    pub may_lag: bool,
}

/// How a certificate stands, as a search asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFilter {
    /// Neither held nor revoked.
    Good,
    /// Held.
    Held,
    /// Revoked.
    Revoked,
}

/// Certificates that match. In the order of their serials, but for a search by expiry alone, which is in the
/// order of expiry.
pub(crate) fn certificates(
    view: &dyn View,
    query: &CertificateQuery,
    page: &PageRequest,
) -> Result<Page<CertificateRecord>, ModelError> {
    let mut owners = OwnerFilter { wanted: query.owner.as_deref(), known: HashMap::new() };
    let mut pick = |key: &[u8], _: &[u8]| {
        let Some(record) = query::certificate(view, serial_at_end(key)?)? else { return Ok(None) };
        Ok(if query.matches(&record) && owners.admits(view, &record)? { Some(record) } else { None })
    };
    match query.path(view)? {
        Path::Nowhere => Ok(Page { items: Vec::new(), next: None }),
        Path::Range(start, end) => Walk::new(view, page).range(&start, &end, &mut pick),
        Path::Buckets(index) => index.walk(view, page, &mut pick),
    }
}

/// The narrowest part of the model that holds every match.
enum Path {
    Nowhere,
    Range(Vec<u8>, Vec<u8>),
    Buckets(Buckets),
}

impl CertificateQuery {
    fn path(&self, view: &dyn View) -> Result<Path, ModelError> {
        if let Some(last) = self.issued_after {
            let (_, end) = query::of_issuer(Table::Certificate, last.epoch());
            let next = SerialNumber::compose(last.epoch(), last.counter() + 1, [0; 8]);
            return Ok(next
                .map_or(Path::Nowhere, |next| Path::Range(Table::Certificate.key(&[next.as_bytes()]), end)));
        }
        if let Some(key) = &self.key {
            return Ok(Path::Buckets(by_key(key)));
        }
        if let Some(identity) = &self.identity {
            return Ok(Path::Buckets(by_identity(identity)));
        }
        if let Some(lineage) = self.lineage {
            // All certificates of a lineage name one identity. The latest may have been tidied away before others.
            let Some(head) = query::lineage_head(view, lineage)? else { return Ok(Path::Nowhere) };
            for serial in query::living(view, lineage, &head)?.into_iter().rev() {
                if let Some(record) = query::certificate(view, serial)? {
                    return Ok(Path::Buckets(by_identity(&record.identity)));
                }
            }
            return Ok(Path::Nowhere);
        }
        if let Some(node) = &self.node {
            return Ok(Path::Buckets(by_node(node.as_str())));
        }
        if self.state.is_some_and(|state| state != StateFilter::Good) {
            return Ok(whole(Table::Revoked));
        }
        if let Some(epoch) = self.issuer {
            let (start, end) = query::of_issuer(Table::Certificate, epoch);
            return Ok(Path::Range(start, end));
        }
        if self.expires_before.is_none() && self.expires_after.is_none() {
            return Ok(whole(Table::Certificate));
        }
        let bound = |time: Timestamp| Table::CertificateByExpiry.key(&[&time.millis().to_be_bytes()]);
        let start = self.expires_after.map_or_else(|| Table::CertificateByExpiry.key(&[]), bound);
        let last = prefix_end(&[Table::CertificateByExpiry as u8]);
        Ok(Path::Range(start, self.expires_before.map_or(last, bound)))
    }

    fn matches(&self, record: &CertificateRecord) -> bool {
        let state = match record.state {
            CertificateState::Good => StateFilter::Good,
            CertificateState::Held { .. } => StateFilter::Held,
            CertificateState::Revoked { .. } => StateFilter::Revoked,
        };
        self.identity.as_ref().is_none_or(|id| *id == record.identity)
            && self.lineage.is_none_or(|lineage| lineage == record.lineage)
            && self.key.is_none_or(|key| key == record.key)
            && self.node.as_ref().is_none_or(|node| Some(node) == record.node.as_ref())
            && self.issuer.is_none_or(|epoch| epoch == record.serial.epoch())
            && self.state.is_none_or(|wanted| wanted == state)
            && self.expires_before.is_none_or(|time| record.not_after < time)
            && self.expires_after.is_none_or(|time| record.not_after >= time)
    }
}

fn whole(table: Table) -> Path {
    let start = table.key(&[]);
    let end = prefix_end(&start);
    Path::Range(start, end)
}

/// Remembers which identities belong to the owner asked for.
struct OwnerFilter<'a> {
    wanted: Option<&'a str>,
    known: HashMap<SpiffeId, bool>,
}

impl OwnerFilter<'_> {
    fn admits(&mut self, view: &dyn View, record: &CertificateRecord) -> Result<bool, ModelError> {
        let Some(wanted) = self.wanted else { return Ok(true) };
        if let Some(known) = self.known.get(&record.identity) {
            return Ok(*known);
        }
        let found = query::identity(view, &record.identity)?;
        let is_theirs = found.is_some_and(|found| found.identity.owner == wanted);
        self.known.insert(record.identity.clone(), is_theirs);
        Ok(is_theirs)
    }
}

/// A key of a search index: the table's byte, what is searched for, and the serial. Without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SearchKey([u8; Self::LONGEST]);

impl SearchKey {
    /// table | bucket | hash | serial
    const LONGEST: usize = 1 + BUCKET + HASH + SerialNumber::LENGTH;
    /// table | time | serial
    const BY_EXPIRY: usize = 1 + 8 + SerialNumber::LENGTH;

    fn new(table: Table, parts: &[&[u8]]) -> Self {
        let mut bytes = [0; Self::LONGEST];
        bytes[0] = table as u8;
        let mut at = 1;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Self(bytes)
    }

    /// Whether a key of the read model belongs to a search index.
    pub(crate) fn is_one(key: &[u8]) -> bool {
        let tables = [
            Table::CertificateByIdentity,
            Table::CertificateByKey,
            Table::CertificateByNode,
            Table::CertificateByExpiry,
        ];
        key.first().is_some_and(|first| tables.iter().any(|table| *table as u8 == *first))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        let is_by_expiry = self.0[0] == Table::CertificateByExpiry as u8;
        &self.0[..if is_by_expiry { Self::BY_EXPIRY } else { Self::LONGEST }]
    }
}

/// Everything that finds a certificate.
pub(crate) fn keys(record: &CertificateRecord) -> Vec<SearchKey> {
    let serial = record.serial;
    let mut keys = Vec::with_capacity(4);
    keys.push(by_identity(&record.identity).key(serial));
    keys.push(by_key(&record.key).key(serial));
    keys.push(by_expiry(record.not_after, serial));
    keys.extend(record.node.as_ref().map(|node| by_node(node.as_str()).key(serial)));
    keys
}

/// Finds a certificate by the time at which it expires.
pub(crate) fn by_expiry(not_after: Timestamp, serial: SerialNumber) -> SearchKey {
    SearchKey::new(Table::CertificateByExpiry, &[&not_after.millis().to_be_bytes(), serial.as_bytes()])
}

/// An index by a hash, in buckets of certificates with neighbouring serials.
///
/// Keys by hash alone would scatter every batch over the whole index: each certificate would cost a page to
/// read, copy and write for each such index, more as the log grows. Within the current bucket they stay close
/// together, and a search asks each bucket: one for every 262,144 certificates ever issued.
///
/// Eight bytes of the hash find, the record decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buckets {
    table: Table,
    hash: [u8; HASH],
}

/// Counter bits inside one bucket.
const BUCKET_BITS: u32 = 18;
/// Issuer epoch (2), counter without its low bits (4).
const BUCKET: usize = 6;
/// Bytes of the hash.
const HASH: usize = 8;

pub(crate) fn by_identity(identity: &SpiffeId) -> Buckets {
    Buckets::new(Table::CertificateByIdentity, &Digest::of(identity.as_str().as_bytes()))
}

pub(crate) fn by_key(key: &Digest) -> Buckets {
    Buckets::new(Table::CertificateByKey, key)
}

pub(crate) fn by_node(node: &str) -> Buckets {
    Buckets::new(Table::CertificateByNode, &Digest::of(node.as_bytes()))
}

impl Buckets {
    fn new(table: Table, hash: &Digest) -> Self {
        let mut first = [0; HASH];
        first.copy_from_slice(&hash.as_bytes()[..HASH]);
        Self { table, hash: first }
    }

    pub(crate) fn key(&self, serial: SerialNumber) -> SearchKey {
        let high = u32::try_from(serial.counter() >> BUCKET_BITS).expect("a counter has 48 bits");
        let (epoch, high) = (serial.epoch().0.to_be_bytes(), high.to_be_bytes());
        SearchKey::new(self.table, &[&epoch, &high, &self.hash, serial.as_bytes()])
    }

    fn walk<T>(
        &self,
        view: &dyn View,
        page: &PageRequest,
        pick: &mut dyn FnMut(&[u8], &[u8]) -> Result<Option<T>, ModelError>,
    ) -> Result<Page<T>, ModelError> {
        let table_end = prefix_end(&[self.table as u8]);
        let mut walk = Walk::new(view, page);
        let mut from = self.table.key(&[]);
        if let Some(after) = page.after.as_ref().filter(|after| after.starts_with(&from)) {
            from.clone_from(after);
        }
        // One look finds the next bucket that there is, another reads this hash's part of it.
        while let Some((found, _)) = view.scan(&from, &table_end, 1)?.pop() {
            let Some(bucket) = found.get(1..=BUCKET) else {
                return Err(ModelError::Malformed { table: "index" });
            };
            let start = self.table.key(&[bucket, &self.hash]);
            if let Some(page) = walk.part(&start, &prefix_end(&start), pick)? {
                return Ok(page);
            }
            from = prefix_end(&self.table.key(&[bucket]));
        }
        Ok(walk.end())
    }
}
