//! The keys of signed notes: who signs, who is believed.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use chancery_types::Digest;
use data_encoding::{BASE64, HEXLOWER};

use crate::text::{base64, excerpt};

/// A signature could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key's custodian failed or refused.
    #[error("the key {name:?} did not sign")]
    Custody {
        /// Name of the key.
        name: String,
        /// What the custodian said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The custodian returned something else than an Ed25519 signature.
    #[error("an Ed25519 signature has 64 bytes, the key {name:?} gave {length}")]
    Length {
        /// Name of the key.
        name: String,
        /// Bytes returned.
        length: usize,
    },
    /// No key of the log is at hand, or none is in force.
    #[error("no key of the log {0:?} signs here: its key is missing, or nothing is to be signed")]
    NoKey(String),
    /// A text that no signed note can carry: see [`crate::SignedNote::sign`].
    #[error("the text cannot become a signed note: it must end in a newline and hold no control characters")]
    Text,
}

/// Signs the text of a note.
pub trait NoteSigner {
    /// What others need to verify; its name and identifier stand in the signature line.
    fn verifier(&self) -> &NoteVerifier;

    /// The signature's bytes (without key id) over this text.
    ///
    /// # Errors
    /// [`SignError`] when the key cannot be used.
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// The kinds of keys that are understood here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoteKeyKind {
    /// Ed25519 over the text, type `01`: logs.
    Ed25519,
    /// Ed25519 over a time and the checkpoint, type `04` (tlog-cosignature): witnesses.
    CosignatureV1,
}

impl NoteKeyKind {
    /// The assigned type byte.
    #[must_use]
    pub fn type_byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::CosignatureV1 => 0x04,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Ed25519, Self::CosignatureV1].into_iter().find(|kind| kind.type_byte() == byte)
    }
}

/// Why a text is not a verifier key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VkeyError {
    /// Not three parts, or one of them not encoded as it should be.
    #[error("a verifier key is <name>+<8 hexadecimal digits>+<base64>, this is {0:?}")]
    Malformed(String),
    /// The name is empty, too long, or has spaces, control characters or a plus sign.
    #[error(
        "a key's name is 1 to {MAX_NAME_BYTES} bytes without spaces, plus or control characters, not {0:?}"
    )]
    Name(String),
    /// A signature type that is not implemented here.
    #[error("keys of type {0:02x} are not supported; use Ed25519 (01) or cosignature/v1 (04)")]
    Kind(u8),
    /// The public key has the wrong length.
    #[error("an Ed25519 public key has 32 bytes, this one has {0}")]
    KeyLength(usize),
    /// The identifier does not belong to name and key.
    #[error("the verifier key says its id is {found}, its name and key give {computed}; copy it again")]
    Id {
        /// In the text.
        found: String,
        /// Computed.
        computed: String,
    },
}

/// A key whose signatures are believed: what somebody configures who verifies a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NoteVerifier {
    name: String,
    kind: NoteKeyKind,
    public_key: [u8; 32],
}

impl NoteVerifier {
    /// A verifier of this name and Ed25519 public key (RFC 8032).
    ///
    /// # Errors
    /// [`VkeyError::Name`] when no key can have this name.
    pub fn new(name: &str, kind: NoteKeyKind, public_key: [u8; 32]) -> Result<Self, VkeyError> {
        if !is_key_name(name) || name.len() > MAX_NAME_BYTES {
            return Err(VkeyError::Name(excerpt(name)));
        }
        Ok(Self { name: name.to_owned(), kind, public_key })
    }

    /// The name; a log's should be its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs and how.
    #[must_use]
    pub fn kind(&self) -> NoteKeyKind {
        self.kind
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// The short identifier: `SHA-256(name ‖ 0A ‖ type ‖ public key)[..4]`.
    #[must_use]
    pub fn key_id(&self) -> [u8; 4] {
        let mut input = Vec::with_capacity(self.name.len() + 34);
        input.extend_from_slice(self.name.as_bytes());
        input.extend_from_slice(&[b'\n', self.kind.type_byte()]);
        input.extend_from_slice(&self.public_key);
        let [a, b, c, d, ..] = *Digest::of(&input).as_bytes();
        [a, b, c, d]
    }

    /// The text that others configure: `name+id+base64(type ‖ public key)`. The same as [`fmt::Display`].
    #[must_use]
    pub fn vkey(&self) -> String {
        self.to_string()
    }

    /// Whether these bytes are this key's signature over the text. A cosignature yields the time it states.
    #[must_use]
    pub(crate) fn check(&self, text: &str, signature: &[u8]) -> Option<Checked> {
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, self.public_key);
        match self.kind {
            NoteKeyKind::Ed25519 => {
                key.verify(text.as_bytes(), signature).ok().map(|()| Checked { seconds: None })
            }
            NoteKeyKind::CosignatureV1 => {
                let (time, signature) = signature.split_first_chunk::<8>()?;
                let seconds = u64::from_be_bytes(*time);
                key.verify(cosignature_message(seconds, text).as_bytes(), signature).ok()?;
                Some(Checked { seconds: Some(seconds) })
            }
        }
    }
}

/// What a good signature says beside being good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checked {
    /// When a witness cosigned, in seconds since 1970.
    pub(crate) seconds: Option<u64>,
}

impl fmt::Display for NoteVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = [0_u8; 33];
        key[0] = self.kind.type_byte();
        key[1..].copy_from_slice(&self.public_key);
        write!(formatter, "{}+{}+{}", self.name, HEXLOWER.encode(&self.key_id()), BASE64.encode(&key))
    }
}

impl FromStr for NoteVerifier {
    type Err = VkeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || VkeyError::Malformed(excerpt(text));
        let mut parts = text.splitn(3, '+');
        let (name, id, key) = (
            parts.next().unwrap_or_default(),
            parts.next().ok_or_else(malformed)?,
            parts.next().filter(|key| key.len() <= MAX_KEY_TEXT).ok_or_else(malformed)?,
        );
        let found = HEXLOWER.decode(id.as_bytes()).ok().filter(|id| id.len() == 4).ok_or_else(malformed)?;
        let key = base64(key).ok_or_else(malformed)?;
        let (kind, public_key) = key.split_first().ok_or_else(malformed)?;
        let kind = NoteKeyKind::from_byte(*kind).ok_or(VkeyError::Kind(*kind))?;
        let public_key = public_key.try_into().map_err(|_| VkeyError::KeyLength(public_key.len()))?;
        let verifier = Self::new(name, kind, public_key)?;
        let computed = verifier.key_id();
        if found != computed {
            return Err(VkeyError::Id { found: id.to_owned(), computed: HEXLOWER.encode(&computed) });
        }
        Ok(verifier)
    }
}

/// Signs notes with an Ed25519 key that stays with its custodian: `sign` is given the bytes and returns the
/// 64-byte signature.
pub struct Ed25519NoteSigner<F> {
    verifier: NoteVerifier,
    sign: F,
}

impl<F, E> Ed25519NoteSigner<F>
where
    F: Fn(&[u8]) -> Result<Vec<u8>, E>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    /// A signer of this name, for the private key that belongs to `public_key`.
    ///
    /// # Errors
    /// [`VkeyError::Name`] when no key can have this name.
    pub fn new(name: &str, public_key: [u8; 32], sign: F) -> Result<Self, VkeyError> {
        let verifier = NoteVerifier::new(name, NoteKeyKind::Ed25519, public_key)?;
        Ok(Self { verifier, sign })
    }
}

impl<F, E> NoteSigner for Ed25519NoteSigner<F>
where
    F: Fn(&[u8]) -> Result<Vec<u8>, E>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn verifier(&self) -> &NoteVerifier {
        &self.verifier
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, SignError> {
        let name = || self.verifier.name.clone();
        let signature =
            (self.sign)(text).map_err(|source| SignError::Custody { name: name(), source: source.into() })?;
        if signature.len() != 64 {
            return Err(SignError::Length { name: name(), length: signature.len() });
        }
        Ok(signature)
    }
}

impl<F> fmt::Debug for Ed25519NoteSigner<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ed25519NoteSigner").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

/// Whether signed-note allows this key name, whose length it does not limit.
pub(crate) fn is_key_name(name: &str) -> bool {
    let forbidden = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '+';
    !name.is_empty() && !name.contains(forbidden)
}

/// What a witness signs (tlog-cosignature, cosignature/v1).
pub(crate) fn cosignature_message(seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// As long as a path-less URL gets; the ML-DSA cosignature format has the same bound.
const MAX_NAME_BYTES: usize = 255;
/// Room for an ML-DSA-44 key (1,313 bytes in base64), which is then refused by its type and not by its size.
const MAX_KEY_TEXT: usize = 2_048;
