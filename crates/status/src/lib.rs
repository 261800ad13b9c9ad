//! The exact set: which certificates are not good, in a byte or so each, signed, with deltas between versions.
//!
//! The authority makes one with [`SetBuilder`], signs it ([`SignedSet::sign`]) and keeps [`Delta`]s between versions.
//! A relying party reads it with [`SignedSet::open`], from memory or from a mapped file ([`map_file`]), and looks
//! serial numbers up in the bytes as they lie ([`ExactSet::standing`]). docs/formats/status-set.md has every byte.
//!
//! There is no network and no clock here. Whatever is read is hostile until its signature was verified, and bounded,
//! canonical and checked to the last bit also after that. What is trusted is the one key that the caller names.

mod block;
mod delta;
mod file;
mod list;
mod note;
mod set;
mod signed;

pub use delta::{Delta, DeltaError};
pub use file::{map_file, replace_file};
pub use list::{Counters, MAX_COUNT};
pub use note::{StatusNote, StatusNoteError};
pub use set::{BuildError, ExactSet, MAX_SET_BYTES, SetBuilder, SetError, Standing};
pub use signed::{MAX_NOTE_BYTES, OpenError, SignedSet};

#[cfg(test)]
mod tests;
