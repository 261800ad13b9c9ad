//! The log: entries, tree, proofs, checkpoints, signatures.

use std::sync::Arc;

use chancery_entry::{Blob, Body, Entry, Genesis};
use chancery_ledger::{CommitError, IssuedSignature, Ledger, Proposal};
use chancery_merkle::{
    Checkpoint, Frontier, HashReader, MemoryHashes, empty_root, leaf_hash, verify_consistency,
    verify_inclusion,
};

use super::{Harness, accept};
use crate::workload;

/// A ledger with so many entries of different lengths, in calls of different sizes; and the entries.
async fn filled(harness: &dyn Harness, size: u64) -> (Arc<dyn Ledger>, Vec<Vec<u8>>) {
    let ledger = harness.create().await;
    let mut entries = Vec::new();
    let mut proposals = Vec::new();
    for number in 0..size {
        let length = usize::try_from(number * 37 % 900).unwrap();
        let body = Body::Genesis(Genesis {
            trust_domain: "spiffe://example.org".parse().unwrap(),
            origin: format!("entry {number}"),
            verifier_key: "x".repeat(length),
            root: Blob(vec![7; length]),
        });
        let entry = Entry::new(workload::now(), body);
        entries.push(entry.encode().unwrap());
        proposals.push(Proposal::new(vec![], vec![entry]).unwrap());
        if number % 97 < 3 || number + 1 == size {
            ledger.commit(std::mem::take(&mut proposals)).await.unwrap();
        }
    }
    (ledger, entries)
}

fn tree(entries: &[Vec<u8>]) -> (Frontier, MemoryHashes) {
    let (mut frontier, mut hashes) = (Frontier::new(), MemoryHashes::default());
    for entry in entries {
        frontier.append(leaf_hash(entry), &mut |level, index, hash| hashes.push(level, index, hash));
    }
    (frontier, hashes)
}

pub(crate) async fn an_empty_ledger_has_the_empty_root_and_a_checkpoint(harness: &dyn Harness) {
    let ledger = harness.create().await;
    assert_eq!((ledger.head().size, ledger.head().root), (0, empty_root()));
    let checkpoint = Checkpoint::parse(ledger.checkpoint().unwrap().text()).unwrap();
    assert_eq!((checkpoint.size(), checkpoint.root()), (0, empty_root()));
    assert_eq!(ledger.entry(0).await.unwrap(), None);
    assert!(ledger.entries(0, 10).await.unwrap().is_empty());
    assert!(ledger.inclusion_proof(0, 0).await.is_err());
    assert!(ledger.consistency_proof(0, 0).await.unwrap().is_empty());
    let ledger = harness.reopen(ledger).await;
    assert_eq!((ledger.head().size, ledger.head().root), (0, empty_root()));
}

pub(crate) async fn entries_have_consecutive_indexes_and_come_back_to_the_byte(harness: &dyn Harness) {
    let (ledger, entries) = filled(harness, 600).await;
    assert_eq!(ledger.head().size, 600);
    for (index, entry) in (0..).zip(&entries) {
        assert_eq!(ledger.entry(index).await.unwrap().as_ref(), Some(entry));
    }
    assert_eq!(ledger.entry(600).await.unwrap(), None);
    assert_eq!(ledger.entry(u64::MAX).await.unwrap(), None);
    assert_eq!(ledger.entries(590, 100).await.unwrap(), entries[590..]);
    assert_eq!(ledger.entries(256, 256).await.unwrap(), entries[256..512]);
    assert!(ledger.entries(600, 1).await.unwrap().is_empty());
    assert!(ledger.entries(u64::MAX, usize::MAX).await.unwrap().is_empty());
    assert_eq!(accept(&*ledger, workload::registration(1)).await, 600);
}

pub(crate) async fn the_root_is_the_one_that_the_entries_give(harness: &dyn Harness) {
    let ledger = harness.create().await;
    let mut frontier = Frontier::new();
    for number in 0..300 {
        accept(&*ledger, workload::registration(number)).await;
        let entry = ledger.entry(number).await.unwrap().unwrap();
        frontier.append(leaf_hash(&entry), &mut |_, _, _| {});
        assert_eq!((ledger.head().size, ledger.head().root), (number + 1, frontier.root()));
    }
}

pub(crate) async fn proofs_verify_between_all_sizes(harness: &dyn Harness) {
    let (ledger, entries) = filled(harness, 530).await;
    let root = |size: u64| tree(&entries[..usize::try_from(size).unwrap()]).0.root();
    for size in [1, 2, 3, 255, 256, 257, 511, 512, 513, 530] {
        for index in [0, 1, 2, size / 2, size - 1].into_iter().filter(|index| *index < size) {
            let proof = ledger.inclusion_proof(index, size).await.unwrap();
            let leaf = leaf_hash(&entries[usize::try_from(index).unwrap()]);
            verify_inclusion(&leaf, index, size, &proof, &root(size)).unwrap();
        }
        for old in [0, 1, size / 2, size - 1, size] {
            let proof = ledger.consistency_proof(old, size).await.unwrap();
            verify_consistency(old, size, &root(old), &root(size), &proof).unwrap();
        }
    }
    for (index, size) in [(530, 530), (0, 531), (u64::MAX, u64::MAX), (3, 3)] {
        assert!(ledger.inclusion_proof(index, size).await.is_err(), "entry {index} in {size}");
    }
    for (old, new) in [(2, 1), (1, 531), (u64::MAX, u64::MAX)] {
        assert!(ledger.consistency_proof(old, new).await.is_err(), "{old} to {new}");
    }
}

pub(crate) async fn hashes_are_given_as_far_as_they_are_complete(harness: &dyn Harness) {
    let (ledger, entries) = filled(harness, 530).await;
    let (_, expected) = tree(&entries);
    for (level, start, count) in [(0, 0, 256), (0, 512, 18), (0, 529, 1), (1, 0, 2), (1, 1, 1)] {
        let mut hashes = Vec::new();
        let Ok(()) = expected.read(level, start, count, &mut hashes);
        assert_eq!(ledger.hashes(level, start, count).await.unwrap(), hashes, "level {level} from {start}");
    }
    for (level, start, count) in
        [(0, 530, 1), (0, 512, 19), (1, 2, 1), (2, 0, 1), (9, 0, 1), (255, 0, 1), (0, u64::MAX, usize::MAX)]
    {
        assert!(ledger.hashes(level, start, count).await.is_err(), "level {level} from {start}");
    }
}

pub(crate) async fn checkpoints_are_signed_and_never_go_back(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::genesis()).await;
    let watcher = {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            let mut sizes = vec![(0, empty_root())];
            while sizes.last().is_some_and(|(size, _)| *size < 100) {
                let note = ledger.checkpoint().unwrap();
                note.verify(&[workload::verifier()]).unwrap();
                let checkpoint = Checkpoint::parse(note.text()).unwrap();
                assert_eq!(checkpoint.origin(), workload::ORIGIN);
                let (size, root) = (checkpoint.size(), checkpoint.root());
                let (last, last_root) = sizes[sizes.len() - 1];
                assert!(size >= last, "{size} after {last}");
                let proof = ledger.consistency_proof(last, size).await.unwrap();
                verify_consistency(last, size, &last_root, &root, &proof).unwrap();
                sizes.push((size, root));
                tokio::task::yield_now().await;
            }
        })
    };
    for number in 0..99 {
        accept(&*ledger, workload::registration(number)).await;
    }
    watcher.await.unwrap();
}

pub(crate) async fn signatures_are_kept_beside_their_entries(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(1)).await;
    let mut indexes = Vec::new();
    for counter in 0..5 {
        let issuance = workload::issuance(counter, workload::identity(1));
        indexes.push(accept(&*ledger, workload::enrolment(issuance)).await);
    }
    let keep = |index, byte: u8, length| IssuedSignature { index, signature: vec![byte; length] };
    ledger.keep_signatures(vec![keep(indexes[3], 3, 72), keep(indexes[0], 1, 70)]).await.unwrap();
    ledger.keep_signatures(vec![keep(indexes[1], 2, 3309)]).await.unwrap();
    ledger.keep_signatures(vec![]).await.unwrap();
    let ahead = ledger.keep_signatures(vec![keep(indexes[2], 9, 71), keep(7, 9, 71)]).await;
    assert!(matches!(ahead, Err(CommitError::Halted { .. })), "{ahead:?}");
    let mut ledger = ledger;
    for _ in 0..2 {
        assert_eq!(ledger.signature(indexes[0]).await.unwrap(), Some(vec![1; 70]));
        assert_eq!(ledger.signature(indexes[1]).await.unwrap(), Some(vec![2; 3309]));
        assert_eq!(ledger.signature(indexes[2]).await.unwrap(), None);
        assert_eq!(ledger.signature(indexes[3]).await.unwrap(), Some(vec![3; 72]));
        let kept = [keep(indexes[0], 1, 70), keep(indexes[1], 2, 3309), keep(indexes[3], 3, 72)];
        assert_eq!(ledger.signatures(0, usize::MAX).await.unwrap(), kept);
        assert_eq!(ledger.signatures(indexes[1], 2).await.unwrap(), kept[1..2]);
        assert!(ledger.signatures(u64::MAX, 9).await.unwrap().is_empty());
        for index in [0, indexes[4], 7, u64::MAX] {
            assert_eq!(ledger.signature(index).await.unwrap(), None, "entry {index}");
        }
        ledger = harness.reopen(ledger).await;
    }
    // Signed again after a crash: the latest is the one that was given out.
    ledger.keep_signatures(vec![keep(indexes[0], 8, 71)]).await.unwrap();
    assert_eq!(ledger.signature(indexes[0]).await.unwrap(), Some(vec![8; 71]));
    let ledger = harness.rebuild(ledger).await;
    assert_eq!(ledger.signature(indexes[0]).await.unwrap(), Some(vec![8; 71]));
    assert_eq!(ledger.signature(indexes[1]).await.unwrap(), Some(vec![2; 3309]));
}
