//! The set itself: a header, a row for each issuer, a list of counters for each issuer.

use std::collections::BTreeMap;

use bytes::Bytes;
use chancery_types::{Digest, IssuerEpoch, SerialNumber, Timestamp};

use crate::list::{self, Counters, ListError};

/// The largest set that is read or made.
pub const MAX_SET_BYTES: usize = 1 << 30;
/// What a set begins with; the version is the last byte.
const MAGIC: [u8; 8] = *b"chanset\x01";
/// Magic, length, sequence, time (8 bytes each), issuers (4).
const HEADER: usize = 36;
/// Epoch (2), count (4), where the list begins (8).
const ROW: usize = 14;
/// An epoch has 16 bits.
pub(crate) const MAX_ISSUERS: usize = 1 << 16;

/// Why bytes are not an exact set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// Something else.
    #[error("this is not what it should be: it does not begin with the eight bytes of its kind")]
    Magic,
    /// A set of a later format.
    #[error("the set is of version {0}, version 1 is read; use a newer release")]
    Version(u8),
    /// More than is read.
    #[error("a set of {length} bytes; at most {limit} are read")]
    TooLong {
        /// What it says.
        length: u64,
        /// [`MAX_SET_BYTES`].
        limit: usize,
    },
    /// It was cut off, or something follows it.
    #[error("the set says that it has {stated} bytes, and has {found}")]
    Length {
        /// In the header.
        stated: u64,
        /// There are.
        found: usize,
    },
    /// A time that cannot be.
    #[error("the set was made at {0} milliseconds after 1970, which is no time")]
    Time(u64),
    /// Rows are missing, out of order, or lists do not follow one another.
    #[error("the table of issuers is damaged at row {row}: {what}")]
    Table {
        /// Counted from 0.
        row: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A list is not as its counters would be written.
    #[error("the list of issuer {epoch} is damaged: {what}")]
    List {
        /// Whose.
        epoch: IssuerEpoch,
        /// What is wrong.
        what: &'static str,
    },
}

/// Why no set can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// An issuer was given twice.
    #[error("issuer {0} is in the set already")]
    Twice(IssuerEpoch),
    /// Counters that do not rise strictly.
    #[error("the counters of issuer {epoch} do not rise strictly at {counter}")]
    Order {
        /// Whose.
        epoch: IssuerEpoch,
        /// The first that is not larger than the one before.
        counter: u64,
    },
    /// Not a counter.
    #[error("issuer {epoch}: a counter has at most 48 bits, not {counter:x}")]
    Counter {
        /// Whose.
        epoch: IssuerEpoch,
        /// What was given.
        counter: u64,
    },
    /// More than a set holds.
    #[error(
        "the set would be larger than {MAX_SET_BYTES} bytes; retire issuers whose certificates have ended"
    )]
    TooLarge,
    /// A time that cannot be written.
    #[error("no set is made at {0}")]
    Time(Timestamp),
}

/// How a certificate stands by a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its issuer is in the set, and it is not: it was good, or not yet issued, at the set's position.
    Good,
    /// Revoked or held.
    NotGood,
    /// The set says nothing about this issuer.
    UnknownIssuer,
}

/// Which certificates are not good, of which issuers, at one position of the log.
///
/// Parsed bytes are checked whole, so a set is what [`SetBuilder`] would make of the same facts, to the byte. Cloning
/// is cheap.
#[derive(Debug, Clone)]
pub struct ExactSet {
    bytes: Bytes,
    sequence: u64,
    made: Timestamp,
    rows: Vec<Row>,
    hash: Digest,
}

impl PartialEq for ExactSet {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for ExactSet {}

/// What the table says of an issuer; its list is `bytes[start..end]` of the set.
#[derive(Debug, Clone, Copy)]
struct Row {
    epoch: IssuerEpoch,
    count: usize,
    start: usize,
    end: usize,
}

impl ExactSet {
    /// Reads a set, which may lie in a mapped file, and checks every bit of it. Nobody has signed for it yet: see
    /// [`crate::SignedSet::open`].
    ///
    /// # Errors
    /// [`SetError`].
    pub fn parse(bytes: Bytes) -> Result<Self, SetError> {
        let stated = stated_length(&bytes)?;
        if stated != bytes.len() {
            return Err(SetError::Length { stated: stated as u64, found: bytes.len() });
        }
        let mut header = Fields(&bytes[16..]);
        let (sequence, made, issuers) = (header.u64(), header.u64(), header.u32());
        let made =
            i64::try_from(made).ok().map(Timestamp::from_millis).filter(|made| *made <= Timestamp::MAX);
        let made = made.ok_or(SetError::Time(u64_at(&bytes, 24)))?;
        let rows = read_table(&bytes, issuers as usize)?;
        let set = Self { sequence, made, rows, hash: Digest::of(&bytes), bytes };
        for row in &set.rows {
            let damaged = |what| SetError::List { epoch: row.epoch, what };
            let list = Counters::new(row.count, &set.bytes[row.start..row.end]);
            list.ok_or(damaged("its directory is cut off"))?.check().map_err(damaged)?;
        }
        Ok(set)
    }

    /// Where in the log this is right: a size of the log.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When it was made, by the clock of the authority.
    #[must_use]
    pub fn made(&self) -> Timestamp {
        self.made
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many certificates are not good.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.iter().map(|row| row.count).sum()
    }

    /// Whether every certificate of every issuer is good.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How a certificate stands, of whose issuer the caller has made sure that it is this authority.
    #[must_use]
    pub fn standing(&self, serial: SerialNumber) -> Standing {
        match self.counters(serial.epoch()) {
            None => Standing::UnknownIssuer,
            Some(counters) if counters.contains(serial.counter()) => Standing::NotGood,
            Some(_) => Standing::Good,
        }
    }

    /// Whether a certificate is named as not good. False also says nothing where the issuer is unknown:
    /// [`Self::standing`] tells the two apart.
    #[must_use]
    pub fn contains(&self, serial: SerialNumber) -> bool {
        self.standing(serial) == Standing::NotGood
    }

    /// Whether the set speaks about the certificates of an issuer.
    #[must_use]
    pub fn covers(&self, epoch: IssuerEpoch) -> bool {
        self.row(epoch).is_some()
    }

    /// The issuers that the set speaks about, rising.
    pub fn issuers(&self) -> impl Iterator<Item = IssuerEpoch> {
        self.rows.iter().map(|row| row.epoch)
    }

    /// The counters of an issuer's certificates that are not good; nothing for an unknown issuer.
    #[must_use]
    pub fn counters(&self, epoch: IssuerEpoch) -> Option<Counters<'_>> {
        let row = self.row(epoch)?;
        Counters::new(row.count, &self.bytes[row.start..row.end])
    }

    fn row(&self, epoch: IssuerEpoch) -> Option<&Row> {
        self.rows.binary_search_by_key(&epoch, |row| row.epoch).ok().map(|at| &self.rows[at])
    }
}

/// Puts a set together, issuer by issuer.
#[derive(Debug, Clone)]
pub struct SetBuilder {
    sequence: u64,
    made: Timestamp,
    lists: BTreeMap<IssuerEpoch, (u32, Vec<u8>)>,
}

impl SetBuilder {
    /// A set that is right at this position of the log, made now.
    #[must_use]
    pub fn new(sequence: u64, made: Timestamp) -> Self {
        Self { sequence, made, lists: BTreeMap::new() }
    }

    /// Adds an issuer with the counters of its certificates that are not good, strictly rising; there may be none.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn issuer(
        &mut self,
        epoch: IssuerEpoch,
        counters: impl IntoIterator<Item = u64>,
    ) -> Result<(), BuildError> {
        let list = list::write(counters).map_err(|error| match error {
            ListError::Order(counter) => BuildError::Order { epoch, counter },
            ListError::Counter(counter) => BuildError::Counter { epoch, counter },
            ListError::TooMany => BuildError::TooLarge,
        })?;
        match self.lists.insert(epoch, list) {
            None => Ok(()),
            Some(_) => Err(BuildError::Twice(epoch)),
        }
    }

    /// The set.
    ///
    /// # Errors
    /// [`BuildError::TooLarge`], [`BuildError::Time`].
    pub fn build(self) -> Result<ExactSet, BuildError> {
        let made = u64::try_from(self.made.millis()).ok().filter(|_| self.made <= Timestamp::MAX);
        let made = made.ok_or(BuildError::Time(self.made))?;
        let lists = HEADER + ROW * self.lists.len();
        let length = lists + self.lists.values().map(|(_, list)| list.len()).sum::<usize>();
        if length > MAX_SET_BYTES {
            return Err(BuildError::TooLarge);
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&MAGIC);
        for field in [length as u64, self.sequence, made] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        let issuers = u32::try_from(self.lists.len()).expect("there are 65,536 epochs");
        bytes.extend_from_slice(&issuers.to_le_bytes());
        let mut rows = Vec::with_capacity(self.lists.len());
        let mut start = lists;
        for (epoch, (count, list)) in &self.lists {
            bytes.extend_from_slice(&epoch.0.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&(start as u64).to_le_bytes());
            rows.push(Row { epoch: *epoch, count: *count as usize, start, end: start + list.len() });
            start += list.len();
        }
        self.lists.values().for_each(|(_, list)| bytes.extend_from_slice(list));
        let hash = Digest::of(&bytes);
        Ok(ExactSet { bytes: bytes.into(), sequence: self.sequence, made: self.made, rows, hash })
    }
}

/// How many of the bytes are the set; the rest is its signature.
pub(crate) fn stated_length(bytes: &[u8]) -> Result<usize, SetError> {
    stated_length_of(bytes, &MAGIC, HEADER)
}

/// The same for anything that begins with a magic and a length, and has a header of this many bytes.
pub(crate) fn stated_length_of(bytes: &[u8], magic: &[u8; 8], header: usize) -> Result<usize, SetError> {
    check_magic(bytes, magic)?;
    if bytes.len() < header {
        return Err(SetError::Length { stated: header as u64, found: bytes.len() });
    }
    let length = u64_at(bytes, 8);
    match usize::try_from(length) {
        Ok(short) if short < header => Err(SetError::Length { stated: length, found: bytes.len() }),
        Ok(length) if length <= MAX_SET_BYTES => Ok(length),
        _ => Err(SetError::TooLong { length, limit: MAX_SET_BYTES }),
    }
}

/// Compares the first eight bytes; the last of them is the version.
fn check_magic(bytes: &[u8], magic: &[u8; 8]) -> Result<(), SetError> {
    match bytes.first_chunk::<8>() {
        Some(found) if found == magic => Ok(()),
        Some(found) if found[..7] == magic[..7] => Err(SetError::Version(found[7])),
        _ => Err(SetError::Magic),
    }
}

/// The sequence in the header of bytes that have one.
pub(crate) fn sequence_of(bytes: &[u8]) -> u64 {
    u64_at(bytes, 16)
}

fn read_table(bytes: &[u8], issuers: usize) -> Result<Vec<Row>, SetError> {
    let lists = HEADER + ROW * issuers.min(MAX_ISSUERS);
    if issuers > MAX_ISSUERS || lists > bytes.len() {
        return Err(SetError::Table { row: 0, what: "it is longer than the set" });
    }
    let mut rows: Vec<Row> = Vec::with_capacity(issuers);
    for at in 0..issuers {
        let damaged = |what| SetError::Table { row: at, what };
        let mut fields = Fields(&bytes[HEADER + ROW * at..]);
        let (epoch, count, start) = (IssuerEpoch(fields.u16()), fields.u32() as usize, fields.u64());
        let start = usize::try_from(start).ok().filter(|start| *start <= bytes.len());
        let start = start.ok_or(damaged("the list lies outside of the set"))?;
        match rows.last_mut() {
            Some(before) if before.epoch >= epoch => return Err(damaged("issuers do not rise")),
            Some(before) if before.start > start => return Err(damaged("the lists overlap")),
            Some(before) => before.end = start,
            None if start != lists => return Err(damaged("the first list does not follow the table")),
            None => {}
        }
        rows.push(Row { epoch, count, start, end: bytes.len() });
    }
    if rows.is_empty() && bytes.len() != lists {
        return Err(SetError::Table { row: 0, what: "bytes follow, and there is no issuer" });
    }
    Ok(rows)
}

/// Reads numbers one after the other; the caller has seen that the bytes are there.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk::<N>().expect("the caller has measured");
        self.0 = rest;
        *taken
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    Fields(&bytes[at..]).u64()
}
