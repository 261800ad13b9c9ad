//! Why evidence was refused.

use chancery_types::{EvidenceKind, Generation, IdentityState, LineageId, SerialNumber, SpiffeId, Timestamp};

use crate::{CertificateState, NonceError, RecordsError};

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The requester's: the same request will fail again.
    Caller,
    /// Ours: the same request may succeed later.
    Internal,
}

/// Evidence was refused, or could not be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// A verifier was given evidence of another kind: the caller's wiring is wrong.
    #[error("the verifier of {expected} evidence was given {got} evidence")]
    WrongKind {
        /// What the verifier verifies.
        expected: EvidenceKind,
        /// What it was given.
        got: EvidenceKind,
    },
    /// This server does not accept such evidence.
    #[error("this server accepts no {kind} evidence; ask its operator which kinds it does")]
    NotConfigured {
        /// The kind that was shown.
        kind: EvidenceKind,
    },
    /// A join token was refused.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A proof of possession was refused.
    #[error(transparent)]
    Pop(#[from] PopError),
    /// A renewal was refused.
    #[error(transparent)]
    Renewal(#[from] RenewalError),
    /// A node's word about a process was refused.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// An operator's word was refused.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// The records could not be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The store of nonces could not answer.
    #[error(transparent)]
    Nonces(#[from] NonceError),
}

impl AttestError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::WrongKind { .. } | Self::Records(_) | Self::Nonces(_) => Fault::Internal,
            Self::NotConfigured { .. }
            | Self::Token(_)
            | Self::Pop(_)
            | Self::Renewal(_)
            | Self::Workload(_)
            | Self::Operator(_) => Fault::Caller,
        }
    }

    /// A stable code for logs, refusal entries and problem documents.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongKind { .. } => "wrong-evidence-kind",
            Self::NotConfigured { .. } => "evidence-not-accepted",
            Self::Token(error) => error.code(),
            Self::Pop(error) => error.code(),
            Self::Renewal(error) => error.code(),
            Self::Workload(error) => error.code(),
            Self::Operator(error) => error.code(),
            Self::Records(_) => "records-unavailable",
            Self::Nonces(_) => "nonces-unavailable",
        }
    }
}

/// Why a join token was refused. Without the right secret nothing but [`TokenError::Refused`] comes back, so
/// that a stranger learns nothing about which tokens exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the text of a token, an unknown one, or the wrong secret.
    #[error("the join token is not valid here; ask an operator for a new one")]
    Refused,
    /// Its time is over.
    #[error("the join token expired at {expired}; ask an operator for a new one")]
    Expired {
        /// When.
        expired: Timestamp,
    },
    /// It was used before.
    #[error("the join token was used already; if it was not by you, tell an operator, and ask for a new one")]
    Spent,
    /// An operator withdrew it.
    #[error("the join token was withdrawn; ask an operator for a new one")]
    Revoked,
    /// It is bound to another key than the request's.
    #[error("the join token is bound to another key; request a certificate for the key it was made for")]
    OtherKey,
}

impl TokenError {
    fn code(&self) -> &'static str {
        match self {
            Self::Refused => "token-refused",
            Self::Expired { .. } => "token-expired",
            Self::Spent => "token-spent",
            Self::Revoked => "token-revoked",
            Self::OtherKey => "token-other-key",
        }
    }
}

/// Why a proof of possession of a foreign certificate's key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PopError {
    /// No certificate was sent.
    #[error("no certificate was presented; send the leaf first, then its intermediates")]
    NoCertificate,
    /// Too many certificates.
    #[error(
        "{count} certificates were presented, at most {limit} are read; send the leaf and its intermediates only"
    )]
    ChainTooLong {
        /// Certificates sent.
        count: usize,
        /// Certificates read.
        limit: usize,
    },
    /// One certificate is too large.
    #[error("certificate {index} has {size} bytes, at most {limit} are read")]
    CertificateTooLarge {
        /// Its place; the leaf is 0.
        index: usize,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The signature is longer than any that a permitted key makes.
    #[error("the signature has {size} bytes, at most {limit} are read")]
    SignatureTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// One certificate does not parse.
    #[error("certificate {index} is not a DER certificate: {why}")]
    Malformed {
        /// Its place; the leaf is 0.
        index: usize,
        /// What the parser says.
        why: String,
    },
    /// A key is of a kind or size that is not accepted.
    #[error("the key of certificate {index} is not accepted: {why}")]
    Key {
        /// Its place; the leaf is 0.
        index: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The leaf has more names than are read.
    #[error("the leaf has {count} subject alternative names, at most {limit} are read")]
    TooManyNames {
        /// Names in it.
        count: usize,
        /// Names read.
        limit: usize,
    },
    /// The nonce was not issued here, was used, or has expired.
    #[error("the nonce is unknown, used or expired; fetch a fresh one and sign again")]
    Nonce,
    /// No configured authority vouches for the chain.
    #[error("no configured authority vouches for this certificate: {why}")]
    Untrusted {
        /// The most telling reason.
        why: String,
    },
    /// The certificate, or one above it, is outside its validity.
    #[error("the certificate or one of its issuers is not valid now: {why}")]
    NotValidNow {
        /// Expired or not yet valid, with the times.
        why: String,
    },
    /// The certificate, or one above it, is revoked.
    #[error("the certificate or one of its issuers is revoked by authority {authority}")]
    Revoked {
        /// The configured authority.
        authority: String,
    },
    /// Revocation is configured and could not be established.
    #[error(
        "authority {authority} has no fresh revocation list for this certificate ({why}); \
         an operator must supply a current one"
    )]
    RevocationUnknown {
        /// The configured authority.
        authority: String,
        /// Missing or out of date.
        why: String,
    },
    /// The leaf lacks the extended key usage that the authority's configuration asks for.
    #[error(
        "the certificate lacks an extended key usage that authority {authority} is configured to require"
    )]
    Purpose {
        /// The configured authority.
        authority: String,
    },
    /// The signature over nonce, server name and request key is wrong.
    #[error(
        "the signature is not the certificate's key over this nonce, this server's name {server} and the requested key"
    )]
    Signature {
        /// The name that has to be signed.
        server: String,
    },
}

impl PopError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "pop-no-certificate",
            Self::ChainTooLong { .. } => "pop-chain-too-long",
            Self::CertificateTooLarge { .. } => "pop-certificate-too-large",
            Self::SignatureTooLarge { .. } => "pop-signature-too-large",
            Self::Malformed { .. } => "pop-malformed",
            Self::Key { .. } => "pop-key",
            Self::TooManyNames { .. } => "pop-too-many-names",
            Self::Nonce => "pop-nonce",
            Self::Untrusted { .. } => "pop-untrusted",
            Self::NotValidNow { .. } => "pop-not-valid-now",
            Self::Revoked { .. } => "pop-revoked",
            Self::RevocationUnknown { .. } => "pop-revocation-unknown",
            Self::Purpose { .. } => "pop-purpose",
            Self::Signature { .. } => "pop-signature",
        }
    }
}

/// Why a renewal was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewalError {
    /// The presented certificate does not parse, or its serial is not one of ours.
    #[error("the presented certificate is not one of this authority: {why}; enrol instead")]
    Foreign {
        /// What the parser says.
        why: String,
    },
    /// The serial, or this key under this serial, was never issued here.
    #[error("this authority never issued certificate {serial} with this key; enrol instead")]
    Unknown {
        /// The serial.
        serial: SerialNumber,
    },
    /// The presented certificate is revoked or held.
    #[error("certificate {serial} is {}; it cannot be renewed", state_text(.state))]
    NotGood {
        /// The serial.
        serial: SerialNumber,
        /// Its status.
        state: CertificateState,
    },
    /// The presented certificate has expired.
    #[error("certificate {serial} expired at {not_after}; enrol again")]
    Expired {
        /// The serial.
        serial: SerialNumber,
        /// Its end.
        not_after: Timestamp,
    },
    /// The identity is held or retired.
    #[error("{identity} is {}; an operator has to release it first", identity_text(*.state))]
    IdentityNotActive {
        /// Whose certificate it is.
        identity: SpiffeId,
        /// How it stands.
        state: IdentityState,
    },
    /// An older generation was presented: two parties hold certificates of this lineage. Hold both.
    #[error(
        "certificate {serial} is generation {presented} of lineage {lineage}, which is at generation {current}: \
         somebody else has renewed it; an operator must look at both holders"
    )]
    LineageFork {
        /// The chain of renewals.
        lineage: LineageId,
        /// The presented certificate.
        serial: SerialNumber,
        /// Its generation.
        presented: Generation,
        /// The generation that the chain has reached.
        current: Generation,
        /// The certificate of that generation.
        current_serial: SerialNumber,
    },
    /// The same renewal was done before for the same new key: its answer got lost. Not a fork.
    #[error("this renewal was done already: its certificate is {serial}")]
    AlreadyRenewed {
        /// The certificate that it made.
        serial: SerialNumber,
    },
    /// The request is for the presented certificate's own key.
    #[error("the renewal asks for the same key again; make a new key and request a certificate for it")]
    SameKey,
}

impl RenewalError {
    fn code(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "renewal-foreign",
            Self::Unknown { .. } => "renewal-unknown",
            Self::NotGood { .. } => "renewal-not-good",
            Self::Expired { .. } => "renewal-expired",
            Self::IdentityNotActive { .. } => "renewal-identity-not-active",
            Self::LineageFork { .. } => "lineage-fork",
            Self::AlreadyRenewed { .. } => "renewal-done-already",
            Self::SameKey => "renewal-same-key",
        }
    }
}

/// Why a node's word about a process was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// The node's certificate does not parse, or this key was never certified here under its serial.
    #[error("the certificate on the connection is not one of this authority: {why}; attest the node anew")]
    Foreign {
        /// What is wrong.
        why: String,
    },
    /// The certificate is good and not a node's.
    #[error(
        "{identity} is not a node: its certificate is of profile {profile}; have it list the profile node"
    )]
    NotANode {
        /// Whose certificate it is.
        identity: SpiffeId,
        /// The profile that it was issued under.
        profile: String,
    },
    /// The node's certificate is revoked, held or expired, or its identity is not active.
    #[error("the node's certificate {serial} is not in good standing: {why}; attest the node anew")]
    NotGood {
        /// The serial.
        serial: SerialNumber,
        /// What is wrong.
        why: String,
    },
    /// The identity does not exist or is not this node's. Which of the two is not said.
    #[error(
        "{identity} is not an identity of node {node}; name the node among its parents, or give it node selectors"
    )]
    NotServed {
        /// What was asked for.
        identity: SpiffeId,
        /// The node.
        node: SpiffeId,
    },
    /// The process is not what the identity's selectors ask for.
    #[error("what node {node} found out about the process does not fulfil the selectors of {identity}")]
    Selectors {
        /// What was asked for.
        identity: SpiffeId,
        /// The node.
        node: SpiffeId,
    },
    /// A claim about a process that an agent cannot have found out about one.
    #[error(
        "the claim {0:?} is not one that an agent makes; names such as unix.uid, systemd.unit and k8s.ns are"
    )]
    Claim(String),
    /// More claims than are read.
    #[error(
        "{count} claims of {bytes} bytes together, at most {} of {} bytes are read",
        Self::CLAIMS,
        Self::BYTES
    )]
    TooMuch {
        /// Claims.
        count: usize,
        /// Bytes of names and values.
        bytes: usize,
    },
}

impl WorkloadError {
    /// Claims about one process at the most.
    pub const CLAIMS: usize = 256;
    /// Bytes of their names and values at the most.
    pub const BYTES: usize = 32 * 1024;

    fn code(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "workload-foreign-node",
            Self::NotANode { .. } => "workload-not-a-node",
            Self::NotGood { .. } => "workload-node-not-good",
            Self::NotServed { .. } => "workload-not-served",
            Self::Selectors { .. } => "workload-selectors",
            Self::Claim(_) => "workload-claim",
            Self::TooMuch { .. } => "workload-too-much",
        }
    }
}

/// Why an operator's word was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The operator's certificate does not parse, or was not issued here.
    #[error("the operator's certificate is not one of this authority: {why}")]
    Foreign {
        /// What is wrong.
        why: String,
    },
    /// The operator's certificate is revoked, held or expired, or its identity is not active.
    #[error("the operator's certificate {serial} is not in good standing: {why}")]
    NotGood {
        /// The serial.
        serial: SerialNumber,
        /// What is wrong.
        why: String,
    },
    /// The certificate's identity has no operator's role.
    #[error("{identity} is not an operator; an admin can give it a role")]
    NotAnOperator {
        /// Whose certificate it is.
        identity: SpiffeId,
    },
    /// The user id is not one of those that may administer locally.
    #[error("user id {uid} may not administer this server; run as the user that it runs as, or as root")]
    Uid {
        /// The peer's user id.
        uid: u32,
    },
    /// The authority asked for another key than the one it made.
    #[error("the request is for another key than the authority made for itself")]
    OtherKey,
    /// The approval text is too long or has control characters.
    #[error("an approval is at most {limit} characters without control characters")]
    Approval {
        /// The limit.
        limit: usize,
    },
}

impl OperatorError {
    fn code(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "operator-foreign",
            Self::NotGood { .. } => "operator-not-good",
            Self::NotAnOperator { .. } => "operator-no-role",
            Self::Uid { .. } => "operator-uid",
            Self::OtherKey => "operator-other-key",
            Self::Approval { .. } => "operator-approval",
        }
    }
}

pub(crate) fn state_text(state: &CertificateState) -> String {
    match state {
        CertificateState::Good => "good".to_owned(),
        CertificateState::Held => "held".to_owned(),
        CertificateState::Revoked { reason } => format!("revoked ({reason})"),
    }
}

pub(crate) fn identity_text(state: IdentityState) -> &'static str {
    match state {
        IdentityState::Active => "active",
        IdentityState::Held => "held",
        IdentityState::Retired => "retired",
    }
}
