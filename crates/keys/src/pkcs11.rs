//! Keys in PKCS#11 tokens (OASIS PKCS#11 v3.1; v2.40 modules too): smart cards, HSMs, SoftHSM.
//!
//! The private key is made in the token, sensitive and not extractable, and every signature is made there. We
//! hash and encode; the token does the raw operation (`CKM_ECDSA`, `CKM_EDDSA`, `CKM_RSA_PKCS`), because those are the
//! mechanisms that every token has.
//!
//! Threads: the module is initialised with `CKF_OS_LOCKING_OK` and a session serves one thread at a time; a small
//! bounded pool hands them out. Fork: PKCS#11 leaves a forked child without a usable module, so a signer refuses
//! in a child; spawning other programs (fork and exec at once) is not affected. Login belongs to the whole
//! process, not to a session, so keys of one token share one connection and one PIN.
//!
//! Trust: the module is native code that runs in this process with all its rights. It is loaded from the
//! absolute path that the operator wrote and from nowhere else.

mod connection;
mod error;
mod module;
mod object;
mod signature;
mod token;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use chancery_types::KeyAlgorithm;
use chancery_x509::PublicKey;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;

use crate::envelope::Protection;
use crate::signer::{Custody, SignError, Signer, self_test};
use crate::uri::Pkcs11Uri;
use connection::{Connection, Failure};
pub use error::TokenError;
use error::is_lost_session;
use object::KeySelector;

/// A key in a token.
pub(crate) struct Pkcs11Signer {
    connection: Arc<Connection>,
    selector: KeySelector,
    public_key: PublicKey,
    /// The private key's handle, and the login during which it was found; handles do not outlive it.
    handle: Mutex<(u64, ObjectHandle)>,
}

impl Pkcs11Signer {
    /// Makes a key pair in the token.
    pub(crate) fn generate(
        uri: &Pkcs11Uri,
        algorithm: KeyAlgorithm,
        protection: &Protection,
    ) -> Result<Self, TokenError> {
        let selector = KeySelector::for_new_key(uri)?;
        let connection = Connection::open(uri, protection)?;
        let session = connection.read_write_session()?;
        let pair = object::generate(&session, &selector, algorithm)?;
        let signer = Self::find(&connection, selector).and_then(Self::tested);
        if signer.is_err() {
            // Nobody has seen the key yet, and one that cannot be used would block its name.
            pair.destroy(&session);
        }
        signer
    }

    /// Finds a key pair in the token and tests it.
    pub(crate) fn open(uri: &Pkcs11Uri, protection: &Protection) -> Result<Self, TokenError> {
        let selector = KeySelector::for_existing_key(uri)?;
        let connection = Connection::open(uri, protection)?;
        Self::find(&connection, selector)?.tested()
    }

    /// Whether the token has such a key, public or private.
    pub(crate) fn exists(uri: &Pkcs11Uri) -> Result<bool, TokenError> {
        let selector = KeySelector::for_existing_key(uri)?;
        if uri.pin_source.is_some() {
            let connection = Connection::open(uri, &Protection::Plain)?;
            return object::exists(&connection.read_write_session()?, &selector);
        }
        let found = token::find(uri)?;
        object::exists(&found.session_without_login()?, &selector)
    }

    fn find(connection: &Arc<Connection>, selector: KeySelector) -> Result<Self, TokenError> {
        let (generation, found) = connection.with_session(|session, generation| {
            Ok((generation, find_in_login(connection, session, &selector)?))
        })?;
        let (handle, public_key) = found?;
        signature::check_mechanism(connection, &selector, public_key.algorithm())?;
        Ok(Self {
            connection: Arc::clone(connection),
            selector,
            public_key,
            handle: Mutex::new((generation, handle)),
        })
    }

    fn tested(self) -> Result<Self, TokenError> {
        match self_test(&self) {
            Ok(()) => Ok(self),
            Err(error) => {
                Err(TokenError::SelfTest { key: self.selector.to_string(), reason: error.to_string() })
            }
        }
    }

    /// The key's handle in this login; looked for again when the login is a new one, and then it must be the
    /// same key.
    fn handle(&self, session: &Session, generation: u64) -> Result<ObjectHandle, Failure> {
        let known = *self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 == generation {
            return Ok(known.1);
        }
        let (handle, public_key) = find_in_login(&self.connection, session, &self.selector)?
            .map_err(|error| Failure::Refused(error.to_string()))?;
        if public_key.spki_der() != self.public_key.spki_der() {
            return Err(Failure::Refused("another key now has this name; restart to use it".to_owned()));
        }
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = (generation, handle);
        Ok(handle)
    }
}

/// Finds the key, telling a key that is not there from one that a lost login hides: private objects vanish when
/// anything in this process logs out.
fn find_in_login(
    connection: &Connection,
    session: &Session,
    selector: &KeySelector,
) -> Result<Result<(ObjectHandle, PublicKey), TokenError>, Failure> {
    let mut found = object::find(session, selector);
    if matches!(found, Err(TokenError::KeyNotFound { .. })) {
        connection.check_login(session)?;
        // Another thread may have logged in between the two.
        found = object::find(session, selector);
        connection.check_login(session)?;
    }
    match found {
        Err(TokenError::Failed { cause, .. }) if is_lost_session(&cause) => Err(Failure::Module(cause)),
        found => Ok(found),
    }
}

impl Signer for Pkcs11Signer {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let algorithm = self.public_key.algorithm();
        let input = signature::input(algorithm, message);
        let mechanism = signature::mechanism(algorithm);
        let raw = self
            .connection
            .with_session(|session, generation| {
                let handle = self.handle(session, generation)?;
                session.sign(&mechanism, handle, &input).map_err(Failure::Module)
            })
            .map_err(|error| error.into_sign_error(&self.selector))?;
        signature::to_x509(algorithm, &raw).ok_or_else(|| SignError::Refused {
            token: self.connection.label().to_owned(),
            key: self.selector.to_string(),
            reason: format!("a signature of {} bytes is not one of {algorithm}", raw.len()),
        })
    }

    fn custody(&self) -> Custody {
        Custody::Pkcs11
    }
}

impl fmt::Debug for Pkcs11Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pkcs11Signer")
            .field("token", &self.connection.label())
            .field("key", &self.selector.to_string())
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}
