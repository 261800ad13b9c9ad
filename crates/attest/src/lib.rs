//! Evidence in, proven claims out.
//!
//! What for: a door (REST, ACME, the local socket, ...) hands over [`Evidence`]; a [`Verifier`] either refuses
//! it with an [`AttestError`] or returns [`Attested`], which says who vouches for the requester, with which
//! facts, how strongly, and for which key. [`Attested`] has no public constructor: a value of it is the proof
//! that a verifier of this crate accepted the evidence. The next step of the road, the policy crate, takes it
//! by value.
//!
//! What not: it does not decide whether anybody may have a certificate, and it changes nothing. A single-use
//! token is not spent here: the obligation to spend it travels in [`Attested::spends`] and is committed to the
//! ledger together with the issuance, where the order is decided.
//!
//! Who calls it: the server. What it trusts: the records that it is given ([`TokenRecords`],
//! [`CertificateRecords`], [`Nonces`]), the configured foreign authorities, and that the TLS layer proved
//! possession of the key of a certificate that arrives as [`Evidence::Renewal`] or over mTLS.

mod attested;
mod error;
mod evidence;
mod foreign_authority;
mod foreign_chain;
mod join_token;
mod nonce;
mod operator;
mod records;
mod renewal;
mod standing;
mod token;
mod transcript;
mod verifier;
mod workload;
mod x509_pop;

pub use attested::{Attested, RenewedFrom, Subject};
pub use error::{AttestError, Fault, OperatorError, PopError, RenewalError, TokenError, WorkloadError};
pub use evidence::{
    Evidence, OperatorChannel, OperatorEvidence, PopEvidence, RenewalEvidence, TokenEvidence,
    WorkloadEvidence,
};
pub use foreign_authority::{
    ForeignAuthority, ForeignAuthorityError, ForeignAuthorityOptions, PurposeRule, UnknownPurpose,
};
pub use join_token::JoinTokenVerifier;
pub use nonce::{MemoryNonces, Nonce, NonceError};
pub use operator::OperatorVerifier;
pub use records::{CertificateRecords, NodeRecords, Nonces, RecordsError, TokenRecords};
pub use renewal::{RenewalVerifier, SameKey};
pub use standing::{CertificateStanding, CertificateState, LineageStanding};
pub use token::{JoinToken, TokenBinding, TokenRecord, TokenState, TokenTextError};
pub use verifier::{AttestContext, Verifier, Verifiers};
pub use workload::{NODE_PROFILE, WorkloadVerifier, is_workload_claim};
pub use x509_pop::{X509PopVerifier, proof_message};

#[cfg(test)]
mod test_support;
