//! `chancery ca`: the authority's own certificates.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::commands::text_of;
use crate::connection::Reach;
use crate::flags::Globals;
use crate::place::Place;
use crate::terminal::Terminal;

/// Looks at the authority's own certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// List the issuers whose certificates may still be met.
    Issuers(Issuers),
}

/// Lists the issuers, the newest first.
#[derive(Debug, Args)]
pub(crate) struct Issuers {
    /// Print their certificates, PEM.
    #[arg(long)]
    pem: bool,
    #[command(flatten)]
    reach: Reach,
}

impl Ca {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let Self::Issuers(Issuers { pem, reach }) = self;
        let place = Place::find(globals.config.as_deref())?;
        let found = reach.open(place.as_ref(), None).await?.issuers().await?;
        if *pem {
            return terminal
                .text(&found.issuers.iter().map(|issuer| issuer.certificate.as_str()).collect::<String>());
        }
        terminal.data(&found, || {
            let rows = found.issuers.iter().map(|issuer| {
                vec![
                    issuer.epoch.to_string(),
                    text_of(&issuer.state),
                    issuer.subject.clone(),
                    issuer.key_algorithm.to_string(),
                    issuer.not_after.whole_second().to_string(),
                ]
            });
            terminal.table(&["epoch", "state", "subject", "key", "ends"], rows)
        })
    }
}
