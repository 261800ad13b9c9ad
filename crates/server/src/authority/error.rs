//! What can go wrong inside the authority, before anybody thinks of HTTP.

use chancery_attest::AttestError;
use chancery_issue::{IssueError, SigningError};
use chancery_ledger::{CommitError, Conflict, ModelError, ReadError};
use chancery_policy::Refused;
use chancery_revoke::OperationError;
use chancery_types::{IdentityError, RandomError, SpiffeId};
use chancery_x509::{KnownWeakKey, PublicKeyError, RequestError};

/// Why the authority did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate request is not one, or asks for what nobody may ask for.
    #[error("the certificate request cannot be used: {0}")]
    Request(#[from] RequestError),
    /// A bare public key cannot be used.
    #[error("the public key cannot be used: {0}")]
    PublicKey(#[from] PublicKeyError),
    /// The key is on a list of keys that everybody can know.
    #[error(transparent)]
    WeakKey(#[from] KnownWeakKey),
    /// The evidence was refused.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// Somebody else renewed with a copy of this lineage: both sides are held now.
    #[error("{0}; the lineage is held: an operator has to find out who is who")]
    Fork(AttestError),
    /// Policy refused. The refusal is recorded.
    #[error("{}", .0.refusal.reason)]
    Refused(Box<Refused>),
    /// The evidence matches no registered identity.
    #[error("no registered identity matches the evidence; register one whose selectors its claims fulfil")]
    NoIdentity,
    /// The evidence matches several identities, and the request does not say which is meant.
    #[error("the evidence matches several identities ({}); say which one is meant", list(.0))]
    Ambiguous(Vec<SpiffeId>),
    /// There is no such thing.
    #[error("there is no {kind} {name:?}")]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// The name that was looked for.
        name: String,
    },
    /// A document or value in the request cannot be used.
    #[error("{field}: {why}")]
    Invalid {
        /// Which part.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// How things stand does not allow it.
    #[error("{0}")]
    Conflict(Conflict),
    /// A revocation, hold or release did not happen.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// A certificate was not made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A recorded certificate could not be given out.
    #[error(transparent)]
    Sign(#[from] SigningError),
    /// A token was not signed.
    #[error(transparent)]
    Jwt(#[from] super::jwt::JwtError),
    /// The ledger took nothing.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The read model could not be asked.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The ledger could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

fn list(ids: &[SpiffeId]) -> String {
    ids.iter().map(SpiffeId::as_str).collect::<Vec<_>>().join(", ")
}

impl AuthorityError {
    pub(crate) fn invalid(field: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Invalid { field, why: why.to_string() }
    }

    pub(crate) fn not_found(kind: &'static str, name: impl std::fmt::Display) -> Self {
        Self::NotFound { kind, name: name.to_string() }
    }
}

impl From<IdentityError> for AuthorityError {
    fn from(error: IdentityError) -> Self {
        Self::invalid("identity", error)
    }
}

impl From<chancery_entry::TooLong> for AuthorityError {
    fn from(error: chancery_entry::TooLong) -> Self {
        Self::invalid("request", error)
    }
}
