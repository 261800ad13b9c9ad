//! `chancery status` and `chancery why`: what a certificate is worth, and why it was given.

use anyhow::Result;
use chancery_api::{CertificateStatus, DecisionView, Outcome, RevocationView};
use chancery_types::SerialNumber;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::commands::follow::Follow;
use crate::commands::status_set::Set;
use crate::commands::text_of;
use crate::connection::{Connection, Reach};
use crate::failure::usage;
use crate::flags::Globals;
use crate::place::Place;
use crate::terminal::{Terminal, Tone};

/// Says what a certificate is worth now, or shows the exact set of those that are not good, for anybody; or follows
/// every change, for whoever holds a certificate.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Status {
    #[command(subcommand)]
    form: Option<Form>,
    /// The certificate's serial number.
    #[arg(required = true)]
    serial: Option<SerialNumber>,
    #[command(flatten)]
    reach: Reach,
}

/// Status of many certificates at once.
#[derive(Debug, Subcommand)]
enum Form {
    Set(Set),
    /// Print what is revoked, held and released, as it happens.
    Follow(Follow),
}

/// Explains the decision behind a certificate: what was known, which policies decided, and what was reduced.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// The certificate's serial number.
    serial: SerialNumber,
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let serial = match (&self.form, self.serial) {
            (Some(Form::Set(set)), _) => return set.run(globals, terminal).await,
            (Some(Form::Follow(follow)), _) => return follow.run(globals, terminal).await,
            (None, serial) => serial.ok_or_else(|| usage("name a certificate by its serial number"))?,
        };
        let place = Place::find(globals.config.as_deref())?;
        let answer = self.reach.open(place.as_ref(), None).await?.status(serial).await?;
        terminal.data(&answer, || {
            terminal.fields([
                ("serial", answer.serial.to_string()),
                ("status", painted(terminal, answer.status)),
                ("since", revoked(answer.revocation.as_ref())),
                ("as of", answer.as_of.to_string()),
            ])
        })
    }
}

impl Why {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let decision = self.connection.open(globals).await?.why(self.serial).await?;
        terminal.data(&decision, || explain(terminal, &decision))
    }
}

/// A status in its colour.
pub(crate) fn painted(terminal: &Terminal, status: CertificateStatus) -> String {
    let tone = match status {
        CertificateStatus::Good => Tone::Good,
        CertificateStatus::Held | CertificateStatus::Expired => Tone::Warning,
        CertificateStatus::Revoked => Tone::Bad,
    };
    terminal.paint(tone, text_of(&status))
}

/// When and why, in words; empty for a certificate that is in force.
pub(crate) fn revoked(revocation: Option<&RevocationView>) -> String {
    revocation.map(|view| format!("{} ({})", view.at, view.reason)).unwrap_or_default()
}

fn explain(terminal: &Terminal, decision: &DecisionView) -> String {
    let (tone, verb) = match decision.outcome {
        Outcome::Grant => (Tone::Good, "granted as asked"),
        Outcome::Reduce => (Tone::Warning, "granted in part"),
        Outcome::Deny => (Tone::Bad, "denied"),
    };
    let mut text = format!("{} was {}.\n\n", decision.serial, terminal.paint(tone, verb));
    text.push_str(&terminal.fields([
        ("decided", decision.at.to_string()),
        ("by policies", decision.determining.join(", ")),
        ("of version", decision.policy_version.to_string()),
        ("log entry", decision.log_index.to_string()),
    ]));
    for reduction in &decision.reduced {
        text.push_str(&format!(
            "\n{}: asked {}, granted {}, because of {}",
            terminal.paint(Tone::Warning, &reduction.what),
            reduction.asked,
            reduction.granted,
            reduction.because
        ));
    }
    text.push_str("\nWhat was known:\n");
    outline(&decision.inputs, 1, &mut text);
    text
}

/// JSON as an indented outline; what is null or empty is left out.
fn outline(value: &Value, depth: usize, text: &mut String) {
    let Value::Object(members) = value else {
        text.push_str(&format!("{}{}\n", "  ".repeat(depth), plain(value)));
        return;
    };
    for (name, value) in members {
        match value {
            Value::Null => {}
            Value::Object(inner) if inner.is_empty() => {}
            Value::Array(inner) if inner.is_empty() => {}
            Value::String(inner) if inner.is_empty() => {}
            Value::Object(_) => {
                text.push_str(&format!("{}{name}\n", "  ".repeat(depth)));
                outline(value, depth + 1, text);
            }
            _ => text.push_str(&format!("{}{name}: {}\n", "  ".repeat(depth), plain(value))),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn inputs_are_an_outline_without_what_says_nothing() {
        let mut text = String::new();
        let inputs = json!({
            "evidence": { "claims": { "x509.cn": ["a", "b"], "none": null }, "empty": {}, "list": [], "text": "" },
        });
        outline(&inputs, 1, &mut text);
        assert_eq!(text, "  evidence\n    claims\n      x509.cn: a, b\n");
    }
}
