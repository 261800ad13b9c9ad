//! Nodes and their agents over real sockets: what a node may serve, what it gets for it, and how fast it is told.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod federation;
mod node;
mod renewals;
#[path = "../running/mod.rs"]
mod running;
mod streams;
mod svids;
mod templates;
mod tokens;
