//! `chancery`: the one binary, for everybody who meets the authority at a terminal.
//!
//! What the flags mean is decided in [`commands`], one file for each noun; who is connected to, as whom and with
//! what trust in [`connection`]. Everything that belongs to the authority itself (making one, serving one,
//! rebuilding its ledger) comes in through [`authority_side`] and nowhere else: all other commands stand on the
//! far side of the wire and trust what a client may trust.
//!
//! Data goes to standard output, everything said about it to standard error. Exit codes: 0 done, 1 failed,
//! 2 misused, 3 refused by the authority, 4 verification failed.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

mod ask;
mod authority_side;
mod bench;
mod commands;
mod connection;
mod credential;
mod doctor;
mod drill;
mod export;
mod failure;
mod files;
mod flags;
mod listing;
mod log;
mod loopback;
mod peers;
mod place;
mod quickstart;
mod scratch;
mod stage;
mod status_port;
mod subject;
mod telemetry;
mod terminal;

use flags::Cli;
use terminal::Terminal;

/// Many threads allocate a few kilobytes for each certificate; this allocator is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let terminal = Terminal::new(&cli.globals);
    match run(&cli, &terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if failure::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let text = failure::render(&error, cli.globals.verbose > 0, terminal.colours_errors());
            // Nowhere is left to say that standard error is closed.
            let _ = std::io::stderr().write_all(text.as_bytes());
            failure::exit_code(&error)
        }
    }
}

fn run(cli: &Cli, terminal: &Terminal) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(commands::run(cli, terminal))
}

/// Help and version are what was asked for; anything else is misuse.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { failure::USAGE.into() } else { ExitCode::SUCCESS }
}
