//! The signatures made over recorded entries.
//!
//! An append-only file of `u64 index | u16 length | signature | u32 crc32c`. Written at once, so that a killed
//! process loses none; synced with the index. A signature that a power cut takes leaves its entry in the
//! ledger: the same TBS may then be signed again, nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;

const HEADER: usize = 10;
const CHECKSUM: usize = 4;

#[derive(Debug)]
pub(crate) struct SignatureLog {
    file: File,
    length: Mutex<u64>,
}

impl SignatureLog {
    /// Opens the file, hands every record from `from` on to `replay`, cuts off a torn end.
    pub(crate) fn open(
        path: &Path,
        from: u64,
        replay: &mut dyn FnMut(u64, u64) -> io::Result<()>,
    ) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        let mut at = from.min(length);
        while let Some((index, signature)) = read_record(&file, at)? {
            replay(index, at)?;
            at += (HEADER + signature.len() + CHECKSUM) as u64;
        }
        file.set_len(at)?;
        Ok(Self { file, length: Mutex::new(at) })
    }

    /// Bytes written so far.
    pub(crate) fn length(&self) -> u64 {
        *self.length.lock().expect("appending does not panic")
    }

    /// Appends records; returns each one's entry index and offset.
    pub(crate) fn append<'a>(
        &self,
        signatures: impl Iterator<Item = (u64, &'a [u8])>,
    ) -> io::Result<Vec<(u64, u64)>> {
        let mut length = self.length.lock().expect("appending does not panic");
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
        self.file.write_all_at(&buffer, *length)?;
        *length += buffer.len() as u64;
        Ok(places)
    }

    pub(crate) fn signature(&self, offset: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(read_record(&self.file, offset)?.map(|(_, signature)| signature))
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        rustix::fs::fdatasync(&self.file).map_err(io::Error::from)
    }
}

/// The record at an offset; `None` where no whole one stands.
fn read_record(file: &File, offset: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut header = [0_u8; HEADER];
    if !read_whole(file, &mut header, offset)? {
        return Ok(None);
    }
    let mut index = [0; 8];
    index.copy_from_slice(&header[..8]);
    let length = usize::from(u16::from_be_bytes([header[8], header[9]]));
    let mut rest = vec![0_u8; length + CHECKSUM];
    if !read_whole(file, &mut rest, offset + HEADER as u64)? {
        return Ok(None);
    }
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header), &rest[..length]);
    if rest[length..] != checksum.to_be_bytes() {
        return Ok(None);
    }
    rest.truncate(length);
    Ok(Some((u64::from_be_bytes(index), rest)))
}

fn read_whole(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}
