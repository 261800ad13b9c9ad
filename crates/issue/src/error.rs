//! What can go wrong on the way, by step and by whose fault it is.

use chancery_ledger::{CommitError, Conflict, ReadError};
use chancery_types::{RandomError, SerialError, SpiffeId};
use chancery_x509::SpecifyError;

/// A certificate that would break one of our own rules. It is a bug or a profile that contradicts itself,
/// never the requester's doing: what they may ask for was narrowed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintFailure {
    /// The lint's id.
    pub lint: &'static str,
    /// What it found.
    pub detail: String,
}

impl std::fmt::Display for LintFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.lint, self.detail)
    }
}

/// Why no certificate was prepared. Nothing is recorded by then.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The evidence is good for another key than the request's.
    #[error("the evidence was bound to another key than the one in the request")]
    OtherKey,
    /// The key is one of the authority's own.
    #[error("the request's key is a key of this authority; make a new one for every certificate")]
    AuthorityKey,
    /// The request asks to be an authority.
    #[error("the request asks for a CA certificate, and the profile makes none; leave out basicConstraints")]
    AsksForAuthority,
    /// The issuer ends too soon for any certificate.
    #[error("issuer certificate ends at {0}; rotate to a new issuer")]
    IssuerExpired(chancery_types::Timestamp),
    /// The issuer's numbers are used up.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The profile cannot be applied.
    #[error(transparent)]
    Specify(#[from] SpecifyError),
    /// The exact bytes break our own rules.
    #[error("the certificate would break our own rules: {}", list(.0))]
    Lint(Vec<LintFailure>),
    /// The decision's receipt does not fit into a ledger entry.
    #[error(transparent)]
    TooLong(#[from] chancery_entry::TooLong),
}

fn list(failures: &[LintFailure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a prepared certificate was not recorded; it is then never signed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    /// What held when it was decided holds no more.
    #[error("the ledger refused {identity}: {conflict}")]
    Conflict {
        /// Whom the certificate was for.
        identity: SpiffeId,
        /// What does not hold.
        conflict: Conflict,
    },
    /// The ledger took nothing.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a recorded certificate was not signed. Its entry stands: it counts as issued and can be revoked.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The key did not sign.
    #[error("the issuing key did not sign: {0}")]
    Key(#[from] chancery_keys::SignError),
    /// The signature does not verify under the issuer's certificate: a fault in memory, hardware or token.
    #[error("the issuing key returned a signature that does not verify; stop issuing and check its custody")]
    Invalid,
    /// The assembled certificate does not hold the recorded bytes.
    #[error("the signed certificate differs from the recorded one; stop issuing and report this")]
    Differs,
    /// The entry could not be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Any of them.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Before recording.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// While recording.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// After recording.
    #[error(transparent)]
    Sign(#[from] SigningError),
}
