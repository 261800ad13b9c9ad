//! The status feed over real sockets: what is told, to whom, how it goes on after a break, and who confirms it.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod changes;
mod listener;
mod others;
mod parties;
#[path = "../running/mod.rs"]
mod running;
mod survival;
