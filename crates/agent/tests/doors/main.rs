//! The doors from outside: real clients on a real socket, certificates that really chain, and a double of the
//! agent's core behind them.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod bundles;
mod clients;
mod hostile;
mod jwt;
mod library;
mod measure;
mod sds;
mod world;
mod x509;
