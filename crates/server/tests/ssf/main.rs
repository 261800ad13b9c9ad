//! Streams of security events over real sockets, judged by Python: PyJWT and python-jose verify the tokens, and
//! `http.server` takes what is pushed.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod hostile;
mod poll;
mod push;
mod receiver;
#[path = "../running/mod.rs"]
mod running;
