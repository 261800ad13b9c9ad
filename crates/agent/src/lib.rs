//! The agent: one on every machine, between the workloads there and the authority.
//!
//! It proves the machine to the authority, attests the processes that ask it for an identity by what the kernel
//! says of them, serves what they are entitled to over the SPIFFE Workload API and Envoy's SDS, and replaces it
//! before it ends. It decides nothing about who may have what: the authority does, at every issue and renewal.
//!
//! It trusts the kernel, and the authority behind the trust bundle; it does not trust a workload's word for
//! anything, and stores no key of a workload on disk unless a file sink is configured to.

pub mod child;
pub mod hook;
pub mod identities;
pub mod probe;
pub mod sink;
pub mod workload;
