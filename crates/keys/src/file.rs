//! Keys in files: encrypted at rest, in this process while they sign.

use std::fmt;
use std::path::{Path, PathBuf};

use chancery_types::{KeyAlgorithm, SecretString, SystemRandom};
use chancery_x509::PublicKey;
use data_encoding::HEXLOWER;

use crate::envelope::{self, EnvelopeError, Protection};
use crate::material::PrivateKey;
use crate::secret_file::{self, SecretFileError};
use crate::signer::{Custody, SignError, Signer, self_test};
use crate::software::SoftwareKey;

/// A key file cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system, its permissions included.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// What is in the file, or would be.
    #[error("key file {}: {cause}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: EnvelopeError,
    },
    /// The key opened and does not work.
    #[error("key file {}: the key failed its self-test ({reason}); restore it from a copy", path.display())]
    SelfTest {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// A key that was opened from a file.
pub(crate) struct FileSigner {
    path: PathBuf,
    key: SoftwareKey,
}

impl FileSigner {
    /// Makes a key and writes it to a new file.
    pub(crate) fn generate(
        path: &Path,
        algorithm: KeyAlgorithm,
        protection: &Protection,
    ) -> Result<Self, FileError> {
        // Looked at before the work of making an RSA key; the rename that follows is what guarantees it.
        if secret_file::exists(path)? {
            return Err(SecretFileError::Exists(path.to_owned()).into());
        }
        let key = PrivateKey::generate(algorithm).map_err(|error| content(path, error))?;
        Self::store(path, &key, protection)
    }

    /// Takes a key that another tool wrote and writes it to a new file in our form.
    pub(crate) fn import(
        path: &Path,
        text: &[u8],
        passphrase: Option<&SecretString>,
        protection: &Protection,
    ) -> Result<Self, FileError> {
        let key = envelope::open_foreign(text, passphrase).map_err(|error| content(path, error))?;
        Self::store(path, &key, protection)
    }

    /// Opens a key file and tests the key.
    pub(crate) fn open(path: &Path, protection: &Protection) -> Result<Self, FileError> {
        let text = secret_file::read(path)?;
        let opened = envelope::open(&text, protection).map_err(|error| content(path, error))?;
        let signer = Self::tested(path, &opened.key)?;
        opened.check_identifier(&identifier(&signer.key)).map_err(|error| content(path, error))?;
        Ok(signer)
    }

    fn store(path: &Path, key: &PrivateKey, protection: &Protection) -> Result<Self, FileError> {
        let signer = Self::tested(path, key)?;
        let algorithm = signer.public_key().algorithm().as_str();
        let text = envelope::seal(key, algorithm, &identifier(&signer.key), protection, &SystemRandom)
            .map_err(|error| content(path, error))?;
        secret_file::create(path, text.as_bytes())?;
        Ok(signer)
    }

    fn tested(path: &Path, key: &PrivateKey) -> Result<Self, FileError> {
        let key = SoftwareKey::new(key).map_err(|error| content(path, error))?;
        let signer = Self { path: path.to_owned(), key };
        match self_test(&signer) {
            Ok(()) => Ok(signer),
            Err(error) => Err(FileError::SelfTest { path: path.to_owned(), reason: error.to_string() }),
        }
    }
}

impl Signer for FileSigner {
    fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.key.sign(message)
    }

    fn custody(&self) -> Custody {
        Custody::File
    }
}

impl fmt::Debug for FileSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FileSigner").field("path", &self.path).field("key", &self.key).finish()
    }
}

fn identifier(key: &SoftwareKey) -> String {
    HEXLOWER.encode(key.public_key().key_identifier().as_ref())
}

fn content(path: &Path, cause: impl Into<EnvelopeError>) -> FileError {
    FileError::Content { path: path.to_owned(), cause: cause.into() }
}
