//! Verifying a whole log, offline, from an export of it.
//!
//! An auditor has the log's verifier key (and, the second time, the checkpoint of the first time) and trusts
//! nothing else: not the server, not the export, not what it says about itself. [`audit`] reads the export once,
//! as a stream, and reports every [`Finding`] with its entry and, where there is one, its certificate:
//!
//! - the tree: the entries hash to the root in the signed checkpoint, and extend the earlier checkpoint;
//! - each entry: it decodes, has the hash and the view that stand beside it, its index is the next one;
//! - each certificate: the TBS says what the entry says, keeps its profile and the lints, was recorded under an
//!   active issuer, to an active identity, in an unbroken lineage, for a token spent once, with a serial of its
//!   own; the signature is the issuer's over exactly these bytes;
//! - changes to many certificates: each had the approval that it needed, and did what was asked for;
//! - revocation: what is revoked is on the issuer's list, and nothing else is;
//! - the exact sets: each is made again from the entries before it, and has the hash that was recorded.
//!
//! Memory is about a hundred bytes for each certificate, token and lineage; entries pass through in batches.

mod auditor;
mod batch;
mod certificate;
mod changes;
mod compare;
mod crl;
mod directory;
mod export;
mod finding;
mod history;
mod holds;
mod issuers;
mod log_keys;
mod sets;
mod source;
mod status;
mod tokens;
mod unpack;

pub use auditor::{AuditError, AuditOptions, AuditReport, Progress, audit};
pub use directory::Directory;
pub use finding::{Check, Finding, Findings, Severity};
pub use source::{ExportSource, JsonLines, MAX_HEADER_BYTES, MAX_LINE_BYTES, RawEntry, SourceError};
pub use unpack::{UnpackError, unpack};

#[cfg(test)]
mod tests;
