//! Checkpoints (C2SP tlog-checkpoint 1.0): a log's signed statement of its size and root.

use chancery_types::Digest;

use crate::hash::empty_root;
use crate::key::{NoteKeyKind, NoteSigner, NoteVerifier, SignError};
use crate::log_keys::LogKeys;
use crate::note::{NoteError, SignedNote, VerifiedSignature};
use crate::reader::MAX_TREE_SIZE;
use crate::text::{decimal, excerpt, hash, print_hash};

/// Why a text is not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Fewer than three lines, an empty line, or no newline at the end.
    #[error("a checkpoint is at least three lines without blank ones, each ending in a newline")]
    Shape,
    /// The origin cannot stand in a checkpoint.
    #[error("an origin is 1 to {MAX_ORIGIN_BYTES} bytes on one line without control characters, not {0:?}")]
    Origin(String),
    /// The second line is not a number as it has to be written, or too large.
    #[error("a tree size is a decimal number up to {MAX_TREE_SIZE} without leading zeros, not {0:?}")]
    Size(String),
    /// The third line is not a hash.
    #[error("a root is 44 characters of base64, not {0:?}")]
    Root(String),
    /// The tree is empty and the root is not that of the empty tree.
    #[error("a checkpoint of size 0 has the root of the empty tree, not {0}")]
    EmptyRoot(Digest),
}

/// A log's origin, size and root. Whether anybody has signed it is not known here: see [`VerifiedCheckpoint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Digest,
}

impl Checkpoint {
    /// A checkpoint of these three.
    ///
    /// # Errors
    /// [`CheckpointError`] when the origin cannot be printed, the size is beyond [`MAX_TREE_SIZE`], or an empty
    /// tree is given another root than its own.
    pub fn new(origin: &str, size: u64, root: Digest) -> Result<Self, CheckpointError> {
        if !is_origin(origin) {
            return Err(CheckpointError::Origin(excerpt(origin)));
        }
        if size > MAX_TREE_SIZE {
            return Err(CheckpointError::Size(size.to_string()));
        }
        if size == 0 && root != empty_root() {
            return Err(CheckpointError::EmptyRoot(root));
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }

    /// Reads the text of a note. Extension lines after the third are checked for form and dropped.
    ///
    /// # Errors
    /// [`CheckpointError`] for every other spelling than the specified one.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Shape)?.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty()).ok_or(CheckpointError::Shape);
        let (origin, size, root) = (line()?, line()?, line()?);
        let size = decimal(size).ok_or_else(|| CheckpointError::Size(excerpt(size)))?;
        let root = hash(root).ok_or_else(|| CheckpointError::Root(excerpt(root)))?;
        if lines.any(str::is_empty) {
            return Err(CheckpointError::Shape);
        }
        Self::new(origin, size, root)
    }

    /// The text that is signed: three lines.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, print_hash(&self.root))
    }

    /// Signs it; the log's own key should have the origin as its name.
    ///
    /// # Errors
    /// [`SignError`] when a key does not sign.
    pub fn sign(&self, signers: &[&dyn NoteSigner]) -> Result<SignedNote, SignError> {
        SignedNote::sign(&self.text(), signers)
    }

    /// Which log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root of the tree of that size.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.root
    }
}

/// Why a signed checkpoint is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a note, or one without a good signature of the log.
    #[error("the checkpoint's signatures do not hold: {0}")]
    Note(#[from] NoteError),
    /// Well signed, but not a checkpoint.
    #[error("the signed text is not a checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// Witnesses have signed, the log has not.
    #[error("the log's key {0:?} has not signed this checkpoint")]
    NotByLog(String),
    /// The checkpoint of another log, signed by this log's key.
    #[error("the checkpoint is of the log {found:?}, the key belongs to {expected:?}")]
    Origin {
        /// Name of the log's key.
        expected: String,
        /// Origin line.
        found: String,
    },
    /// A log signs with type 01; a key of another kind was configured.
    #[error("{0:?} is the key of a witness; configure the log's own verifier key")]
    NotALogKey(String),
}

/// A witness that has seen a checkpoint and found it consistent with what it saw before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// Name of the witness's key.
    pub witness: String,
    /// When, in seconds since 1970, by the witness's clock; nothing if its key signs without time.
    pub seconds: Option<u64>,
}

/// A checkpoint that the log has signed. Made by [`Self::open`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    cosignatures: Vec<Cosignature>,
}

impl VerifiedCheckpoint {
    /// Checks the log's signature, by any of its keys, and those of known witnesses, and that the origin is the keys' name.
    /// How many cosignatures are enough is for the caller to say.
    ///
    /// # Errors
    /// [`OpenError`] when the log has not signed, or a signature by a known key is bad.
    pub fn open(note: &SignedNote, log: &LogKeys, witnesses: &[NoteVerifier]) -> Result<Self, OpenError> {
        if log.as_slice().iter().any(|key| key.kind() != NoteKeyKind::Ed25519) {
            return Err(OpenError::NotALogKey(log.name().to_owned()));
        }
        let keys: Vec<NoteVerifier> = log.as_slice().iter().chain(witnesses).cloned().collect();
        let is_of_witness = |signature: &VerifiedSignature| signature.verifier >= log.as_slice().len();
        let signatures = note.verify(&keys)?;
        if signatures.iter().all(is_of_witness) {
            return Err(OpenError::NotByLog(log.name().to_owned()));
        }
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin() != log.name() {
            let (expected, found) = (log.name().to_owned(), excerpt(checkpoint.origin()));
            return Err(OpenError::Origin { expected, found });
        }
        let cosignatures = signatures.iter().filter(|signature| is_of_witness(signature));
        let cosignatures = cosignatures.map(|signature| Cosignature {
            witness: keys[signature.verifier].name().to_owned(),
            seconds: signature.seconds,
        });
        Ok(Self { checkpoint, cosignatures: cosignatures.collect() })
    }

    /// The same for the text of a note.
    ///
    /// # Errors
    /// [`OpenError`] as [`Self::open`], or when it is no note at all.
    pub fn open_text(note: &str, log: &LogKeys, witnesses: &[NoteVerifier]) -> Result<Self, OpenError> {
        Self::open(&note.parse()?, log, witnesses)
    }

    /// What was signed.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Which of the known witnesses have cosigned, each once.
    #[must_use]
    pub fn cosignatures(&self) -> &[Cosignature] {
        &self.cosignatures
    }
}

fn is_origin(origin: &str) -> bool {
    (1..=MAX_ORIGIN_BYTES).contains(&origin.len()) && !origin.contains(char::is_control)
}

/// As for key names, of which it should be one.
const MAX_ORIGIN_BYTES: usize = 255;
