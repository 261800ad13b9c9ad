//! The journal: the truth on disk.
//!
//! Append-only segment files of batches. A batch is written with one write and made durable with one fdatasync
//! before anything else happens, so after a crash at most the last batch can be torn, and only its
//! proposers, who never got an answer, can miss it. Segments are allocated whole, so that a full disk shows
//! before a batch is written and not in the middle of one; the rest of a segment is zero.

mod batch;
mod reader;
mod scan;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile, How, is_full};
use batch::{BATCH_HEADER, Place, SEGMENT_HEADER, SegmentHeader, write_batch};

pub(crate) use batch::LogId;
pub(crate) use reader::JournalReader;
pub(crate) use scan::{StoredBatch, Tail, scan, segment_path, segments};

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

/// The journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    log_id: LogId,
    file: DiskFile,
    position: JournalPosition,
    buffer: Vec<u8>,
}

impl Journal {
    /// Makes the journal of a new log: its first, empty segment.
    pub(crate) fn create(
        directory: &Path,
        log_id: LogId,
        segment_bytes: u64,
        disk: &Arc<dyn Disk>,
    ) -> Result<(), JournalError> {
        let header = SegmentHeader { number: 0, first_index: 0, log_id };
        let made = create_segment(directory, header, segment_bytes, disk);
        made.map(drop).map_err(|error| io_error(&segment_path(directory, 0), &error))
    }

    /// Opens an existing journal and hands every batch from `start` on to `replay`, in order.
    ///
    /// A torn end is cut off, if `admit` has nothing against where the journal then ends. The last batch may have
    /// been written and never synced, by a process that died in between or whose sync failed: it is written and
    /// synced once more before anybody builds on it.
    pub(crate) fn open<E: From<JournalError>>(
        directory: &Path,
        start: JournalPosition,
        segment_bytes: u64,
        disk: &Arc<dyn Disk>,
        admit: &dyn Fn(&Tail) -> Result<(), E>,
        replay: &mut dyn FnMut(StoredBatch) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut held: Option<StoredBatch> = None;
        let tail = scan(directory, start, &mut |batch| match held.replace(batch) {
            Some(earlier) => replay(earlier),
            None => Ok(()),
        })?;
        admit(&tail)?;
        let path = segment_path(directory, tail.position.segment);
        let repaired = repair(directory, &path, &tail, held.as_ref(), segment_bytes, disk);
        let file = repaired.map_err(|error| io_error(&path, &error))?;
        if let Some(last) = held {
            replay(last)?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            disk: Arc::clone(disk),
            segment_bytes,
            log_id: tail.log_id,
            file,
            position: tail.position,
            buffer: Vec::new(),
        })
    }

    /// Where the next batch goes.
    pub(crate) fn position(&self) -> JournalPosition {
        self.position
    }

    /// Names the log.
    pub(crate) fn log_id(&self) -> LogId {
        self.log_id
    }

    /// Appends one batch and makes it durable. Returns the segment and the offset of each entry's length field.
    pub(crate) fn append(&mut self, entries: &[&[u8]]) -> Result<(u32, Vec<u64>), AppendError> {
        let payload: usize = entries.iter().map(|entry| 2 + entry.len()).sum();
        let total = (BATCH_HEADER + payload) as u64;
        let is_fresh = self.position.offset == SEGMENT_HEADER;
        if !is_fresh && self.position.offset + total > self.segment_bytes {
            self.next_segment(total)?;
        }
        let JournalPosition { size, segment, offset } = self.position;
        let offsets =
            write_batch(&mut self.buffer, entries, size, &Place { log_id: self.log_id, segment, offset });
        match self.file.write(&self.buffer, offset) {
            Ok(()) => {}
            Err(error) if is_full(&error) => return Err(self.undo()),
            Err(error) => return Err(AppendError::Fatal(format!("writing the journal failed: {error}"))),
        }
        self.file
            .sync()
            .map_err(|error| AppendError::Fatal(format!("syncing the journal failed: {error}")))?;
        self.position.size += entries.len() as u64;
        self.position.offset += total;
        Ok((segment, offsets))
    }

    /// Takes a batch back that found no room: durably, because its proposers are told that nothing of it counts.
    fn undo(&self) -> AppendError {
        let undone =
            self.file.write(&[0; BATCH_HEADER], self.position.offset).and_then(|()| self.file.sync());
        match undone {
            Ok(()) => AppendError::Full,
            Err(error) => AppendError::Fatal(format!("undoing a short write failed: {error}")),
        }
    }

    fn next_segment(&mut self, batch: u64) -> Result<(), AppendError> {
        let number = self.position.segment + 1;
        let bytes = self.segment_bytes.max(SEGMENT_HEADER + batch);
        let header = SegmentHeader { number, first_index: self.position.size, log_id: self.log_id };
        match create_segment(&self.directory, header, bytes, &self.disk) {
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
    header: SegmentHeader,
    bytes: u64,
    disk: &Arc<dyn Disk>,
) -> io::Result<DiskFile> {
    let path = segment_path(directory, header.number);
    let temporary = path.with_extension("new");
    let made = (|| {
        let file = DiskFile::open(disk, &temporary, How::Anew)?;
        file.allocate(bytes)?;
        file.write(&header.to_bytes(), 0)?;
        file.sync()?;
        disk.rename(&temporary, &path)?;
        disk.sync_directory(directory)?;
        Ok(file.renamed(&path))
    })();
    if made.is_err() {
        // Without it a failed attempt on a full disk would keep its room. If it stays, it is overwritten.
        let _ = disk.remove(&temporary);
    }
    made
}

/// Opens the last segment for appending: without what is torn, and with the last batch surely on the disk.
fn repair(
    directory: &Path,
    path: &Path,
    tail: &Tail,
    last: Option<&StoredBatch>,
    segment_bytes: u64,
    disk: &Arc<dyn Disk>,
) -> io::Result<DiskFile> {
    let file = DiskFile::open(disk, path, How::Existing)?;
    let position = tail.position;
    if let Some(until) = tail.torn_until {
        keep_torn(directory, &file, position, until);
        tracing::warn!(
            segment = position.segment,
            offset = position.offset,
            bytes = until - position.offset,
            "the journal ends in a torn batch that nobody was told of: cutting it off"
        );
        let zeros = vec![0; 1 << 20];
        let mut at = position.offset;
        while at < until {
            let count = usize::try_from(until - at).unwrap_or(usize::MAX).min(zeros.len());
            file.write(&zeros[..count], at)?;
            at += count as u64;
        }
    }
    if let Some(last) = last {
        // It stands in the last segment or, if that is empty, at the end of the one before.
        let of_last = match last.segment == position.segment {
            true => file.clone(),
            false => DiskFile::open(disk, &segment_path(directory, last.segment), How::Existing)?,
        };
        of_last.write(&last.bytes, last.offset)?;
        of_last.sync()?;
    }
    if tail.torn_until.is_some() {
        file.sync()?;
    }
    if file.length()? < segment_bytes
        && let Err(error) = file.allocate(segment_bytes)
    {
        tracing::warn!(%error, "the journal's last segment cannot be allocated whole; room is found while writing");
    }
    Ok(file)
}

/// A copy of what is cut off, for whoever wants to know what it was. Best effort.
fn keep_torn(directory: &Path, file: &DiskFile, position: JournalPosition, until: u64) {
    let length = usize::try_from(until - position.offset).unwrap_or(usize::MAX).min(64 << 20);
    let mut bytes = vec![0; length];
    let path = directory.join(format!("torn-{:08}-{}", position.segment, position.offset));
    let kept = file.read(&mut bytes, position.offset).and_then(|_| fs::write(&path, &bytes));
    if let Err(error) = kept {
        tracing::warn!(%error, "no copy of the torn batch could be kept");
    }
}

fn io_error(path: &Path, error: &io::Error) -> JournalError {
    JournalError::Io { path: path.display().to_string(), error: error.to_string() }
}

#[cfg(test)]
mod tests;
