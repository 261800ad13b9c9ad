//! The truth: one append-only file of records, each with its checksum.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::certificate::{Certificate, RECORD, counter_of};

pub(crate) struct Journal {
    file: File,
    length: u64,
    sync: Sync,
}

/// Whether an append waits for the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Always,
    /// Acknowledges what it has not made durable: the control that a power-cut test must catch.
    Never,
}

impl Journal {
    /// Opens or creates the journal of `dir` and cuts a torn tail. Records before `known` are taken on trust.
    pub(crate) fn open(dir: &Path, known: u64, sync: Sync) -> Result<Self> {
        let path = dir.join("journal");
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        // The directory entry must be as durable as what it names.
        File::open(dir)?.sync_all()?;
        let length = count(dir, known)?;
        file.set_len(length * RECORD as u64)?;
        file.sync_all()?;
        Ok(Self { file, length, sync })
    }

    /// Whole records, all of them durable.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends the next `count` certificates in one write and one `fdatasync`.
    pub(crate) fn append(&mut self, count: usize) -> Result<()> {
        let mut bytes = Vec::with_capacity(count * RECORD);
        for counter in self.length..self.length + count as u64 {
            bytes.extend_from_slice(&Certificate::numbered(counter).record());
        }
        self.file.write_all(&bytes)?;
        if self.sync == Sync::Always {
            self.file.sync_data()?;
        }
        self.length += count as u64;
        Ok(())
    }
}

/// Counts whole records from `known` on and stops at the first that is not.
pub(crate) fn count(dir: &Path, known: u64) -> Result<u64> {
    let path = dir.join("journal");
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let size = file.metadata()?.len() / RECORD as u64;
    ensure!(size >= known, "journal has {size} records, the index was built from {known}");
    let mut length = known;
    let mut record = [0; RECORD];
    if known > 0 {
        file.read_exact_at(&mut record, (known - 1) * RECORD as u64)?;
        ensure!(counter_of(&record) == Some(known - 1), "record {} of the journal is damaged", known - 1);
    }
    let mut reader = BufReader::with_capacity(1 << 20, file);
    std::io::Seek::seek(&mut reader, std::io::SeekFrom::Start(known * RECORD as u64))?;
    while length < size && reader.read_exact(&mut record).is_ok() && counter_of(&record) == Some(length) {
        length += 1;
    }
    Ok(length)
}
