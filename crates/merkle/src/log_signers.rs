//! Who signs for a log, while keys follow each other.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::key::{NoteSigner, NoteVerifier, SignError};
use crate::note::{NoteError, SignedNote};

/// A private key of a log, as several threads use it.
pub type LogSigner = Arc<dyn NoteSigner + Send + Sync>;

/// The private keys of a log that are at hand, and those of them that sign now.
///
/// While one key follows another both sign, so that whoever knows only one of them believes what is signed. Everything
/// that signs for a log holds the same value, and others change what is in force while it is used.
pub struct LogSigners {
    origin: String,
    at_hand: RwLock<AtHand>,
}

#[derive(Clone)]
struct AtHand {
    known: Vec<LogSigner>,
    in_force: Arc<[LogSigner]>,
}

impl LogSigners {
    /// For the log of this origin; the first of the keys signs until something else is said. Without any, what the log
    /// says can be read and nothing be signed.
    #[must_use]
    pub fn new(origin: &str, known: Vec<LogSigner>) -> Arc<Self> {
        let in_force = known.iter().take(1).cloned().collect();
        Arc::new(Self { origin: origin.to_owned(), at_hand: RwLock::new(AtHand { known, in_force }) })
    }

    /// For a log that has this one key.
    #[must_use]
    pub fn of(signer: impl NoteSigner + Send + Sync + 'static) -> Arc<Self> {
        let signer: LogSigner = Arc::new(signer);
        Self::new(signer.verifier().name(), vec![Arc::clone(&signer)])
    }

    /// The log's origin.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Those that sign now; another value after every change.
    #[must_use]
    pub fn in_force(&self) -> Arc<[LogSigner]> {
        Arc::clone(&self.read().in_force)
    }

    /// From here on these sign, in this order.
    pub fn put_in_force(&self, signers: Vec<LogSigner>) {
        let mut at_hand = self.at_hand.write().unwrap_or_else(PoisonError::into_inner);
        for signer in &signers {
            let is_it = |known: &LogSigner| known.verifier() == signer.verifier();
            if !at_hand.known.iter().any(is_it) {
                at_hand.known.push(Arc::clone(signer));
            }
        }
        at_hand.in_force = signers.into();
    }

    /// Checks what was signed for the log before, and goes on with the keys that signed it.
    ///
    /// # Errors
    /// [`NoteError`] when none of the keys at hand has signed it, or it was changed since; everything stays.
    pub fn resume(&self, note: &SignedNote) -> Result<(), NoteError> {
        let known = self.read().known;
        let verified = note.verify(&self.verifiers())?;
        self.put_in_force(verified.iter().map(|signature| Arc::clone(&known[signature.verifier])).collect());
        Ok(())
    }

    /// The public keys of all that are at hand.
    #[must_use]
    pub fn verifiers(&self) -> Vec<NoteVerifier> {
        self.read().known.iter().map(|signer| signer.verifier().clone()).collect()
    }

    /// Signs a text with every key that is in force.
    ///
    /// # Errors
    /// [`SignError`] when one of them does not sign, or there is none.
    pub fn sign(&self, text: &str) -> Result<SignedNote, SignError> {
        let in_force = self.in_force();
        if in_force.is_empty() {
            return Err(SignError::NoKey(self.origin.clone()));
        }
        let signers: Vec<&dyn NoteSigner> = in_force.iter().map(|signer| signer.as_ref() as _).collect();
        SignedNote::sign(text, &signers)
    }

    fn read(&self) -> AtHand {
        self.at_hand.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for LogSigners {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_force: Vec<String> = self.in_force().iter().map(|signer| signer.verifier().vkey()).collect();
        formatter
            .debug_struct("LogSigners")
            .field("origin", &self.origin)
            .field("in_force", &in_force)
            .finish_non_exhaustive()
    }
}
