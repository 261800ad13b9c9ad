//! What changed from one version of the set to another.

use std::collections::BTreeMap;
use std::iter::Peekable;

use bytes::Bytes;
use chancery_types::{Digest, IssuerEpoch, Timestamp};

use crate::list::{self, Counters};
use crate::set::{self, BuildError, ExactSet, Fields, MAX_ISSUERS, MAX_SET_BYTES, SetBuilder, SetError};

/// What a delta begins with; the version is the last byte.
const MAGIC: [u8; 8] = *b"chandlt\x01";
/// Magic, length, both sequences, the new time (8 bytes each), both hashes (32 each), issuers (4).
const HEADER: usize = 108;
/// Epoch (2), kind (1), counters removed and added (4 each), where the two lists begin (8 each).
const ROW: usize = 27;

/// Why a delta cannot be read, made or applied. The set that one has stays as it is: fetch the whole new one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// Not a delta, or a damaged one.
    #[error("the delta cannot be read: {0}")]
    Format(#[from] SetError),
    /// A row that nobody writes.
    #[error("the delta is damaged at row {row}: {what}")]
    Row {
        /// Counted from 0.
        row: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// It leads back, or nowhere.
    #[error("a delta leads to a later version, not from {from} to {to}")]
    Order {
        /// Sequence of the old set.
        from: u64,
        /// Sequence of the new set.
        to: u64,
    },
    /// It belongs to another set than the one that is there.
    #[error("the delta is for the set {expected} at {from}, the set here is {found}")]
    Base {
        /// Sequence of the set it is for.
        from: u64,
        /// SHA-256 of the set it is for.
        expected: Digest,
        /// SHA-256 of the set here.
        found: Digest,
    },
    /// It removes what is not there, or adds what is.
    #[error("the delta does not fit at issuer {0}")]
    Fit(IssuerEpoch),
    /// The result is not the set that was promised.
    #[error("the delta was to make the set {expected}, and made {found}")]
    Result {
        /// SHA-256 that the delta promises.
        expected: Digest,
        /// SHA-256 of what it made.
        found: Digest,
    },
    /// The result is no set.
    #[error("the delta makes no set: {0}")]
    Build(#[from] BuildError),
}

/// What happened to an issuer between two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is in both.
    Kept,
    /// It is in the new one only.
    New,
    /// It is in the old one only, and has gone with all its counters.
    Gone,
}

/// The way from one version of the set to another. Applied to the one, it makes the other to the byte.
///
/// A delta is not signed: the signature that comes with it is of the set that it makes.
#[derive(Debug, Clone)]
pub struct Delta {
    bytes: Bytes,
    from: u64,
    sequence: u64,
    made: Timestamp,
    from_hash: Digest,
    hash: Digest,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    epoch: IssuerEpoch,
    kind: Kind,
    removed: Span,
    added: Span,
}

/// A list: `bytes[start..end]` of the delta.
#[derive(Debug, Clone, Copy)]
struct Span {
    count: usize,
    start: usize,
    end: usize,
}

impl Delta {
    /// The delta between two versions.
    ///
    /// # Errors
    /// [`DeltaError::Order`] when the second is not later than the first; [`DeltaError::Build`] past the limits.
    pub fn between(old: &ExactSet, new: &ExactSet) -> Result<Self, DeltaError> {
        if new.sequence() <= old.sequence() {
            return Err(DeltaError::Order { from: old.sequence(), to: new.sequence() });
        }
        let changes = changes(old, new)?;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC);
        let lists = HEADER + ROW * changes.len();
        let length = lists + changes.iter().map(|one| one.removed.1.len() + one.added.1.len()).sum::<usize>();
        if length > MAX_SET_BYTES {
            return Err(BuildError::TooLarge.into());
        }
        let made = new.made().millis().cast_unsigned();
        for field in [length as u64, old.sequence(), new.sequence(), made] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(old.hash().as_bytes());
        bytes.extend_from_slice(new.hash().as_bytes());
        bytes
            .extend_from_slice(&u32::try_from(changes.len()).expect("there are 65,536 epochs").to_le_bytes());
        let mut start = lists as u64;
        for change in &changes {
            bytes.extend_from_slice(&change.epoch.0.to_le_bytes());
            bytes.push(change.kind.byte());
            bytes.extend_from_slice(&change.removed.0.to_le_bytes());
            bytes.extend_from_slice(&change.added.0.to_le_bytes());
            for list in [&change.removed.1, &change.added.1] {
                bytes.extend_from_slice(&start.to_le_bytes());
                start += list.len() as u64;
            }
        }
        changes.iter().for_each(|change| {
            bytes.extend_from_slice(&change.removed.1);
            bytes.extend_from_slice(&change.added.1);
        });
        Self::parse(bytes.into())
    }

    /// Reads a delta, and checks every bit of it.
    ///
    /// # Errors
    /// [`DeltaError::Format`], [`DeltaError::Row`], [`DeltaError::Order`].
    pub fn parse(bytes: Bytes) -> Result<Self, DeltaError> {
        let stated = stated_length(&bytes)?;
        if stated != bytes.len() {
            return Err(SetError::Length { stated: stated as u64, found: bytes.len() }.into());
        }
        let mut header = Fields(&bytes[16..]);
        let (from, sequence, made) = (header.u64(), header.u64(), header.u64());
        let time =
            i64::try_from(made).ok().map(Timestamp::from_millis).filter(|made| *made <= Timestamp::MAX);
        let made = time.ok_or(SetError::Time(made))?;
        let (from_hash, hash) = (Digest::from_array(header.array()), Digest::from_array(header.array()));
        let issuers = header.u32() as usize;
        if sequence <= from {
            return Err(DeltaError::Order { from, to: sequence });
        }
        let rows = read_table(&bytes, issuers)?;
        Ok(Self { bytes, from, sequence, made, from_hash, hash, rows })
    }

    /// Makes the new set out of the old one.
    ///
    /// # Errors
    /// [`DeltaError`] when the set is another than the one the delta is for, or the result another than promised.
    pub fn apply(&self, old: &ExactSet) -> Result<ExactSet, DeltaError> {
        if old.sequence() != self.from || old.hash() != self.from_hash {
            let (expected, found) = (self.from_hash, old.hash());
            return Err(DeltaError::Base { from: self.from, expected, found });
        }
        let mut changes: BTreeMap<IssuerEpoch, &Row> = self.rows.iter().map(|row| (row.epoch, row)).collect();
        let mut builder = SetBuilder::new(self.sequence, self.made);
        for epoch in old.issuers() {
            let counters = old.counters(epoch).into_iter().flat_map(|list| list.iter());
            match changes.remove(&epoch) {
                None => builder.issuer(epoch, counters)?,
                Some(row) if row.kind == Kind::Gone => {}
                Some(row) if row.kind == Kind::New => return Err(DeltaError::Fit(epoch)),
                Some(row) => {
                    let mut merged = Merge::new(counters, self.iter(row.removed), self.iter(row.added));
                    builder.issuer(epoch, merged.by_ref())?;
                    if !merged.fits() {
                        return Err(DeltaError::Fit(epoch));
                    }
                }
            }
        }
        for (epoch, row) in changes {
            if row.kind != Kind::New {
                return Err(DeltaError::Fit(epoch));
            }
            builder.issuer(epoch, self.iter(row.added))?;
        }
        let new = builder.build()?;
        match new.hash() == self.hash {
            true => Ok(new),
            false => Err(DeltaError::Result { expected: self.hash, found: new.hash() }),
        }
    }

    /// Sequence of the set that it is for.
    #[must_use]
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Sequence of the set that it makes.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// SHA-256 of the set that it is for.
    #[must_use]
    pub fn from_hash(&self) -> Digest {
        self.from_hash
    }

    /// SHA-256 of the set that it makes.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Counters removed and added, of issuers that are in both sets or in the new one.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.rows.iter().fold((0, 0), |sum, row| (sum.0 + row.removed.count, sum.1 + row.added.count))
    }

    fn iter(&self, span: Span) -> impl Iterator<Item = u64> + '_ {
        Counters::new(span.count, &self.bytes[span.start..span.end]).into_iter().flat_map(|list| list.iter())
    }
}

impl Kind {
    fn byte(self) -> u8 {
        self as u8
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Kept, Self::New, Self::Gone].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// How many of the bytes are the delta; the rest is the new set's signature.
pub(crate) fn stated_length(bytes: &[u8]) -> Result<usize, SetError> {
    set::stated_length_of(bytes, &MAGIC, HEADER)
}

/// A row, not yet written.
struct Change {
    epoch: IssuerEpoch,
    kind: Kind,
    removed: (u32, Vec<u8>),
    added: (u32, Vec<u8>),
}

fn changes(old: &ExactSet, new: &ExactSet) -> Result<Vec<Change>, DeltaError> {
    let mut epochs: Vec<IssuerEpoch> = old.issuers().chain(new.issuers()).collect();
    epochs.sort_unstable();
    epochs.dedup();
    let mut changes = Vec::new();
    for epoch in epochs {
        let write = |counters: &mut dyn Iterator<Item = u64>| {
            list::write(counters).map_err(|_| DeltaError::Build(BuildError::TooLarge))
        };
        let nothing = (0, Vec::new());
        let (kind, removed, added) = match (old.counters(epoch), new.counters(epoch)) {
            (Some(before), Some(after)) => {
                let removed = write(&mut Without::new(before.iter(), after.iter()))?;
                let added = write(&mut Without::new(after.iter(), before.iter()))?;
                if removed.0 == 0 && added.0 == 0 {
                    continue;
                }
                (Kind::Kept, removed, added)
            }
            (None, Some(after)) => (Kind::New, nothing, write(&mut after.iter())?),
            (_, None) => (Kind::Gone, nothing.clone(), nothing),
        };
        changes.push(Change { epoch, kind, removed, added });
    }
    Ok(changes)
}

fn read_table(bytes: &[u8], issuers: usize) -> Result<Vec<Row>, DeltaError> {
    let lists = HEADER + ROW * issuers.min(MAX_ISSUERS);
    if issuers > MAX_ISSUERS || lists > bytes.len() {
        return Err(DeltaError::Row { row: 0, what: "the table is longer than the delta" });
    }
    let mut rows: Vec<Row> = Vec::with_capacity(issuers);
    for at in 0..issuers {
        let damaged = |what| DeltaError::Row { row: at, what };
        let mut fields = Fields(&bytes[HEADER + ROW * at..]);
        let (epoch, [kind]) = (IssuerEpoch(fields.u16()), fields.array());
        let kind = Kind::from_byte(kind).ok_or(damaged("a kind that is not 0, 1 or 2"))?;
        let (removed, added) = (fields.u32() as usize, fields.u32() as usize);
        let [removed_start, added_start] =
            [fields.u64(), fields.u64()].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        let expected = rows.last_mut().map(|before| &mut before.added.end);
        match expected {
            Some(end) => *end = removed_start,
            None if removed_start != lists => {
                return Err(damaged("the first list does not follow the table"));
            }
            None => {}
        }
        if rows.last().is_some_and(|before| before.epoch >= epoch) {
            return Err(damaged("issuers do not rise"));
        }
        if !kind_allows(kind, removed, added) {
            return Err(damaged("counters that its kind does not have"));
        }
        let removed = Span { count: removed, start: removed_start, end: added_start };
        let added = Span { count: added, start: added_start, end: bytes.len() };
        rows.push(Row { epoch, kind, removed, added });
    }
    if rows.is_empty() && bytes.len() != lists {
        return Err(DeltaError::Row { row: 0, what: "bytes follow, and there is no issuer" });
    }
    for (at, row) in rows.iter().enumerate() {
        for span in [row.removed, row.added] {
            let damaged = |what| DeltaError::Row { row: at, what };
            let list = bytes.get(span.start..span.end).and_then(|list| Counters::new(span.count, list));
            list.ok_or(damaged("a list lies outside of the delta"))?.check().map_err(damaged)?;
        }
    }
    Ok(rows)
}

fn kind_allows(kind: Kind, removed: usize, added: usize) -> bool {
    match kind {
        Kind::Kept => removed > 0 || added > 0,
        Kind::New => removed == 0,
        Kind::Gone => removed == 0 && added == 0,
    }
}

/// What of one rising list is not in another.
struct Without<A: Iterator<Item = u64>, B: Iterator<Item = u64>> {
    list: A,
    without: Peekable<B>,
}

impl<A: Iterator<Item = u64>, B: Iterator<Item = u64>> Without<A, B> {
    fn new(list: A, without: B) -> Self {
        Self { list, without: without.peekable() }
    }
}

impl<A: Iterator<Item = u64>, B: Iterator<Item = u64>> Iterator for Without<A, B> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let next = self.list.next()?;
            while self.without.next_if(|other| *other < next).is_some() {}
            if self.without.next_if_eq(&next).is_none() {
                return Some(next);
            }
        }
    }
}

/// A rising list without some of its counters and with others.
struct Merge<A: Iterator<Item = u64>, B: Iterator<Item = u64>, C: Iterator<Item = u64>> {
    list: Peekable<A>,
    removed: Peekable<B>,
    added: Peekable<C>,
}

impl<A: Iterator<Item = u64>, B: Iterator<Item = u64>, C: Iterator<Item = u64>> Merge<A, B, C> {
    fn new(list: A, removed: B, added: C) -> Self {
        Self { list: list.peekable(), removed: removed.peekable(), added: added.peekable() }
    }

    /// Whether everything was used: what was removed had been there. (What is added twice does not rise.)
    fn fits(&mut self) -> bool {
        self.list.peek().is_none() && self.removed.peek().is_none() && self.added.peek().is_none()
    }
}

impl<A: Iterator<Item = u64>, B: Iterator<Item = u64>, C: Iterator<Item = u64>> Iterator for Merge<A, B, C> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let next = match (self.list.peek(), self.added.peek()) {
                (Some(old), Some(new)) if new < old => return self.added.next(),
                (Some(_), _) => self.list.next()?,
                (None, _) => return self.added.next(),
            };
            if self.removed.next_if_eq(&next).is_none() {
                return Some(next);
            }
        }
    }
}
