//! Reading a journal from some place to its end, and telling a torn end from damage.
//!
//! A batch is synced before the next one is written. So whatever is wrong behind the last whole batch was never
//! acknowledged, if nothing was written behind it: a torn end, to be cut off. If a later batch stands behind
//! it, it had been whole: damage, and nothing may be cut.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::batch::{
    BATCH_HEADER, BATCH_MAGIC, BatchHeader, LogId, Place, SEGMENT_HEADER, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use super::{JournalError, JournalPosition, io_error};
use crate::embedded::disk::read_up_to;

/// One batch read back.
#[derive(Debug)]
pub(crate) struct StoredBatch {
    /// Index of its first entry.
    pub(crate) first_index: u64,
    /// Where it begins.
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    /// The whole of it, header included.
    pub(crate) bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl StoredBatch {
    /// The entries, each with the offset of its length field in the segment.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let offset = self.offset;
        self.ranges.iter().map(move |range| (offset + range.start as u64 - 2, &self.bytes[range.clone()]))
    }

    /// Where the next batch goes.
    pub(crate) fn end(&self) -> JournalPosition {
        JournalPosition {
            size: self.first_index + self.ranges.len() as u64,
            segment: self.segment,
            offset: self.offset + self.bytes.len() as u64,
        }
    }
}

/// How a journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Behind the last whole batch, in the last segment.
    pub(crate) position: JournalPosition,
    /// Behind the last byte of a torn batch, where there is one.
    pub(crate) torn_until: Option<u64>,
    /// Names the log.
    pub(crate) log_id: LogId,
}

/// Hands every batch from `start` to the end of the journal to `visit`, in order.
pub(crate) fn scan<E: From<JournalError>>(
    directory: &Path,
    start: JournalPosition,
    visit: &mut dyn FnMut(StoredBatch) -> Result<(), E>,
) -> Result<Tail, E> {
    let segments = segments(directory)?;
    let log_id = segments[0].log_id;
    let mut position = start;
    loop {
        let path = segment_path(directory, position.segment);
        let missing = || JournalError::Segment { path: path.display().to_string(), what: MISSING };
        let header = segments.get(position.segment as usize).ok_or_else(missing)?;
        // A segment begins where the one before it ended: anything else is one of another time.
        let begins_here = header.first_index == position.size || position.offset > SEGMENT_HEADER;
        if header.first_index > position.size || !begins_here {
            return Err(JournalError::Segment { path: path.display().to_string(), what: STRANGER }.into());
        }
        let is_last = position.segment as usize + 1 == segments.len();
        let mut segment = Segment::open(&path, log_id, position.segment)?;
        if position.offset > segment.length {
            let what = "the segment ends before the entries that are known to be in it";
            return Err(segment.corrupt(segment.length, what).into());
        }
        while let Some(batch) = segment.batch(position).map_err(|error| io_error(&path, &error))? {
            position = batch.end();
            visit(batch)?;
        }
        let torn_until = segment.used_until(position.offset).map_err(|error| io_error(&path, &error))?;
        if is_last {
            let torn_until = segment.check_torn(position, torn_until)?;
            return Ok(Tail { position, torn_until, log_id });
        }
        if torn_until.is_some() {
            return Err(segment.corrupt(position.offset, "no whole batch begins here").into());
        }
        position = JournalPosition { segment: position.segment + 1, offset: SEGMENT_HEADER, ..position };
    }
}

/// The headers of all segments: numbered without a gap, of one log, each beginning at or after the one before.
pub(crate) fn segments(directory: &Path) -> Result<Vec<SegmentHeader>, JournalError> {
    let names = fs::read_dir(directory).map_err(|error| io_error(directory, &error))?;
    let mut count = 0;
    for name in names {
        let name = name.map_err(|error| io_error(directory, &error))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".journal")?.parse::<u32>().ok());
        count = count.max(number.map_or(0, |number| number.saturating_add(1)));
    }
    let mut headers: Vec<SegmentHeader> = Vec::new();
    for number in 0..count.max(1) {
        let path = segment_path(directory, number);
        let header = read_header(&path)?;
        let follows = headers
            .last()
            .is_none_or(|before| before.log_id == header.log_id && before.first_index <= header.first_index);
        if header.number != number || !follows {
            return Err(JournalError::Segment { path: path.display().to_string(), what: STRANGER });
        }
        headers.push(header);
    }
    Ok(headers)
}

const MISSING: &str = "the segment is missing";
const STRANGER: &str = "the segment belongs to another log, or does not follow the one before it";

fn read_header(path: &Path) -> Result<SegmentHeader, JournalError> {
    let problem = |what| JournalError::Segment { path: path.display().to_string(), what };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(problem(MISSING)),
        other => other.map_err(|error| io_error(path, &error))?,
    };
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    read_up_to(&file, &mut bytes, 0).map_err(|error| io_error(path, &error))?;
    SegmentHeader::from_bytes(&bytes).ok_or_else(|| problem("the segment's header is damaged"))
}

pub(crate) fn segment_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08}.journal"))
}

/// A segment that is read from front to back.
struct Segment<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    log_id: LogId,
    number: u32,
    window: Window,
}

impl<'a> Segment<'a> {
    fn open(path: &'a Path, log_id: LogId, number: u32) -> Result<Self, JournalError> {
        let open = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            // What the kernel reads ahead of an allocated end would count as written from then on.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
            Ok(Self { path, file, length, log_id, number, window: Window::default() })
        };
        open().map_err(|error| io_error(path, &error))
    }

    fn corrupt(&self, offset: u64, what: &'static str) -> JournalError {
        JournalError::Corrupt { path: self.path.display().to_string(), offset, what }
    }

    /// The whole batch at this position, if one stands there.
    fn batch(&mut self, position: JournalPosition) -> io::Result<Option<StoredBatch>> {
        let offset = position.offset;
        let place = Place { log_id: self.log_id, segment: self.number, offset };
        let start = self.window.bytes(&self.file, offset, BATCH_HEADER as u64)?;
        let Some(header) = BatchHeader::from_bytes(start, &place) else { return Ok(None) };
        if header.first_index != position.size || offset + header.length() > self.length {
            return Ok(None);
        }
        let bytes = self.window.bytes(&self.file, offset, header.length())?;
        let Some(ranges) = header.entries(bytes) else { return Ok(None) };
        let batch = StoredBatch {
            first_index: position.size,
            segment: self.number,
            offset,
            bytes: bytes.to_vec(),
            ranges,
        };
        Ok(Some(batch))
    }

    /// Behind the last byte from here on that is not zero.
    fn used_until(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut used = None;
        let mut at = from;
        while at < self.length {
            // What was allocated and never written need not be read.
            let Some(data) = next_data(&self.file, at)? else { break };
            at = data;
            let bytes = self.window.bytes(&self.file, at, 1)?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = last_used(bytes) {
                used = Some(at + last as u64 + 1);
            }
            at += bytes.len() as u64;
        }
        Ok(used)
    }

    /// Behind the last whole batch of the last segment there are zeros or a torn batch: nothing that was
    /// written after it.
    fn check_torn(
        &mut self,
        position: JournalPosition,
        used: Option<u64>,
    ) -> Result<Option<u64>, JournalError> {
        let Some(until) = used else { return Ok(None) };
        let path = self.path;
        let later = self.later_batch(position, until).map_err(|error| io_error(path, &error))?;
        match later {
            Some(_) => Err(self.corrupt(position.offset, "no whole batch begins here, but one follows")),
            None => Ok(used),
        }
    }

    /// Where a batch of later entries begins, behind the given position.
    fn later_batch(&mut self, position: JournalPosition, until: u64) -> io::Result<Option<u64>> {
        let mut at = position.offset + 1;
        while at < until {
            let bytes = self.window.bytes(&self.file, at, BATCH_HEADER as u64)?;
            if bytes.len() < BATCH_HEADER {
                break;
            }
            let searched = bytes.len() - BATCH_HEADER + 1;
            for start in (0..searched).filter(|start| bytes[*start..*start + 4] == *BATCH_MAGIC) {
                let offset = at + start as u64;
                let place = Place { log_id: self.log_id, segment: self.number, offset };
                let header = BatchHeader::from_bytes(&bytes[start..], &place);
                if header.is_some_and(|header| header.first_index > position.size) {
                    return Ok(Some(offset));
                }
            }
            at += searched as u64;
        }
        Ok(None)
    }
}

/// The last byte that is not zero.
fn last_used(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let chunk = bytes.chunks(ZEROS.len()).rposition(|chunk| *chunk != ZEROS[..chunk.len()])?;
    let start = chunk * ZEROS.len();
    bytes[start..].iter().take(ZEROS.len()).rposition(|byte| *byte != 0).map(|at| start + at)
}

/// The first offset from here on where something may have been written; `None` if nothing was.
fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    use rustix::io::Errno;
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(from)) {
        Ok(data) => Ok(Some(data.max(from))),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(from)),
        Err(error) => Err(error.into()),
    }
}

/// What was read ahead of a file that is read from front to back.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// At least `wanted` bytes from this offset on, fewer only at the file's end.
    fn bytes(&mut self, file: &File, offset: u64, wanted: u64) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + wanted > end {
            let length = usize::try_from(wanted).unwrap_or(usize::MAX).max(READ_AHEAD);
            self.bytes.resize(length, 0);
            let filled = read_up_to(file, &mut self.bytes, offset)?;
            self.bytes.truncate(filled);
            self.start = offset;
        }
        let from = usize::try_from(offset - self.start).expect("inside the window");
        let rest = &self.bytes[from..];
        // A batch is asked for by its length, a search by the least that it can use.
        let exact = usize::try_from(wanted).unwrap_or(usize::MAX);
        Ok(if wanted > BATCH_HEADER as u64 { &rest[..rest.len().min(exact)] } else { rest })
    }
}

const READ_AHEAD: usize = 1 << 20;
