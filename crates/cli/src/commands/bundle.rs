//! `chancery bundle`: what relying parties trust.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::connection::Reach;
use crate::files;
use crate::flags::Globals;
use crate::place::Place;
use crate::terminal::Terminal;

/// Prints the roots that relying parties trust.
#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// PEM, or the SPIFFE trust bundle; --json means the latter.
    #[arg(long, value_enum, default_value_t)]
    format: BundleFormat,
    /// Write to this file, durably and whole, instead of printing.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

/// How a bundle is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum BundleFormat {
    /// The root certificates.
    #[default]
    Pem,
    /// A JWK set (SPIFFE Trust Domain and Bundle, section 4).
    Jwks,
}

impl Bundle {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let client = self.reach.open(place.as_ref(), None).await?;
        let bytes = if self.format == BundleFormat::Jwks || terminal.is_json() {
            let mut text = serde_json::to_vec_pretty(&client.bundle_json().await?)?;
            text.push(b'\n');
            text
        } else {
            client.bundle().await?.to_vec()
        };
        match &self.out {
            Some(path) => files::replace(path, &bytes, files::PUBLIC),
            None => terminal.bytes(&bytes),
        }
    }
}
