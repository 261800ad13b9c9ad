//! Keys by where they are kept: make, open, bring in, look for.

use std::fs::File;
use std::sync::Arc;

use chancery_types::{KeyAlgorithm, SecretString};

use crate::envelope::Protection;
use crate::file::{FileError, FileSigner};
use crate::location::KeyLocation;
use crate::pkcs11::{Pkcs11Signer, TokenError};
use crate::secret_file::{self, SecretFileError};
use crate::signer::Signer;

/// A key cannot be made, opened or brought in.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key in a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key in a PKCS#11 token.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl From<SecretFileError> for KeyError {
    fn from(error: SecretFileError) -> Self {
        Self::File(error.into())
    }
}

/// Makes a key where none is, durable on return, and opens it.
///
/// A file is written with mode 0600 in directories made with mode 0700. In a token the key is made inside,
/// sensitive and not extractable.
///
/// # Errors
/// [`KeyError`] when there is a key already (it is never replaced), when the place cannot be written, or when
/// the passphrase is too short; see [`FileError`] and [`TokenError`].
pub fn generate(
    location: &KeyLocation,
    algorithm: KeyAlgorithm,
    protection: &Protection,
) -> Result<Arc<dyn Signer>, KeyError> {
    Ok(match location {
        KeyLocation::File(path) => Arc::new(FileSigner::generate(path, algorithm, protection)?),
        KeyLocation::Pkcs11(uri) => Arc::new(Pkcs11Signer::generate(uri, algorithm, protection)?),
    })
}

/// Opens a key and tests that it signs.
///
/// # Errors
/// [`KeyError`] when there is none, when others can read it, when the passphrase or PIN is wrong, when the key
/// is damaged or fails its self-test; each is an error of its own.
pub fn open(location: &KeyLocation, protection: &Protection) -> Result<Arc<dyn Signer>, KeyError> {
    Ok(match location {
        KeyLocation::File(path) => Arc::new(FileSigner::open(path, protection)?),
        KeyLocation::Pkcs11(uri) => Arc::new(Pkcs11Signer::open(uri, protection)?),
    })
}

/// Writes a key that another tool made to a new file, in our form and under our protection.
///
/// `pem` is PKCS#8 (encrypted under `passphrase` or not), SEC 1 `EC PRIVATE KEY` or PKCS#1 `RSA PRIVATE KEY`, as
/// `openssl` writes them. The caller owns the old file and decides what becomes of it.
///
/// # Errors
/// [`KeyError`] as for [`open`] and [`generate`]; [`TokenError::ImportUnsupported`] for a token, whose own tools
/// do this.
pub fn import(
    location: &KeyLocation,
    pem: &[u8],
    passphrase: Option<&SecretString>,
    protection: &Protection,
) -> Result<Arc<dyn Signer>, KeyError> {
    match location {
        KeyLocation::File(path) => Ok(Arc::new(FileSigner::import(path, pem, passphrase, protection)?)),
        KeyLocation::Pkcs11(_) => Err(TokenError::ImportUnsupported.into()),
    }
}

/// Whether there is a key at this place. In a token this looks at public halves, and at private ones if the
/// location names a `pin-source`.
///
/// # Errors
/// [`KeyError`] when the place cannot be looked at.
pub fn exists(location: &KeyLocation) -> Result<bool, KeyError> {
    match location {
        KeyLocation::File(path) => Ok(secret_file::exists(path)?),
        KeyLocation::Pkcs11(uri) => Ok(Pkcs11Signer::exists(uri)?),
    }
}

/// Whether this process could take the key away: its file can be opened for reading, whatever protects the
/// content. A key in a token cannot be taken away, so the answer is no.
#[must_use]
pub fn is_readable(location: &KeyLocation) -> bool {
    match location {
        KeyLocation::File(path) => File::open(path).is_ok(),
        KeyLocation::Pkcs11(_) => false,
    }
}
