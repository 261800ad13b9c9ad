//! The two hashes of the tree (RFC 6962 section 2.1) and the root of nothing.

use chancery_types::Digest;
use sha2::{Digest as _, Sha256};

/// The root of a tree without leaves: SHA-256 of the empty string.
#[must_use]
pub fn empty_root() -> Digest {
    Digest::of(b"")
}

/// The hash of a leaf: SHA-256 of `00` and the entry.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([LEAF]);
    hasher.update(entry);
    Digest::from_array(hasher.finalize().into())
}

/// The hash of an inner node: SHA-256 of `01`, the left and the right hash.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut input = [0_u8; 65];
    input[0] = NODE;
    input[1..33].copy_from_slice(left.as_bytes());
    input[33..].copy_from_slice(right.as_bytes());
    Digest::from_array(Sha256::digest(input).into())
}

/// Sets leaves apart from nodes, so that no entry can be passed off as an inner node.
const LEAF: u8 = 0x00;
const NODE: u8 = 0x01;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaf_and_empty_hashes_match_the_published_vectors() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(empty_root().to_string(), empty);
        let empty_leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(leaf_hash(b"").to_string(), empty_leaf);
    }

    #[test]
    fn an_entry_that_looks_like_a_node_does_not_hash_like_one() {
        let (left, right) = (leaf_hash(b"a"), leaf_hash(b"b"));
        let forged = [left.as_bytes().as_slice(), right.as_bytes()].concat();
        assert_ne!(leaf_hash(&forged), node_hash(&left, &right));
    }
}
