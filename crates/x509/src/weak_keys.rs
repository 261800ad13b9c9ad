//! Lists of leaked or predictable RSA keys, in the format of Debian's openssl-blacklist (CVE-2008-0166).
//!
//! A list is text: one key per line as twenty hexadecimal digits, the last 80 bits of the SHA-1 of the line
//! `Modulus=HEX` that `openssl rsa -modulus` prints; `#` begins a comment. The lists themselves do not come
//! with this program: Debian no longer ships them, and the one for 2048 bits alone has some hundred thousand
//! entries. They are loaded from files that the operator names; without files nothing is refused for being on
//! a list. SHA-1 serves here to recognise, not to protect: whoever makes a second key for a listed hash gets
//! his own key refused.

use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER_PERMISSIVE, HEXUPPER};
use sha1::{Digest as _, Sha1};

use crate::PublicKey;

/// Most entries in all lists together; ten bytes of memory each.
const MAX_ENTRIES: usize = 4_000_000;
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 128 << 20;
/// Longest line that is read, in bytes: the entry and a comment.
const MAX_LINE: u64 = 200;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeakKeyListError {
    /// The file cannot be read.
    #[error("the weak key list {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line that is no entry.
    #[error(
        "line {line} of the weak key list {path} is not an entry; entries are 20 hexadecimal digits \
         as in Debian's openssl-blacklist"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// More than fits.
    #[error("the weak key list {path} is too long; at most {limit} entries are held in all lists together")]
    TooLong {
        /// The file with the first entry too many.
        path: PathBuf,
        /// Entries held at most.
        limit: usize,
    },
}

/// The key is on a list of leaked or predictable keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the RSA key is on a list of known private keys (CVE-2008-0166 or a leak); make a new key")]
pub struct KnownWeakKey;

/// Truncated hashes of known keys, sorted, ten bytes each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeakKeyList {
    entries: Vec<[u8; 10]>,
}

impl WeakKeyList {
    /// Reads all these files into one list; no file, an empty list.
    ///
    /// # Errors
    /// [`WeakKeyListError`] naming the file; an unreadable list is never taken for an empty one.
    pub fn from_files<P: AsRef<Path>>(paths: &[P]) -> Result<Self, WeakKeyListError> {
        let mut entries = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let fail = |source| WeakKeyListError::Read { path: path.to_owned(), source };
            let file = std::fs::File::open(path).map_err(fail)?;
            read_entries(BufReader::new(file.take(MAX_FILE + 1)), path, &mut entries)?;
        }
        Ok(Self::from_entries(entries))
    }

    /// Reads one list from memory; `name` stands in errors.
    ///
    /// # Errors
    /// [`WeakKeyListError`].
    pub fn from_text(text: &[u8], name: &str) -> Result<Self, WeakKeyListError> {
        let mut entries = Vec::new();
        read_entries(text, Path::new(name), &mut entries)?;
        Ok(Self::from_entries(entries))
    }

    fn from_entries(mut entries: Vec<[u8; 10]>) -> Self {
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to_fit();
        Self { entries }
    }

    /// How many keys it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Refuses a key that is listed; keys other than RSA never are.
    ///
    /// # Errors
    /// [`KnownWeakKey`].
    pub fn check(&self, key: &PublicKey) -> Result<(), KnownWeakKey> {
        match key.rsa_modulus() {
            Some(modulus) if self.entries.binary_search(&entry_of(modulus)).is_ok() => Err(KnownWeakKey),
            _ => Ok(()),
        }
    }
}

/// The last 80 bits of the SHA-1 of what `openssl rsa -modulus` prints.
fn entry_of(modulus: &[u8]) -> [u8; 10] {
    let printed = format!("Modulus={}\n", HEXUPPER.encode(modulus));
    let hash: [u8; 20] = Sha1::digest(printed.as_bytes()).into();
    *hash.last_chunk().expect("10 is less than 20")
}

fn read_entries(
    mut text: impl BufRead,
    path: &Path,
    entries: &mut Vec<[u8; 10]>,
) -> Result<(), WeakKeyListError> {
    let mut line = Vec::new();
    let mut read = 0;
    for number in 1.. {
        line.clear();
        let length = (&mut text)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|source| WeakKeyListError::Read { path: path.to_owned(), source })?;
        if length == 0 {
            break;
        }
        read += length as u64;
        let content = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        let is_whole = line.ends_with(b"\n") || (length as u64) < MAX_LINE;
        if content.is_empty() && is_whole {
            continue;
        }
        let entry = HEXLOWER_PERMISSIVE.decode(content).ok().and_then(|bytes| bytes.try_into().ok());
        let (Some(entry), true) = (entry, is_whole) else {
            return Err(WeakKeyListError::Line { path: path.to_owned(), line: number });
        };
        if entries.len() == MAX_ENTRIES || read > MAX_FILE {
            return Err(WeakKeyListError::TooLong { path: path.to_owned(), limit: MAX_ENTRIES });
        }
        entries.push(entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
