//! `chancery agent`: the agent of one machine, and how it stands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chancery_agent::config::{
    Config, ConfigError, DEFAULT_SOCKET, DEFAULT_STATUS_SOCKET, RawConfig, RawEvidence, RawState, RawStatus,
    RawWorkloadApi,
};
use chancery_agent::status::{AgentHealth, AgentStatus};
use chancery_agent::{Environment, ask_status, daemon};
use chancery_types::{Digest, SecretString, SystemClock, SystemRandom, Timestamp};
use clap::{ArgGroup, Args, Subcommand};

use crate::failure::usage;
use crate::files;
use crate::flags::Globals;
use crate::log::{LogControl, LogFormat, start_log};
use crate::subject;
use crate::terminal::{Terminal, Tone};

/// Runs the agent of this machine until SIGTERM. SIGHUP reads its configuration again.
///
/// It proves the machine to the authority, and gives local processes what the authority says they are. All is said
/// by --config agent.toml, or by flags.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub(crate) struct Agent {
    #[command(subcommand)]
    command: Option<AgentCommand>,
    #[command(flatten)]
    flags: AgentFlags,
    /// How to write the log to standard error; what happens is chosen by $CHANCERY_LOG or -v.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Say how the agent of this machine stands.
    Status(Status),
}

/// Identities, certificates, the next rotation, the authority, sinks: as the running agent says.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The status socket of the agent.
    #[arg(long, env = "CHANCERY_AGENT_STATUS_SOCKET", value_name = "PATH", default_value = DEFAULT_STATUS_SOCKET)]
    status_socket: PathBuf,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Agent")]
#[command(group = ArgGroup::new("proof").args(["join_token_file", "x509_pop_cert"]))]
struct AgentFlags {
    /// The authority, as https://host:port.
    #[arg(long, env = "CHANCERY_SERVER", value_name = "URL")]
    server: Option<String>,
    /// Its roots, PEM.
    #[arg(long, env = "CHANCERY_TRUST_BUNDLE", value_name = "FILE", conflicts_with = "fingerprint")]
    trust_bundle: Option<PathBuf>,
    /// The SHA-256 fingerprint of its root: enough on first contact.
    #[arg(long, env = "CHANCERY_FINGERPRINT", value_name = "HEX")]
    fingerprint: Option<Digest>,
    /// A file whose first line is a join token for this node.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// A certificate of a foreign authority that this one is configured to trust, with its issuers.
    #[arg(long, value_name = "FILE", requires = "x509_pop_key")]
    x509_pop_cert: Option<PathBuf>,
    /// Its key, which signs a nonce.
    #[arg(long, value_name = "FILE", requires = "x509_pop_cert")]
    x509_pop_key: Option<PathBuf>,
    /// Where to keep the trust bundle.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Keep the node's credential there too, so that a restart needs no new evidence.
    #[arg(long, requires = "state")]
    keep_credential: bool,
    /// Seals what is kept: a file with at least 32 random bytes, or credential:NAME of systemd's.
    #[arg(long, value_name = "KEY", requires = "state")]
    sealing_key: Option<String>,
    /// The Workload API's socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The socket for `chancery agent status`.
    #[arg(long, value_name = "PATH")]
    status_socket: Option<PathBuf>,
    /// Where to serve metrics and health: 127.0.0.1:9464, or unix:/path.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
}

impl Agent {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        if let Some(AgentCommand::Status(status)) = &self.command {
            return status.run(terminal).await;
        }
        let exported = std::env::var_os("CHANCERY_CONFIG").map(PathBuf::from);
        let load = self.flags.source(self.flags.file(globals.config.as_deref(), exported.as_deref()))?;
        let telemetry = load().map(|config| config.telemetry).unwrap_or_default();
        let (log, _exporter) =
            start_log(self.log_format, globals, "chancery-agent", &telemetry)?.into_parts();
        let load = move || load().and_then(|config| log_as_it_says(config, &log));
        let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        Ok(daemon::run(load, environment).await?)
    }
}

/// Logs what the file asks for, unless the environment says otherwise.
fn log_as_it_says(config: Config, control: &LogControl) -> Result<Config, ConfigError> {
    if let Some(log) = config.log.as_deref().filter(|_| std::env::var_os("CHANCERY_LOG").is_none()) {
        control.choose(log).map_err(|error| ConfigError {
            path: "log".into(),
            mistakes: vec![format!("{log:?}: {error}")],
        })?;
    }
    Ok(config)
}

impl AgentFlags {
    /// The file to read. What $CHANCERY_CONFIG names is the authority's, where an operator's shell exports it, and
    /// nothing to an agent that is told all by flags.
    fn file<'a>(&self, given: Option<&'a Path>, exported: Option<&Path>) -> Option<&'a Path> {
        given.filter(|_| self.server.is_none() || given != exported)
    }

    /// Where the configuration comes from, each time that it is read.
    fn source(
        &self,
        file: Option<&Path>,
    ) -> Result<Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>> {
        match file {
            Some(file) if self.server.is_none() => {
                let file = config_file(file);
                Ok(Box::new(move || Config::load(&file)))
            }
            Some(_) => Err(usage("say it in the file or by flags: --config excludes --server")),
            None => {
                let raw = self.raw()?;
                let here = std::env::current_dir()?;
                Ok(Box::new(move || {
                    Config::check(raw.clone(), &here)
                        .map_err(|mistakes| ConfigError { path: "the command line".into(), mistakes })
                }))
            }
        }
    }

    /// The file that says the same as these flags.
    fn raw(&self) -> Result<RawConfig> {
        let Some(server) = self.server.clone() else {
            return Err(usage(
                "no server is known; say --server https://host:port (or set CHANCERY_SERVER), or --config agent.toml",
            ));
        };
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let fingerprint = match (self.fingerprint, &self.trust_bundle, &self.join_token_file) {
            (None, None, Some(token)) => fingerprint_in(token)?,
            (given, ..) => given,
        };
        Ok(RawConfig {
            server,
            trust_bundle: text(&self.trust_bundle),
            fingerprint: fingerprint.map(|fingerprint| fingerprint.to_string()),
            evidence: RawEvidence {
                join_token_file: text(&self.join_token_file),
                x509_pop_certificate: text(&self.x509_pop_cert),
                x509_pop_key: text(&self.x509_pop_key),
            },
            state: RawState {
                directory: text(&self.state),
                keep_credential: self.keep_credential,
                sealing_key: self.sealing_key.clone(),
            },
            workload_api: RawWorkloadApi {
                socket: text(&self.socket).unwrap_or_else(|| DEFAULT_SOCKET.into()),
                ..RawWorkloadApi::default()
            },
            status: RawStatus {
                socket: text(&self.status_socket).unwrap_or_else(|| DEFAULT_STATUS_SOCKET.into()),
                metrics: self.metrics.clone(),
            },
            ..RawConfig::default()
        })
    }
}

/// A token may carry the fingerprint of the root it was made under.
fn fingerprint_in(token: &Path) -> Result<Option<Digest>> {
    let token = files::read_secret_line(token)?;
    Ok(subject::fingerprint_in(&SecretString::new(token.trim().to_owned())))
}

fn config_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("agent.toml") } else { path.to_owned() }
}

/// Checks an agent's configuration.
pub(crate) fn check_config(file: &Path, terminal: &Terminal) -> Result<()> {
    let file = config_file(file);
    let config = Config::load(&file)?;
    let summary = serde_json::json!({
        "server": config.server.to_string(),
        "socket": config.socket,
        "status_socket": config.status_socket,
    });
    terminal.data(&summary, || {
        let verdict = terminal.paint(Tone::Good, format!("{} is in order.", file.display()));
        let fields = [
            ("server", config.server.to_string()),
            ("socket", config.socket.display().to_string()),
            ("status socket", config.status_socket.display().to_string()),
        ];
        format!("{verdict}\n{}", terminal.fields(fields))
    })
}

impl Status {
    async fn run(&self, terminal: &Terminal) -> Result<()> {
        let status = ask_status(&self.status_socket).await.context("the agent's status")?;
        terminal.data(&status, || text(&status, terminal))
    }
}

fn text(status: &AgentStatus, terminal: &Terminal) -> String {
    let moment = |moment: Option<Timestamp>| {
        moment.map(|moment| moment.whole_second().to_string()).unwrap_or_else(|| "-".into())
    };
    let health = match status.health {
        AgentHealth::Ok => terminal.paint(Tone::Good, "ok"),
        AgentHealth::Degraded => terminal.paint(Tone::Warning, "degraded"),
        AgentHealth::Starting => terminal.paint(Tone::Warning, "starting"),
    };
    let connection = match (&status.server.connected_since, &status.server.trouble) {
        (Some(since), _) => format!("connected since {}", since.whole_second()),
        (None, Some(trouble)) => terminal.paint(Tone::Warning, format!("not connected: {trouble}")),
        (None, None) => "not connected yet".to_owned(),
    };
    let node = status.node.spiffe_id.as_ref().map(ToString::to_string);
    let mut fields = vec![
        ("health", health),
        ("node", node.unwrap_or_else(|| "not proved yet".into())),
        ("valid until", moment(status.node.not_after)),
        ("next rotation", moment(status.node.next_rotation)),
        ("server", format!("{}, {connection}", status.server.address)),
        ("last heard", moment(status.server.last_heard)),
        ("workloads", status.workloads.to_string()),
    ];
    if let Some(trouble) = &status.node.trouble {
        fields.push(("trouble", terminal.paint(Tone::Warning, trouble)));
    }
    let mut text = terminal.fields(fields);
    if !status.identities.is_empty() {
        let header = ["IDENTITY", "SERIAL", "VALID UNTIL", "NEXT ROTATION", "WORKLOADS", "TROUBLE"];
        let rows = status.identities.iter().map(|identity| {
            vec![
                identity.spiffe_id.to_string(),
                identity.serial.map(|serial| serial.to_string()).unwrap_or_else(|| "-".into()),
                moment(identity.not_after),
                moment(identity.next_rotation),
                identity.workloads.to_string(),
                identity.trouble.clone().unwrap_or_default(),
            ]
        });
        text.push('\n');
        text.push_str(&terminal.table(&header, rows));
    }
    if !status.sinks.is_empty() {
        let rows = status.sinks.iter().map(|sink| {
            vec![
                sink.name.clone(),
                sink.in_place.clone().unwrap_or_else(|| "-".into()),
                sink.phase.clone(),
                sink.detail.clone(),
            ]
        });
        text.push('\n');
        text.push_str(&terminal.table(&["SINK", "SERIAL IN PLACE", "PHASE", "TROUBLE"], rows));
    }
    text
}

const EXAMPLES: &str = "\
Examples:
  chancery agent --config /etc/chancery/agent.toml
  chancery agent --server https://ca.example.org:8443 --join-token-file join.token \\
      --state /var/lib/chancery-agent --keep-credential
  chancery agent status";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Command};

    fn parse(arguments: &[&str]) -> Result<Agent, clap::Error> {
        let line = ["chancery", "agent"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| match cli.command {
            Command::Agent(agent) => agent,
            _ => panic!("not an agent"),
        })
    }

    fn mistakes(arguments: &[&str]) -> String {
        let load = parse(arguments).unwrap().flags.source(None);
        match load {
            Ok(load) => load().map(|_| String::new()).unwrap_or_else(|error| error.to_string()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn flags_say_what_the_file_says() {
        let server = ["--server", "https://ca.example.org:8443"];
        let said = |more: &[&str]| mistakes(&[&server, more].concat());
        let pop = ["--x509-pop-cert", "c", "--x509-pop-key", "k"];
        assert_eq!(said(&[&["--trust-bundle", "roots.pem"], &pop[..]].concat()), "");
        assert!(said(&pop).contains("trust_bundle"));
        assert!(said(&["--trust-bundle", "roots.pem"]).contains("evidence"));
        assert!(mistakes(&[]).contains("--config agent.toml"));
    }

    #[test]
    fn flags_go_over_a_file_that_the_shell_exports_and_contradict_one_that_was_typed() {
        let file = Some(Path::new("chancery.toml"));
        let by_flags = parse(&["--server", "https://ca.example.org:8443"]).unwrap().flags;
        assert_eq!(by_flags.file(file, file), None);
        assert_eq!(by_flags.file(file, None), file);
        assert!(by_flags.source(file).err().unwrap().to_string().contains("excludes --server"));
        assert_eq!(parse(&[]).unwrap().flags.file(file, file), file);
    }

    #[test]
    fn evidence_is_of_one_kind_and_whole() {
        assert!(parse(&["--join-token-file", "t", "--x509-pop-cert", "c", "--x509-pop-key", "k"]).is_err());
        assert!(parse(&["--x509-pop-cert", "c"]).is_err());
        assert!(parse(&["--keep-credential"]).is_err());
    }

    #[test]
    fn status_needs_nothing() {
        assert!(matches!(parse(&["status"]).unwrap().command, Some(AgentCommand::Status(_))));
    }

    #[test]
    fn the_fingerprint_in_a_token_is_enough_on_first_contact() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("join.token");
        let token = format!("chancery1.id.secret.{}\n", Digest::of(b"root"));
        std::fs::write(&file, token).unwrap();
        let path = file.display().to_string();
        let arguments = ["--server", "https://ca.example.org:8443", "--join-token-file", &path];
        let raw = parse(&arguments).unwrap().flags.raw().unwrap();
        assert_eq!(raw.fingerprint, Some(Digest::of(b"root").to_string()));
    }
}
