//! Writer and checker for `scripts/powercut`: an authority that works until the power goes, and what is left.
//!
//! ```text
//! powercut write DIR   makes an authority in DIR, or opens the one there, and works with it; prints `ack LINE`
//! powercut check DIR   reads the lines, without `ack`, and ends with 0 when all of it is there
//! ```

#![expect(clippy::unwrap_used, reason = "what fails here is a finding, and ends the program")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to a script")]

#[path = "../tests/running/mod.rs"]
mod running;
#[path = "../tests/witness/mod.rs"]
mod witness;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use running::{Place, plan};
use witness::{Note, look_for, work};

const WORKERS: usize = 4;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", directory] => write(Path::new(directory)).await,
        ["check", directory] => check(Path::new(directory)).await,
        _ => {
            eprintln!("usage: powercut write|check DIR");
            ExitCode::from(2)
        }
    }
}

async fn write(directory: &Path) -> ExitCode {
    let place = Place::inside(directory, plan()).await;
    let server = place.serve().await.unwrap();
    let note: Note = Arc::new(|line| {
        // One write each, so that no line is cut by a kill.
        std::io::stdout().write_all(format!("ack {line}\n").as_bytes()).unwrap();
    });
    let never = Arc::new(AtomicBool::new(false));
    work(&place, server.api_address(), WORKERS, note, never).await;
    // The power is gone; who asks now gets no answer. The harness ends this process.
    std::future::pending().await
}

async fn check(directory: &Path) -> ExitCode {
    let acknowledged: Vec<String> = std::io::stdin().lines().map(Result::unwrap).collect();
    let place = Place::existing(PathBuf::from(directory).join("ca"));
    let (said, code) = match look_for(&place, &acknowledged, true).await {
        Ok(found) => (format!("{found:?}"), ExitCode::SUCCESS),
        Err(why) => (format!("error: {why}"), ExitCode::FAILURE),
    };
    println!("{said}");
    code
}
