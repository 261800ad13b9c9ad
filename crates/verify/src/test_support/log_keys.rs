//! Keys of the log that follow each other.

use std::sync::Arc;

use chancery_api::{LogKeyPhase, LogKeyView, LogKeyVoucher, LogKeysResponse};
use chancery_entry::{Blob, Body, KeyChange, KeyPhase, KeyPurpose};
use chancery_merkle::{
    Ed25519NoteSigner, LogKeys, LogSigner, Receipt, RecordedKey, SignedNote, inclusion_proof,
};
use chancery_types::Timestamp;
use data_encoding::BASE64;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{Authority, ORIGIN, by};

/// A private key of the log; the first one has seed 1.
pub(crate) fn log_signer(seed: u8) -> LogSigner {
    let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = key.public_key().as_ref().try_into().unwrap();
    let sign = move |text: &[u8]| Ok::<_, std::io::Error>(key.sign(text).as_ref().to_vec());
    Arc::new(Ed25519NoteSigner::new(ORIGIN, public, sign).unwrap())
}

/// What somebody believes who knows these keys.
pub(crate) fn log_keys(seeds: &[u8]) -> LogKeys {
    LogKeys::new(seeds.iter().map(|seed| log_signer(*seed).verifier().clone())).unwrap()
}

impl Authority {
    /// The log is signed by these from here on.
    pub(crate) fn sign_log_with(&self, seeds: &[u8]) {
        self.log_signers.put_in_force(seeds.iter().map(|seed| log_signer(*seed)).collect());
    }

    /// A key enters a phase; `vouched` is what is recorded as its predecessor's word for it. Where that is recorded.
    pub(crate) fn record_log_key(&mut self, seed: u8, phase: KeyPhase, vouched: Option<SignedNote>) -> usize {
        let recorded = RecordedKey { key: log_signer(seed).verifier().clone(), vouched };
        self.record(Body::KeyChanged(KeyChange {
            purpose: KeyPurpose::Log,
            key: recorded.id(),
            content: Blob(recorded.content()),
            phase,
            by: by(),
            note: String::new(),
        }))
    }

    /// One key follows another as it should: published, vouched for, both sign, and then the new one alone. Where it was
    /// published.
    pub(crate) fn rotate_log_key(&mut self, old: u8, new: u8) -> usize {
        let published = self.record_log_key(new, KeyPhase::Published, None);
        self.enroll(&format!("between-{old}-and-{new}"));
        let vouched = self.checkpoint(published + 1);
        self.record_log_key(new, KeyPhase::Active, Some(vouched));
        self.record_log_key(old, KeyPhase::Retired, None);
        self.sign_log_with(&[new, old]);
        self.record_log_key(old, KeyPhase::Withdrawn, None);
        self.sign_log_with(&[new]);
        published
    }

    /// The entry that published a key, and the proof of it by a checkpoint.
    pub(crate) fn voucher(&self, published: usize, checkpoint: SignedNote) -> LogKeyVoucher {
        let proof =
            inclusion_proof(published as u64, published as u64 + 1, &self.grown(published + 1).1).unwrap();
        let receipt = Receipt { extra: None, index: published as u64, proof, checkpoint };
        LogKeyVoucher { entry: BASE64.encode(&self.leaf(published)), receipt: receipt.to_string() }
    }
}

/// What the log's owner says of its keys: seed, phase, voucher.
pub(crate) fn stated(keys: Vec<(u8, LogKeyPhase, Option<LogKeyVoucher>)>) -> LogKeysResponse {
    let view = |(seed, phase, vouched): (u8, _, _)| LogKeyView {
        vkey: log_signer(seed).verifier().vkey(),
        phase,
        since: Timestamp::default(),
        vouched,
    };
    LogKeysResponse { origin: ORIGIN.to_owned(), keys: keys.into_iter().map(view).collect() }
}
