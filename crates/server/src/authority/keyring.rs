//! The keys of issuers, tokens and the log that follow each other: where they are, and those that are open.
//!
//! The first of a kind is where the configuration says; the others lie beside it, told apart by their number:
//! `issuer-3.key` beside `issuer-1.key`, `jwt-2.key` beside `jwt.key`, `ledger-2.key` beside `ledger.key`, and in a token the object `chancery-issuer-3`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use chancery_keys::{KeyError, KeyLocation, Protection, Signer, read_secret, store};
use chancery_types::{IssuerEpoch, KeyAlgorithm};

use crate::config::Config;

/// Numbers in a row that a token does not have before no more are asked for.
const MOST_MISSING: u32 = 3;

/// Finds, opens and makes keys.
pub(crate) struct Keyring {
    issuer: KeyLocation,
    jwt: KeyLocation,
    ledger: KeyLocation,
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
            ledger: config.ledger_key.clone(),
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

    /// A key of the log, by the 32 bytes of the public one; nothing when it is not here.
    pub(crate) fn ledger(&self, public: &[u8; 32]) -> Result<Option<Arc<dyn Signer>>, KeyError> {
        let is_it = |key: &Arc<dyn Signer>| key.public_key().key_bytes() == public;
        if let Some(known) = self.opened().into_iter().find(is_it) {
            return Ok(Some(known));
        }
        Ok(self.ledgers()?.into_iter().find(is_it))
    }

    /// The keys of the log that are here: that of the configuration, and those beside it, the newest first.
    pub(crate) fn ledgers(&self) -> Result<Vec<Arc<dyn Signer>>, KeyError> {
        let protection = self.protection()?;
        let mut keys = vec![store::open(&self.ledger, &protection)?];
        match &self.ledger {
            KeyLocation::File(path) => {
                for number in numbers_beside(path, "ledger") {
                    keys.push(store::open(&beside(&self.ledger, "ledger", number), &protection)?);
                }
            }
            // A token is not asked what it has: withdrawn keys may be gone from it, but few in a row.
            KeyLocation::Pkcs11(_) => {
                let mut missing = 0;
                let others = (2..).map(|number| beside(&self.ledger, "ledger", number));
                for location in others.filter(|location| *location != self.ledger) {
                    match store::exists(&location)? {
                        true => {
                            keys.insert(1, store::open(&location, &protection)?);
                            missing = 0;
                        }
                        false => missing += 1,
                    }
                    if missing == MOST_MISSING {
                        break;
                    }
                }
            }
        }
        for key in &keys {
            self.keep(key);
        }
        Ok(keys)
    }

    /// Makes the key of the log of this number, or opens the one that an attempt before has left.
    pub(crate) fn make_ledger(&self, number: u32) -> Result<Arc<dyn Signer>, KeyError> {
        self.make(&beside(&self.ledger, "ledger", number), KeyAlgorithm::Ed25519)
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

    /// Those that are open.
    pub(super) fn opened(&self) -> Vec<Arc<dyn Signer>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, key: &Arc<dyn Signer>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let spki = key.public_key().spki_der();
        if open.iter().all(|known| known.public_key().spki_der() != spki) {
            open.push(Arc::clone(key));
        }
    }

    /// The passphrase may lie on a medium that is there only now and then: it is read when it is needed.
    fn protection(&self) -> Result<Protection, KeyError> {
        Ok(match &self.passphrase_file {
            Some(file) => Protection::Passphrase(read_secret(file)?),
            None => Protection::Plain,
        })
    }
}

/// The numbers of the keys of a kind that lie beside the first one, the highest first.
fn numbers_beside(first: &std::path::Path, kind: &str) -> Vec<u32> {
    let number = |name: &std::ffi::OsStr| -> Option<u32> {
        name.to_str()?.strip_prefix(kind)?.strip_prefix('-')?.strip_suffix(".key")?.parse().ok()
    };
    let entries = first.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    let names = entries.into_iter().flatten().filter_map(Result::ok).map(|entry| entry.file_name());
    let others = names.filter(|name| first.file_name() != Some(name));
    let mut numbers: Vec<u32> = others.filter_map(|name| number(&name)).collect();
    numbers.sort_unstable_by(|left, right| right.cmp(left));
    numbers
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
            ledger: KeyLocation::File(directory.join("ledger.key")),
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
    fn the_keys_of_the_log_are_found_whichever_is_named_and_whichever_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let mut ring = keyring(directory.path());
        let first = store::generate(&ring.ledger, KeyAlgorithm::Ed25519, &Protection::Plain).unwrap();
        let made: Vec<_> = [2, 3, 10].map(|number| ring.make_ledger(number).unwrap()).into();
        let spki = |key: &Arc<dyn Signer>| key.public_key().spki_der().to_vec();
        let found = |ring: &Keyring| ring.ledgers().unwrap().iter().map(spki).collect::<Vec<_>>();
        assert_eq!(found(&ring), [spki(&first), spki(&made[2]), spki(&made[1]), spki(&made[0])]);
        std::fs::remove_file(directory.path().join("ledger.key")).unwrap();
        std::fs::remove_file(directory.path().join("ledger-2.key")).unwrap();
        std::fs::write(directory.path().join("ledger-x.key"), "no number").unwrap();
        ring.ledger = KeyLocation::File(directory.path().join("ledger-3.key"));
        assert_eq!(found(&ring), [spki(&made[1]), spki(&made[2])]);
        let public: [u8; 32] = made[2].public_key().key_bytes().try_into().unwrap();
        assert_eq!(ring.ledger(&public).unwrap().as_ref().map(spki), Some(spki(&made[2])));
        assert!(ring.ledger(&[7; 32]).unwrap().is_none());
        std::fs::write(directory.path().join("ledger-11.key"), "half a key").unwrap();
        assert!(ring.ledgers().is_err(), "one that is there and does not open is not passed over");
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
