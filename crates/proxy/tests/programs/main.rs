//! What this crate does for programs that we did not write, with those programs and a real authority.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod authz;
mod crl_sync;
mod haproxy;
mod measure;
mod nginx;
mod openssl;
#[path = "../../../server/tests/running/mod.rs"]
mod running;
mod succession;
mod tunnel;
mod tunnel_programs;
mod world;
