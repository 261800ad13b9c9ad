//! A key of a log as the log itself records it.
//!
//! ```text
//! content = SubjectPublicKeyInfo of an Ed25519 key, 44 bytes (RFC 8410) | the predecessor's checkpoint, a signed note
//! ```
//! The note is there from the key's activation on, and only if there was a key before. It is the checkpoint of the log
//! that ends with the entry which published the key: whoever believes the predecessor believes this one then.

use chancery_types::Digest;

use crate::key::{NoteKeyKind, NoteVerifier, VkeyError};
use crate::note::{NoteError, SignedNote};

/// Why a record of a key cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordedKeyError {
    /// It does not begin with an Ed25519 key.
    #[error("a key of the log is recorded as an Ed25519 SubjectPublicKeyInfo of 44 bytes")]
    Spki,
    /// The log's origin cannot be the name of a key.
    #[error(transparent)]
    Vkey(#[from] VkeyError),
    /// What follows the key is no text.
    #[error("what follows the key is no text")]
    Text,
    /// What follows the key is no signed note.
    #[error("what follows the key is no checkpoint: {0}")]
    Note(#[from] NoteError),
}

/// A key of a log, and the checkpoint by which the key before it vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedKey {
    /// The key.
    pub key: NoteVerifier,
    /// The checkpoint; not believed yet.
    pub vouched: Option<SignedNote>,
}

impl RecordedKey {
    /// Reads the record of a key of the log of this origin.
    ///
    /// # Errors
    /// [`RecordedKeyError`].
    pub fn parse(origin: &str, content: &[u8]) -> Result<Self, RecordedKeyError> {
        let (spki, rest) = content.split_at_checked(SPKI).ok_or(RecordedKeyError::Spki)?;
        let key =
            spki.strip_prefix(&PREFIX).and_then(|key| key.try_into().ok()).ok_or(RecordedKeyError::Spki)?;
        let key = NoteVerifier::new(origin, NoteKeyKind::Ed25519, key)?;
        let vouched = match rest {
            [] => None,
            note => Some(std::str::from_utf8(note).map_err(|_| RecordedKeyError::Text)?.parse()?),
        };
        Ok(Self { key, vouched })
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo: what the log calls it.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(&self.spki())
    }

    /// The record.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        let note = self.vouched.as_ref().map(ToString::to_string).unwrap_or_default();
        [self.spki().as_slice(), note.as_bytes()].concat()
    }

    fn spki(&self) -> Vec<u8> {
        [PREFIX.as_slice(), self.key.public_key()].concat()
    }
}

impl From<NoteVerifier> for RecordedKey {
    fn from(key: NoteVerifier) -> Self {
        Self { key, vouched: None }
    }
}

/// Bytes of the key.
const SPKI: usize = PREFIX.len() + 32;
/// What an Ed25519 SubjectPublicKeyInfo begins with (RFC 8410, section 4).
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
