//! A set or a delta with the signature behind it: what is fetched, and what lies on disk.

use bytes::Bytes;
use chancery_merkle::{LogSigners, NoteError, NoteVerifier, SignError, SignedNote};
use chancery_types::{Digest, TrustDomain};

use crate::delta::{self, Delta, DeltaError};
use crate::note::{StatusNote, StatusNoteError};
use crate::set::{self, ExactSet, SetError};

/// The longest note that is read behind a set.
pub const MAX_NOTE_BYTES: usize = 16 << 10;

/// Why bytes are not a set to believe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a set.
    #[error(transparent)]
    Set(#[from] SetError),
    /// Not a delta, or one for another set.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// What follows is no note.
    #[error("no signature of at most {MAX_NOTE_BYTES} bytes follows the set, but {0} bytes that are no text")]
    NoNote(usize),
    /// The signature is not good, or not of the key that is believed.
    #[error("the signature of the set does not hold: {0}")]
    Note(#[from] NoteError),
    /// The key has signed something else.
    #[error(transparent)]
    Text(#[from] StatusNoteError),
    /// The set of another trust domain.
    #[error("the set is of trust domain {found}, not of {expected}")]
    TrustDomain {
        /// Ours.
        expected: TrustDomain,
        /// In the note.
        found: TrustDomain,
    },
    /// The set was changed, or the signature is of another version.
    #[error("the signature is of the set {signed} at {signed_sequence}, not of {found} at {sequence}")]
    OtherSet {
        /// SHA-256 in the note.
        signed: Digest,
        /// Sequence in the note.
        signed_sequence: u64,
        /// SHA-256 of the set.
        found: Digest,
        /// Sequence of the set.
        sequence: u64,
    },
}

/// A set whose signature was verified, or made here. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct SignedSet {
    set: ExactSet,
    note: SignedNote,
}

impl SignedSet {
    /// Signs a set with the log's keys that are in force.
    ///
    /// # Errors
    /// [`SignError`] when one of them does not sign.
    pub fn sign(set: ExactSet, trust_domain: &TrustDomain, signers: &LogSigners) -> Result<Self, SignError> {
        let note = signers.sign(&StatusNote::of(&set, trust_domain).to_string())?;
        Ok(Self { set, note })
    }

    /// Reads a set with its signature, as fetched or as it lies on disk. One of the log's keys must have signed it,
    /// which is verified before anything else of the set is looked at.
    ///
    /// A good signature says nothing about age: compare [`ExactSet::made`] and [`ExactSet::sequence`] with what is
    /// known.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(bytes: Bytes, trust_domain: &TrustDomain, log: &[NoteVerifier]) -> Result<Self, OpenError> {
        let (set, note) = split(&bytes, set::stated_length(&bytes)?)?;
        let signed = verify(&note, trust_domain, log)?;
        let found = Digest::of(&set);
        if found != signed.hash {
            let sequence = set::sequence_of(&set);
            return Err(other_set(&signed, found, sequence));
        }
        let set = ExactSet::parse(set)?;
        match set.sequence() == signed.sequence {
            true => Ok(Self { set, note }),
            false => Err(other_set(&signed, found, set.sequence())),
        }
    }

    /// The next version, by a delta with the next version's signature.
    ///
    /// # Errors
    /// [`OpenError`]; this version stays as it is.
    pub fn advance(
        &self,
        delta: Bytes,
        trust_domain: &TrustDomain,
        log: &[NoteVerifier],
    ) -> Result<Self, OpenError> {
        let (delta, note) = split(&delta, delta::stated_length(&delta)?)?;
        let signed = verify(&note, trust_domain, log)?;
        let delta = Delta::parse(delta)?;
        if (delta.hash(), delta.sequence()) != (signed.hash, signed.sequence) {
            return Err(other_set(&signed, delta.hash(), delta.sequence()));
        }
        Ok(Self { set: delta.apply(&self.set)?, note })
    }

    /// The bytes that bring a holder of `old` here: the delta, and behind it the signature of this version.
    ///
    /// # Errors
    /// [`DeltaError`] as [`Delta::between`].
    pub fn delta_from(&self, old: &ExactSet) -> Result<Bytes, DeltaError> {
        let delta = Delta::between(old, &self.set)?;
        Ok([delta.bytes(), self.note.to_string().as_bytes()].concat().into())
    }

    /// The set.
    #[must_use]
    pub fn set(&self) -> &ExactSet {
        &self.set
    }

    /// The signed text and its signatures.
    #[must_use]
    pub fn note(&self) -> &SignedNote {
        &self.note
    }

    /// The set and behind it the note: what is fetched, and what lies on disk.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        [self.set.bytes(), self.note.to_string().as_bytes()].concat().into()
    }
}

/// Tells the bytes from the note behind them.
fn split(bytes: &Bytes, length: usize) -> Result<(Bytes, SignedNote), OpenError> {
    let Some(rest) = bytes.get(length..) else {
        return Err(SetError::Length { stated: length as u64, found: bytes.len() }.into());
    };
    let text = std::str::from_utf8(rest).ok().filter(|text| text.len() <= MAX_NOTE_BYTES);
    let note = text.ok_or(OpenError::NoNote(rest.len()))?.parse()?;
    Ok((bytes.slice(..length), note))
}

fn verify(
    note: &SignedNote,
    trust_domain: &TrustDomain,
    log: &[NoteVerifier],
) -> Result<StatusNote, OpenError> {
    note.verify(log)?;
    let signed: StatusNote = note.text().parse()?;
    if signed.trust_domain == *trust_domain {
        return Ok(signed);
    }
    Err(OpenError::TrustDomain { expected: trust_domain.clone(), found: signed.trust_domain })
}

fn other_set(signed: &StatusNote, found: Digest, sequence: u64) -> OpenError {
    OpenError::OtherSet { signed: signed.hash, signed_sequence: signed.sequence, found, sequence }
}
