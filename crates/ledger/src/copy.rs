//! Moving a log from one backend to another.

use chancery_entry::{DecodeError, Entry, TooLong};
use chancery_merkle::leaf_hash;
use chancery_types::Digest;

use crate::{CommitError, Head, Ledger, Outcome, Proposal, ReadError};

/// Entries carried at once.
const CHUNK: usize = 1024;

/// Why a log was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source cannot be read, or the copy cannot be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The copy cannot be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// An entry of the source is not one that this program knows.
    #[error("entry {index} cannot be read: {error}; use the program that wrote it")]
    Entry {
        /// Its index.
        index: u64,
        /// Why.
        error: DecodeError,
    },
    /// An entry of the source cannot be a leaf.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// What the target holds is not the beginning of the source.
    #[error(
        "the target's {entries} entries, which hash to {root}, are not the first of the source: it holds another \
         log, name an empty one"
    )]
    OtherLog {
        /// Entries in the target.
        entries: u64,
        /// What they hash to.
        root: Digest,
    },
    /// An entry came out otherwise than it went in, or somebody else wrote meanwhile.
    #[error("entry {index} of the copy is not the one of the source; name an empty target and copy again")]
    Differs {
        /// Its index.
        index: u64,
    },
}

/// Brings the target to the end of the source: every entry to the byte, and the signatures beside them.
///
/// A copy that was interrupted goes on where it stopped. The source may be at work meanwhile; to change over, stop
/// whoever writes to it, and copy once more: then both have one root. `progress` hears of entries done and in all.
///
/// # Errors
/// [`CopyError`]; what was copied until then is right.
pub async fn copy_log(
    source: &dyn Ledger,
    target: &dyn Ledger,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Head, CopyError> {
    begins(source, target).await?;
    let size = source.head().size;
    let mut next = target.head().size;
    // The last chunk's signatures may be missing where a copy was interrupted.
    copy_signatures(source, target, next.saturating_sub(CHUNK as u64), next).await?;
    while next < size {
        let count = CHUNK.min(usize::try_from(size - next).unwrap_or(CHUNK));
        let bytes = source.entries(next, count).await?;
        let entries = bytes
            .iter()
            .zip(next..)
            .map(|(bytes, index)| Entry::decode(bytes).map_err(|error| CopyError::Entry { index, error }));
        // Without preconditions: they were checked when the source accepted it.
        let proposal = Proposal::new(Vec::new(), entries.collect::<Result<_, _>>()?)?;
        let outcomes = target.commit(vec![proposal]).await?;
        if outcomes != [(Outcome::Accepted { first_index: next })] {
            return Err(CopyError::Differs { index: next });
        }
        let end = next + bytes.len() as u64;
        let copied = target.hashes(0, next, bytes.len()).await?;
        let differs = copied.iter().zip(&bytes).position(|(hash, bytes)| *hash != leaf_hash(bytes));
        if let Some(at) = differs {
            return Err(CopyError::Differs { index: next + at as u64 });
        }
        copy_signatures(source, target, next, end).await?;
        next = end;
        progress(next, size);
    }
    begins(source, target).await?;
    Ok(target.head())
}

/// That the target is the beginning of the source.
async fn begins(source: &dyn Ledger, target: &dyn Ledger) -> Result<(), CopyError> {
    let head = target.head();
    let other = || CopyError::OtherLog { entries: head.size, root: head.root };
    let whole = source.head();
    if head.size > whole.size {
        return Err(other());
    }
    let proof = source.consistency_proof(head.size, whole.size).await?;
    let is_prefix =
        chancery_merkle::verify_consistency(head.size, whole.size, &head.root, &whole.root, &proof);
    is_prefix.map_err(|_| other())
}

async fn copy_signatures(
    source: &dyn Ledger,
    target: &dyn Ledger,
    start: u64,
    end: u64,
) -> Result<(), CopyError> {
    let count = usize::try_from(end - start).unwrap_or(usize::MAX);
    Ok(target.keep_signatures(source.signatures(start, count).await?).await?)
}
