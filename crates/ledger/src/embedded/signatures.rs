//! The signatures made over recorded entries.
//!
//! An append-only file of `u64 index | u16 length | signature | u32 crc32c`. Written at once, so that a killed
//! process loses none; synced every half second. A signature that a power cut takes leaves its entry in the
//! ledger: the same TBS may then be signed again, nothing else. Where it stood between others that arrived, a
//! record of index 2^64 - 1 fills its place.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile, How};

const HEADER: usize = 10;
const CHECKSUM: usize = 4;
/// A record with the shortest signature that there is.
const SHORTEST: usize = HEADER + CHECKSUM;
const READ_AHEAD: usize = 1 << 20;
/// No entry has this index.
const FILLER: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct SignatureLog {
    file: DiskFile,
    /// What was written and noted.
    length: Mutex<u64>,
    synced: Mutex<u64>,
}

/// One record read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Index of the issuance entry.
    pub(crate) index: u64,
    /// Where the record begins.
    pub(crate) offset: u64,
    pub(crate) signature: &'a [u8],
}

impl SignatureLog {
    /// Opens the file, hands every record from `from` on to `note`, cuts off a torn end and fills gaps.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        path: &Path,
        from: u64,
        note: &mut dyn FnMut(Record<'_>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let file = DiskFile::open(disk, path, How::Create)?;
        let length = file.length()?;
        let whole = read(&file, from.min(length), length, note)?;
        if whole.end < length {
            tracing::warn!(
                bytes = length - whole.end,
                "the signature log ends in a torn record: cutting it off"
            );
            file.set_length(whole.end)?;
        }
        for (start, end) in &whole.gaps {
            tracing::warn!(
                offset = start,
                bytes = end - start,
                "signatures are missing in the signature log"
            );
            file.write(&filler(end - start), *start)?;
        }
        Ok(Self { file, length: Mutex::new(whole.end), synced: Mutex::new(0) })
    }

    /// Bytes written and noted so far.
    pub(crate) fn length(&self) -> u64 {
        *self.locked()
    }

    /// Appends records and hands the place of each to `note` before anybody is told of the new length: what the
    /// log's length covers is noted.
    pub(crate) fn append<'a>(
        &self,
        signatures: impl Iterator<Item = (u64, &'a [u8])>,
        note: &mut dyn FnMut(u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut length = self.locked();
        let mut buffer = Vec::new();
        let mut places = Vec::new();
        for (index, signature) in signatures {
            let start = buffer.len();
            let count = u16::try_from(signature.len()).map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidInput, "a signature of over 65,535 bytes")
            })?;
            buffer.extend_from_slice(&index.to_be_bytes());
            buffer.extend_from_slice(&count.to_be_bytes());
            buffer.extend_from_slice(signature);
            let checksum = crc32c::crc32c(&buffer[start..]);
            buffer.extend_from_slice(&checksum.to_be_bytes());
            places.push((index, *length + start as u64));
        }
        self.file.write(&buffer, *length)?;
        for (index, offset) in places {
            note(index, offset)?;
        }
        *length += buffer.len() as u64;
        Ok(())
    }

    /// The signature at this offset, if it is this entry's.
    pub(crate) fn signature(&self, index: u64, offset: u64) -> io::Result<Option<Vec<u8>>> {
        at(&self.file, index, offset)
    }

    /// Makes what was appended durable, if anything was since the last time.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let length = self.length();
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced != length {
            self.file.sync()?;
            *synced = length;
        }
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, u64> {
        self.length.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signature at this offset, if it is this entry's.
pub(crate) fn at(file: &DiskFile, index: u64, offset: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; 1024];
    let filled = file.read(&mut bytes, offset)?;
    bytes.truncate(filled);
    if let Some(length) = record_length(&bytes).filter(|length| *length > filled) {
        bytes.resize(length, 0);
        let filled = file.read(&mut bytes, offset)?;
        bytes.truncate(filled);
    }
    let record = parse(&bytes, offset).filter(|record| record.index == index);
    Ok(record.map(|record| record.signature.to_vec()))
}

/// What reading a log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    /// Behind the last whole record.
    pub(crate) end: u64,
    /// Beginnings and ends of what belongs to no whole record before it.
    pub(crate) gaps: Vec<(u64, u64)>,
}

/// Records that stand for nothing, of so many bytes together: at least of one record.
fn filler(mut length: u64) -> Vec<u8> {
    let (longest, shortest) = (HEADER as u64 + 60_000, SHORTEST as u64);
    let mut bytes = Vec::new();
    while length >= shortest {
        let record = if length > longest + shortest { longest } else { length.min(65_535) };
        let start = bytes.len();
        let content = usize::try_from(record - shortest).expect("at most 65,535");
        bytes.extend_from_slice(&FILLER.to_be_bytes());
        bytes.extend_from_slice(&u16::try_from(content).expect("at most 65,535").to_be_bytes());
        bytes.resize(bytes.len() + content, 0);
        let checksum = crc32c::crc32c(&bytes[start..]);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        length -= record;
    }
    bytes
}

/// Hands every whole record in `from .. length` to `visit`.
pub(crate) fn read(
    file: &DiskFile,
    from: u64,
    length: u64,
    visit: &mut dyn FnMut(Record<'_>) -> io::Result<()>,
) -> io::Result<Whole> {
    let mut found = Whole { end: from, gaps: Vec::new() };
    let mut at = from;
    let mut window = Vec::new();
    let mut start = at;
    while at + SHORTEST as u64 <= length {
        let inside = usize::try_from(at - start).expect("inside the window");
        let rest = window.get(inside..).unwrap_or_default();
        let needed = record_length(rest).unwrap_or(SHORTEST);
        if rest.len() < needed && start + (window.len() as u64) < length {
            window.resize(READ_AHEAD.max(needed), 0);
            let filled = file.read(&mut window, at)?;
            window.truncate(filled);
            start = at;
            if filled == 0 {
                break;
            }
            continue;
        }
        match parse(rest, at) {
            Some(record) => {
                if record.index != FILLER {
                    visit(record)?;
                }
                if at > found.end {
                    found.gaps.push((found.end, at));
                }
                at += (HEADER + record.signature.len() + CHECKSUM) as u64;
                found.end = at;
            }
            // Torn or damaged: a later whole record tells.
            None => at += 1,
        }
    }
    Ok(found)
}

/// The length of the record that these bytes begin with, as far as they tell.
fn record_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(8..HEADER)?;
    Some(HEADER + usize::from(u16::from_be_bytes([length[0], length[1]])) + CHECKSUM)
}

/// The whole record that these bytes begin with.
fn parse(bytes: &[u8], offset: u64) -> Option<Record<'_>> {
    let (record, _) = bytes.split_at_checked(record_length(bytes)?)?;
    let (body, checksum) = record.split_last_chunk::<CHECKSUM>()?;
    if crc32c::crc32c(body).to_be_bytes() != *checksum {
        return None;
    }
    let (index, rest) = body.split_first_chunk()?;
    Some(Record { index: u64::from_be_bytes(*index), offset, signature: rest.get(2..)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::disk::RealDisk;

    fn open(path: &Path, from: u64) -> (SignatureLog, Vec<(u64, u64)>) {
        let mut noted = Vec::new();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let log = SignatureLog::open(&disk, path, from, &mut |record| {
            noted.push((record.index, record.offset));
            Ok(())
        });
        (log.unwrap(), noted)
    }

    fn append(log: &SignatureLog, records: &[(u64, &[u8])]) -> Vec<(u64, u64)> {
        let mut noted = Vec::new();
        log.append(records.iter().copied(), &mut |index, offset| {
            noted.push((index, offset));
            Ok(())
        })
        .unwrap();
        noted
    }

    #[test]
    fn records_are_found_again_by_place_and_index() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (log, noted) = open(&path, 0);
        assert_eq!(noted, []);
        let long = vec![9; 4_000];
        let places = append(&log, &[(7, b"seven"), (3, &long), (4, b"")]);
        assert_eq!(log.signature(3, places[1].1).unwrap().unwrap(), long);
        assert_eq!(log.signature(7, places[1].1).unwrap(), None, "another entry's");
        assert_eq!(log.signature(7, places[0].1 + 1).unwrap(), None, "no record begins there");
        assert_eq!(log.signature(7, 1 << 40).unwrap(), None, "behind the end");
        drop(log);
        assert_eq!(open(&path, 0).1, places);
        assert_eq!(open(&path, places[2].1).1, places[2..]);
    }

    #[test]
    fn a_torn_end_is_cut_at_every_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (log, _) = open(&path, 0);
        let places = append(&log, &[(1, &[1; 70]), (2, &[2; 71])]);
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        let second = usize::try_from(places[1].1).unwrap();
        for length in second..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (log, noted) = open(&path, 0);
            assert_eq!(noted, places[..1], "cut to {length}");
            assert_eq!(log.length(), places[1].1);
            let added = append(&log, &[(2, &[3; 71])]);
            assert_eq!(log.signature(2, added[0].1).unwrap().unwrap(), [3; 71]);
        }
    }

    #[test]
    fn a_gap_costs_what_stood_there_and_is_filled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (log, _) = open(&path, 0);
        let places = append(&log, &[(1, &[1; 70]), (2, &[2; 71]), (3, &[3; 72])]);
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        let second = usize::try_from(places[1].1).unwrap();
        for at in second..second + HEADER + 71 + CHECKSUM {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            std::fs::write(&path, &bytes).unwrap();
            for _ in 0..2 {
                let (log, noted) = open(&path, 0);
                assert_eq!(noted, [places[0], places[2]], "byte {at}");
                assert_eq!(log.length(), whole.len() as u64);
            }
            let disk: Arc<dyn Disk> = Arc::new(RealDisk);
            let file = DiskFile::open(&disk, &path, How::Existing).unwrap();
            let found = read(&file, 0, whole.len() as u64, &mut |_| Ok(())).unwrap();
            assert_eq!(found.gaps, [], "filled");
        }
    }

    #[test]
    fn fillers_have_every_length() {
        for length in
            (14..200).chain([60_009, 60_010, 60_011, 60_024, 60_025, 65_535, 65_549, 65_550, 250_000])
        {
            let bytes = filler(length);
            assert_eq!(bytes.len() as u64, length);
            let mut at = 0;
            while at < bytes.len() {
                let record = parse(&bytes[at..], 0).unwrap();
                assert_eq!(record.index, FILLER);
                at += SHORTEST + record.signature.len();
            }
        }
    }
}
