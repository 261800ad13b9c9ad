//! One revocation list, judged.

use chancery_types::Timestamp;
use chancery_x509::crl::{CrlError, CrlView};
use chancery_x509::{Certificate, KeyUsage, SignatureError, openssl_name_hash};

use super::SKEW;

/// A full list of an issuer whose signature was verified and that was in force when it was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    der: Vec<u8>,
    issuer: String,
    name_hash: u32,
    number: u64,
    this_update: Timestamp,
    next_update: Timestamp,
    entries: usize,
}

/// Why a list is not put in place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error(transparent)]
    Crl(#[from] CrlError),
    /// It is of somebody else.
    #[error("it is by {0}")]
    Issuer(String),
    /// The issuer may not sign lists.
    #[error("the issuer's certificate does not allow it to sign lists (cRLSign)")]
    MayNotSign,
    /// It was changed, or signed by another key.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It covers a part of the certificates only, which these programs do not match with certificates.
    #[error("it covers only the certificates of {0}")]
    Shard(String),
    /// It has no number.
    #[error("it has no number below 2^64")]
    NoNumber,
    /// An older one came after a newer one: somebody replays, or the authority lost its memory.
    #[error("its number is {found}, and {held} is in place already")]
    GoesBack {
        /// The number that came.
        found: u64,
        /// The number that is in place.
        held: u64,
    },
    /// Two lists with one number.
    #[error("it is another list than the one in place, with the same number {0}")]
    Forked(u64),
    /// It is of the future.
    #[error("it begins at {0}; compare the clocks")]
    NotYet(Timestamp),
    /// It does not say when it ends.
    #[error("it does not say when the next one is due")]
    NoEnd,
    /// It has ended.
    #[error("it ended at {0}")]
    Ended(Timestamp),
}

impl RevocationList {
    /// Judges a list of this issuer that came to take the place of another one.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn judge(
        der: &[u8],
        issuer: &Certificate,
        before: Option<&Self>,
        now: Timestamp,
    ) -> Result<Self, ListError> {
        let list = Self::read(der, issuer)?;
        if list.this_update > now + SKEW {
            return Err(ListError::NotYet(list.this_update));
        }
        if list.next_update <= now {
            return Err(ListError::Ended(list.next_update));
        }
        match before {
            Some(before) if before.number > list.number => {
                Err(ListError::GoesBack { found: list.number, held: before.number })
            }
            Some(before) if before.number == list.number && before.der != list.der => {
                Err(ListError::Forked(list.number))
            }
            _ => Ok(list),
        }
    }

    /// Reads a full list of this issuer, whatever its age: one that is in place already.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn read(der: &[u8], issuer: &Certificate) -> Result<Self, ListError> {
        let view = CrlView::from_der(der)?;
        let by = issuer.tbs();
        let same_key = match (view.authority_key_id(), by.subject_key_id()) {
            (Some(named), Some(own)) => named == own,
            _ => true,
        };
        if view.issuer_der() != by.subject_der() || !same_key {
            return Err(ListError::Issuer(view.issuer_text()));
        }
        if !by.is_authority() || by.key_usages().is_some_and(|usages| !usages.contains(KeyUsage::CrlSign)) {
            return Err(ListError::MayNotSign);
        }
        view.verify(by.spki_der())?;
        if let Some(part) = view.distribution_points().next() {
            return Err(ListError::Shard(part.to_owned()));
        }
        Ok(Self {
            issuer: view.issuer_text(),
            name_hash: openssl_name_hash(view.issuer_der()).map_err(CrlError::from)?,
            number: view.number_u64().ok_or(ListError::NoNumber)?,
            this_update: view.this_update(),
            next_update: view.next_update().ok_or(ListError::NoEnd)?,
            entries: view.entries().count(),
            der: der.to_vec(),
        })
    }

    /// The list, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whose it is, as RFC 4514 writes it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// By which OpenSSL finds it in a directory.
    #[must_use]
    pub fn name_hash(&self) -> u32 {
        self.name_hash
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it was made.
    #[must_use]
    pub fn this_update(&self) -> Timestamp {
        self.this_update
    }

    /// When it ends.
    #[must_use]
    pub fn next_update(&self) -> Timestamp {
        self.next_update
    }

    /// Certificates on it.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }
}
