//! Files that are worth nothing without a key that lies elsewhere.
//!
//! What an operator gives is a key and no passphrase: 32 random bytes at least, from a file or from the service
//! manager (`systemd-creds encrypt --with-key=tpm2` ties it to the machine). So no slow derivation stands before the
//! first certificate. A sealed file is a line that says so, 12 bytes of nonce, and AES-256-GCM, which the name of the
//! file goes into: one cannot stand in for another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chancery_types::Random;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::read;

/// How a sealed file begins.
const MARK: &[u8] = b"chancery sealed 1\n";
/// Bytes of key that an operator has to give.
const LEAST: usize = 32;

/// Where the key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealingKey {
    /// In this file.
    File(PathBuf),
    /// With the service manager, under this name.
    Credential(String),
}

/// Why a file cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("{0}")]
    Key(String),
    #[error("it is sealed; give state.sealing_key, with the key that it was sealed with")]
    Sealed,
    #[error("it was sealed with another key, or is damaged; remove it if nothing else helps")]
    Opening,
    #[error("there is no randomness to seal it with")]
    Random,
}

/// Seals and opens.
#[derive(Debug, Clone)]
pub(crate) struct Seal {
    key: Arc<LessSafeKey>,
    random: Arc<dyn Random>,
}

impl SealingKey {
    /// `credential:NAME`, or a path, relative to this directory.
    pub(crate) fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        match text.strip_prefix("credential:") {
            None => Ok(Self::File(directory.join(text))),
            Some(name) if !name.is_empty() && !name.contains('/') && !name.starts_with('.') => {
                Ok(Self::Credential(name.to_owned()))
            }
            Some(name) => Err(format!("{name:?} is no name of a credential")),
        }
    }

    /// The file, given the directory in which the service manager puts credentials (systemd.exec(5)).
    fn path(&self, credentials: Option<&Path>) -> Result<PathBuf, SealError> {
        match (self, credentials) {
            (Self::File(path), _) => Ok(path.clone()),
            (Self::Credential(name), Some(directory)) => Ok(directory.join(name)),
            (Self::Credential(name), None) => Err(SealError::Key(format!(
                "there is no CREDENTIALS_DIRECTORY; give the unit LoadCredentialEncrypted={name}"
            ))),
        }
    }
}

impl Seal {
    /// Reads the key.
    pub(crate) fn load(
        key: &SealingKey,
        credentials: Option<&Path>,
        random: Arc<dyn Random>,
    ) -> Result<Self, SealError> {
        let path = key.path(credentials)?;
        let secret = read(&path).map_err(|error| SealError::Key(error.to_string()))?;
        if secret.len() < LEAST {
            return Err(SealError::Key(format!(
                "{}: {} bytes, a sealing key has at least {LEAST}; make one with \
                 `head -c 32 /dev/urandom`",
                path.display(),
                secret.len()
            )));
        }
        let derived = Salt::new(HKDF_SHA256, b"chancery agent state").extract(&secret);
        let mut bytes = Zeroizing::new([0; 32]);
        derived
            .expand(&[b"seal"], HKDF_SHA256)
            .and_then(|output| output.fill(bytes.as_mut()))
            .and_then(|()| UnboundKey::new(&AES_256_GCM, bytes.as_ref()))
            .map(|key| Self { key: Arc::new(LessSafeKey::new(key)), random })
            .map_err(|_| SealError::Key("the key cannot be used".into()))
    }

    pub(super) fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut content = Zeroizing::new(plain.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut content)
            .map_err(|_| SealError::Random)?;
        Ok([MARK, &nonce, &content, tag.as_ref()].concat())
    }

    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let content = sealed.strip_prefix(MARK).ok_or(SealError::Opening)?;
        let (nonce, content) = content.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Opening)?;
        let mut content = Zeroizing::new(content.to_vec());
        let length = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(name), &mut content)
            .map_err(|_| SealError::Opening)?
            .len();
        content.truncate(length);
        Ok(content)
    }
}

/// Whether a file was sealed.
pub(super) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MARK)
}

#[cfg(test)]
mod tests {
    use chancery_types::SystemRandom;

    use super::*;

    fn seal(byte: u8) -> Seal {
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("key");
        std::fs::write(&path, [byte; 32]).unwrap();
        Seal::load(&SealingKey::File(path), None, Arc::new(SystemRandom)).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_and_under_its_name_alone() {
        let sealed = seal(1).seal("node.json", b"secret").unwrap();
        assert!(is_sealed(&sealed) && !sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(*seal(1).open("node.json", &sealed).unwrap(), b"secret");
        assert!(seal(2).open("node.json", &sealed).is_err());
        assert!(seal(1).open("request.json", &sealed).is_err());
        for index in [MARK.len(), sealed.len() - 1] {
            let mut damaged = sealed.clone();
            damaged[index] ^= 1;
            assert!(seal(1).open("node.json", &damaged).is_err());
        }
        assert!(seal(1).open("node.json", MARK).is_err());
    }

    #[test]
    fn a_key_is_named_by_path_or_credential_and_is_long_enough() {
        let around = tempfile::tempdir().unwrap();
        let random = || Arc::new(SystemRandom);
        let named = SealingKey::parse("credential:agent", Path::new("/etc")).unwrap();
        assert!(SealingKey::parse("credential:../x", Path::new("/etc")).is_err());
        assert_eq!(SealingKey::parse("k", Path::new("/etc")), Ok(SealingKey::File("/etc/k".into())));
        let missing = Seal::load(&named, None, random()).unwrap_err().to_string();
        assert!(missing.contains("LoadCredentialEncrypted=agent"), "{missing}");
        std::fs::write(around.path().join("agent"), [7; 31]).unwrap();
        let short = Seal::load(&named, Some(around.path()), random()).unwrap_err().to_string();
        assert!(short.contains("at least 32"), "{short}");
        std::fs::write(around.path().join("agent"), [7; 32]).unwrap();
        Seal::load(&named, Some(around.path()), random()).unwrap();
    }
}
