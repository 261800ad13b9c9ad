//! `chancery policy`: what is in force, what it would decide, and whether it still decides what it should.

use std::path::PathBuf;

use anyhow::Result;
use chancery_api::{Outcome, PolicyCheckRequest};
use chancery_types::{AssuranceLevel, Claims, HumanDuration, Role};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::authority_side;
use crate::commands::{pair, text_of, word};
use crate::connection::Connection;
use crate::failure::verification;
use crate::flags::Globals;
use crate::place::{self, Place};
use crate::terminal::{Terminal, Tone};

/// Shows, questions and tests the policy.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Show the policy and the profiles in force.
    Show(Show),
    /// Ask what policy would decide. Nothing is done or recorded.
    Check(Box<Check>),
    /// Run files of cases against the policy beside the configuration.
    Test(Test),
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Print the texts too.
    #[arg(long)]
    text: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The action: enroll, renew, revoke, ...
    action: String,
    /// The identity that a certificate is for, or that the action is about.
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// The profile; the identity's first one if absent.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The lifetime; the profile's if absent.
    #[arg(long, value_name = "DURATION")]
    lifetime: Option<HumanDuration>,
    /// How strongly the identity is proved: AL0 to AL4; AL0 if absent.
    #[arg(long, value_name = "LEVEL", value_parser = word::<AssuranceLevel>)]
    assurance: Option<AssuranceLevel>,
    /// What is proved; repeatable.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = pair)]
    claims: Vec<(String, String)>,
    /// For operators' actions: who acts.
    #[arg(long, value_name = "ID")]
    operator: Option<String>,
    /// For operators' actions: their role.
    #[arg(long)]
    role: Option<Role>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Files of cases, TOML.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Policy {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        match self {
            Self::Show(show) => show.run(globals, terminal).await,
            Self::Check(check) => check.run(globals, terminal).await,
            Self::Test(test) => test.run(globals, terminal),
        }
    }
}

impl Show {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let policy = self.connection.open(globals).await?.read_policy().await?;
        terminal.data(&policy, || {
            let mut text = terminal.fields([
                ("version", policy.version.to_string()),
                ("since", policy.since.whole_second().to_string()),
                (
                    "policies",
                    policy.policies.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().join(", "),
                ),
                (
                    "profiles",
                    policy.profiles.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().join(", "),
                ),
            ]);
            if self.text {
                let policies = policy.policies.iter().map(|file| (&file.name, &file.text));
                for (name, body) in
                    policies.chain(policy.profiles.iter().map(|file| (&file.name, &file.text)))
                {
                    text.push_str(&format!(
                        "\n{}\n{}\n",
                        terminal.paint(Tone::Strong, name),
                        body.trim_end()
                    ));
                }
            }
            text
        })
    }
}

impl Check {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let request = self.meaning(place.as_ref())?;
        let answer = self.connection.open_beside(place.as_ref()).await?.check_policy(&request).await?;
        terminal.data(&answer, || {
            let tone = match answer.outcome {
                Outcome::Grant => Tone::Good,
                Outcome::Reduce => Tone::Warning,
                Outcome::Deny => Tone::Bad,
            };
            let reduced: Vec<String> = answer
                .reduced
                .iter()
                .map(|one| {
                    format!("{}: {} instead of {} ({})", one.what, one.granted, one.asked, one.because)
                })
                .collect();
            terminal.fields([
                ("outcome", terminal.paint(tone, text_of(&answer.outcome))),
                ("by policies", answer.determining.join(", ")),
                ("reduced", reduced.join("\n")),
                ("would permit", answer.would_permit.clone().unwrap_or_default()),
                ("errors", answer.errors.join("\n")),
                ("version", answer.policy_version.to_string()),
            ])
        })
    }

    fn meaning(&self, place: Option<&Place>) -> Result<PolicyCheckRequest> {
        let id = |text: &Option<String>| text.as_deref().map(|text| place::identity(text, place)).transpose();
        let mut claims = Claims::new();
        for (name, value) in &self.claims {
            claims.insert(name, value.as_str());
        }
        Ok(PolicyCheckRequest {
            action: self.action.clone(),
            identity: id(&self.identity)?,
            profile: self.profile.clone(),
            lifetime: self.lifetime,
            assurance: self.assurance,
            claims,
            operator: id(&self.operator)?,
            role: self.role,
        })
    }
}

impl Test {
    fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let config = place::required(globals.config.as_deref())?;
        let cases = authority_side::test_policy(&config, &self.files)?;
        let failed = cases.iter().filter(|case| !case.failures.is_empty()).count();
        if terminal.is_json() {
            let list: Vec<_> = cases
                .iter()
                .map(|case| json!({ "file": case.file, "case": case.name, "failures": case.failures }))
                .collect();
            terminal.json(&list)?;
        } else {
            for case in cases.iter().filter(|case| !case.failures.is_empty()) {
                let label = terminal.paint(Tone::Bad, "failed");
                terminal.text(&format!(
                    "{label} {}: {}\n  {}",
                    case.file.display(),
                    case.name,
                    case.failures.join("\n  ")
                ))?;
            }
            terminal.text(&format!("{} cases, {failed} failed", cases.len()))?;
        }
        if failed > 0 {
            Err(verification(format!("{failed} of {} cases failed", cases.len())))
        } else {
            Ok(())
        }
    }
}
