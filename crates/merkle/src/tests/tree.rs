//! The tree against the vectors of RFC 6962's reference implementation and against the definition itself.

#![expect(clippy::cast_possible_truncation, reason = "the trees of these tests are small")]

use chancery_types::Digest;
use proptest::prelude::*;

use crate::{
    BuildError, Frontier, HashReader, MAX_PROOF_HASHES, MAX_TREE_SIZE, MemoryHashes, ProofBuilder,
    ProofError, consistency_proof, empty_root, inclusion_proof, leaf_hash, node_hash, root_at,
    verify_consistency, verify_inclusion,
};

/// RFC 6962 section 2.1 word for word.
fn naive_root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(naive_split(leaves.len()));
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

/// RFC 6962 section 2.1.1 word for word.
fn naive_path(index: usize, leaves: &[Digest]) -> Vec<Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = naive_split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, sibling) = if index < k {
        (naive_path(index, left), naive_root(right))
    } else {
        (naive_path(index - k, right), naive_root(left))
    };
    path.push(sibling);
    path
}

/// RFC 6962 section 2.1.2 word for word.
fn naive_consistency(old: usize, leaves: &[Digest], whole: bool) -> Vec<Digest> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let k = naive_split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, sibling) = if old <= k {
        (naive_consistency(old, left, whole), naive_root(right))
    } else {
        (naive_consistency(old - k, right, false), naive_root(left))
    };
    path.push(sibling);
    path
}

fn naive_split(count: usize) -> usize {
    count.next_power_of_two() / 2
}

struct Grown {
    leaves: Vec<Digest>,
    hashes: MemoryHashes,
    /// Root of every size from 0.
    roots: Vec<Digest>,
}

fn grow(leaves: Vec<Digest>) -> Grown {
    let (mut frontier, mut hashes) = (Frontier::new(), MemoryHashes::default());
    let mut roots = vec![frontier.root()];
    for leaf in &leaves {
        frontier.append(*leaf, &mut |level, index, hash| hashes.push(level, index, hash));
        roots.push(frontier.root());
    }
    Grown { leaves, hashes, roots }
}

fn numbered(count: u64) -> Vec<Digest> {
    (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
}

fn digests(texts: &[&str]) -> Vec<Digest> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

const VECTOR_LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];

fn vectors() -> Grown {
    grow(VECTOR_LEAVES.iter().map(|entry| leaf_hash(entry)).collect())
}

#[test]
fn roots_match_the_published_vectors() {
    let published = digests(&[
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]);
    let grown = vectors();
    assert_eq!(grown.roots, published);
    for (size, root) in (0_u64..).zip(published) {
        assert_eq!(root_at(size, &grown.hashes), Ok(root));
    }
}

#[test]
fn inclusion_proofs_match_the_published_vectors() {
    let grown = vectors();
    let cases: [(u64, u64, &[&str]); 4] = [
        (0, 1, &[]),
        (
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
        (
            1,
            5,
            &[
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];
    for (index, size, published) in cases {
        assert_eq!(inclusion_proof(index, size, &grown.hashes).unwrap(), digests(published));
    }
}

#[test]
fn consistency_proofs_match_the_published_vectors() {
    let grown = vectors();
    let cases: [(u64, u64, &[&str]); 4] = [
        (1, 1, &[]),
        (
            1,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            6,
            8,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            5,
            &[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];
    for (old, new, published) in cases {
        assert_eq!(consistency_proof(old, new, &grown.hashes).unwrap(), digests(published));
    }
}

#[test]
fn every_size_up_to_six_hundred_agrees_with_the_definition() {
    const SIZES: usize = 600;
    let grown = grow(numbered(SIZES as u64));
    for size in 0..=SIZES {
        let leaves = &grown.leaves[..size];
        assert_eq!(grown.roots[size], naive_root(leaves), "root of {size}");
        let mut builder = ProofBuilder::new(size as u64, &grown.hashes).unwrap();
        // All indices of small trees, a spread of the others.
        let step = if size <= 66 { 1 } else { 1 + size / 7 };
        for index in (0..size).step_by(step).chain(size.checked_sub(1)) {
            let proof = builder.inclusion(index as u64).unwrap();
            assert_eq!(proof, naive_path(index, leaves), "path of {index} in {size}");
            let leaf = &leaves[index];
            verify_inclusion(leaf, index as u64, size as u64, &proof, &grown.roots[size]).unwrap();
        }
        for old in (1..=size).step_by(step).chain(size.checked_sub(1)) {
            let proof = builder.consistency(old as u64).unwrap();
            if old > 0 {
                assert_eq!(proof, naive_consistency(old, leaves, true), "consistency of {old} with {size}");
            }
            let (old_root, root) = (&grown.roots[old], &grown.roots[size]);
            verify_consistency(old as u64, size as u64, old_root, root, &proof).unwrap();
        }
    }
}

#[test]
fn every_tampered_inclusion_proof_is_refused() {
    let grown = grow(numbered(300));
    for size in (1_u64..=70).chain([127, 128, 129, 255, 256, 257, 300]) {
        let root = grown.roots[size as usize];
        for index in (0..size).step_by(1 + size as usize / 40) {
            let leaf = grown.leaves[index as usize];
            let proof = inclusion_proof(index, size, &grown.hashes).unwrap();
            let check = |leaf: &Digest, index, size, proof: &[Digest], root: &Digest| {
                assert!(verify_inclusion(leaf, index, size, proof, root).is_err(), "{index} in {size}");
            };
            let other = leaf_hash(b"not in the tree");
            check(&other, index, size, &proof, &root);
            check(&leaf, index, size, &proof, &other);
            for at in 0..proof.len() {
                check(&leaf, index, size, &[&proof[..at], &[other], &proof[at + 1..]].concat(), &root);
                check(&leaf, index, size, &[&proof[..at], &proof[at + 1..]].concat(), &root);
                check(&leaf, index, size, &[&proof[..at], &[other], &proof[at..]].concat(), &root);
            }
            check(&leaf, index, size, &[proof.as_slice(), &[other]].concat(), &root);
            for wrong in (0..size).filter(|wrong| *wrong != index) {
                check(&leaf, wrong, size, &proof, &root);
            }
            check(&leaf, size, size, &proof, &root);
            check(&leaf, u64::MAX, size, &proof, &root);
        }
    }
}

#[test]
fn every_tampered_consistency_proof_is_refused() {
    let grown = grow(numbered(70));
    for new in 1_u64..=70 {
        let root = grown.roots[new as usize];
        for old in 1..=new {
            let old_root = grown.roots[old as usize];
            let proof = consistency_proof(old, new, &grown.hashes).unwrap();
            let check = |old, new, old_root: &Digest, root: &Digest, proof: &[Digest]| {
                assert!(verify_consistency(old, new, old_root, root, proof).is_err(), "{old} to {new}");
            };
            let other = leaf_hash(b"not in the tree");
            check(old, new, &other, &root, &proof);
            check(old, new, &old_root, &other, &proof);
            for at in 0..proof.len() {
                check(old, new, &old_root, &root, &[&proof[..at], &[other], &proof[at + 1..]].concat());
                check(old, new, &old_root, &root, &[&proof[..at], &proof[at + 1..]].concat());
                check(old, new, &old_root, &root, &[&proof[..at], &[other], &proof[at..]].concat());
            }
            check(old, new, &old_root, &root, &[proof.as_slice(), &[other]].concat());
            for wrong in (1..=new).filter(|wrong| *wrong != old) {
                check(wrong, new, &old_root, &root, &proof);
            }
            check(new + 1, new, &old_root, &root, &proof);
            if old < new {
                check(old, new, &root, &root, &proof);
                check(old, new, &old_root, &old_root, &proof);
            }
        }
    }
}

#[test]
fn a_rewritten_history_is_named_as_such() {
    let honest = grow(numbered(20));
    let mut leaves = numbered(33);
    leaves[7] = leaf_hash(b"rewritten");
    let forged = grow(leaves);
    let proof = consistency_proof(20, 33, &forged.hashes).unwrap();
    let refused = verify_consistency(20, 33, &honest.roots[20], &forged.roots[33], &proof);
    assert!(matches!(refused, Err(ProofError::OldRoot { .. })), "{refused:?}");
}

#[test]
fn the_empty_tree_is_consistent_with_all_and_only_with_its_own_root() {
    let grown = grow(numbered(3));
    let empty = empty_root();
    verify_consistency(0, 3, &empty, &grown.roots[3], &[]).unwrap();
    verify_consistency(0, 0, &empty, &empty, &[]).unwrap();
    assert!(verify_consistency(0, 3, &grown.roots[1], &grown.roots[3], &[]).is_err());
    assert!(verify_consistency(0, 0, &empty, &grown.roots[1], &[]).is_err());
    let padded = verify_consistency(0, 3, &empty, &grown.roots[3], &[empty]);
    assert_eq!(padded, Err(ProofError::Length { expected: 0, found: 1 }));
}

#[test]
fn impossible_sizes_are_refused_without_work() {
    let (hash, hashes) = (empty_root(), MemoryHashes::default());
    let huge = MAX_TREE_SIZE + 1;
    assert_eq!(verify_inclusion(&hash, 0, huge, &[], &hash), Err(ProofError::TooLarge(huge)));
    assert_eq!(verify_inclusion(&hash, 0, 0, &[], &hash), Err(ProofError::NoSuchEntry { index: 0, size: 0 }));
    assert_eq!(verify_consistency(1, u64::MAX, &hash, &hash, &[]), Err(ProofError::TooLarge(u64::MAX)));
    assert_eq!(verify_consistency(2, 1, &hash, &hash, &[]), Err(ProofError::Backwards { old: 2, new: 1 }));
    assert_eq!(inclusion_proof(0, huge, &hashes), Err(BuildError::TooLarge(huge)));
    assert_eq!(inclusion_proof(4, 4, &hashes), Err(BuildError::NoSuchEntry { index: 4, size: 4 }));
    assert_eq!(consistency_proof(5, 4, &hashes), Err(BuildError::Backwards { old: 5, new: 4 }));
    // The longest proofs there can be.
    let (last, proof) = (MAX_TREE_SIZE - 1, [hash; MAX_PROOF_HASHES]);
    for found in 0..=MAX_PROOF_HASHES {
        let _ = verify_inclusion(&hash, last, MAX_TREE_SIZE, &proof[..found], &hash).unwrap_err();
        let _ = verify_consistency(last, MAX_TREE_SIZE, &hash, &hash, &proof[..found]).unwrap_err();
    }
}

#[test]
fn a_reader_that_has_lost_hashes_yields_an_error_and_no_proof() {
    struct Short(MemoryHashes);
    impl HashReader for Short {
        type Error = std::convert::Infallible;
        fn read(
            &self,
            level: u8,
            start: u64,
            count: usize,
            out: &mut Vec<Digest>,
        ) -> Result<(), Self::Error> {
            self.0.read(level, start, count - 1, out)
        }
    }
    let short = Short(grow(numbered(10)).hashes);
    let missing = BuildError::Missing { tile_level: 0, start: 0, expected: 10, found: 9 };
    assert_eq!(inclusion_proof(3, 10, &short), Err(missing));
}

#[test]
fn a_reader_is_never_asked_across_tiles_or_beyond_the_tree() {
    struct Checked<'a>(&'a MemoryHashes, u64);
    impl HashReader for Checked<'_> {
        type Error = std::convert::Infallible;
        fn read(
            &self,
            level: u8,
            start: u64,
            count: usize,
            out: &mut Vec<Digest>,
        ) -> Result<(), Self::Error> {
            let end = start + count as u64;
            assert!(count > 0 && start / 256 == (end - 1) / 256 && end <= self.1 >> (8 * u32::from(level)));
            self.0.read(level, start, count, out)
        }
    }
    let grown = grow(numbered(66_000));
    for size in [1, 200, 256, 65_535, 65_536, 65_537, 66_000] {
        let reader = Checked(&grown.hashes, size);
        assert_eq!(root_at(size, &reader).unwrap(), grown.roots[size as usize]);
        let mut builder = ProofBuilder::new(size, &reader).unwrap();
        for index in (0..size).step_by(977) {
            builder.inclusion(index).unwrap();
            builder.consistency(index).unwrap();
        }
    }
}

/// Without a timer: what the machine does per leaf is counted as calls of SHA-256.
#[test]
fn appending_costs_one_inner_hash_on_average_and_each_leaf_is_emitted_once() {
    let (mut frontier, mut emitted) = (Frontier::new(), [0_u64; 3]);
    for leaf in numbered(70_000) {
        let before = frontier.size().trailing_ones();
        frontier.append(leaf, &mut |level, index, _| {
            assert_eq!(index, emitted[usize::from(level)]);
            emitted[usize::from(level)] += 1;
        });
        // One inner hash for each subtree that the leaf completes.
        assert!(before <= 17);
    }
    assert_eq!(emitted, [70_000, 273, 1]);
    let inner: u64 = (0..70_000_u64).map(|size| u64::from(size.trailing_ones())).sum();
    assert!(inner < 70_000, "{inner} inner hashes");
}

#[test]
#[ignore = "a measurement, not a check: run with --release -- --ignored --nocapture"]
fn measure_appending_and_proving() {
    const LEAVES: u64 = 1_000_000;
    let leaves = numbered(LEAVES);
    let start = std::time::Instant::now();
    let mut hash = leaves[0];
    for leaf in &leaves {
        hash = node_hash(&hash, leaf);
    }
    let one = start.elapsed();
    let start = std::time::Instant::now();
    let grown = grow_without_roots(&leaves);
    let append = start.elapsed();
    let start = std::time::Instant::now();
    let mut builder = ProofBuilder::new(LEAVES, &grown).unwrap();
    for index in LEAVES - 1_000..LEAVES {
        std::hint::black_box(builder.inclusion(index).unwrap());
    }
    let batch = start.elapsed();
    let start = std::time::Instant::now();
    for index in LEAVES - 1_000..LEAVES {
        std::hint::black_box(inclusion_proof(index, LEAVES, &grown).unwrap());
    }
    let lone = start.elapsed();
    println!("one inner hash {:?}, one append {:?} ({hash})", one / 1_000_000, append / 1_000_000);
    println!("one proof of a batch {:?}, a lone one {:?}", batch / 1_000, lone / 1_000);
}

fn grow_without_roots(leaves: &[Digest]) -> MemoryHashes {
    let (mut frontier, mut hashes) = (Frontier::new(), MemoryHashes::default());
    for leaf in leaves {
        frontier.append(*leaf, &mut |level, index, hash| hashes.push(level, index, hash));
    }
    hashes
}

/// Grown once, for all the cases of the property test.
fn large() -> &'static Grown {
    static LARGE: std::sync::OnceLock<Grown> = std::sync::OnceLock::new();
    LARGE.get_or_init(|| grow(numbered(70_000)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_sizes_up_to_seventy_thousand_agree(size in 1_u64..=70_000, pick in any::<(u64, u64)>()) {
        let grown = large();
        let (index, old) = (pick.0 % size, 1 + pick.1 % size);
        let leaves = &grown.leaves[..size as usize];
        let root = grown.roots[size as usize];
        let proof = inclusion_proof(index, size, &grown.hashes).unwrap();
        verify_inclusion(&leaves[index as usize], index, size, &proof, &root).unwrap();
        let wrong = (index + 1) % size;
        prop_assert!(size == 1 || verify_inclusion(&leaves[index as usize], wrong, size, &proof, &root).is_err());
        let consistency = consistency_proof(old, size, &grown.hashes).unwrap();
        verify_consistency(old, size, &grown.roots[old as usize], &root, &consistency).unwrap();
    }

    #[test]
    fn random_large_trees_agree_with_the_definition(size in 600_u64..=20_000, pick in any::<(u64, u64)>()) {
        let grown = large();
        let leaves = &grown.leaves[..size as usize];
        let (index, old) = ((pick.0 % size) as usize, (1 + pick.1 % size) as usize);
        prop_assert_eq!(grown.roots[size as usize], naive_root(leaves));
        prop_assert_eq!(root_at(size, &grown.hashes).unwrap(), naive_root(leaves));
        prop_assert_eq!(inclusion_proof(index as u64, size, &grown.hashes).unwrap(), naive_path(index, leaves));
        let consistency = consistency_proof(old as u64, size, &grown.hashes).unwrap();
        prop_assert_eq!(consistency, naive_consistency(old, leaves, true));
    }

    #[test]
    fn random_proofs_never_pass_and_never_panic(
        index in any::<u64>(), size in any::<u64>(), bytes in proptest::collection::vec(any::<[u8; 32]>(), 0..70)
    ) {
        let proof: Vec<Digest> = bytes.into_iter().map(Digest::from_array).collect();
        let root = empty_root();
        prop_assert!(verify_inclusion(&root, index, size, &proof, &root).is_err() || size == 1);
        prop_assert!(verify_consistency(index, size, &root, &root, &proof).is_err() || index == size || index == 0);
    }
}
