//! `chancery completions`: what a shell should offer.

use anyhow::Result;
use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::flags::Cli;
use crate::terminal::Terminal;

/// Prints completions for a shell, to be sourced by it.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, terminal: &Terminal) -> Result<()> {
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "chancery", &mut script);
        terminal.bytes(&script)
    }
}
