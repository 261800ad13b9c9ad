//! `chancery identity renew`: certificates that agents are to replace before their time.

use anyhow::Result;
use chancery_api::{RenewalRequest, RenewalScope};
use chancery_types::{HumanDuration, IssuerEpoch};
use clap::Args;

use crate::connection::Connection;
use crate::place::{self, Place};
use crate::terminal::Terminal;

/// Whose certificates are meant, and how fast.
#[derive(Debug, Args)]
pub(crate) struct Renewal {
    #[command(flatten)]
    subject: Subject,
    /// The time over which the renewals are spread, a day at most.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    over: HumanDuration,
    /// Why, for the log.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// An identity's SPIFFE ID, or the path alone beside a configuration.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Everybody's.
    #[arg(long)]
    all: bool,
    /// Those of the workloads on this node, and its own.
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// Those that the issuer of this epoch signed.
    #[arg(long, value_name = "EPOCH")]
    issuer: Option<u16>,
    /// Those of this profile.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

impl Renewal {
    pub(crate) async fn run(&self, place: Option<&Place>, terminal: &Terminal) -> Result<()> {
        let scope = self.subject.scope(place)?;
        let request = RenewalRequest { scope, over: Some(self.over), note: self.note.clone() };
        let asked = self.connection.open_beside(place).await?.ask_renewal(&request).await?;
        terminal.data(&asked, || {
            format!(
                "Agents replace what the log has before position {}, by {}.\n{} of them are connected; the others \
                 are told when they connect.",
                asked.recorded_before, asked.until, asked.connected_agents
            )
        })
    }
}

impl Subject {
    fn scope(&self, place: Option<&Place>) -> Result<RenewalScope> {
        Ok(match self {
            Self { id: Some(id), .. } => RenewalScope::Identity(place::identity(id, place)?),
            Self { node: Some(id), .. } => RenewalScope::Node(place::identity(id, place)?),
            Self { issuer: Some(epoch), .. } => RenewalScope::Issuer(IssuerEpoch(*epoch)),
            Self { profile: Some(name), .. } => RenewalScope::Profile(name.clone()),
            // The group lets nothing else through.
            Self { .. } => RenewalScope::All,
        })
    }
}
