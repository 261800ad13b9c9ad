//! Throw-away keys in memory.

use std::sync::Arc;

use chancery_types::KeyAlgorithm;
use chancery_x509::PublicKey;

use crate::material::{KeyFormatError, PrivateKey};
use crate::signer::{Custody, SignError, Signer};
use crate::software::SoftwareKey;

/// A key that is never written anywhere and dies with the process: for the trial signature that lints look at,
/// for self-checks and for tests. Nothing that must verify tomorrow may be signed with it.
#[derive(Debug)]
pub struct EphemeralSigner {
    key: SoftwareKey,
}

impl EphemeralSigner {
    /// Makes a key. RSA takes seconds; the others take microseconds.
    ///
    /// # Errors
    /// [`KeyFormatError::Random`] when the system's random source fails.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Arc<Self>, KeyFormatError> {
        let key = SoftwareKey::new(&PrivateKey::generate(algorithm)?)?;
        Ok(Arc::new(Self { key }))
    }
}

impl Signer for EphemeralSigner {
    fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.key.sign(message)
    }

    fn custody(&self) -> Custody {
        Custody::Memory
    }
}
