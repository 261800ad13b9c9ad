//! What can be wrong between us and a token, in words that say what to do.

use std::path::PathBuf;

use chancery_types::KeyAlgorithm;
use cryptoki::error::{Error, RvError};

use crate::secret_file::SecretFileError;

/// A token or a key in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The URI names no module.
    #[error("the location names no PKCS#11 module; add ?module-path=/path/to/module.so{}", hint(.present))]
    NoModule {
        /// Modules of well-known names on this machine.
        present: Vec<PathBuf>,
    },
    /// The module's file is missing.
    #[error("there is no PKCS#11 module {}{}", path.display(), hint(.present))]
    ModuleNotFound {
        /// The path that was looked at.
        path: PathBuf,
        /// Modules of well-known names on this machine.
        present: Vec<PathBuf>,
    },
    /// The module's file is no module, or does not start.
    #[error("{} does not work as a PKCS#11 module: {reason}", path.display())]
    ModuleUnusable {
        /// The module.
        path: PathBuf,
        /// What the loader or the module said.
        reason: String,
    },
    /// No token matches.
    #[error("no token matches {wanted}; {} has {}", module.display(), list(.present, "no initialised token"))]
    TokenNotFound {
        /// What the URI asks for.
        wanted: String,
        /// The module.
        module: PathBuf,
        /// The tokens that are there: label and serial number.
        present: Vec<String>,
    },
    /// More than one token matches.
    #[error("several tokens match {wanted}: {}; add token= or serial=", list(.present, ""))]
    TokenAmbiguous {
        /// What the URI asks for.
        wanted: String,
        /// The tokens that match.
        present: Vec<String>,
    },
    /// The PIN file cannot be used.
    #[error("PIN of the token: {0}")]
    PinFile(#[from] SecretFileError),
    /// The token wants a PIN and none was given.
    #[error(
        "token {token:?} needs a PIN; add ?pin-source=/path/to/file to the location, or give it as the passphrase"
    )]
    PinNeeded {
        /// The token's label.
        token: String,
    },
    /// The token did not accept the PIN.
    #[error(
        "wrong PIN for token {token:?}; correct it before trying again, because tokens lock after a few wrong ones{warning}"
    )]
    WrongPin {
        /// The token's label.
        token: String,
        /// What the token says about the tries that are left.
        warning: &'static str,
    },
    /// The token accepts no PIN any more.
    #[error("the PIN of token {token:?} is locked; its security officer can set a new one")]
    PinLocked {
        /// The token's label.
        token: String,
    },
    /// The token is in use with another PIN, so this one was not tried.
    #[error("token {token:?} is already open with another PIN; give the same one for all its keys")]
    OtherPin {
        /// The token's label.
        token: String,
    },
    /// The URI names a token but no key.
    #[error("the location names no key; add object=LABEL{}", if *.new { "" } else { " or id=%XX..." })]
    NoKeyName {
        /// Whether a key was to be made, which takes a label.
        new: bool,
    },
    /// No such key.
    #[error("the token has no private key {key}; it has {}", list(.present, "none"))]
    KeyNotFound {
        /// What was looked for.
        key: String,
        /// The labels of the private keys that are there.
        present: Vec<String>,
    },
    /// Several such keys.
    #[error("the token has {count} private keys {key}; add id=%XX... to the location")]
    KeyAmbiguous {
        /// What was looked for.
        key: String,
        /// How many there are.
        count: usize,
    },
    /// There is a key of this name.
    #[error("the token has a key {key} already, and it is never replaced; choose another label")]
    KeyExists {
        /// The name.
        key: String,
    },
    /// The private key is there and its public half is not.
    #[error(
        "the token has no public half for key {key}; store it beside the private key with the same id, \
         for example with pkcs11-tool --write-object PUBLIC.der --type pubkey"
    )]
    NoPublicKey {
        /// The key.
        key: String,
    },
    /// A key that we cannot use.
    #[error("key {key} cannot be used: {reason}")]
    UnsuitableKey {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// The token does not do what the key needs.
    #[error(
        "token {token:?} does not offer {mechanism} for {algorithm} keys; choose another algorithm or token"
    )]
    NoMechanism {
        /// The token's label.
        token: String,
        /// What it would have to offer.
        mechanism: String,
        /// The key's kind.
        algorithm: KeyAlgorithm,
    },
    /// The key is there and does not work.
    #[error("key {key} failed its self-test: {reason}")]
    SelfTest {
        /// The key.
        key: String,
        /// What happened.
        reason: String,
    },
    /// The token is too busy or gone.
    #[error("token {token:?}: {reason}")]
    Unavailable {
        /// The token's label.
        token: String,
        /// What happened.
        reason: String,
    },
    /// The module failed at something that should work.
    #[error("the token failed to {action}: {cause}")]
    Failed {
        /// What was asked of it.
        action: &'static str,
        /// What it said.
        cause: Error,
    },
    /// Keys are made in tokens, not brought to them by us.
    #[error(
        "keys are not imported into tokens; use the token's own tool, for example pkcs11-tool --write-object"
    )]
    ImportUnsupported,
}

impl TokenError {
    pub(super) fn failed(action: &'static str) -> impl Fn(Error) -> Self {
        move |cause| Self::Failed { action, cause }
    }
}

/// Whether the session, the login or the module's state is gone, so that a new session may work.
pub(super) fn is_lost_session(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::SessionClosed
                | RvError::SessionHandleInvalid
                | RvError::UserNotLoggedIn
                | RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid
                | RvError::DeviceRemoved
                | RvError::DeviceError
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::SlotIdInvalid
                | RvError::CryptokiNotInitialized
                | RvError::OperationActive
                | RvError::GeneralError
                | RvError::FunctionFailed,
            _
        )
    )
}

/// Whether the token is there and cannot now; the same call may work later without a new session.
pub(super) fn is_temporary(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::SessionCount
                | RvError::HostMemory
                | RvError::DeviceMemory
                | RvError::FunctionCanceled
                | RvError::Cancel,
            _
        )
    )
}

fn list(items: &[String], none: &str) -> String {
    if items.is_empty() { none.to_owned() } else { items.join(", ") }
}

fn hint(present: &[PathBuf]) -> String {
    match present {
        [] => "; install the token's package, or ask its vendor where the module is".to_owned(),
        paths => {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            format!("; this machine has {}", paths.join(", "))
        }
    }
}
