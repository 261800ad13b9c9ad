//! A real authority behind real sockets, and everybody who means it ill: what they send, who they say they
//! are, what they show as evidence, and how many they are.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod bytes;
mod crowds;
mod evidence;
mod lifecycle;
mod roles;
#[path = "../running/mod.rs"]
mod running;
