//! The records that verifiers read. The server implements these over the ledger's read model.

use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::{Claims, Identity, LineageId, SerialNumber, SpiffeId, Timestamp, TokenId};

use crate::{CertificateStanding, Nonce, NonceError, TokenRecord};

/// The store behind a record could not answer. Nobody's fault outside: the request may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the records could not be read, try again: {0}")]
pub struct RecordsError(pub String);

/// Join tokens by their public half.
#[async_trait]
pub trait TokenRecords: Send + Sync {
    /// The record of this token, as of the latest durable commit; `None` if there never was one.
    ///
    /// # Errors
    /// [`RecordsError`] when the store cannot answer.
    async fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, RecordsError>;
}

/// Issued certificates by serial, and how their lineage and identity stand now.
#[async_trait]
pub trait CertificateRecords: Send + Sync {
    /// The standing of this certificate, as of the latest durable commit; `None` if it was never issued here.
    ///
    /// # Errors
    /// [`RecordsError`] when the store cannot answer.
    async fn certificate(&self, serial: SerialNumber) -> Result<Option<CertificateStanding>, RecordsError>;
}

/// What it takes to believe a node about a process on it.
#[async_trait]
pub trait NodeRecords: CertificateRecords {
    /// A registered identity, however it stands; `None` if there never was one.
    ///
    /// # Errors
    /// [`RecordsError`] when the store cannot answer.
    async fn identity(&self, id: &SpiffeId) -> Result<Option<Arc<Identity>>, RecordsError>;

    /// The identity of this name that a template makes of a process with these claims; `None` if no template does,
    /// or more than one.
    ///
    /// # Errors
    /// [`RecordsError`] when the store cannot answer.
    async fn made_by_template(
        &self,
        id: &SpiffeId,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<Option<Identity>, RecordsError>;

    /// What was proved when this lineage of a node's certificates was enrolled.
    ///
    /// # Errors
    /// [`RecordsError`] when the store cannot answer.
    async fn enrolment_claims(&self, lineage: LineageId) -> Result<Claims, RecordsError>;
}

/// Challenges that are given out once and accepted once.
#[async_trait]
pub trait Nonces: Send + Sync {
    /// A fresh, unpredictable nonce that [`Self::consume`] accepts once until it expires.
    ///
    /// # Errors
    /// [`NonceError`] when too many are outstanding or the randomness source fails.
    async fn issue(&self, now: Timestamp) -> Result<Nonce, NonceError>;

    /// Takes a nonce back: `true` exactly once for each that was issued and has not expired.
    ///
    /// # Errors
    /// [`NonceError`] when the store cannot answer.
    async fn consume(&self, nonce: &Nonce, now: Timestamp) -> Result<bool, NonceError>;
}
