//! The bytes of segments and batches.
//!
//! ```text
//! segment = "CHJ1" | u32 number | u64 first index | 16 bytes log id | u32 crc32c of the 32 bytes before
//! batch   = "CHB1" | u32 payload bytes | u32 entries | u64 first index
//!           | u32 crc32c of the payload
//!           | u32 crc32c of: log id | u32 segment | u64 offset | the 24 bytes before
//!           | payload
//! payload = entries, each a u16 length and its bytes (as in a tlog-tiles entry bundle)
//! ```
//! Integers are big-endian. A batch's header is bound to its log and its place, and the log id is random and
//! told to nobody: bytes that somebody smuggles into an entry are never taken for a batch, and neither are the
//! remains of one that stood elsewhere.

use std::ops::Range;

pub(crate) const SEGMENT_MAGIC: &[u8; 4] = b"CHJ1";
pub(crate) const BATCH_MAGIC: &[u8; 4] = b"CHB1";
/// Bytes before a segment's first batch.
pub(crate) const SEGMENT_HEADER: u64 = 36;
/// The same as a length in memory.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 36;
/// Bytes before a batch's payload.
pub(crate) const BATCH_HEADER: usize = 28;

/// What names a log: the same in each of its segments.
pub(crate) type LogId = [u8; 16];

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u32,
    /// Index of the first entry in it.
    pub(crate) first_index: u64,
    pub(crate) log_id: LogId,
}

impl SegmentHeader {
    pub(crate) fn to_bytes(self) -> [u8; 36] {
        let mut bytes = [0; 36];
        bytes[..4].copy_from_slice(SEGMENT_MAGIC);
        bytes[4..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.first_index.to_be_bytes());
        bytes[16..32].copy_from_slice(&self.log_id);
        let checksum = crc32c::crc32c(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// `None` when these bytes are not a whole header.
    pub(crate) fn from_bytes(bytes: &[u8; 36]) -> Option<Self> {
        if bytes[..4] != *SEGMENT_MAGIC || bytes[32..] != crc32c::crc32c(&bytes[..32]).to_be_bytes() {
            return None;
        }
        let mut log_id = [0; 16];
        log_id.copy_from_slice(&bytes[16..32]);
        Some(Self { number: be32(&bytes[4..]), first_index: be64(&bytes[8..]), log_id })
    }
}

/// Where a batch stands; its header's checksum covers this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) log_id: LogId,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

impl Place {
    fn checksum(&self, header: &[u8]) -> u32 {
        let mut place = [0; 28];
        place[..16].copy_from_slice(&self.log_id);
        place[16..20].copy_from_slice(&self.segment.to_be_bytes());
        place[20..].copy_from_slice(&self.offset.to_be_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&place), &header[..24])
    }
}

/// What a batch says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) payload: u32,
    pub(crate) entries: u32,
    pub(crate) first_index: u64,
    checksum: u32,
}

impl BatchHeader {
    /// `None` when no batch of this log begins at this place.
    pub(crate) fn from_bytes(bytes: &[u8], place: &Place) -> Option<Self> {
        let header = bytes.get(..BATCH_HEADER)?;
        if header[..4] != *BATCH_MAGIC || be32(&header[24..]) != place.checksum(header) {
            return None;
        }
        Some(Self {
            payload: be32(&header[4..]),
            entries: be32(&header[8..]),
            first_index: be64(&header[12..]),
            checksum: be32(&header[20..]),
        })
    }

    /// Bytes of the whole batch.
    pub(crate) fn length(&self) -> u64 {
        BATCH_HEADER as u64 + u64::from(self.payload)
    }

    /// Where the entries stand in the batch's bytes; `None` when the payload is not the one that was written.
    pub(crate) fn entries(&self, batch: &[u8]) -> Option<Vec<Range<usize>>> {
        let payload = batch.get(BATCH_HEADER..)?;
        if payload.len() != self.payload as usize || crc32c::crc32c(payload) != self.checksum {
            return None;
        }
        let mut ranges = Vec::with_capacity((self.entries as usize).min(payload.len() / 2));
        let mut at = BATCH_HEADER;
        while at < batch.len() {
            let length = batch.get(at..at + 2)?;
            let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            batch.get(at..end)?;
            ranges.push(at + 2..end);
            at = end;
        }
        (ranges.len() == self.entries as usize).then_some(ranges)
    }
}

/// Writes a batch into an empty buffer; returns the offset of each entry's length field in the segment.
///
/// The payload has fewer than 2^32 bytes: the sequencer sees to that.
pub(crate) fn write_batch(
    buffer: &mut Vec<u8>,
    entries: &[&[u8]],
    first_index: u64,
    place: &Place,
) -> Vec<u64> {
    buffer.clear();
    buffer.resize(BATCH_HEADER, 0);
    let mut offsets = Vec::with_capacity(entries.len());
    for entry in entries {
        let length = u16::try_from(entry.len()).expect("an entry has at most 65,535 bytes");
        offsets.push(place.offset + buffer.len() as u64);
        buffer.extend_from_slice(&length.to_be_bytes());
        buffer.extend_from_slice(entry);
    }
    let payload = u32::try_from(buffer.len() - BATCH_HEADER).expect("a call has fewer than 2^32 bytes");
    let count = u32::try_from(entries.len()).expect("there are fewer entries than bytes");
    let checksum = crc32c::crc32c(&buffer[BATCH_HEADER..]);
    buffer[..4].copy_from_slice(BATCH_MAGIC);
    buffer[4..8].copy_from_slice(&payload.to_be_bytes());
    buffer[8..12].copy_from_slice(&count.to_be_bytes());
    buffer[12..20].copy_from_slice(&first_index.to_be_bytes());
    buffer[20..24].copy_from_slice(&checksum.to_be_bytes());
    let checksum = place.checksum(buffer);
    buffer[24..28].copy_from_slice(&checksum.to_be_bytes());
    offsets
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn be64(bytes: &[u8]) -> u64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(array)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    const PLACE: Place = Place { log_id: [7; 16], segment: 3, offset: 36 };

    fn batch() -> Vec<u8> {
        let mut bytes = Vec::new();
        assert_eq!(write_batch(&mut bytes, &[b"one", b"", b"three"], 41, &PLACE), [64, 69, 71]);
        bytes
    }

    #[test]
    fn a_batch_has_these_bytes() {
        let expected = concat!(
            "43484231",
            "0000000e",
            "00000003",
            "0000000000000029",
            "5e3da5aa",
            "00000000",
            "0003",
            "6f6e65",
            "0000",
            "0005",
            "7468726565"
        );
        let mut found = batch();
        found[24..28].fill(0);
        assert_eq!(HEXLOWER.encode(&found)[..40], expected[..40]);
        assert_eq!(HEXLOWER.encode(&found)[56..], expected[56..]);
    }

    #[test]
    fn a_batch_is_read_back_where_it_was_written_and_nowhere_else() {
        let bytes = batch();
        let header = BatchHeader::from_bytes(&bytes, &PLACE).unwrap();
        assert_eq!((header.entries, header.first_index, header.length()), (3, 41, bytes.len() as u64));
        let entries: Vec<&[u8]> =
            header.entries(&bytes).unwrap().into_iter().map(|range| &bytes[range]).collect();
        assert_eq!(entries, [b"one".as_slice(), b"", b"three"]);
        for other in
            [Place { log_id: [8; 16], ..PLACE }, Place { segment: 4, ..PLACE }, Place { offset: 37, ..PLACE }]
        {
            assert_eq!(BatchHeader::from_bytes(&bytes, &other), None);
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let whole = batch();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let entries =
                    BatchHeader::from_bytes(&bytes, &PLACE).and_then(|header| header.entries(&bytes));
                assert_eq!(entries, None, "byte {at}, bit {bit}");
            }
        }
        for length in 0..whole.len() {
            let bytes = &whole[..length];
            let entries = BatchHeader::from_bytes(bytes, &PLACE).and_then(|header| header.entries(bytes));
            assert_eq!(entries, None, "cut to {length}");
        }
    }

    #[test]
    fn a_segment_header_is_read_back_and_every_changed_byte_noticed() {
        let header = SegmentHeader { number: 9, first_index: 1 << 40, log_id: [5; 16] };
        let whole = header.to_bytes();
        assert_eq!(SegmentHeader::from_bytes(&whole), Some(header));
        for at in 0..whole.len() {
            let mut bytes = whole;
            bytes[at] ^= 0x10;
            assert_eq!(SegmentHeader::from_bytes(&bytes), None, "byte {at}");
        }
    }
}
