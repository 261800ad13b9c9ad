//! The ledger's entries: every fact that this authority ever committed to, in a binary form that outlives it.
//!
//! An [`Entry`] is a time and a [`Body`]. Its bytes are a leaf of the transparency log: they are hashed as they
//! stand, so the encoding is canonical (decode then encode gives the same bytes, everything else is refused)
//! and versioned per type. The ledger writes entries, the issuance and revocation crates propose them, and an
//! auditor who trusts none of these reads them with this crate alone. It holds no state and does no I/O.
//!
//! ```text
//! entry = u16 type | u8 version | i64 time (ms since 1970) | fields in the order of the struct
//! integers are big-endian; texts and byte strings carry a u16 length, lists a u16 count; an option is a byte 0 or 1 and the value
//! ```
//! The whole has at most 65,535 bytes: what an entry bundle of the C2SP tlog-tiles format can carry.

mod body;
mod codec;
mod facts;
mod values;

pub use body::Body;
pub use codec::{Blob, DecodeError};
pub use facts::{
    Ceremony, ChangeProposal, ChangeStep, CrlDivision, CrlPublished, CrlShardPublished, Genesis, Hold,
    IdentityChange, IdentityRegistration, Issuance, IssuerActivation, IssuerRetirement, IssuerTaint,
    KeyChange, OperatorAction, PolicyChange, ProfileChange, Refusal, Release, Revocation, RotationWish,
    StatusSetPublished, TemplateRegistration, TemplateRemoval, Tidy, TokenCreation, TokenRevocation,
    TokenSpend,
};
pub use values::{Document, HoldTarget, KeyPhase, KeyPurpose, Step, TaintStep, TokenBinding, Wanted};

use chancery_types::Timestamp;
use serde::Serialize;

/// Most bytes in one entry (tlog-tiles: a u16 length before each).
pub const MAX_ENTRY: usize = 65_535;

/// One fact and the moment it was proposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When the proposal was made, by the proposer's clock.
    pub time: Timestamp,
    /// The fact.
    #[serde(flatten)]
    pub body: Body,
}

/// An entry would be longer than [`MAX_ENTRY`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a ledger entry has at most {MAX_ENTRY} bytes, this {kind} would have {length}; shorten its documents"
)]
pub struct TooLong {
    /// The entry's type.
    pub kind: &'static str,
    /// Its length in bytes.
    pub length: usize,
}

impl Entry {
    /// An entry of this moment.
    #[must_use]
    pub fn new(time: Timestamp, body: impl Into<Body>) -> Self {
        Self { time, body: body.into() }
    }

    /// The canonical bytes.
    ///
    /// # Errors
    /// [`TooLong`] when the whole or one of its fields cannot be represented.
    pub fn encode(&self) -> Result<Vec<u8>, TooLong> {
        let mut writer = codec::Writer::with_capacity(1024);
        writer.u16(self.body.type_number());
        writer.u8(body::VERSION);
        writer.i64(self.time.millis());
        self.body.write(&mut writer);
        let kind = self.body.kind();
        writer.finish().map_err(|length| TooLong { kind, length })
    }

    /// Reads an entry back.
    ///
    /// # Errors
    /// [`DecodeError`] with the byte offset where the bytes stop being an entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = codec::Reader::new(bytes);
        let type_number = reader.u16("type")?;
        let version = reader.u8("version")?;
        if version != body::VERSION {
            return Err(DecodeError::Version { type_number, version, known: body::VERSION });
        }
        let time = Timestamp::from_millis(reader.i64("time")?);
        let body = Body::read(type_number, &mut reader)?;
        reader.finish()?;
        Ok(Self { time, body })
    }
}

#[cfg(test)]
mod tests;
