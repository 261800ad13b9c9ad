//! Receipts (C2SP tlog-proof@v1): all that is needed to prove offline that a log holds an entry.

use std::fmt;
use std::str::FromStr;

use chancery_types::Digest;
use data_encoding::BASE64;

use crate::checkpoint::{OpenError, VerifiedCheckpoint};
use crate::hash::leaf_hash;
use crate::key::NoteVerifier;
use crate::log_keys::LogKeys;
use crate::note::{MAX_NOTE_BYTES, NoteError, SignedNote};
use crate::text::{base64, decimal, excerpt, hash, print_hash};
use crate::verify::{MAX_PROOF_HASHES, ProofError, verify_inclusion};

/// The largest receipt that is read: a note and as much again for extra data and hashes.
pub const MAX_RECEIPT_BYTES: usize = 2 * MAX_NOTE_BYTES;

/// What is wrong with the text of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Longer than any receipt that is read.
    #[error("a receipt has at most {MAX_RECEIPT_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// The first line is another one.
    #[error("a receipt begins with the line {HEADER:?}, this text with {0:?}")]
    Header(String),
    /// There is no blank line between the proof and the checkpoint.
    #[error("a receipt has a blank line between the hashes and the checkpoint; the text is cut off")]
    NoCheckpoint,
    /// The extra line is not canonical base64.
    #[error("line {line} should be extra data in base64: {text:?}")]
    Extra {
        /// Counted from 1.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// There is no index, or not as it has to be written.
    #[error("line {line} should be `index` and a decimal number without leading zeros: {text:?}")]
    Index {
        /// Counted from 1.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// A line is not a hash.
    #[error("line {line} should be a hash in base64: {text:?}")]
    Hash {
        /// Counted from 1.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// More hashes than any proof has.
    #[error("a proof has at most {MAX_PROOF_HASHES} hashes")]
    TooManyHashes,
    /// The rest is not a signed note.
    #[error("the checkpoint in the receipt is damaged: {0}")]
    Note(#[from] NoteError),
}

/// Why a receipt proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptProblem {
    /// The log has not signed the checkpoint.
    #[error("the receipt's checkpoint is not to be believed: {0}")]
    Checkpoint(#[from] OpenError),
    /// The entry is not where the receipt says.
    #[error("the receipt does not prove that the log holds this entry: {0}")]
    Proof(#[from] ProofError),
}

/// A proof that an entry stands in a log, with the checkpoint that it leads to; believed after
/// [`Self::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Data for the application, which nothing authenticates.
    pub extra: Option<Vec<u8>>,
    /// The entry's index in the log, from 0.
    pub index: u64,
    /// The audit path, from the leaf's sibling upwards.
    pub proof: Vec<Digest>,
    /// The log's signed checkpoint.
    pub checkpoint: SignedNote,
}

impl Receipt {
    /// Checks the checkpoint's signature and that it covers this entry at this index.
    ///
    /// # Errors
    /// [`ReceiptProblem`] when it proves nothing.
    pub fn verify(
        &self,
        entry: &[u8],
        log: &LogKeys,
        witnesses: &[NoteVerifier],
    ) -> Result<VerifiedCheckpoint, ReceiptProblem> {
        self.verify_leaf(&leaf_hash(entry), log, witnesses)
    }

    /// The same for somebody who has the entry's [`leaf_hash`] only.
    ///
    /// # Errors
    /// [`ReceiptProblem`] when it proves nothing.
    pub fn verify_leaf(
        &self,
        leaf: &Digest,
        log: &LogKeys,
        witnesses: &[NoteVerifier],
    ) -> Result<VerifiedCheckpoint, ReceiptProblem> {
        let verified = VerifiedCheckpoint::open(&self.checkpoint, log, witnesses)?;
        let checkpoint = verified.checkpoint();
        verify_inclusion(leaf, self.index, checkpoint.size(), &self.proof, &checkpoint.root())?;
        Ok(verified)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(formatter, "extra {}", BASE64.encode(extra))?;
        }
        writeln!(formatter, "index {}", self.index)?;
        self.proof.iter().try_for_each(|hash| writeln!(formatter, "{}", print_hash(hash)))?;
        write!(formatter, "\n{}", self.checkpoint)
    }
}

impl FromStr for Receipt {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_RECEIPT_BYTES {
            return Err(ReceiptError::TooLong(text.len()));
        }
        let first = text.split('\n').next().unwrap_or_default();
        if first != HEADER {
            return Err(ReceiptError::Header(excerpt(first)));
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ReceiptError::NoCheckpoint)?;
        let mut lines = (1..).zip(head.split('\n')).skip(1).peekable();
        let extra = match lines.next_if(|(_, text)| text.starts_with("extra ")) {
            Some((line, text)) => Some(
                base64(&text["extra ".len()..])
                    .ok_or_else(|| ReceiptError::Extra { line, text: excerpt(text) })?,
            ),
            None => None,
        };
        let (line, text) = lines.next().unwrap_or((2, ""));
        let index = text.strip_prefix("index ").and_then(decimal);
        let index = index.ok_or_else(|| ReceiptError::Index { line, text: excerpt(text) })?;
        let mut proof = Vec::new();
        for (line, text) in lines {
            if proof.len() == MAX_PROOF_HASHES {
                return Err(ReceiptError::TooManyHashes);
            }
            proof.push(hash(text).ok_or_else(|| ReceiptError::Hash { line, text: excerpt(text) })?);
        }
        Ok(Self { extra, index, proof, checkpoint: checkpoint.parse()? })
    }
}

const HEADER: &str = "c2sp.org/tlog-proof@v1";
