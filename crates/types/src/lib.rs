//! The vocabulary of the certificate authority: identifiers, names, time, randomness and secrets.
//!
//! Every other crate speaks in these types, so that a serial number cannot be taken for a digest and a name
//! that was never checked cannot reach a certificate. What is here is checked on construction and pure: there
//! is no I/O beyond [`SystemClock`] and [`SystemRandom`], the two places where the machine's time and
//! randomness come in. This crate trusts nobody and is trusted by all.

mod algorithm;
mod claims;
mod clock;
mod crl_shard;
mod digest;
mod duration;
mod identity;
mod name;
mod random;
mod revocation;
mod secret;
mod selector;
mod selectors;
mod serial;
mod spiffe;

pub use algorithm::{KeyAlgorithm, SignatureAlgorithm, UnknownAlgorithm};
pub use claims::{AssuranceLevel, ClaimValue, Claims, EvidenceKind};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp, TimestampError};
pub use crl_shard::{CrlShard, CrlShardError};
pub use digest::{Digest, DigestError};
pub use duration::{HumanDuration, HumanDurationError};
pub use identity::{
    Identity, IdentityError, IdentityState, Role, Sensitivity, UnknownRole, UnknownSensitivity,
};
pub use name::{DnsName, EmailAddress, NameError, SubjectName, UriName};
pub use random::{FixedRandom, Random, RandomError, SystemRandom};
pub use revocation::{RevocationReason, UnknownReason};
pub use secret::{SecretBytes, SecretString};
pub use selector::{Selector, SelectorError};
pub use selectors::Selectors;
pub use serial::{Generation, IssuerEpoch, LineageId, SerialError, SerialNumber, TokenId};
pub use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
