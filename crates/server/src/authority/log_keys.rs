//! The keys of the log: which there are, which of them sign, and how each vouches for the next.

use std::sync::Arc;

use chancery_api::{LogKeyPhase, LogKeyView, LogKeyVoucher, LogKeysResponse};
use chancery_entry::{Body, Entry, KeyPhase, KeyPurpose};
use chancery_keys::Signer;
use chancery_ledger::{KeyRecord, Ledger};
use chancery_merkle::{
    Checkpoint, Ed25519NoteSigner, LogSigner, LogSigners, NoteVerifier, Receipt, RecordedKey, SignedNote,
    inclusion_root, leaf_hash,
};
use chancery_types::{Digest, Timestamp};
use data_encoding::BASE64;

use super::keyring::Keyring;
use super::{Authority, AuthorityError, OpenError, log_origin};
use crate::config::Config;

/// A key of the log.
#[derive(Debug, Clone)]
pub(crate) struct LogKey {
    /// The key, and how the one before it vouches for it.
    pub(crate) recorded: RecordedKey,
    /// Where in its life it is.
    pub(crate) phase: KeyPhase,
    /// Since when.
    pub(crate) since: Timestamp,
    /// Index of the last entry about it; nothing for the first key, of which only the beginning of the log tells.
    pub(crate) index: Option<u64>,
}

impl LogKey {
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub(crate) fn id(&self) -> Digest {
        self.recorded.id()
    }

    /// Index of the entry that published it, if a key before it vouches for that.
    fn published_at(&self) -> Option<u64> {
        let note = self.recorded.vouched.as_ref()?;
        Checkpoint::parse(note.text()).ok()?.size().checked_sub(1)
    }

    /// The oldest first: the first key has no voucher, and those that never signed come last.
    fn age(&self) -> (bool, u64) {
        match (self.published_at(), self.phase) {
            (Some(at), _) => (false, at),
            (None, KeyPhase::Published) => (true, self.index.unwrap_or(u64::MAX)),
            (None, _) => (false, 0),
        }
    }
}

/// Every key that signs for the log, has done so or will, the oldest first.
///
/// # Errors
/// [`AuthorityError`] when the ledger cannot be read, or does not say which key was its first.
pub(crate) async fn read_log_keys(ledger: &dyn Ledger) -> Result<Vec<LogKey>, AuthorityError> {
    let first = first_key(ledger).await?;
    let records = ledger.keys().await?;
    let records = records.into_iter().filter(|record| record.purpose == KeyPurpose::Log);
    let mut keys: Vec<LogKey> =
        records.map(|record| known(record, first.recorded.key.name())).collect::<Result<_, _>>()?;
    if keys.iter().all(|key| key.id() != first.id()) {
        keys.push(first);
    }
    keys.sort_by_key(LogKey::age);
    Ok(keys)
}

fn known(record: KeyRecord, origin: &str) -> Result<LogKey, AuthorityError> {
    let recorded = RecordedKey::parse(origin, &record.content)
        .map_err(|error| AuthorityError::invalid("the log's record of its keys", error))?;
    Ok(LogKey { recorded, phase: record.phase, since: record.since, index: Some(record.index) })
}

/// The key with which the log begins. It signs until another follows it.
async fn first_key(ledger: &dyn Ledger) -> Result<LogKey, AuthorityError> {
    let bytes = ledger.entry(0).await?.unwrap_or_default();
    let entry = Entry::decode(&bytes).ok();
    let Some(Entry { time, body: Body::Genesis(genesis) }) = entry else {
        return Err(AuthorityError::not_found("beginning of the log", "entry 0"));
    };
    let key: NoteVerifier = genesis
        .verifier_key
        .parse()
        .map_err(|error| AuthorityError::invalid("the log's first key", error))?;
    Ok(LogKey { recorded: key.into(), phase: KeyPhase::Active, since: time, index: None })
}

/// The keys of the log that are at hand, for whoever needs no others. Those that signed last sign on, or the one that the
/// configuration names.
pub(crate) fn open_log_signers(config: &Config) -> Result<Arc<LogSigners>, OpenError> {
    log_signers(config, &Keyring::new(config, Vec::new()))
}

/// The same with a keyring that is there.
pub(super) fn log_signers(config: &Config, keyring: &Keyring) -> Result<Arc<LogSigners>, OpenError> {
    let origin = log_origin(&config.trust_domain);
    let keys = keyring.ledgers().map_err(|error| OpenError::Key { purpose: "ledger", error })?;
    let signers: Result<_, _> = keys.iter().map(|key| log_signer(&origin, key)).collect();
    Ok(LogSigners::new(&origin, signers?))
}

/// A key as a signer of the log of this origin.
pub(crate) fn log_signer(origin: &str, key: &Arc<dyn Signer>) -> Result<LogSigner, OpenError> {
    let algorithm = key.public_key().algorithm();
    let public: [u8; 32] =
        key.public_key().key_bytes().try_into().map_err(|_| OpenError::LedgerKey(algorithm))?;
    let custodian = Arc::clone(key);
    let sign = move |message: &[u8]| custodian.sign(message);
    let signer = Ed25519NoteSigner::new(origin, public, sign)
        .expect("a trust domain has only characters that a key name may have");
    Ok(Arc::new(signer))
}

/// Has those keys sign that are to: the active one, and those before it while they sign beside it; these.
///
/// # Errors
/// [`OpenError::LogKey`] when the active one is not here; then everything stays.
pub(crate) async fn put_in_force(
    keys: &[LogKey],
    keyring: &Arc<Keyring>,
    signers: &LogSigners,
) -> Result<Vec<Arc<dyn Signer>>, OpenError> {
    let (mut found, mut in_force) = (Vec::new(), Vec::new());
    let active = keys.iter().find(|key| key.phase == KeyPhase::Active);
    let active =
        active.ok_or_else(|| AuthorityError::not_found("key that signs the log", signers.origin()))?;
    for key in std::iter::once(active).chain(keys.iter().rev().filter(|key| key.phase == KeyPhase::Retired)) {
        match find(keyring, key).await? {
            Some(signer) => {
                in_force.push(log_signer(signers.origin(), &signer)?);
                found.push(signer);
            }
            None if key.phase == KeyPhase::Active => return Err(OpenError::LogKey(key.id())),
            None => {
                tracing::warn!(key = %key.id(), "a key that signs the log beside the newest one is not here")
            }
        }
    }
    let now = signers.in_force();
    let is_same = now.len() == in_force.len()
        && now.iter().zip(&in_force).all(|(now, then)| now.verifier() == then.verifier());
    if !is_same {
        signers.put_in_force(in_force);
    }
    Ok(found)
}

async fn find(keyring: &Arc<Keyring>, key: &LogKey) -> Result<Option<Arc<dyn Signer>>, OpenError> {
    let (keyring, public) = (Arc::clone(keyring), *key.recorded.key.public_key());
    let found = tokio::task::spawn_blocking(move || keyring.ledger(&public)).await;
    let found = found.map_err(|_| OpenError::LogKey(key.id()))?;
    found.map_err(|error| OpenError::Key { purpose: "ledger", error })
}

/// The checkpoint of the log as it ends with the entry at `index`, by these keys: that is how they vouch for what it says.
///
/// # Errors
/// [`AuthorityError`] when the ledger cannot be read, or a key does not sign.
pub(crate) async fn vouch(
    ledger: &dyn Ledger,
    signers: &LogSigners,
    index: u64,
) -> Result<SignedNote, AuthorityError> {
    let (leaf, proof) = last_entry(ledger, index).await?;
    let unusable = |error: &dyn std::fmt::Display| AuthorityError::invalid("the log's checkpoint", error);
    let root =
        inclusion_root(&leaf_hash(&leaf), index, index + 1, &proof).map_err(|error| unusable(&error))?;
    let checkpoint = Checkpoint::new(signers.origin(), index + 1, root).map_err(|error| unusable(&error))?;
    signers.sign(&checkpoint.text()).map_err(|error| unusable(&error))
}

/// An entry, and the proof that the log which ends with it has it.
async fn last_entry(ledger: &dyn Ledger, index: u64) -> Result<(Vec<u8>, Vec<Digest>), AuthorityError> {
    let entry = ledger.entry(index).await?.ok_or_else(|| AuthorityError::not_found("entry", index))?;
    Ok((entry, ledger.inclusion_proof(index, index + 1).await?))
}

impl Authority {
    /// The keys of the log as everybody may read them, with the proofs by which one leads to the next.
    #[must_use]
    pub(crate) fn log_keys(&self) -> Arc<LogKeysResponse> {
        self.log_keys.load_full()
    }

    /// Whether a key of the log is here.
    ///
    /// # Errors
    /// [`OpenError`] when it is, and cannot be used.
    pub(crate) async fn has_log_key(&self, key: &LogKey) -> Result<bool, OpenError> {
        Ok(find(&self.keyring, key).await?.is_some())
    }

    /// Takes over what the ledger says of its keys.
    ///
    /// # Errors
    /// [`OpenError`] when the ledger cannot be read, or the key that signs is not here; what was in force stays.
    pub(super) async fn follow_log_keys(&self) -> Result<(), OpenError> {
        let keys = read_log_keys(self.ledger.as_ref()).await?;
        let signing = put_in_force(&keys, &self.keyring, &self.log_signers).await?;
        if let Some(nonces) = &self.shared_nonces {
            nonces.learn(&signing).map_err(OpenError::NonceKey)?;
        }
        keys.iter().for_each(|key| self.workflow.forbid(key.id()));
        let shown = view(&keys, self.ledger.as_ref(), &self.log_signers).await?;
        self.log_keys.store(Arc::new(shown));
        Ok(())
    }
}

async fn view(
    keys: &[LogKey],
    ledger: &dyn Ledger,
    signers: &LogSigners,
) -> Result<LogKeysResponse, AuthorityError> {
    let mut views = Vec::with_capacity(keys.len());
    for key in keys {
        views.push(LogKeyView {
            vkey: key.recorded.key.vkey(),
            phase: match key.phase {
                KeyPhase::Published => LogKeyPhase::Published,
                KeyPhase::Active => LogKeyPhase::Active,
                KeyPhase::Retired => LogKeyPhase::Superseded,
                KeyPhase::Withdrawn => LogKeyPhase::Withdrawn,
            },
            since: key.since,
            vouched: voucher(ledger, key).await?,
        });
    }
    Ok(LogKeysResponse { origin: signers.origin().to_owned(), keys: views })
}

async fn voucher(ledger: &dyn Ledger, key: &LogKey) -> Result<Option<LogKeyVoucher>, AuthorityError> {
    let (Some(index), Some(checkpoint)) = (key.published_at(), key.recorded.vouched.clone()) else {
        return Ok(None);
    };
    let (leaf, proof) = last_entry(ledger, index).await?;
    let receipt = Receipt { extra: None, index, proof, checkpoint };
    Ok(Some(LogKeyVoucher { entry: BASE64.encode(&leaf), receipt: receipt.to_string() }))
}
