//! Reading single entries while the journal is being appended to.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::scan::segment_path;
use crate::embedded::disk::read_up_to;

/// Segments that are kept open: more would run into the process's limit of open files.
const MOST_OPEN: usize = 64;
/// Most entries fit in the first read; a longer one costs a second.
const FIRST_READ: usize = 2048;

/// Reads single entries by their place.
#[derive(Debug)]
pub(crate) struct JournalReader {
    directory: PathBuf,
    segments: RwLock<HashMap<u32, Arc<File>>>,
}

impl JournalReader {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), segments: RwLock::default() }
    }

    /// The entry whose length field is at this place. Whether it is the one that was meant, its hash tells.
    pub(crate) fn entry(&self, segment: u32, offset: u64) -> io::Result<Vec<u8>> {
        let file = self.segment(segment)?;
        let mut buffer = vec![0_u8; FIRST_READ];
        let filled = read_up_to(&file, &mut buffer, offset)?;
        let Some(length) = buffer[..filled].first_chunk::<2>() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let end = 2 + usize::from(u16::from_be_bytes(*length));
        buffer.resize(end, 0);
        if end > filled && read_up_to(&file, &mut buffer[filled..], offset + filled as u64)? < end - filled {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.drain(..2);
        Ok(buffer)
    }

    fn segment(&self, number: u32) -> io::Result<Arc<File>> {
        if let Some(file) = self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(segment_path(&self.directory, number))?);
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        if segments.len() >= MOST_OPEN {
            segments.clear();
        }
        segments.insert(number, Arc::clone(&file));
        Ok(file)
    }
}
