//! What can happen to a ledger's directory, and what must come of it.

mod archive;
mod checkpoint;
mod damage;
mod disks;
mod faults;
mod model;
mod outside;
mod powercut;
#[path = "../../../tests/workload/mod.rs"]
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_types::{Digest, SystemRandom};
use tempfile::TempDir;

use super::disk::Disk;
use super::{CheckReport, EmbeddedLedger, OpenError, Options};
use crate::{CommitError, IssuedSignature, Ledger, Outcome, Proposal, ReadModel};
use workload::Mix;

/// Small segments, and an index that follows at once: what otherwise takes millions happens all the time.
fn hasty() -> Options {
    Options {
        segment_bytes: 8 << 10,
        index_interval: Duration::from_secs(3600),
        index_changes: 12,
        cache_bytes: 1 << 20,
        may_have_ended: false,
    }
}

/// The index is never committed before the ledger is closed.
fn lazy() -> Options {
    Options { index_changes: 1_000_000, ..hasty() }
}

/// In memory where that is possible: these tests sync thousands of times, and none of them tests the device.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    let directory = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() };
    directory.unwrap()
}

fn create(directory: &Path, options: Options) -> EmbeddedLedger {
    EmbeddedLedger::create(directory, workload::signer(), options, &SystemRandom).unwrap()
}

fn open(directory: &Path) -> Result<EmbeddedLedger, OpenError> {
    EmbeddedLedger::open(directory, workload::signer(), hasty())
}

fn check(directory: &Path) -> CheckReport {
    EmbeddedLedger::check_everything(directory, &mut |_, _| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// A copy of a directory. If a ledger is open there, its index must not be in the middle of a commit.
fn copy(from: &Path) -> TempDir {
    let to = directory();
    copy_into(from, to.path());
    to
}

fn copy_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_into(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What a client of a ledger knows: everything that it was told.
#[derive(Debug, Default, Clone)]
struct Client {
    /// Entries that were acknowledged.
    acknowledged: BTreeMap<u64, Vec<u8>>,
    /// Entries of a call that ended in an error after which nothing can be known.
    uncertain: Vec<Vec<u8>>,
    /// Checkpoints that were given out.
    published: Vec<(u64, Digest)>,
    signed: BTreeMap<u64, Vec<u8>>,
}

impl Client {
    /// Commits one call and remembers the answer.
    async fn commit(
        &mut self,
        ledger: &EmbeddedLedger,
        proposals: Vec<Proposal>,
    ) -> Result<Vec<Outcome>, CommitError> {
        let bytes: Vec<Vec<Vec<u8>>> = proposals
            .iter()
            .map(|proposal| proposal.entries.iter().map(|entry| entry.bytes.clone()).collect())
            .collect();
        let answer = ledger.commit(proposals).await;
        match &answer {
            Ok(outcomes) => {
                for (outcome, entries) in outcomes.iter().zip(bytes) {
                    if let Outcome::Accepted { first_index } = outcome {
                        self.acknowledged.extend((*first_index..).zip(entries));
                    }
                }
            }
            Err(CommitError::Halted { .. }) if self.uncertain.is_empty() => {
                self.uncertain = bytes.into_iter().flatten().collect();
            }
            Err(_) => {}
        }
        answer
    }

    fn checkpoint(&mut self, ledger: &EmbeddedLedger) {
        let note = ledger.checkpoint().unwrap();
        let checkpoint = chancery_merkle::Checkpoint::parse(note.text()).unwrap();
        self.published.push((checkpoint.size(), checkpoint.root()));
    }

    /// Keeps a signature of the last issuance up to this entry.
    async fn sign(&mut self, ledger: &EmbeddedLedger, index: u64) -> Result<(), CommitError> {
        let is_issuance = |(_, bytes): &(&u64, &Vec<u8>)| bytes[..2] == 16_u16.to_be_bytes();
        let Some((index, _)) = self.acknowledged.range(..=index).rfind(is_issuance) else { return Ok(()) };
        let index = *index;
        let signature = vec![u8::try_from(index % 251).unwrap(); 71];
        ledger.keep_signatures(vec![IssuedSignature { index, signature: signature.clone() }]).await?;
        self.signed.insert(index, signature);
        Ok(())
    }

    /// Nothing that was acknowledged is missing or changed; what was not is whole or absent.
    async fn verify(&self, ledger: &EmbeddedLedger) {
        for (index, entry) in &self.acknowledged {
            let found = ledger.entry(*index).await.unwrap();
            assert_eq!(found.as_ref(), Some(entry), "acknowledged entry {index}");
        }
        let told = self.acknowledged.keys().next_back().map_or(0, |last| last + 1);
        assert_eq!(told, self.acknowledged.len() as u64);
        let more = ledger.entries(told, 10_000).await.unwrap();
        if !more.is_empty() {
            let mut uncertain = self.uncertain.iter();
            // Of the uncertain call, the entries of accepted proposals: in order, perhaps with gaps.
            assert!(
                more.iter().all(|entry| uncertain.any(|possible| possible == entry)),
                "{} entries that nobody proposed last",
                more.len()
            );
        }
        for (size, root) in &self.published {
            assert!(ledger.head().size >= *size, "a checkpoint of {size} was given out");
            assert_eq!(chancery_merkle::root_at(*size, &ledger.shared.derived).unwrap(), *root);
        }
    }

    async fn verify_signatures(&self, ledger: &EmbeddedLedger) {
        for (index, signature) in &self.signed {
            assert_eq!(ledger.signature(*index).await.unwrap().as_ref(), Some(signature), "entry {index}");
        }
    }
}

/// Reads of every kind, which must go on whatever happens to writes.
async fn read_all(ledger: &EmbeddedLedger) {
    let head = ledger.head();
    let page = crate::PageRequest::first(50);
    let mut certificates = Vec::new();
    let mut from = page.clone();
    loop {
        let found = ledger.certificates(&crate::CertificateQuery::default(), &from).await.unwrap();
        certificates.extend(found.items);
        let Some(next) = found.next else { break };
        from.after = Some(next);
    }
    for certificate in certificates {
        assert_eq!(ledger.certificate(certificate.serial).await.unwrap(), Some(certificate.clone()));
        assert!(ledger.lineage(certificate.lineage).await.unwrap().is_some());
        assert!(ledger.entry(certificate.index).await.unwrap().is_some());
        ledger.signature(certificate.index).await.unwrap();
    }
    ledger.identities(&crate::IdentityQuery::default(), &page).await.unwrap();
    ledger.tokens(&page).await.unwrap();
    ledger.revoked(workload::ISSUER, workload::now()).await.unwrap();
    ledger.checkpoint().unwrap();
    if head.size > 0 {
        ledger.inclusion_proof(head.size - 1, head.size).await.unwrap();
        ledger.consistency_proof(head.size / 2, head.size).await.unwrap();
    }
}

/// Some calls of the mix, in a ledger that works.
async fn fill(ledger: &EmbeddedLedger, mix: &mut Mix, client: &mut Client, calls: u64) {
    for _ in 0..calls {
        let proposals = (0..1 + mix.below(4)).map(|_| mix.proposal()).collect();
        client.commit(ledger, proposals).await.unwrap();
    }
}

fn segment(directory: &Path, number: u32) -> PathBuf {
    directory.join("journal").join(format!("{number:08}.journal"))
}
