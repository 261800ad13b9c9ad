//! `chancery crl-sync`: revocation lists in files, for programs that read them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use chancery_agent::hook::HookSettings;
use chancery_proxy::ConfigError;
use chancery_proxy::crl_sync::{CrlSync, CrlSyncConfig, FileForm, RawCrlSync, RawOutput, Report};
use chancery_proxy::source::RawCredentials;
use chancery_telemetry::TelemetryConfig;
use chancery_types::{HumanDuration, SystemClock};
use clap::{ArgGroup, Args, ValueEnum};

use crate::failure::usage;
use crate::flags::Globals;
use crate::log::{LogFormat, start_log};
use crate::terminal::Terminal;

/// Keeps the revocation lists of every issuer in files, fetched, verified and swapped whole, and has programs read
/// them again.
///
/// Until SIGTERM, or --once. With a client certificate (or the agent's socket) it is woken at every change and tells
/// the authority how far everything is in force; without, it asks every --poll. All is said by --config crl-sync.toml,
/// or by flags for one place.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("place").args(["file", "directory"]))]
#[command(group = ArgGroup::new("reload").args(["reload_command", "reload_unit", "reload_pidfile"]))]
pub(crate) struct CrlSyncCommand {
    /// Look once, say what was done, and end.
    #[arg(long)]
    once: bool,
    /// The authority, as https://host:port.
    #[arg(long, env = "CHANCERY_SERVER", value_name = "URL")]
    server: Option<String>,
    /// Its roots, PEM.
    #[arg(long, env = "CHANCERY_TRUST_BUNDLE", value_name = "FILE")]
    trust_bundle: Option<PathBuf>,
    /// A client certificate, PEM, with which the status feed is followed.
    #[arg(long, env = "CHANCERY_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, env = "CHANCERY_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The agent's socket instead, as unix:///path.
    #[arg(long, value_name = "SOCKET", conflicts_with = "cert")]
    workload_api: Option<String>,
    /// How often to ask when the feed is not there.
    #[arg(long, value_name = "DURATION")]
    poll: Option<HumanDuration>,
    /// Where to serve metrics and health: 127.0.0.1:9467, or unix:/path.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// How long the lists may go without being known to be the newest before it is an alarm.
    #[arg(long, value_name = "DURATION")]
    maximum_age: Option<HumanDuration>,
    /// A file with a list of the root, made where the root is kept. May be given again.
    #[arg(long, value_name = "FILE")]
    also: Vec<PathBuf>,
    /// Put all lists in this file, PEM: for nginx and HAProxy.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Put each list in a file of this directory.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How the files of --directory are named and written.
    #[arg(long, value_enum, value_name = "FORM", default_value_t, requires = "directory")]
    form: Form,
    /// Mode of the files, octal.
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Owner of the files.
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Group of the files.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Run this program after a change; arguments are split at spaces, no shell.
    #[arg(long, value_name = "COMMAND")]
    reload_command: Option<String>,
    /// Have systemd reload this unit after a change.
    #[arg(long, value_name = "UNIT")]
    reload_unit: Option<String>,
    /// Send SIGHUP to the process in this file after a change.
    #[arg(long, value_name = "FILE")]
    reload_pidfile: Option<PathBuf>,
    /// How to write the log to standard error.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

/// How the files of a directory are named and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Form {
    /// PEM, as OpenSSL finds them (-CApath).
    #[default]
    Hashed,
    /// PEM, `<hash>-<n>.crl.pem`.
    Pem,
    /// DER, `<hash>-<n>.crl`.
    Der,
}

impl CrlSyncCommand {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let config = self.config(globals)?;
        let start = || start_log(self.log_format, globals, "chancery-crl-sync", &TelemetryConfig::default());
        let _log = (!self.once).then(start).transpose()?;
        let mut sync = CrlSync::new(config, Arc::new(SystemClock)).await?;
        if self.once {
            let report = sync.once().await?;
            return terminal.data(&report, || text(&report, terminal));
        }
        Ok(sync.run_until_told().await?)
    }

    fn config(&self, globals: &Globals) -> Result<CrlSyncConfig> {
        let file = super::proxy::named_file(globals);
        match (file, self.file.is_some() || self.directory.is_some()) {
            (Some(file), false) => Ok(CrlSyncConfig::load(&file)?),
            (Some(_), true) => {
                Err(usage("say it in the file or by flags: --config excludes --file and --directory"))
            }
            (None, true) => self.by_flags(),
            (None, false) => Err(usage(
                "nothing says where the lists go; give --file FILE, --directory DIR, or --config crl-sync.toml",
            )),
        }
    }

    fn by_flags(&self) -> Result<CrlSyncConfig> {
        let (Some(server), Some(trust_bundle)) = (self.server.clone(), self.trust_bundle.clone()) else {
            return Err(usage(
                "say --server https://host:port and --trust-bundle FILE (or set CHANCERY_SERVER and CHANCERY_TRUST_BUNDLE)",
            ));
        };
        let identity = RawCredentials {
            certificate: self.cert.clone(),
            key: self.key.clone(),
            trust_bundle: None,
            workload_api: self.workload_api.clone(),
            spiffe_id: None,
        };
        let output = RawOutput {
            name: "files".into(),
            file: self.file.clone(),
            directory: self.directory.clone(),
            form: self.directory.as_ref().map(|_| self.form.into()),
            mode: self.mode.clone(),
            owner: self.owner.clone(),
            group: self.group.clone(),
            hook: self.hook()?,
        };
        let raw = RawCrlSync {
            server,
            trust_bundle,
            identity: (identity != RawCredentials::default()).then_some(identity),
            poll: self.poll,
            metrics: self.metrics.clone(),
            maximum_age: self.maximum_age,
            also: self.also.clone(),
            outputs: vec![output],
        };
        let here = std::env::current_dir()?;
        CrlSyncConfig::check(raw, &here)
            .map_err(|mistakes| ConfigError { path: "the command line".into(), mistakes }.into())
    }

    fn hook(&self) -> Result<Option<HookSettings>> {
        let command = self.reload_command.as_ref();
        let hook = HookSettings {
            command: command.map(|line| line.split_whitespace().map(str::to_owned).collect()),
            systemd_unit: self.reload_unit.clone(),
            pidfile: self.reload_pidfile.as_deref().map(std::path::absolute).transpose()?,
            ..HookSettings::default()
        };
        Ok((hook != HookSettings::default()).then_some(hook))
    }
}

/// Checks a configuration.
pub(crate) fn check_config(file: &Path, terminal: &Terminal) -> Result<()> {
    let config = CrlSyncConfig::load(file)?;
    let summary = serde_json::json!({
        "server": config.upstream.server.to_string(),
        "outputs": config.outputs.len(),
    });
    terminal.data(&summary, || format!("{} is in order.", file.display()))
}

fn text(report: &Report, terminal: &Terminal) -> String {
    let rows = report.lists.iter().map(|list| {
        let moments = [list.this_update, list.next_update].map(|moment| moment.to_string());
        let [made, ends] = moments;
        vec![list.issuer.clone(), list.number.to_string(), made, ends, list.entries.to_string()]
    });
    let mut text = terminal.table(&["issuer", "number", "made", "ends", "entries"], rows);
    for output in &report.outputs {
        let what = match (output.changed, output.told) {
            (false, _) => "is as it was",
            (true, true) => "has changed, and its program was told",
            (true, false) => "has changed",
        };
        text.push_str(&format!("\n{} {what}", output.path.display()));
    }
    text
}

impl From<Form> for FileForm {
    fn from(form: Form) -> Self {
        match form {
            Form::Hashed => Self::Hashed,
            Form::Pem => Self::Pem,
            Form::Der => Self::Der,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  chancery crl-sync --server https://ca.example.org:8443 --trust-bundle roots.pem \\
      --file /etc/nginx/crl.pem --reload-pidfile /run/nginx.pid
  chancery crl-sync --config /etc/chancery/crl-sync.toml
  chancery crl-sync --once --directory /etc/ssl/crl --json";
