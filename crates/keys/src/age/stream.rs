//! The content of an age file: chunks of 64 KiB, each authenticated with its place and whether it is the last.

use std::io::{self, Read, Write};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

use super::derive;

/// Bytes of the nonce before the first chunk.
pub(super) const NONCE: usize = 16;
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;

/// The key of the chunks and the number of the next one.
struct Chunks {
    key: LessSafeKey,
    next: u64,
}

impl Chunks {
    fn new(file_key: &[u8; 16], nonce: &[u8; NONCE]) -> Self {
        let key = derive(file_key, nonce, b"payload");
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*key).expect("the key has 32 bytes");
        Self { key: LessSafeKey::new(key), next: 0 }
    }

    /// Eleven bytes of number, and whether it is the last.
    fn nonce(&self, is_last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.next.to_be_bytes());
        nonce[11] = u8::from(is_last);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Encrypts what is written to it.
pub struct Encryptor<W: Write> {
    chunks: Chunks,
    output: W,
    buffer: Vec<u8>,
}

impl<W: Write> Encryptor<W> {
    pub(super) fn new(file_key: &[u8; 16], nonce: &[u8; NONCE], output: W) -> Self {
        Self { chunks: Chunks::new(file_key, nonce), output, buffer: Vec::with_capacity(CHUNK + TAG) }
    }

    /// Writes the last chunk. Without it the file counts as cut off.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        let nonce = self.chunks.nonce(is_last);
        let sealed = self.chunks.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut self.buffer);
        sealed.expect("64 KiB are not too long for ChaCha20-Poly1305");
        self.chunks.next += 1;
        self.output.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk is written when something follows it: only then it is not the last.
        if self.buffer.len() == CHUNK {
            self.seal(false)?;
        }
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Does not end a chunk: what is buffered is written by [`Encryptor::finish`] at the latest.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decrypts what is read from it. Every byte that it gives is authentic; that it is all shows in an end without error.
pub struct Decryptor<R: Read> {
    chunks: Chunks,
    input: R,
    /// What was read of the input and not yet decrypted.
    sealed: Vec<u8>,
    /// What was decrypted and how much of it was given.
    opened: Vec<u8>,
    given: usize,
    ended: bool,
}

impl<R: Read> Decryptor<R> {
    pub(super) fn new(file_key: &[u8; 16], nonce: &[u8; NONCE], input: R) -> io::Result<Self> {
        let chunks = Chunks::new(file_key, nonce);
        let mut decryptor =
            Self { chunks, input, sealed: Vec::new(), opened: Vec::new(), given: 0, ended: false };
        decryptor.open()?;
        Ok(decryptor)
    }

    /// The next chunk. It is the last if nothing follows.
    fn open(&mut self) -> io::Result<()> {
        let wanted = CHUNK + TAG + 1 - self.sealed.len();
        (&mut self.input).take(wanted as u64).read_to_end(&mut self.sealed)?;
        let is_last = self.sealed.len() <= CHUNK + TAG;
        let mut chunk = std::mem::take(&mut self.sealed);
        self.sealed = chunk.split_off(chunk.len().min(CHUNK + TAG));
        let number = self.chunks.next;
        // Only an empty file has an empty last chunk.
        let is_surplus = chunk.len() == TAG && number > 0;
        if chunk.len() < TAG || is_surplus {
            return Err(damaged("it is cut off", number));
        }
        let nonce = self.chunks.nonce(is_last);
        let Ok(content) = self.chunks.key.open_in_place(nonce, Aad::empty(), &mut chunk) else {
            let what = if is_last { "it is cut off or altered" } else { "it was altered" };
            return Err(damaged(what, number));
        };
        let length = content.len();
        self.chunks.next += 1;
        chunk.truncate(length);
        self.opened.zeroize();
        self.opened = chunk;
        self.given = 0;
        self.ended = is_last;
        Ok(())
    }
}

impl<R: Read> Read for Decryptor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.opened.len() && !self.ended {
            self.open()?;
        }
        let rest = &self.opened[self.given..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}

impl<R: Read> Drop for Decryptor<R> {
    fn drop(&mut self) {
        self.opened.zeroize();
    }
}

fn damaged(what: &str, chunk: u64) -> io::Error {
    let place = chunk.saturating_mul(CHUNK as u64);
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}, around byte {place}: take another copy"))
}
