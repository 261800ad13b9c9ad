//! Revocation lists: for every issuer that may still be met one full list without issuingDistributionPoint, and one
//! for each part among which its certificates are divided.
//!
//! A list is built from the board, linted, signed, read back, verified, compared with what it should say, recorded in
//! the ledger, and only then renamed into place. Whatever fails on the way leaves the list before in place. Where several
//! processes share the ledger, one of them at a time makes the lists and all have them in place.

mod adopt;
mod file;
mod make;
mod place;
mod publisher;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chancery_keys::Signer;
use chancery_ledger::{CommitError, CrlDivisionRecord, ModelError, ReadError};
use chancery_types::{Digest, IssuerEpoch, Timestamp};
use chancery_x509::Certificate;
use chancery_x509::crl::CrlSpecError;

pub use place::Place;
pub use publisher::CrlPublisher;

/// An issuer whose certificates may still be met.
#[derive(Debug)]
pub struct StatusIssuer {
    /// Its epoch.
    pub epoch: IssuerEpoch,
    /// Its certificate.
    pub certificate: Certificate,
    /// Its key; `None` when it is not there: its last lists are served until they run out.
    pub signer: Option<Arc<dyn Signer>>,
    /// How its certificates were ever divided among lists.
    pub divisions: Vec<CrlDivisionRecord>,
}

/// A list that is in place.
#[derive(Debug, Clone)]
pub struct PublishedCrl {
    /// The list, DER.
    pub der: Vec<u8>,
    /// Its number.
    pub number: u64,
    /// SHA-256 of it.
    pub hash: Digest,
    /// How many certificates are on it.
    pub entries: u64,
    /// When it was made.
    pub made: Timestamp,
    /// nextUpdate.
    pub next_update: Timestamp,
}

/// When lists are made.
#[derive(Debug, Clone, Copy)]
pub struct CrlRules {
    /// How long a list is good for.
    pub validity: Duration,
    /// How long changes are gathered before lists are made of them.
    pub gather: Duration,
}

impl CrlRules {
    /// Lists that are good for so long.
    #[must_use]
    pub fn new(validity: Duration) -> Self {
        Self { validity, gather: Duration::from_millis(75) }
    }

    /// The longest time between two lists, changed or not.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.validity / 4
    }

    /// How long a certificate stays on its lists after it has ended: whoever looks at it late, or with a clock that is
    /// late, finds it there.
    #[must_use]
    pub fn keep(&self) -> Duration {
        self.period() * 2
    }
}

/// Why no new list was published; the one before stays.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The read model cannot be asked.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The list cannot be written.
    #[error(transparent)]
    Spec(#[from] CrlSpecError),
    /// It would break one of our own rules.
    #[error("the list would break our own rules: {0}")]
    Lint(String),
    /// The key did not sign.
    #[error(transparent)]
    Sign(#[from] chancery_keys::SignError),
    /// There is no key.
    #[error("the key of issuer {0} is not here; name it in keys.former_issuers")]
    NoKey(IssuerEpoch),
    /// What was signed is not what was to be signed.
    #[error("the signed list is not as expected: {0}")]
    Unexpected(&'static str),
    /// The ledger took no record of it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What the processes share cannot be read or written.
    #[error(transparent)]
    Share(#[from] ReadError),
    /// Another process published a list that this one has not heard of yet, or has a list with a higher number in place.
    #[error("list {0} was published elsewhere meanwhile")]
    Elsewhere(u64),
    /// The file cannot be written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// The thread that made it is gone.
    #[error("making the list was broken off")]
    BrokenOff,
}

#[cfg(test)]
mod tests;
