//! For relying parties and auditors: peers, receipts and whole logs, verified by somebody who trusts nobody.
//!
//! [`live`] answers, while a program runs, whether a peer may be talked to, and ends its connections when not.
//! [`receipt`] answers, offline, whether a certificate stands in the log; [`audit`] whether a whole log is what
//! it claims to be. These two take the log's verifier keys and everything else as hostile: texts and files come from
//! the party that is to be checked; [`log_keys`] leads from the keys that are known to those that follow them. Called by relying parties and by `chancery verify` and `chancery audit`.
//!
//! There is no network, no clock and no private key outside of [`live`], and nothing from the issuing side is imported
//! anywhere: what the ledger and the issuer believe of themselves is exactly what is in question.

pub mod audit;
pub mod live;
pub mod log_keys;
pub mod receipt;

#[cfg(test)]
mod test_support;
