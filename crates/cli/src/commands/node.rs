//! `chancery node`: the machines whose agents ask for certificates, and how to shut one out.
//!
//! A node is an identity that lists the node profile; it is registered, changed and released as any other.

use anyhow::Result;
use chancery_api::{
    CertificateQuery, CertificateStatus, CertificateView, ChangeResponse, IdentityQuery,
    IdentityStateRequest, IdentityView, ProblemCode, RevokeRequest, Selector,
};
use chancery_client::{Client, ClientError};
use chancery_types::{IdentityState, RevocationReason, SpiffeId};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::commands::{identity, text_of, word};
use crate::connection::Connection;
use crate::failure::usage;
use crate::flags::Globals;
use crate::listing::Extent;
use crate::place::{self, Place};
use crate::terminal::Terminal;

/// The profile that makes a node.
const PROFILE: &str = "node";

/// Looks at nodes, and shuts them out.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// List nodes.
    List(List),
    /// Show a node and its live certificates.
    Show(Show),
    /// Shut a node out: hold it, and revoke its certificates and all that its agent asked for.
    ///
    /// It cannot attest itself again until `chancery identity release`.
    Ban(Act),
    /// Revoke a node's own certificates: it has to attest itself again before it gets anything more.
    Evict(Act),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only in this state: active, held (banned) or retired.
    #[arg(long, value_parser = word::<IdentityState>)]
    state: Option<IdentityState>,
    #[command(flatten)]
    extent: Extent,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its SPIFFE ID, or the path alone beside a configuration.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Act {
    /// Its SPIFFE ID, or the path alone beside a configuration.
    #[arg(value_name = "ID")]
    id: String,
    /// Why, for the log.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    connection: Connection,
}

/// A node and what it can show.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    node: &'a IdentityView,
    certificates: &'a [CertificateView],
}

/// What was taken from a node.
#[derive(Debug, Serialize)]
struct ShutOut {
    node: SpiffeId,
    /// Whether it is held as well.
    banned: bool,
    /// Its own certificates that were revoked.
    own: u64,
    /// Certificates of workloads that were revoked; nobody looks for them when it is only evicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    workloads: Option<u64>,
}

impl Node {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let place = place.as_ref();
        match self {
            Self::List(list) => list.run(place, terminal).await,
            Self::Show(show) => show.run(place, terminal).await,
            Self::Ban(act) => act.ban(place, terminal).await,
            Self::Evict(act) => act.evict(place, terminal).await,
        }
    }
}

impl List {
    async fn run(&self, place: Option<&Place>, terminal: &Terminal) -> Result<()> {
        let client = self.connection.open_beside(place).await?;
        let query = IdentityQuery {
            profile: Some(PROFILE.to_owned()),
            state: self.state,
            ..IdentityQuery::default()
        };
        let found = identity::list(self.extent, terminal, &client, &query).await?;
        terminal.data(&found, || {
            let rows = found.iter().map(|view| {
                let identity = &view.identity.0;
                vec![
                    identity.spiffe_id.to_string(),
                    text_of(&view.state),
                    identity.owner.clone(),
                    identity.environment.clone(),
                    view.live_certificates.to_string(),
                ]
            });
            terminal.table(&["node", "state", "owner", "environment", "live"], rows)
        })
    }
}

impl Show {
    async fn run(&self, place: Option<&Place>, terminal: &Terminal) -> Result<()> {
        let client = self.connection.open_beside(place).await?;
        let view = node(&client, &self.id, place).await?;
        let query = CertificateQuery {
            identity: Some(view.identity.0.spiffe_id.clone()),
            status: Some(CertificateStatus::Good),
            ..CertificateQuery::default()
        };
        let certificates = client.list_certificates(&query).await?.items;
        terminal.data(&Shown { node: &view, certificates: &certificates }, || {
            let rows = certificates.iter().map(|certificate| {
                vec![
                    certificate.serial.to_string(),
                    certificate.not_after.to_string(),
                    certificate.assurance.to_string(),
                    certificate.evidence.to_string(),
                ]
            });
            let table = terminal.table(&["serial", "until", "assurance", "evidence"], rows);
            format!("{}\n\n{table}", identity::describe(terminal, &view).trim_end())
        })
    }
}

impl Act {
    async fn ban(&self, place: Option<&Place>, terminal: &Terminal) -> Result<()> {
        let client = self.connection.open_beside(place).await?;
        let view = node(&client, &self.id, place).await?;
        let id = view.identity.0.spiffe_id;
        // Held first: nothing more is issued to it or through it while the rest is looked for.
        if view.state == IdentityState::Active {
            client.hold_identity(&id, &IdentityStateRequest { note: self.note.clone() }).await?;
        }
        let own = self.revoke(&client, Selector::Identity(id.clone())).await?;
        let workloads = Some(self.revoke(&client, Selector::Node(id.clone())).await?);
        report(terminal, &ShutOut { node: id, banned: true, own, workloads })
    }

    async fn evict(&self, place: Option<&Place>, terminal: &Terminal) -> Result<()> {
        let client = self.connection.open_beside(place).await?;
        let id = node(&client, &self.id, place).await?.identity.0.spiffe_id;
        let own = self.revoke(&client, Selector::Identity(id.clone())).await?;
        report(terminal, &ShutOut { node: id, banned: false, own, workloads: None })
    }

    /// How many were revoked; none is no mistake here.
    async fn revoke(&self, client: &Client, selector: Selector) -> Result<u64> {
        let (reason, note) = (RevocationReason::PrivilegeWithdrawn, self.note.clone());
        match client.revoke(&RevokeRequest { note, ..RevokeRequest::new(selector, reason) }).await {
            Ok(ChangeResponse { count, .. }) => Ok(count),
            Err(ClientError::Problem(problem)) if problem.known_code() == Some(ProblemCode::NotFound) => {
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The node that is meant, if it is one: nobody evicts a workload by mistake.
async fn node(client: &Client, text: &str, place: Option<&Place>) -> Result<IdentityView> {
    let id = place::identity(text, place)?;
    let view = client.read_identity(&id).await?;
    if view.identity.0.allowed_profiles().contains(&PROFILE) {
        return Ok(view);
    }
    Err(usage(format!("{id} is not a node: it does not list the profile {PROFILE}")))
}

fn report(terminal: &Terminal, done: &ShutOut) -> Result<()> {
    terminal.data(done, || {
        let workloads = done.workloads.map(|count| count.to_string());
        terminal.fields([
            ("node", done.node.to_string()),
            ("own certificates revoked", done.own.to_string()),
            ("workloads' certificates revoked", workloads.unwrap_or_default()),
        ])
    })?;
    match done.banned {
        true => terminal.note(format_args!("\nIt stays out until: chancery identity release {}", done.node)),
        false => {
            terminal.note(format_args!("\nIt may attest itself again; `chancery node ban` keeps it out"))
        }
    }
    Ok(())
}
