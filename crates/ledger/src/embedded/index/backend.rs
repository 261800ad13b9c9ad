//! The file under the engine, and what happens when it fails.
//!
//! An engine that was once told of a failed write answers no question any more, not even about what it has in
//! memory. But status must be answered from a full disk too. So a failure is not told to the engine: it is
//! noted, and from then on everything written stays in memory, over the file as it is. Whoever commits asks
//! afterwards whether the file took it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::embedded::disk::{DiskFile, is_full};

/// What the file refused first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There was no room.
    Full(String),
    /// Anything else: nothing is known about what was written.
    Broken(String),
}

/// Tells whether the file has failed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<Option<Overlay>>>);

impl Health {
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.overlay().as_ref().map(|overlay| overlay.failure.clone())
    }

    fn overlay(&self) -> MutexGuard<'_, Option<Overlay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's file.
#[derive(Debug)]
pub(crate) struct Backend {
    file: DiskFile,
    health: Health,
}

impl Backend {
    pub(crate) fn new(file: DiskFile) -> Self {
        Self { file, health: Health::default() }
    }

    pub(crate) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Does it to the file, or, when that fails or has failed before, to the overlay.
    fn attempt(
        &self,
        on_file: impl FnOnce(&DiskFile) -> io::Result<()>,
        on_overlay: impl FnOnce(&mut Overlay, &DiskFile) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut overlay = self.health.overlay();
        if overlay.is_none() {
            let Err(error) = on_file(&self.file) else { return Ok(()) };
            tracing::error!(%error, "the index cannot be written; it is read on from memory");
            *overlay = Some(Overlay::new(&error, self.file.length()?));
        }
        on_overlay(overlay.as_mut().expect("made above"), &self.file)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        match self.health.overlay().as_ref() {
            Some(overlay) => Ok(overlay.length),
            None => self.file.length(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        {
            let overlay = self.health.overlay();
            if let Some(overlay) = overlay.as_ref() {
                return overlay.read(&self.file, offset, out);
            }
        }
        self.file.read_exact(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.attempt(
            |file| if length > file.length()? { file.allocate(length) } else { file.set_length(length) },
            |overlay, _| {
                overlay.blocks.retain(|block, _| block * BLOCK < length);
                overlay.length = length;
                Ok(())
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        self.attempt(DiskFile::sync, |_, _| Ok(()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.attempt(|file| file.write(data, offset), |overlay, file| overlay.write(file, offset, data))
    }
}

/// What could not be written, over the file.
#[derive(Debug)]
struct Overlay {
    failure: Failure,
    length: u64,
    blocks: HashMap<u64, Vec<u8>>,
}

const BLOCK: u64 = 4096;
/// The same as a length in memory.
const BLOCK_BYTES: usize = 4096;

impl Overlay {
    fn new(error: &io::Error, length: u64) -> Self {
        let failure = match is_full(error) {
            true => Failure::Full(error.to_string()),
            false => Failure::Broken(error.to_string()),
        };
        Self { failure, length, blocks: HashMap::new() }
    }

    fn write(&mut self, file: &DiskFile, offset: u64, data: &[u8]) -> io::Result<()> {
        self.length = self.length.max(offset + data.len() as u64);
        for (block, inside, part) in blocks(offset, data.len()) {
            let whole = match self.blocks.entry(block) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let mut whole = vec![0; BLOCK_BYTES];
                    file.read(&mut whole, block * BLOCK)?;
                    unknown.insert(whole)
                }
            };
            let length = part.len();
            whole[inside..inside + length].copy_from_slice(&data[part]);
        }
        Ok(())
    }

    fn read(&self, file: &DiskFile, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Behind the file's end it is zero, as after `set_len`.
        let filled = file.read(out, offset)?;
        out[filled..].fill(0);
        for (block, inside, part) in blocks(offset, out.len()) {
            if let Some(whole) = self.blocks.get(&block) {
                let length = part.len();
                out[part].copy_from_slice(&whole[inside..inside + length]);
            }
        }
        Ok(())
    }
}

/// The blocks of a range of bytes: each block's number, where the part begins in it, and the part.
fn blocks(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let inside = usize::try_from(at % BLOCK).expect("below a block's size");
        let part = done..length.min(done + BLOCK_BYTES - inside);
        done = part.end;
        Some((at / BLOCK, inside, part))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::embedded::disk::{Disk, How};

    /// Writes until it is told to fail.
    #[derive(Debug, Default)]
    struct Failing(AtomicBool);

    impl Disk for Failing {
        fn write(
            &self,
            _: &std::path::Path,
            file: &std::fs::File,
            bytes: &[u8],
            offset: u64,
        ) -> io::Result<()> {
            if self.0.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
        }
    }

    #[test]
    fn what_the_file_does_not_take_is_read_from_memory() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(Failing::default());
        let path = directory.path().join("file");
        let file = DiskFile::open(&(Arc::clone(&disk) as Arc<dyn Disk>), &path, How::Create).unwrap();
        let backend = Backend::new(file);
        backend.set_len(10_000).unwrap();
        backend.write(4_000, &[1; 300]).unwrap();
        assert_eq!(backend.health().failure(), None);
        disk.0.store(true, Ordering::Relaxed);
        backend.write(4_090, &[2; 5_000]).unwrap();
        backend.set_len(20_000).unwrap();
        backend.write(19_000, &[3; 1_000]).unwrap();
        backend.sync_data().unwrap();
        assert!(matches!(backend.health().failure(), Some(Failure::Full(_))));
        let mut expected = vec![0; 20_000];
        expected[4_000..4_300].fill(1);
        expected[4_090..9_090].fill(2);
        expected[19_000..].fill(3);
        let mut found = vec![9; 20_000];
        backend.read(0, &mut found).unwrap();
        assert!(found == expected);
        assert_eq!(backend.len().unwrap(), 20_000);
        assert!(backend.read(19_999, &mut [0; 2]).is_err());
        let on_disk = std::fs::read(&path).unwrap();
        assert!(on_disk[4_000..4_300].iter().all(|byte| *byte == 1), "the file is as it was");
    }
}
