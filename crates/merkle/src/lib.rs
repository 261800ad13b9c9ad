//! RFC 6962 tree hashing and the C2SP formats of a transparency log: checkpoints, tiles, proofs, receipts.
//!
//! What for: the ledger appends with [`Frontier`], proves with [`ProofBuilder`] and signs a [`Checkpoint`];
//! relying parties and auditors, who trust nobody, check the same things with [`verify_inclusion`],
//! [`verify_consistency`] and [`Receipt::verify`]. Tools that know the C2SP specifications (signed-note 1.0,
//! tlog-checkpoint 1.0, tlog-cosignature 1.0, tlog-tiles 0.1, tlog-proof@v1) read what is printed here.
//!
//! What not: there is no I/O, no clock and no private key. Hashes come in through [`HashReader`], signatures
//! through a closure, and what an entry means is not known here.
//!
//! What it trusts: SHA-256 and Ed25519 as `sha2` and `ring` compute them, and the verifier keys that the
//! caller hands in. Every text and every proof is taken for hostile: sizes are bounded, numbers and base64
//! have exactly one spelling, and whatever does not check out is refused with a typed error.

mod bundle;
mod checkpoint;
mod frontier;
mod hash;
mod key;
mod log_keys;
mod log_signers;
mod note;
mod proof;
mod reader;
mod receipt;
mod recorded_key;
mod text;
mod tile;
mod verify;

pub use bundle::{BundleError, BundleReader, EntryTooLong, MAX_ENTRY_BYTES, push_entry, read_bundle};
pub use checkpoint::{Checkpoint, CheckpointError, Cosignature, OpenError, VerifiedCheckpoint};
pub use frontier::{Frontier, FrontierError};
pub use hash::{empty_root, leaf_hash, node_hash};
pub use key::{Ed25519NoteSigner, NoteKeyKind, NoteSigner, NoteVerifier, SignError, VkeyError};
pub use log_keys::{LogKeys, LogKeysError, MAX_LOG_KEYS};
pub use log_signers::{LogSigner, LogSigners};
pub use note::{
    MAX_NOTE_BYTES, MAX_NOTE_SIGNATURES, NoteError, NoteSignature, SignatureProblem, SignedNote,
    VerifiedSignature,
};
pub use proof::{BuildError, ProofBuilder, consistency_proof, inclusion_proof, root_at};
pub use reader::{HashReader, MAX_TREE_SIZE, MemoryHashes};
pub use receipt::{MAX_RECEIPT_BYTES, Receipt, ReceiptError, ReceiptProblem};
pub use recorded_key::{RecordedKey, RecordedKeyError};
pub use tile::{Tile, TileKind, TilePathError, tiles_of};
pub use verify::{MAX_PROOF_HASHES, ProofError, inclusion_root, verify_consistency, verify_inclusion};

#[cfg(test)]
mod tests;
