//! `chancery run`: a program with an identity, which it needs to know nothing of.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chancery_agent::child::{self, ChildConfig, ChildError, Environment, OnRotation};
use chancery_agent::config::DEFAULT_SOCKET;
use chancery_agent::identities::X509State;
use chancery_agent::sink::{OnWithdrawal, Sink, SinkConfig, SinkSettings};
use chancery_agent::workload_api::follow;
use chancery_types::{HumanDuration, SystemClock, SystemRandom};
use clap::Args;
use tokio::sync::watch;

use crate::commands::fetch::socket_path;
use crate::failure::usage;
use crate::terminal::Terminal;

/// Runs a program with the socket of the agent in its environment and, if asked for, its identity as files.
///
/// The identity is the one of `chancery run` itself as the agent sees it, so of its user, unit or container. The
/// program's end is its end; signals are passed on.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// The Workload API, as a path or unix:/path.
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    socket: String,
    /// Keep tls.crt, tls.key and bundle.crt in this directory, for the program's user alone.
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// What the program gets when its certificate was replaced: a signal such as HUP, or `restart`.
    #[arg(long, value_name = "WHAT", requires = "files")]
    on_rotation: Option<String>,
    /// How long to wait for the first certificate before giving up.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    patience: HumanDuration,
    /// The program and its arguments, behind `--`.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

impl Run {
    pub(crate) async fn run(&self, terminal: &Terminal) -> Result<()> {
        let socket = socket_path(&self.socket)?;
        let (program, arguments) = self.command.split_first().context("name a program behind --")?;
        let on_rotation = self.on_rotation()?;
        let (rotations, directory) = match &self.files {
            Some(directory) => {
                let directory = std::path::absolute(directory)?;
                (self.keep_files(&socket, &directory).await?, Some(directory))
            }
            // Without files nothing rotates that the program would have to be told of.
            None => (watch::channel(0).1, None),
        };
        let config = ChildConfig {
            program: program.clone(),
            arguments: arguments.to_vec(),
            environment: Environment { endpoint: Some(format!("unix://{}", socket.display())), directory },
            on_rotation,
        };
        match child::run(&config, rotations).await {
            Ok(status) => end(child::exit_code(status)),
            Err(error @ ChildError::Start { .. }) => {
                terminal.warn(&error);
                end(error.exit_code())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn on_rotation(&self) -> Result<OnRotation> {
        match self.on_rotation.as_deref() {
            None => Ok(OnRotation::Nothing),
            Some("restart") => Ok(OnRotation::Restart(RESTART)),
            Some(signal) => Ok(OnRotation::Signal(signal.parse().map_err(usage)?)),
        }
    }

    /// Has the identity in files before the program starts, and keeps it fresh afterwards.
    async fn keep_files(&self, socket: &Path, directory: &Path) -> Result<watch::Receiver<u64>> {
        let config = SinkConfig::try_from(settings(directory))?;
        let sink = Sink::open(config, Arc::new(SystemClock), Arc::new(SystemRandom))?;
        let rotations = child::rotations_of(sink.status());
        let (sender, states) = watch::channel(Arc::new(X509State::default()));
        tokio::spawn(follow(socket.to_owned(), sender));
        tokio::spawn(sink.run(states));
        let first = tokio::time::timeout(self.patience.0, rotations).await;
        first.ok().flatten().with_context(|| {
            format!("no certificate came within {}; `chancery fetch x509` says why", self.patience)
        })
    }
}

/// How long a program that is restarted may take to end.
const RESTART: Duration = Duration::from_secs(10);

fn settings(directory: &Path) -> SinkSettings {
    SinkSettings {
        name: "run".into(),
        spiffe_id: None,
        directory: directory.to_owned(),
        directory_mode: Some("0700".into()),
        owner: None,
        group: None,
        files: None,
        grace: None,
        on_withdrawal: OnWithdrawal::default(),
        hook: None,
        probe: None,
    }
}

/// Ends as the program did.
fn end(code: u8) -> Result<()> {
    std::process::exit(i32::from(code))
}

const EXAMPLES: &str = "\
Examples:
  chancery run -- /usr/bin/web
  chancery run --files /run/web/identity --on-rotation HUP -- nginx -g 'daemon off;'";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Command};

    fn parse(arguments: &[&str]) -> Result<Run, clap::Error> {
        let line = ["chancery", "run"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| match cli.command {
            Command::Run(run) => run,
            _ => panic!("not a run"),
        })
    }

    #[test]
    fn a_program_stands_behind_the_dashes_with_flags_of_its_own() {
        let run = parse(&["--", "web", "--files", "x"]).unwrap();
        assert_eq!(run.command, ["web", "--files", "x"]);
        assert_eq!(run.files, None);
        assert!(parse(&[]).is_err() && parse(&["web"]).is_err());
    }

    #[test]
    fn rotation_is_told_by_signal_or_restart_and_needs_files() {
        let told = |what| parse(&["--files", "d", "--on-rotation", what, "--", "web"]).unwrap().on_rotation();
        assert!(matches!(told("HUP").unwrap(), OnRotation::Signal(_)));
        assert!(matches!(told("restart").unwrap(), OnRotation::Restart(_)));
        assert!(told("loudly").is_err());
        assert!(parse(&["--on-rotation", "HUP", "--", "web"]).is_err());
    }
}
