//! The keys of issuers and tokens that follow each other: where they are, and those that are open.
//!
//! The first of a kind is where the configuration says; the others lie beside it, told apart by their number:
//! `issuer-3.key` beside `issuer-1.key`, `jwt-2.key` beside `jwt.key`, and in a token the object `chancery-issuer-3`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use chancery_keys::{KeyError, KeyLocation, Protection, Signer, read_secret, store};
use chancery_types::{IssuerEpoch, KeyAlgorithm};

use crate::config::Config;

/// Finds, opens and makes keys.
pub(crate) struct Keyring {
    issuer: KeyLocation,
    jwt: KeyLocation,
    passphrase_file: Option<PathBuf>,
    certificates: PathBuf,
    open: Mutex<Vec<Arc<dyn Signer>>>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Keyring").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Keyring {
    /// With the keys that are open already.
    pub(crate) fn new(config: &Config, open: Vec<Arc<dyn Signer>>) -> Self {
        let certificates = config.root_certificate.parent().map(ToOwned::to_owned);
        Self {
            issuer: config.issuer_key.clone(),
            jwt: config.jwt_key.clone(),
            passphrase_file: config.passphrase_file.clone(),
            certificates: certificates.unwrap_or_else(|| config.directory.clone()),
            open: Mutex::new(open),
        }
    }

    /// Where the certificates of issuers are: `issuer-3.crt`, with its request before it was signed in `issuer-3.csr`.
    pub(crate) fn certificates(&self) -> &std::path::Path {
        &self.certificates
    }

    /// Where the key of an issuer is.
    pub(crate) fn issuer_location(&self, epoch: IssuerEpoch) -> KeyLocation {
        beside(&self.issuer, "issuer", u32::from(epoch.0))
    }

    /// An issuer's key, opened if need be; nothing when it is not here.
    pub(crate) fn issuer(
        &self,
        epoch: IssuerEpoch,
        spki: &[u8],
    ) -> Result<Option<Arc<dyn Signer>>, KeyError> {
        self.find_or_open(spki, std::iter::once(self.issuer_location(epoch)))
    }

    /// A key of tokens, the only ones there ever were being the first so many; nothing when it is not here.
    pub(crate) fn jwt(&self, count: u32, spki: &[u8]) -> Result<Option<Arc<dyn Signer>>, KeyError> {
        let others = (2..=count.saturating_add(1)).rev().map(|number| beside(&self.jwt, "jwt", number));
        self.find_or_open(spki, others)
    }

    /// Makes the key of an issuer, or opens the one that an attempt before has left.
    pub(crate) fn make_issuer(
        &self,
        epoch: IssuerEpoch,
        algorithm: KeyAlgorithm,
    ) -> Result<Arc<dyn Signer>, KeyError> {
        self.make(&self.issuer_location(epoch), algorithm)
    }

    /// Makes the key of tokens of this number, or opens the one that an attempt before has left.
    pub(crate) fn make_jwt(&self, number: u32, algorithm: KeyAlgorithm) -> Result<Arc<dyn Signer>, KeyError> {
        self.make(&beside(&self.jwt, "jwt", number), algorithm)
    }

    fn make(&self, location: &KeyLocation, algorithm: KeyAlgorithm) -> Result<Arc<dyn Signer>, KeyError> {
        let protection = self.protection()?;
        // What is there and does not open is never taken for nothing.
        let key = match store::exists(location)? {
            true => store::open(location, &protection)?,
            // Another server may make the same one at this moment.
            false => store::generate(location, algorithm, &protection)
                .or_else(|error| store::open(location, &protection).map_err(|_| error))?,
        };
        self.keep(&key);
        Ok(key)
    }

    fn find_or_open(
        &self,
        spki: &[u8],
        locations: impl Iterator<Item = KeyLocation>,
    ) -> Result<Option<Arc<dyn Signer>>, KeyError> {
        let is_it = |key: &Arc<dyn Signer>| key.public_key().spki_der() == spki;
        if let Some(known) = self.opened().iter().find(|key| is_it(key)) {
            return Ok(Some(Arc::clone(known)));
        }
        for location in locations {
            let is_there = match &location {
                KeyLocation::File(path) => path.exists(),
                KeyLocation::Pkcs11(_) => true,
            };
            if !is_there {
                continue;
            }
            let key = store::open(&location, &self.protection()?)?;
            self.keep(&key);
            if is_it(&key) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    fn opened(&self) -> Vec<Arc<dyn Signer>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, key: &Arc<dyn Signer>) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(key));
    }

    /// The passphrase may lie on a medium that is there only now and then: it is read when it is needed.
    fn protection(&self) -> Result<Protection, KeyError> {
        Ok(match &self.passphrase_file {
            Some(file) => Protection::Passphrase(read_secret(file)?),
            None => Protection::Plain,
        })
    }
}

/// The place of another key of a kind.
fn beside(first: &KeyLocation, kind: &str, number: u32) -> KeyLocation {
    match first {
        KeyLocation::File(path) => KeyLocation::File(path.with_file_name(format!("{kind}-{number}.key"))),
        KeyLocation::Pkcs11(uri) => {
            let mut uri = uri.clone();
            uri.object = Some(format!("chancery-{kind}-{number}"));
            KeyLocation::Pkcs11(uri)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn keyring(directory: &std::path::Path) -> Keyring {
        Keyring {
            issuer: KeyLocation::File(directory.join("issuer-1.key")),
            jwt: KeyLocation::File(directory.join("jwt.key")),
            passphrase_file: None,
            certificates: directory.to_owned(),
            open: Mutex::default(),
        }
    }

    #[test]
    fn servers_that_make_one_key_at_the_same_time_have_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let made = std::thread::scope(|scope| {
            let make = || keyring(directory.path()).make_jwt(2, KeyAlgorithm::P256).unwrap();
            let servers = [(); 4].map(|()| scope.spawn(make));
            servers.map(|server| server.join().unwrap().public_key().spki_der().to_vec())
        });
        assert_eq!(BTreeSet::from(made).len(), 1);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_is_there_and_does_not_open_stays_and_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let keyring = keyring(directory.path());
        keyring.make_issuer(IssuerEpoch(3), KeyAlgorithm::P256).unwrap();
        let path = directory.path().join("issuer-3.key");
        std::fs::write(&path, "half a key").unwrap();
        let told = keyring.make_issuer(IssuerEpoch(3), KeyAlgorithm::P256).err().unwrap().to_string();
        assert!(!told.contains("exists already"), "{told}");
        assert_eq!(std::fs::read(&path).unwrap(), b"half a key");
    }
}
