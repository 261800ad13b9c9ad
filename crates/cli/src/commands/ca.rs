//! `chancery ca`: the authority's own issuers and keys.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chancery_api::{
    AddRootRequest, CaStatusResponse, PlannedChange, RollbackRequest, RotateRequest, RotationResponse,
    RotationSubject, TaintRequest,
};
use chancery_types::IssuerEpoch;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::authority_side;
use crate::commands::root::existing_passphrase;
use crate::commands::{text_of, word};
use crate::connection::{Connection, Reach};
use crate::failure::usage;
use crate::files;
use crate::flags::Globals;
use crate::place::Place;
use crate::terminal::Terminal;

/// Looks after the authority's own issuers and keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// List the issuers whose certificates may still be met.
    Issuers(Issuers),
    /// Show how issuers and keys stand, and what will happen when and why.
    Status(Status),
    /// Ask for the next issuer or key.
    Rotate(Rotate),
    /// Undo the last step of a rotation, and let it rest until `chancery ca rotate`.
    Rollback(Rollback),
    /// Say that an issuer is not to be trusted: another takes its place, agents replace what it signed, what is left is
    /// revoked.
    Taint(Taint),
    /// Keep issuers in reserve.
    #[command(subcommand)]
    Spare(Spare),
    /// Bring roots.
    #[command(subcommand)]
    Root(CaRoots),
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

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    connection: Connection,
}

/// What is said of something that changes the authority, and where.
#[derive(Debug, Args)]
struct Act {
    /// Why, for the log.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// What: issuer, jwt, log, or root for one that was brought and rests.
    #[arg(value_name = "WHAT", default_value = "issuer", value_parser = word::<RotationSubject>)]
    subject: RotationSubject,
    /// As soon as everybody could know the next one.
    #[arg(long, required_unless_present = "dry_run")]
    now: bool,
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    act: Act,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// What: issuer, root, jwt or log.
    #[arg(value_name = "WHAT", default_value = "issuer", value_parser = word::<RotationSubject>)]
    subject: RotationSubject,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    act: Act,
}

#[derive(Debug, Args)]
pub(crate) struct Taint {
    /// The issuer's number.
    #[arg(value_name = "ISSUER")]
    issuer: u16,
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    act: Act,
}

/// Roots.
#[derive(Debug, Subcommand)]
pub(crate) enum CaRoots {
    /// Bring a root that `chancery root rotate` made: it is published at once, used once everybody could know it, and the
    /// one before stays until its last issuer has ended.
    Add(AddRoot),
}

#[derive(Debug, Args)]
pub(crate) struct AddRoot {
    /// The root's certificate and the one by which a trusted root vouches for it, PEM.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Only say whether it would be taken.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    act: Act,
}

/// Issuers in reserve.
#[derive(Debug, Subcommand)]
pub(crate) enum Spare {
    /// Make issuers in reserve while the root is at hand. The server may run.
    Add(Add),
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// How many: each signs for a third of its life, a month by default.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=60))]
    count: u16,
    /// The root's directory.
    #[arg(long, value_name = "DIR")]
    root_dir: PathBuf,
    /// A file whose first line is the passphrase of the root's key.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Ca {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        match self {
            Self::Issuers(issuers) => issuers.run(globals, terminal).await,
            Self::Status(status) => {
                let found = status.connection.open(globals).await?.ca_status().await?;
                terminal.data(&found, || show(terminal, &found))
            }
            Self::Rotate(rotate) => {
                let request = RotateRequest {
                    subject: rotate.subject,
                    dry_run: rotate.dry_run,
                    note: rotate.act.note.clone(),
                };
                let answer = rotate.act.connection.open(globals).await?.ca_rotate(&request).await?;
                report(terminal, &answer)
            }
            Self::Rollback(back) => {
                let request = RollbackRequest {
                    subject: back.subject,
                    dry_run: back.dry_run,
                    note: back.act.note.clone(),
                };
                let answer = back.act.connection.open(globals).await?.ca_rollback(&request).await?;
                report(terminal, &answer)
            }
            Self::Taint(taint) => {
                let request = TaintRequest {
                    issuer: IssuerEpoch(taint.issuer),
                    dry_run: taint.dry_run,
                    note: taint.act.note.clone(),
                };
                let answer = taint.act.connection.open(globals).await?.ca_taint(&request).await?;
                report(terminal, &answer)
            }
            Self::Spare(Spare::Add(add)) => add.run(globals, terminal),
            Self::Root(CaRoots::Add(add)) => add.run(globals, terminal).await,
        }
    }
}

impl AddRoot {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let texts: Result<Vec<String>> =
            self.files.iter().map(|file| files::read_text(file, files::MAX_PEM)).collect();
        let request = AddRootRequest {
            certificates: texts?.join("\n"),
            dry_run: self.dry_run,
            note: self.act.note.clone(),
        };
        let answer = self.act.connection.open(globals).await?.ca_add_root(&request).await?;
        report(terminal, &answer)
    }
}

impl Issuers {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let found = self.reach.open(place.as_ref(), None).await?.issuers().await?;
        if self.pem {
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

impl Add {
    fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let place = place.ok_or_else(|| usage("name the authority's configuration with --config FILE"))?;
        let passphrase = existing_passphrase(self.passphrase_file.as_deref(), &self.root_dir)?;
        let made = authority_side::add_spares(&place.file, &self.root_dir, &passphrase, self.count)
            .context("issuers in reserve")?;
        let data: Vec<_> = made
            .iter()
            .map(|spare| {
                json!({"epoch": spare.epoch, "not_before": spare.not_before, "not_after": spare.not_after})
            })
            .collect();
        terminal.data(&data, || {
            let rows = made.iter().map(|spare| {
                vec![
                    spare.epoch.to_string(),
                    spare.not_before.whole_second().to_string(),
                    spare.not_after.whole_second().to_string(),
                ]
            });
            terminal.table(&["issuer", "from", "ends"], rows)
        })
    }
}

fn show(terminal: &Terminal, found: &CaStatusResponse) -> String {
    let rows = found.roots.iter().map(|root| {
        let issuers: Vec<String> = root.issuers.iter().map(ToString::to_string).collect();
        vec![
            short(&root.fingerprint.to_string()),
            root.phase.clone(),
            root.since.map(|since| since.whole_second().to_string()).unwrap_or_default(),
            issuers.join(" "),
            root.not_after.whole_second().to_string(),
        ]
    });
    let mut text = terminal.table(&["root", "state", "since", "issuers", "ends"], rows);
    text.push_str("\n\n");
    let rows = found.issuers.iter().map(|issuer| {
        let state = issuer.state.as_ref().map_or_else(|| "in reserve".to_owned(), text_of);
        vec![
            issuer.epoch.to_string(),
            state,
            issuer.since.map(|since| since.whole_second().to_string()).unwrap_or_default(),
            issuer.not_before.whole_second().to_string(),
            issuer.not_after.whole_second().to_string(),
        ]
    });
    text.push_str(&terminal.table(&["issuer", "state", "since", "from", "ends"], rows));
    for (name, keys) in [("jwt key", &found.jwt_keys), ("log key", &found.log_keys)] {
        let rows = keys.iter().map(|key| {
            vec![short(&key.fingerprint.to_string()), key.phase.clone(), key.since.whole_second().to_string()]
        });
        text.push_str("\n\n");
        text.push_str(&terminal.table(&[name, "state", "since"], rows));
    }
    text.push_str("\n\n");
    text.push_str(&plan(terminal, &found.timeline));
    if !found.enabled {
        text.push_str("\n\nNothing of this happens by itself: rotation.enabled is false");
    }
    for subject in &found.paused {
        text.push_str(&format!("\n\nThe {subject} rests: chancery ca rotate --now {subject}"));
    }
    for trouble in &found.troubles {
        text.push_str(&format!("\n\n{trouble}"));
    }
    text
}

/// The first characters of a fingerprint: enough to tell a handful apart.
fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(12).collect()
}

fn plan(terminal: &Terminal, planned: &[PlannedChange]) -> String {
    let rows = planned.iter().map(|change| {
        let what = match change.actor.as_str() {
            "operator" => format!("{} (you)", change.what),
            _ => change.what.clone(),
        };
        vec![change.due.whole_second().to_string(), what, change.reason.clone()]
    });
    terminal.table(&["when", "what", "why"], rows)
}

fn report(terminal: &Terminal, answer: &RotationResponse) -> Result<()> {
    terminal.data(answer, || {
        let mut text: String = answer.done.iter().map(|done| format!("{done}\n")).collect();
        if !answer.planned.is_empty() {
            text.push('\n');
            text.push_str(&plan(terminal, &answer.planned));
        }
        text
    })
}
