//! `chancery certificate`: what was issued.

use anyhow::Result;
use chancery_api::{CertificateDetail, CertificateQuery, CertificateStatus};
use chancery_types::{Digest, LineageId, SerialNumber, Timestamp};
use clap::{Args, Subcommand};

use crate::commands::status::{painted, revoked};
use crate::commands::{text_of, word};
use crate::connection::Connection;
use crate::flags::Globals;
use crate::listing::Extent;
use crate::place::{self, Place};
use crate::terminal::Terminal;

/// Searches certificates, and looks at one.
#[derive(Debug, Subcommand)]
pub(crate) enum Certificate {
    /// Search certificates. Conditions add up.
    List(List),
    /// Show a certificate.
    Show(Show),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only of this identity.
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// Only this one.
    #[arg(long)]
    serial: Option<SerialNumber>,
    /// Only of this lineage.
    #[arg(long, value_name = "ID")]
    lineage: Option<LineageId>,
    /// Only with this key: SHA-256 of the SubjectPublicKeyInfo.
    #[arg(long, value_name = "HEX")]
    key_fingerprint: Option<Digest>,
    /// Only of this owner's identities.
    #[arg(long)]
    owner: Option<String>,
    /// Only those worth this now: good, held, revoked or expired.
    #[arg(long, value_parser = word::<CertificateStatus>)]
    status: Option<CertificateStatus>,
    /// Only those that end before this moment (RFC 3339).
    #[arg(long, value_name = "TIME")]
    expires_before: Option<Timestamp>,
    /// Only those that end after this moment (RFC 3339).
    #[arg(long, value_name = "TIME")]
    expires_after: Option<Timestamp>,
    #[command(flatten)]
    extent: Extent,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its serial number.
    serial: SerialNumber,
    /// Print the certificate itself, PEM, with its issuers.
    #[arg(long)]
    pem: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Certificate {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        match self {
            Self::List(list) => list.run(globals, terminal).await,
            Self::Show(show) => show.run(globals, terminal).await,
        }
    }
}

impl List {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let query = self.meaning(place.as_ref())?;
        let client = self.connection.open_beside(place.as_ref()).await?;
        let found = self
            .extent
            .fetch(terminal, |limit, cursor| {
                let (client, query) = (client.clone(), CertificateQuery { limit, cursor, ..query.clone() });
                async move { client.list_certificates(&query).await }
            })
            .await?;
        terminal.data(&found, || {
            let rows = found.iter().map(|view| {
                vec![
                    view.serial.to_string(),
                    view.spiffe_id.to_string(),
                    text_of(&view.status),
                    view.profile.clone(),
                    view.owner.clone(),
                    view.not_after.whole_second().to_string(),
                ]
            });
            terminal.table(&["serial", "identity", "status", "profile", "owner", "ends"], rows)
        })
    }

    fn meaning(&self, place: Option<&Place>) -> Result<CertificateQuery> {
        Ok(CertificateQuery {
            limit: None,
            cursor: None,
            identity: self.identity.as_deref().map(|text| place::identity(text, place)).transpose()?,
            serial: self.serial,
            lineage: self.lineage,
            key: self.key_fingerprint,
            owner: self.owner.clone(),
            status: self.status,
            expires_before: self.expires_before,
            expires_after: self.expires_after,
        })
    }
}

impl Show {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let detail = self.connection.open(globals).await?.read_certificate(self.serial).await?;
        if self.pem {
            let pem = detail.pem.as_ref().ok_or_else(|| {
                anyhow::anyhow!(
                    "{} was recorded and never signed; it counts as issued and can be revoked",
                    self.serial
                )
            })?;
            return terminal.text(&format!("{pem}{}", detail.chain));
        }
        terminal.data(&detail, || describe(terminal, &detail))
    }
}

fn describe(terminal: &Terminal, detail: &CertificateDetail) -> String {
    let view = &detail.certificate;
    let names: Vec<String> = view.names.iter().map(ToString::to_string).collect();
    let unsigned = if detail.pem.is_none() { "recorded and never signed; can be revoked" } else { "" };
    let tidied = if view.tidied { "ended long ago; found by its serial alone, from the log" } else { "" };
    terminal.fields([
        ("serial", view.serial.to_string()),
        ("identity", view.spiffe_id.to_string()),
        ("status", painted(terminal, view.status)),
        ("since", revoked(view.revocation.as_ref())),
        ("signed", unsigned.to_owned()),
        ("names", names.join("\n")),
        ("owner", view.owner.clone()),
        ("profile", view.profile.clone()),
        ("key", format!("{} {}", view.key_algorithm, view.key_fingerprint)),
        ("valid", format!("{} to {}", view.not_before.whole_second(), view.not_after.whole_second())),
        ("issued", format!("{} by issuer {}", view.issued.whole_second(), view.issuer)),
        ("lineage", format!("{} generation {}", view.lineage, view.generation)),
        ("evidence", format!("{} ({})", view.evidence, view.assurance)),
        ("log entry", view.log_index.to_string()),
        ("tidied", tidied.to_owned()),
    ])
}
