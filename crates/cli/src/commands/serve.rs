//! `chancery serve` and `chancery check-config`: running the authority.

use anyhow::Result;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::authority_side;
use crate::flags::Globals;
use crate::log::{LogFormat, start_log};
use crate::place;
use crate::terminal::{Terminal, Tone};

/// Runs the authority until SIGTERM. SIGHUP reads profiles and policy anew, all or nothing.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Start although the root's key can be read from here: for a laptop that matters to nobody.
    #[arg(long)]
    allow_online_root: bool,
    /// How to write the log to standard error; what happens is chosen by $CHANCERY_LOG or -v.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

/// Says everything that is wrong with a configuration, its profiles and its policy, at once.
#[derive(Debug, Args)]
pub(crate) struct CheckConfig {
    /// An agent's configuration instead: agent.toml, or the directory that holds it.
    #[arg(long, value_name = "PATH")]
    agent: Option<std::path::PathBuf>,
    /// The configuration of `chancery crl-sync` instead.
    #[arg(long, value_name = "FILE", conflicts_with = "agent")]
    crl_sync: Option<std::path::PathBuf>,
    /// The configuration of `chancery proxy` instead.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["agent", "crl_sync"])]
    proxy: Option<std::path::PathBuf>,
    /// The configuration of `chancery authz` instead.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["agent", "crl_sync", "proxy"])]
    authz: Option<std::path::PathBuf>,
}

impl Serve {
    pub(crate) async fn run(&self, globals: &Globals) -> Result<()> {
        let config = place::required(globals.config.as_deref())?;
        let authority = authority_side::load(&config)?;
        let _log = start_log(self.log_format, globals, "chancery-server", authority.telemetry())?;
        raise_descriptors();
        authority_side::serve(authority, self.allow_online_root, |api, status| {
            tracing::info!(%api, %status, config = %config.display(), "serving");
        })
        .await
    }
}

impl CheckConfig {
    pub(crate) fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        if let Some(agent) = &self.agent {
            return super::agent::check_config(agent, terminal);
        }
        if let Some(sync) = &self.crl_sync {
            return super::crl_sync::check_config(sync, terminal);
        }
        if let Some(proxy) = &self.proxy {
            return super::proxy::check_proxy(proxy, terminal);
        }
        if let Some(authz) = &self.authz {
            return super::proxy::check_authz(authz, terminal);
        }
        let config = place::required(globals.config.as_deref())?;
        let summary = authority_side::check_config(&config)?;
        terminal.data(&summary, || {
            let verdict = terminal.paint(Tone::Good, format!("{} is in order.", config.display()));
            format!("{verdict}\n")
                + &terminal.fields([
                    ("trust domain", summary.trust_domain.clone()),
                    ("names", summary.names.join(", ")),
                    ("API", summary.api.to_string()),
                    ("status", summary.status.to_string()),
                    ("profiles", summary.profiles.join(", ")),
                    ("policies", summary.policies.join(", ")),
                ])
        })
    }
}

/// Has as many files and connections open as the system allows: thousands follow the feed, and the usual soft limit is
/// for programs that use `select`.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}
