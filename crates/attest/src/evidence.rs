//! What a requester shows, before anybody has looked at it.
//!
//! There is no `Deserialize` here on purpose: a door decides which variant it can produce. A REST body can
//! become a token or a proof of possession; only the TLS layer produces [`Evidence::Renewal`] and the certificate in
//! [`Evidence::Workload`], and only the
//! server's own operator doors produce [`Evidence::Operator`].

use std::net::IpAddr;

use chancery_types::{Claims, Digest, EvidenceKind, SecretString, SpiffeId};

use crate::Nonce;

/// Evidence as a door took it in.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// A single-use secret made by an operator.
    JoinToken(TokenEvidence),
    /// A foreign certificate and a signature with its key.
    X509Pop(PopEvidence),
    /// The current certificate, whose key the TLS handshake proved.
    Renewal(RenewalEvidence),
    /// What an attested node says about a process on it.
    Workload(WorkloadEvidence),
    /// An authenticated operator, or the authority itself, asks.
    Operator(OperatorEvidence),
}

impl Evidence {
    /// The kind, which selects the verifier.
    #[must_use]
    pub fn kind(&self) -> EvidenceKind {
        match self {
            Self::JoinToken(_) => EvidenceKind::JoinToken,
            Self::X509Pop(_) => EvidenceKind::X509Pop,
            Self::Renewal(_) => EvidenceKind::Renewal,
            Self::Workload(_) => EvidenceKind::Workload,
            Self::Operator(_) => EvidenceKind::Operator,
        }
    }
}

/// The text of a join token.
#[derive(Debug, Clone)]
pub struct TokenEvidence {
    /// The whole token, `chancery1....`.
    pub token: SecretString,
}

/// A chain of a foreign authority and a signature over [`crate::proof_message`].
#[derive(Debug, Clone)]
pub struct PopEvidence {
    /// Certificates as DER: the leaf, then at most four intermediates in any order. No root is needed.
    pub chain: Vec<Vec<u8>>,
    /// The nonce that this server gave out for this proof.
    pub nonce: Nonce,
    /// The leaf key's signature: ECDSA as DER with the curve's hash, Ed25519 raw, RSA PKCS #1 v1.5 SHA-256.
    pub signature: Vec<u8>,
    /// The identity that the requester means, where its claims fit several.
    pub wanted: Option<SpiffeId>,
}

/// The certificate with which the requester authenticated its connection.
#[derive(Debug, Clone)]
pub struct RenewalEvidence {
    /// The leaf as DER. The TLS handshake must have proved possession of its key.
    pub certificate: Vec<u8>,
}

/// A process, as the agent of an attested node saw it.
#[derive(Debug, Clone)]
pub struct WorkloadEvidence {
    /// The node's certificate as DER. The TLS handshake must have proved possession of its key.
    pub node: Vec<u8>,
    /// Whom the process is to be.
    pub identity: SpiffeId,
    /// What the agent found out about it.
    pub claims: Claims,
}

/// Where an operator's request came in.
#[derive(Debug, Clone)]
pub enum OperatorChannel {
    /// Over mTLS; the handshake proved possession of the certificate's key.
    Mtls {
        /// The operator's certificate as DER.
        certificate: Vec<u8>,
        /// Where from, for the record.
        peer: Option<IpAddr>,
    },
    /// Over the local administration socket.
    LocalSocket {
        /// The peer's user id, as the kernel says (`SO_PEERCRED`).
        uid: u32,
    },
    /// Nobody from outside: the authority asks for its own server or responder certificate.
    Authority {
        /// SHA-256 of the SubjectPublicKeyInfo of the key that the authority has just made for it.
        key: Digest,
    },
}

/// An operator or the authority asks for a certificate of this identity.
#[derive(Debug, Clone)]
pub struct OperatorEvidence {
    /// How the operator authenticated.
    pub channel: OperatorChannel,
    /// The identity that the certificate is for.
    pub identity: SpiffeId,
    /// The ticket or approval that the operator named, at most 256 characters.
    pub approval: Option<String>,
}
