//! For programs that cannot verify as they should: TLS in front of or behind them, an answer for proxies that ask,
//! lists for those that read files.
//!
//! - [`tunnel`] passes connections on, with TLS on one side or both.
//! - [`authz`] answers Envoy and nginx whether a client may.
//! - [`crl_sync`] keeps the revocation lists of all authorities of a chain in files and has programs read them again.
//!
//! Credentials come from a Workload API or from files, knowledge of what is revoked from the status feed, as
//! `chancery-verify` has it for programs that can. Nothing here ever sees the authority's keys, and what is on disk
//! or comes over the network is believed only after its signature was verified against the configured roots.

pub mod authz;
mod console;
pub mod crl_sync;
mod mistakes;
pub mod peers;
mod signals;
pub mod source;
pub mod tunnel;
pub mod upstream;

pub use mistakes::ConfigError;
