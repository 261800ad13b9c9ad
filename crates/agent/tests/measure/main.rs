//! Measurements of the agent with real parts, run on purpose and one at a time; `docs/PERFORMANCE.md` has what they
//! found:
//!
//! ```sh
//! cargo test -p chancery-agent --test measure -- --ignored --nocapture --test-threads 1
//! ```
//! The processes that are measured are those of `$CHANCERY_PROGRAM`, or else of the `chancery` that was built beside
//! these tests (`cargo build -p chancery-cli`, with `--release` if the tests are run so).

#![expect(clippy::unwrap_used, reason = "what fails here fails the measurement that called it")]
#![expect(clippy::print_stdout, reason = "what is measured is printed")]

mod authority;
mod changes;
mod fleet;
mod program;
#[path = "../../../server/tests/running/mod.rs"]
mod running;
mod start;

use std::time::Duration;

/// What a number of times look like.
fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    format!("p50 {:.2?}, p99 {:.2?}, most {:.2?} ({} times)", at(50), at(99), at(100), times.len())
}
