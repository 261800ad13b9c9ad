//! Nonces that any replica gives out and any other takes back, once.
//!
//! ```text
//! nonce = i64 ms when it was given out | 8 random bytes | the first 16 bytes of HMAC-SHA256 over both
//! ```
//! Nothing is remembered until one comes back; then it is spent in what the replicas share, durably, so that neither
//! another replica nor this one after a crash takes it again. The key follows from the log's, which all replicas hold;
//! while one of these follows another, a nonce is good by either.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use chancery_attest::{Nonce, NonceError, Nonces};
use chancery_keys::{SignError, Signer};
use chancery_ledger::Ledger;
use chancery_types::{Digest, Random, Timestamp};
use ring::hmac;

/// Clocks of replicas may differ by so much.
const SKEW: Duration = Duration::from_secs(30);
/// What the key of the nonces follows from: no checkpoint looks like it.
const LABEL: &[u8] = b"chancery nonce key v1\0";
/// Bytes that the code is over.
const BODY: usize = 16;

/// Nonces of all replicas of one ledger.
pub(super) struct SharedNonces {
    ledger: Arc<dyn Ledger>,
    random: Arc<dyn Random>,
    /// The first one makes codes.
    keys: ArcSwap<Vec<hmac::Key>>,
    known: Mutex<Vec<Digest>>,
    lifetime: Duration,
}

impl SharedNonces {
    /// Good for `lifetime`, by these keys of the log.
    pub(super) fn new(
        ledger: Arc<dyn Ledger>,
        random: Arc<dyn Random>,
        log_keys: &[Arc<dyn Signer>],
        lifetime: Duration,
    ) -> Result<Self, SignError> {
        let nonces = Self { ledger, random, keys: ArcSwap::default(), known: Mutex::default(), lifetime };
        nonces.learn(log_keys)?;
        Ok(nonces)
    }

    /// Takes nonces by these keys of the log too. They are Ed25519, whose signatures are always the same (RFC 8032): what
    /// they sign is a secret that whoever holds the key, and nobody else, can make.
    pub(super) fn learn(&self, log_keys: &[Arc<dyn Signer>]) -> Result<(), SignError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys = self.keys.load().as_ref().clone();
        for key in log_keys {
            let id = key.public_key().fingerprint();
            if !known.contains(&id) {
                let secret = zeroize::Zeroizing::new(key.sign(LABEL)?);
                keys.push(hmac::Key::new(hmac::HMAC_SHA256, &secret));
                known.push(id);
            }
        }
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// When a nonce of ours was given out.
    fn issued(&self, nonce: &Nonce) -> Option<Timestamp> {
        let (body, code) = nonce.as_bytes().split_at(BODY);
        // Both are hashed first, so that the time of the comparison says nothing.
        let is_by = |key: &hmac::Key| {
            let (found, expected) = (hmac::sign(key, code), hmac::sign(key, &code_by(key, body)));
            found.as_ref() == expected.as_ref()
        };
        (self.keys.load().iter().any(is_by))
            .then(|| body.first_chunk().map(|millis| Timestamp::from_millis(i64::from_be_bytes(*millis))))?
    }
}

fn code_by(key: &hmac::Key, body: &[u8]) -> [u8; 16] {
    hmac::sign(key, body).as_ref().first_chunk().copied().expect("SHA-256 has 32 bytes")
}

#[async_trait]
impl Nonces for SharedNonces {
    async fn issue(&self, now: Timestamp) -> Result<Nonce, NonceError> {
        let mut bytes = [0_u8; 32];
        bytes[..8].copy_from_slice(&now.millis().to_be_bytes());
        self.random.fill(&mut bytes[8..BODY])?;
        let code = self.keys.load().first().map(|key| code_by(key, &bytes[..BODY]));
        let code = code.ok_or_else(|| NonceError::Store("no key of the log is here".to_owned()))?;
        bytes[BODY..].copy_from_slice(&code);
        Ok(Nonce::from_array(bytes))
    }

    async fn consume(&self, nonce: &Nonce, now: Timestamp) -> Result<bool, NonceError> {
        let Some(issued) = self.issued(nonce) else { return Ok(false) };
        if issued > now + SKEW || now >= issued + self.lifetime {
            return Ok(false);
        }
        let Some(scratch) = self.ledger.scratch() else {
            return Err(NonceError::Store("the ledger is shared with nobody".to_owned()));
        };
        let key = [b"nonce ".as_slice(), nonce.as_bytes()].concat();
        // Longer than the latest clock takes it.
        let spent = scratch.put_new(&key, &[], self.lifetime + 4 * SKEW).await;
        spent.map_err(|error| NonceError::Store(error.to_string()))
    }
}
