//! The agent as a whole: a real authority behind real sockets, a real agent, this process as its workload.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod files;
mod life;
mod node;
mod outage;
mod place;
mod roots;
#[path = "../../../server/tests/running/mod.rs"]
mod running;
mod templates;
