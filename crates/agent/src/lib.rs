//! The agent: one on every machine, between the workloads there and the authority.
//!
//! It proves the machine to the authority, attests the processes that ask it for an identity by what the kernel
//! says of them, serves what they are entitled to over the SPIFFE Workload API and Envoy's SDS, and replaces it
//! before it ends. It decides nothing about who may have what: the authority does, at every issue and renewal.
//!
//! It trusts the kernel, and the authority behind the trust bundle; it does not trust a workload's word for
//! anything, and stores no key of a workload on disk unless a file sink is configured to.

mod agent;
#[cfg(target_os = "linux")]
pub mod attest;
pub mod child;
pub mod config;
mod console;
mod core;
pub mod daemon;
mod delivery;
pub mod doors;
pub mod hook;
pub mod identities;
mod link;
mod metrics;
mod node;
pub mod notify;
mod overview;
pub mod probe;
pub mod proto;
mod rotation;
mod sds;
pub mod sink;
mod state;
pub mod status;
mod store;
mod stream;
#[cfg(test)]
mod test_support;
mod timing;
mod tokens;
mod trust;
mod verify;
pub mod workload;
pub mod workload_api;

pub use agent::{Agent, AgentError, Environment};
pub use console::{AskError, ask_status};
