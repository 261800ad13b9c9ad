//! Checking proofs: what relying parties, auditors and witnesses do.

use chancery_types::Digest;

use crate::hash::{empty_root, node_hash};
use crate::reader::MAX_TREE_SIZE;

/// The most hashes that a proof in a tree of up to [`MAX_TREE_SIZE`] leaves can need (consistency: the path
/// of an inner node and that node).
pub const MAX_PROOF_HASHES: usize = 64;

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index is not in the tree.
    #[error("entry {index} cannot be in a tree of {size} entries")]
    NoSuchEntry {
        /// Claimed index.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// Consistency runs from a smaller to a larger tree.
    #[error("the older tree has {old} entries, more than the {new} of the newer")]
    Backwards {
        /// Leaves of the older tree.
        old: u64,
        /// Leaves of the newer tree.
        new: u64,
    },
    /// More leaves than a tree can have.
    #[error("a tree has at most {MAX_TREE_SIZE} leaves, this one claims {0}")]
    TooLarge(u64),
    /// A proof for these numbers has exactly one length.
    #[error("the proof must have {expected} hashes, it has {found}")]
    Length {
        /// Hashes that it must have.
        expected: usize,
        /// Hashes that it has.
        found: usize,
    },
    /// The hashes do not lead to the root of the (newer) tree.
    #[error("the proof leads to root {computed}, the tree has {expected}")]
    Root {
        /// What the caller trusts.
        expected: Digest,
        /// What the proof leads to.
        computed: Digest,
    },
    /// The hashes do not lead to the root of the older tree.
    #[error(
        "the proof leads to root {computed} for the older tree, which has {expected}: history was changed"
    )]
    OldRoot {
        /// What the caller trusts.
        expected: Digest,
        /// What the proof leads to.
        computed: Digest,
    },
}

/// Checks that `leaf` (a [`crate::leaf_hash`]) stands at `index` in the tree of `size` leaves with this root
/// (RFC 9162 section 2.1.3.2, which is RFC 6962 section 2.1.1 in steps).
///
/// # Errors
/// [`ProofError`] when it is not proven.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), ProofError> {
    expect_root(inclusion_root(leaf, index, size, proof)?, root)
}

/// The root of the tree of `size` leaves in which `leaf` stands at `index`, if the proof is one of it.
///
/// # Errors
/// [`ProofError`] when it cannot be.
pub fn inclusion_root(leaf: &Digest, index: u64, size: u64, proof: &[Digest]) -> Result<Digest, ProofError> {
    if size > MAX_TREE_SIZE {
        return Err(ProofError::TooLarge(size));
    }
    if index >= size {
        return Err(ProofError::NoSuchEntry { index, size });
    }
    expect_length(inclusion_length(index, size), proof)?;
    Ok(climb(index, size - 1, *leaf, proof, |_, _| {}))
}

/// Checks that the tree of `old` leaves is a prefix of the tree of `new` leaves (RFC 9162 section 2.1.4.2).
///
/// Every tree grows from the empty one: with `old` 0 only the empty tree's root is compared.
///
/// # Errors
/// [`ProofError`] when it is not proven.
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Digest,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<(), ProofError> {
    if new > MAX_TREE_SIZE {
        return Err(ProofError::TooLarge(new));
    }
    if old > new {
        return Err(ProofError::Backwards { old, new });
    }
    if old == 0 {
        expect_length(0, proof)?;
        expect_old_root(empty_root(), old_root)?;
        return if new == 0 { expect_root(empty_root(), new_root) } else { Ok(()) };
    }
    if old == new {
        expect_length(0, proof)?;
        return expect_root(*old_root, new_root);
    }
    // The proof starts at the last perfect subtree of the old tree, whose hash is the old root itself when the
    // old tree is perfect, and the first hash of the proof otherwise.
    let height = old.trailing_zeros();
    let (node, last) = ((old - 1) >> height, (new - 1) >> height);
    let whole = old.is_power_of_two();
    expect_length(inclusion_length(node, last + 1) + usize::from(!whole), proof)?;
    let (start, path) = match proof.split_first() {
        Some((first, rest)) if !whole => (first, rest),
        _ => (old_root, proof),
    };
    let mut old_computed = *start;
    let computed = climb(node, last, *start, path, |sibling, side| {
        if side == Side::Left {
            old_computed = node_hash(sibling, &old_computed);
        }
    });
    expect_old_root(old_computed, old_root)?;
    expect_root(computed, new_root)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Hashes from a node to the root. `last` is the index of the rightmost node at the same height. `seen` is
/// told each hash of the path and on which side it stands.
fn climb(
    mut node: u64,
    mut last: u64,
    start: Digest,
    path: &[Digest],
    mut seen: impl FnMut(&Digest, Side),
) -> Digest {
    let mut hash = start;
    for sibling in path {
        // A right edge without sibling is the same node one level up.
        while node == last && node & 1 == 0 && last > 0 {
            (node, last) = (node >> 1, last >> 1);
        }
        let side = if node & 1 == 1 { Side::Left } else { Side::Right };
        seen(sibling, side);
        hash = match side {
            Side::Left => node_hash(sibling, &hash),
            Side::Right => node_hash(&hash, sibling),
        };
        (node, last) = (node >> 1, last >> 1);
    }
    hash
}

/// How long the path of `index` is among `size` nodes: one hash for each level in which the paths of the node
/// and of the last node still differ, and above that one for each left neighbour. Sizes are below 2^63.
fn inclusion_length(index: u64, size: u64) -> usize {
    let inner = u64::BITS - (index ^ (size - 1)).leading_zeros();
    let border = (index >> inner).count_ones();
    (inner + border) as usize
}

fn expect_length(expected: usize, proof: &[Digest]) -> Result<(), ProofError> {
    let found = proof.len();
    if found == expected { Ok(()) } else { Err(ProofError::Length { expected, found }) }
}

fn expect_root(computed: Digest, expected: &Digest) -> Result<(), ProofError> {
    if computed == *expected { Ok(()) } else { Err(ProofError::Root { expected: *expected, computed }) }
}

fn expect_old_root(computed: Digest, expected: &Digest) -> Result<(), ProofError> {
    if computed == *expected { Ok(()) } else { Err(ProofError::OldRoot { expected: *expected, computed }) }
}
