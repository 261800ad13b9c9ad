//! The one issuance workflow: prepare, lint, record, sign, compare.
//!
//! ```text
//! Approved --prepare--> Prepared --record--> Recorded --sign--> Issued
//!           serial, TBS,         the ledger:          the key,
//!           lints                durable              once
//! ```
//! Each step takes the one before by value and only this crate makes its type, so nothing is signed that was
//! not decided, linted and recorded, and nothing is signed twice by accident. What is linted are the exact
//! bytes that are recorded and signed; what comes back from the key is compared with them and verified. It
//! decides nothing about who may have what: that is `policy`. It trusts the ledger to be durable when it says
//! so, and the signer not at all.

mod error;
mod issued;
mod issuer;
mod prepare;
mod record;
mod sign;
mod workflow;

pub use error::{IssueError, LintFailure, PrepareError, RecordError, SigningError};
pub use issued::Issued;
pub use issuer::{Issuer, IssuerError, StatusUrls};
pub use prepare::{IssueRequest, Prepared};
pub use record::Recorded;
pub use workflow::Workflow;
