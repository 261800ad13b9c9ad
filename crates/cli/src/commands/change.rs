//! Changes to many certificates: what they hit, and the steps that operators take.

use anyhow::Result;
use chancery_api::{
    BlastRadius, ChangeQuery, ChangeStatus, ChangeStepRequest, ChangeView, Enforcement, Part,
};
use clap::{Args, Subcommand};

use super::revoke::{KeylessConnection, agree};
use crate::ask;
use crate::flags::Globals;
use crate::place::Place;
use crate::terminal::{Terminal, Tone};

/// What is done with a change that was recorded because it is large or goes in waves.
#[derive(Debug, Subcommand)]
pub(super) enum ChangeCommand {
    /// List the changes that wait for approval, run or rest.
    Pending(List),
    /// Show a change.
    Show(Show),
    /// Approve a change that another operator has asked for; it runs from then on.
    Approve(Step),
    /// Give a change up. What it did stays.
    Withdraw(Step),
    /// Let a change rest.
    Pause(Step),
    /// Let a change run on.
    Resume(Step),
    /// Release what a change has held.
    Undo(Step),
}

/// Lists changes.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Those that are done, too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    connection: KeylessConnection,
}

/// Shows a change.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Its number.
    change: u64,
    #[command(flatten)]
    connection: KeylessConnection,
}

/// Takes a step.
#[derive(Debug, Args)]
pub(super) struct Step {
    /// The change's number.
    change: u64,
    /// A word of explanation, for the log.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    connection: KeylessConnection,
}

impl ChangeCommand {
    pub(super) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let place = place.as_ref();
        match self {
            Self::Pending(list) => {
                let client = list.connection.operator(place).await?;
                let changes = client.list_changes(&ChangeQuery { all: list.all }).await?;
                terminal.data(&changes, || overview(terminal, &changes.changes))
            }
            Self::Show(show) => {
                let client = show.connection.operator(place).await?;
                print(terminal, &client.read_change(show.change).await?)
            }
            Self::Approve(step) => {
                let client = step.connection.operator(place).await?;
                if !step.yes && ask::can_ask() {
                    terminal.warn(text(terminal, &client.read_change(step.change).await?));
                    agree(&format!("change {}: approve?", step.change))?;
                }
                print(terminal, &client.approve_change(step.change, &step.request()).await?)
            }
            Self::Withdraw(step) => {
                let client = step.connection.operator(place).await?;
                print(terminal, &client.withdraw_change(step.change, &step.request()).await?)
            }
            Self::Pause(step) => {
                let client = step.connection.operator(place).await?;
                print(terminal, &client.pause_change(step.change, &step.request()).await?)
            }
            Self::Resume(step) => {
                let client = step.connection.operator(place).await?;
                print(terminal, &client.resume_change(step.change, &step.request()).await?)
            }
            Self::Undo(step) => {
                let client = step.connection.operator(place).await?;
                print(terminal, &client.undo_change(step.change, &step.request()).await?)
            }
        }
    }
}

impl Step {
    fn request(&self) -> ChangeStepRequest {
        ChangeStepRequest { note: self.note.clone() }
    }
}

fn print(terminal: &Terminal, change: &ChangeView) -> Result<()> {
    terminal.data(change, || text(terminal, change))
}

fn overview(terminal: &Terminal, changes: &[ChangeView]) -> String {
    if changes.is_empty() {
        return "no change waits, runs or rests\n".to_owned();
    }
    let rows = changes.iter().map(|change| {
        vec![
            change.change.to_string(),
            terminal.paint(tone(change.status), change.status),
            what(change),
            format!("{} of {}", change.changed, change.radius.certificates),
            change.by.clone(),
            change.asked.to_string(),
        ]
    });
    terminal.table(&["CHANGE", "STATUS", "WHAT", "CERTIFICATES", "ASKED BY", "ASKED"], rows)
}

fn text(terminal: &Terminal, change: &ChangeView) -> String {
    let status = terminal.paint(tone(change.status), change.status);
    let mut text = format!("change {}: {status}\n  {}\n", change.change, what(change));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name}: {value}\n"));
    line("asked", format!("{} by {}", change.asked, change.by));
    if !change.note.is_empty() {
        line("note", change.note.clone());
    }
    match (&change.permitted, &change.permitted_by) {
        (Some(how), Some(by)) => line(how, format!("by {by}")),
        _ if change.status == ChangeStatus::Pending => {
            line("waits", format!("for another operator, until {}", change.expires));
        }
        _ => {}
    }
    line("changed", format!("{} of {} certificates", change.changed, change.radius.certificates));
    if let Some(waves) = &change.waves {
        line("waves", format!("{} of {} done", change.waves_done, waves.shares.len()));
    }
    if let Some(next) = change.next_wave {
        line("next wave", next.to_string());
    }
    line("last step", format!("{} by {}", change.stepped, change.stepped_by));
    text.push_str(&radius_text(terminal, change.radius_now.as_ref().unwrap_or(&change.radius)));
    text
}

fn what(change: &ChangeView) -> String {
    let action = match (change.action, change.reason) {
        (chancery_api::ChangeAction::Revoke, Some(reason)) => format!("revoke ({reason})"),
        (chancery_api::ChangeAction::Revoke, None) => "revoke".to_owned(),
        (chancery_api::ChangeAction::Hold, _) => "hold".to_owned(),
    };
    let block = if change.block { " and block" } else { "" };
    format!("{action}{block} {}", change.selectors.join(", "))
}

fn tone(status: ChangeStatus) -> Tone {
    match status {
        ChangeStatus::Pending | ChangeStatus::Paused | ChangeStatus::Undoing => Tone::Warning,
        ChangeStatus::Running => Tone::Strong,
        ChangeStatus::Ended | ChangeStatus::Undone => Tone::Good,
        ChangeStatus::Withdrawn | ChangeStatus::Expired => Tone::Bad,
    }
}

/// What is hit, for people.
pub(super) fn radius_text(terminal: &Terminal, radius: &BlastRadius) -> String {
    let mut text = format!(
        "{} certificates of {} identities; {} stand so already\n",
        radius.certificates, radius.identities, radius.unchanged
    );
    let environments = radius.environments.iter().map(|part| {
        let share = part.in_force.map_or_else(String::new, |in_force| {
            let percent = u128::from(part.certificates) * 100 / u128::from(in_force.max(1));
            let recent =
                if part.recent > 0 { format!(", after {} lately", part.recent) } else { String::new() };
            match part.and_more {
                true => format!("less than {} % of more than {in_force}{recent}", percent + 1),
                false => format!("{percent} % of {in_force}{recent}"),
            }
        });
        vec!["environment".to_owned(), named(&part.name), part.certificates.to_string(), share]
    });
    let parts = |kind: &'static str, parts: &[Part]| -> Vec<Vec<String>> {
        let shown = parts.iter().take(SHOWN);
        shown
            .map(|part| {
                vec![kind.to_owned(), named(&part.name), part.certificates.to_string(), String::new()]
            })
            .collect()
    };
    let mut rows: Vec<Vec<String>> = environments.take(SHOWN).collect();
    rows.extend(parts("owner", &radius.owners));
    rows.extend(parts("team", &radius.teams));
    rows.extend(parts("node", &radius.nodes));
    rows.extend(parts("identity", &radius.largest_identities));
    if !rows.is_empty() {
        text.push_str(&terminal.table(&["WHOSE", "NAME", "CERTIFICATES", "SHARE"], rows));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    if let Some(enforcement) = &radius.enforcement {
        text.push_str(&enforcement_text(enforcement));
    }
    if let Some(why) = &radius.needs_approval {
        text.push_str(&format!("{} {why}\n", terminal.paint(Tone::Bad, "needs approval:")));
    }
    text
}

fn enforcement_text(enforcement: &Enforcement) -> String {
    let mut text = format!(
        "relying parties: {} enforce it at once, {} when what they know is too old, {} not at all\n",
        enforcement.at_once, enforcement.when_too_old, enforcement.not_at_all
    );
    for silent in enforcement.silent.iter().take(SHOWN) {
        text.push_str(&format!(
            "  silent since {}: {} {}\n",
            silent.acknowledged_at, silent.spiffe_id, silent.acknowledgement.instance
        ));
    }
    text
}

fn named(name: &str) -> String {
    if name.is_empty() { "(none)".to_owned() } else { name.to_owned() }
}

/// Parts of each kind that a person is shown.
const SHOWN: usize = 10;
