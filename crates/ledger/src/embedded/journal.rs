//! The journal: the truth on disk.
//!
//! Append-only segment files of batches. A batch is written with one write and made durable with one fdatasync
//! before anything else happens, so after a crash at most the last batch can be torn, and only its
//! proposers, who never got an answer, can miss it.
//!
//! ```text
//! segment = "CHJ1" | u32 number | u64 first index | 16 bytes log id | u32 crc32c of the 32 bytes before
//! batch   = "CHB1" | u32 payload bytes | u32 entries | u64 first index | u32 crc32c | payload
//! payload = entries, each a u16 length and its bytes (as in a tlog-tiles entry bundle)
//! ```
//! Integers are big-endian. A batch's checksum covers its header before the checksum, and its payload. Segments
//! are allocated whole, so that a full disk shows before a batch is written and not in the middle of one; the
//! rest of a segment is zero.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SEGMENT_MAGIC: &[u8; 4] = b"CHJ1";
const BATCH_MAGIC: &[u8; 4] = b"CHB1";
const SEGMENT_HEADER: u64 = 36;
const BATCH_HEADER: usize = 24;
/// No batch has more payload than this: a length beyond it is damage, not a batch.
pub(crate) const MAX_BATCH: usize = 16 << 20;

/// Where the next batch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JournalPosition {
    /// Entries before it.
    pub(crate) size: u64,
    /// The segment's number.
    pub(crate) segment: u32,
    /// Byte offset in the segment.
    pub(crate) offset: u64,
}

impl JournalPosition {
    /// The beginning of an empty journal.
    pub(crate) const START: Self = Self { size: 0, segment: 0, offset: SEGMENT_HEADER };
}

/// Why a journal cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// Its words.
        error: String,
    },
    /// Bytes before the end of the journal are damaged. Cutting them off would lose acknowledged entries.
    #[error(
        "{path} is damaged at byte {offset} ({what}), and this is not the torn end of a crash; \
         do not start from this copy: restore the journal from a backup or a mirror, \
         then compare it with the last published checkpoint"
    )]
    Corrupt {
        /// The segment.
        path: String,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A segment is missing, or one of another log stands in its place.
    #[error("{path}: {what}; restore the journal directory whole, segments of one log only")]
    Segment {
        /// The file.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// How a write failed.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// No room; nothing was written and the journal is as before.
    Full,
    /// Nothing is known about what was written: the process must stop writing.
    Fatal(String),
}

/// The file operations whose failure matters, so that tests can make each of them fail.
pub(crate) trait Disk: Send + Sync + Debug {
    /// Makes room for the whole segment.
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()>;
    /// Writes at an offset.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The real one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            // A file system without allocation: the length alone, room is found while writing.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(bytes),
            other => other.map_err(io::Error::from),
        }
    }

    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        rustix::fs::fdatasync(file).map_err(io::Error::from)
    }
}

/// One batch read back.
pub(crate) struct StoredBatch {
    /// Index of its first entry.
    pub(crate) first_index: u64,
    /// The entries' bytes, each with the offset of its length field in the segment.
    pub(crate) entries: Vec<(u64, Vec<u8>)>,
    /// The segment it is in.
    pub(crate) segment: u32,
}

/// The journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    log_id: [u8; 16],
    file: File,
    position: JournalPosition,
    buffer: Vec<u8>,
}

impl Journal {
    /// Creates the journal of a new log in an empty directory.
    pub(crate) fn create(
        directory: &Path,
        log_id: [u8; 16],
        segment_bytes: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, JournalError> {
        let file = create_segment(directory, 0, 0, &log_id, segment_bytes, disk.as_ref())
            .map_err(|error| io_error(&segment_path(directory, 0), &error))?;
        let position = JournalPosition::START;
        Ok(Self {
            directory: directory.to_owned(),
            disk,
            segment_bytes,
            log_id,
            file,
            position,
            buffer: Vec::new(),
        })
    }

    /// Opens an existing journal, hands every batch from `start` on to `replay`, cuts off a torn last batch.
    pub(crate) fn open(
        directory: &Path,
        start: Option<JournalPosition>,
        segment_bytes: u64,
        disk: Arc<dyn Disk>,
        replay: &mut dyn FnMut(StoredBatch) -> Result<(), JournalError>,
    ) -> Result<Self, JournalError> {
        let last = last_segment(directory)?;
        let (_, log_id) = read_segment_header(directory, 0)?;
        let mut position = start.unwrap_or(JournalPosition::START);
        loop {
            let path = segment_path(directory, position.segment);
            let (first_index, id) = read_segment_header(directory, position.segment)?;
            let what = "it belongs to another log, or does not follow the segment before it";
            if id != log_id || first_index > position.size {
                return Err(JournalError::Segment { path: path.display().to_string(), what });
            }
            let is_last = position.segment == last;
            scan_segment(&path, &mut position, is_last, replay)?;
            if is_last {
                break;
            }
            position = JournalPosition {
                size: position.size,
                segment: position.segment + 1,
                offset: SEGMENT_HEADER,
            };
            let (next_first, _) = read_segment_header(directory, position.segment)?;
            if next_first != position.size {
                let path = segment_path(directory, position.segment).display().to_string();
                return Err(JournalError::Segment { path, what });
            }
        }
        let path = segment_path(directory, position.segment);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|e| io_error(&path, &e))?;
        let cut = (|| {
            // What follows the last whole batch is a torn one: make it zero again, durably, before going on.
            let length = file.metadata()?.len().max(segment_bytes);
            file.set_len(position.offset)?;
            disk.allocate(&file, length)?;
            file.sync_all()
        })();
        cut.map_err(|error| io_error(&path, &error))?;
        let directory = directory.to_owned();
        Ok(Self { directory, disk, segment_bytes, log_id, file, position, buffer: Vec::new() })
    }

    /// Where the next batch goes.
    pub(crate) fn position(&self) -> JournalPosition {
        self.position
    }

    /// Appends one batch and makes it durable. Returns the segment and the offset of each entry's length field.
    pub(crate) fn append(&mut self, entries: &[&[u8]]) -> Result<(u32, Vec<u64>), AppendError> {
        let payload: usize = entries.iter().map(|entry| 2 + entry.len()).sum();
        let total = (BATCH_HEADER + payload) as u64;
        if self.position.offset + total > self.segment_bytes.max(SEGMENT_HEADER + total) {
            self.next_segment(total)?;
        }
        let count = u32::try_from(entries.len()).map_err(|_| AppendError::Fatal("batch too large".into()))?;
        let length = u32::try_from(payload).map_err(|_| AppendError::Fatal("batch too large".into()))?;
        self.buffer.clear();
        self.buffer.extend_from_slice(BATCH_MAGIC);
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.extend_from_slice(&count.to_be_bytes());
        self.buffer.extend_from_slice(&self.position.size.to_be_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        let mut offsets = Vec::with_capacity(entries.len());
        for entry in entries {
            let entry_length = u16::try_from(entry.len()).expect("an entry has at most 65,535 bytes");
            offsets.push(self.position.offset + self.buffer.len() as u64);
            self.buffer.extend_from_slice(&entry_length.to_be_bytes());
            self.buffer.extend_from_slice(entry);
        }
        let checksum = batch_checksum(&self.buffer);
        self.buffer[20..24].copy_from_slice(&checksum.to_be_bytes());
        match self.disk.write(&self.file, &self.buffer, self.position.offset) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                // What was written of the batch has no valid checksum yet or is cut here; nobody was answered.
                let zeros = vec![0_u8; BATCH_HEADER];
                return match self.file.write_all_at(&zeros, self.position.offset) {
                    Ok(()) => Err(AppendError::Full),
                    Err(error) => Err(AppendError::Fatal(format!("undoing a short write failed: {error}"))),
                };
            }
            Err(error) => return Err(AppendError::Fatal(format!("writing the journal failed: {error}"))),
        }
        self.disk
            .sync(&self.file)
            .map_err(|error| AppendError::Fatal(format!("syncing the journal failed: {error}")))?;
        self.position.size += entries.len() as u64;
        self.position.offset += total;
        Ok((self.position.segment, offsets))
    }

    fn next_segment(&mut self, batch: u64) -> Result<(), AppendError> {
        let number = self.position.segment + 1;
        let bytes = self.segment_bytes.max(SEGMENT_HEADER + batch);
        let disk = self.disk.as_ref();
        match create_segment(&self.directory, number, self.position.size, &self.log_id, bytes, disk) {
            Ok(file) => {
                self.file = file;
                self.position =
                    JournalPosition { size: self.position.size, segment: number, offset: SEGMENT_HEADER };
                Ok(())
            }
            Err(error) if is_full(&error) => Err(AppendError::Full),
            Err(error) => Err(AppendError::Fatal(format!("a new journal segment failed: {error}"))),
        }
    }
}

/// Makes a segment under a temporary name, so that a half-made one never has a segment's name.
fn create_segment(
    directory: &Path,
    number: u32,
    first_index: u64,
    log_id: &[u8; 16],
    bytes: u64,
    disk: &dyn Disk,
) -> io::Result<File> {
    let path = segment_path(directory, number);
    let temporary = path.with_extension("new");
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let made = (|| {
        disk.allocate(&file, bytes)?;
        let mut header = Vec::with_capacity(36);
        header.extend_from_slice(SEGMENT_MAGIC);
        header.extend_from_slice(&number.to_be_bytes());
        header.extend_from_slice(&first_index.to_be_bytes());
        header.extend_from_slice(log_id);
        let checksum = crc32c::crc32c(&header);
        header.extend_from_slice(&checksum.to_be_bytes());
        disk.write(&file, &header, 0)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    })();
    match made {
        Ok(()) => Ok(file),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn read_segment_header(directory: &Path, number: u32) -> Result<(u64, [u8; 16]), JournalError> {
    let path = segment_path(directory, number);
    let problem = |what| JournalError::Segment { path: path.display().to_string(), what };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(problem("the segment is missing"));
        }
        Err(error) => return Err(io_error(&path, &error)),
    };
    let mut header = [0_u8; 36];
    file.read_exact_at(&mut header, 0).map_err(|_| problem("the segment has no header"))?;
    let checksum = crc32c::crc32c(&header[..32]).to_be_bytes();
    if header[..4] != *SEGMENT_MAGIC || header[32..] != checksum || header[4..8] != number.to_be_bytes() {
        return Err(problem("the segment's header is damaged"));
    }
    let mut first_index = [0; 8];
    first_index.copy_from_slice(&header[8..16]);
    let mut log_id = [0; 16];
    log_id.copy_from_slice(&header[16..32]);
    Ok((u64::from_be_bytes(first_index), log_id))
}

/// Reads batches from `position` to the end of a segment; leaves `position` after the last whole one.
fn scan_segment(
    path: &Path,
    position: &mut JournalPosition,
    is_last: bool,
    replay: &mut dyn FnMut(StoredBatch) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let file = File::open(path).map_err(|error| io_error(path, &error))?;
    let length = file.metadata().map_err(|error| io_error(path, &error))?.len();
    let corrupt = |offset, what| JournalError::Corrupt { path: path.display().to_string(), offset, what };
    if position.offset > length {
        return Err(corrupt(length, "the segment ends before the entries that the index knows"));
    }
    loop {
        match read_batch(&file, length, position).map_err(|error| io_error(path, &error))? {
            Ok(batch) => {
                let count = batch.entries.len() as u64;
                let payload: u64 = batch.entries.iter().map(|(_, entry)| 2 + entry.len() as u64).sum();
                replay(batch)?;
                position.size += count;
                position.offset += BATCH_HEADER as u64 + payload;
            }
            Err(BatchProblem::End) => return Ok(()),
            Err(BatchProblem::Damaged(what)) => {
                let later = has_later_batch(&file, position.offset, length, position.size)
                    .map_err(|error| io_error(path, &error))?;
                if is_last && !later {
                    return Ok(());
                }
                return Err(corrupt(position.offset, what));
            }
        }
    }
}

enum BatchProblem {
    /// Zeros or the file's end: nothing more was written here.
    End,
    /// Something that is not a whole batch.
    Damaged(&'static str),
}

fn read_batch(
    file: &File,
    length: u64,
    position: &JournalPosition,
) -> io::Result<Result<StoredBatch, BatchProblem>> {
    let available = length.saturating_sub(position.offset);
    if available < BATCH_HEADER as u64 {
        return Ok(Err(BatchProblem::End));
    }
    let mut batch = vec![0_u8; BATCH_HEADER];
    file.read_exact_at(&mut batch, position.offset)?;
    if batch.iter().all(|byte| *byte == 0) {
        return Ok(Err(match is_zero(file, position.offset, length)? {
            true => BatchProblem::End,
            false => BatchProblem::Damaged("zeros where a batch begins"),
        }));
    }
    if batch[..4] != *BATCH_MAGIC {
        return Ok(Err(BatchProblem::Damaged("no batch begins here")));
    }
    let payload = be32(&batch[4..8]) as usize;
    let count = be32(&batch[8..12]) as usize;
    if payload > MAX_BATCH || (BATCH_HEADER + payload) as u64 > available {
        return Ok(Err(BatchProblem::Damaged("a batch's length does not fit")));
    }
    if batch[12..20] != position.size.to_be_bytes() {
        return Ok(Err(BatchProblem::Damaged("a batch's index does not follow the one before")));
    }
    batch.resize(BATCH_HEADER + payload, 0);
    file.read_exact_at(&mut batch[BATCH_HEADER..], position.offset + BATCH_HEADER as u64)?;
    if batch_checksum(&batch).to_be_bytes() != batch[20..24] {
        return Ok(Err(BatchProblem::Damaged("a batch's checksum does not match")));
    }
    let mut entries = Vec::with_capacity(count);
    let mut at = BATCH_HEADER;
    while at < batch.len() {
        let Some(entry_length) = batch.get(at..at + 2) else { break };
        let end = at + 2 + usize::from(u16::from_be_bytes([entry_length[0], entry_length[1]]));
        let Some(entry) = batch.get(at + 2..end) else { break };
        entries.push((position.offset + at as u64, entry.to_vec()));
        at = end;
    }
    if at != batch.len() || entries.len() != count {
        return Ok(Err(BatchProblem::Damaged("a batch's entries do not fill it")));
    }
    Ok(Ok(StoredBatch { first_index: position.size, entries, segment: position.segment }))
}

/// Whether a whole batch of later entries stands somewhere behind a damaged place.
fn has_later_batch(file: &File, from: u64, length: u64, size: u64) -> io::Result<bool> {
    let mut rest = vec![0_u8; usize::try_from(length - from).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut rest, from)?;
    for at in 1..rest.len().saturating_sub(BATCH_HEADER) {
        if rest[at..at + 4] != *BATCH_MAGIC {
            continue;
        }
        let payload = be32(&rest[at + 4..at + 8]) as usize;
        let mut first_index = [0; 8];
        first_index.copy_from_slice(&rest[at + 12..at + 20]);
        let Some(batch) = rest.get(at..at.saturating_add(BATCH_HEADER).saturating_add(payload)) else {
            continue;
        };
        if u64::from_be_bytes(first_index) > size && batch_checksum(batch).to_be_bytes() == batch[20..24] {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_zero(file: &File, from: u64, to: u64) -> io::Result<bool> {
    let mut buffer = vec![0_u8; 1 << 20];
    let mut at = from;
    while at < to {
        let count = usize::try_from((to - at).min(1 << 20)).unwrap_or(1 << 20);
        file.read_exact_at(&mut buffer[..count], at)?;
        if buffer[..count].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}

fn batch_checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&batch[..20]), &batch[BATCH_HEADER..])
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn io_error(path: &Path, error: &io::Error) -> JournalError {
    JournalError::Io { path: path.display().to_string(), error: error.to_string() }
}

pub(crate) fn segment_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08}.journal"))
}

fn last_segment(directory: &Path) -> Result<u32, JournalError> {
    let entries = fs::read_dir(directory).map_err(|error| io_error(directory, &error))?;
    let mut last = None;
    for entry in entries {
        let name = entry.map_err(|error| io_error(directory, &error))?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_suffix(".journal")).and_then(|n| n.parse().ok());
        last = last.max(number);
    }
    last.ok_or_else(|| JournalError::Segment {
        path: directory.display().to_string(),
        what: "there is no journal segment here",
    })
}

/// Reads single entries while the journal is being appended to.
#[derive(Debug)]
pub(crate) struct JournalReader {
    directory: PathBuf,
    segments: std::sync::RwLock<std::collections::HashMap<u32, Arc<File>>>,
}

impl JournalReader {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), segments: std::sync::RwLock::default() }
    }

    /// The entry whose length field is at this place.
    pub(crate) fn entry(&self, segment: u32, offset: u64) -> io::Result<Vec<u8>> {
        let file = self.segment(segment)?;
        // Most entries fit in the first read; a longer one costs a second.
        let mut buffer = vec![0_u8; 2048];
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        if filled < 2 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
        if 2 + length > filled {
            buffer.resize(2 + length, 0);
            file.read_exact_at(&mut buffer[filled..], offset + filled as u64)?;
        }
        buffer.truncate(2 + length);
        buffer.drain(..2);
        Ok(buffer)
    }

    fn segment(&self, number: u32) -> io::Result<Arc<File>> {
        let poisoned = || io::Error::other("a reader panicked");
        if let Some(file) = self.segments.read().map_err(|_| poisoned())?.get(&number) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(segment_path(&self.directory, number))?);
        self.segments.write().map_err(|_| poisoned())?.insert(number, Arc::clone(&file));
        Ok(file)
    }
}
