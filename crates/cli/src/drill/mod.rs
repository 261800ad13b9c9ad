//! `chancery drill`: what would happen, made to happen, on loopback, with real processes and real TLS.

mod places;
mod programs;
mod table;
mod theft;
mod thief;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::terminal::Terminal;

/// Rehearses incidents on this machine: nothing but a temporary directory is touched.
#[derive(Debug, Args)]
pub(crate) struct Drill {
    #[command(subcommand)]
    incident: Incident,
}

#[derive(Debug, Subcommand)]
enum Incident {
    Theft(theft::Theft),
}

impl Drill {
    pub(crate) async fn run(&self, terminal: &Terminal) -> Result<()> {
        match &self.incident {
            Incident::Theft(theft) => theft.run(terminal).await,
        }
    }
}
