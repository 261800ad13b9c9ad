//! The agent as a process: signals, the supervisor, and what is open between begin and end.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::attest::LinuxAttestor;
use crate::config::{Config, ConfigError};
use crate::notify::Supervisor;
use crate::{Agent, AgentError, Environment};

/// How long streams and calls under way may take once the agent is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The agent does not run.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The operating system does not deliver signals.
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Stop,
    Reload,
}

/// The signals that mean something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Runs an agent until SIGTERM or SIGINT. SIGHUP reads the configuration again.
///
/// # Errors
/// [`DaemonError`].
pub async fn run(
    load: impl Fn() -> Result<Config, ConfigError>,
    environment: Environment,
) -> Result<(), DaemonError> {
    let supervisor = Supervisor::from_environment();
    let mut signals = Signals::new().map_err(DaemonError::Signals)?;
    let mut config = load()?;
    let attestor = Arc::new(LinuxAttestor::new(config.attestor.clone()));
    let mut agent = Agent::begin(config.clone(), environment).await?;
    supervisor.status("proving the node to the authority");
    // The watchdog is fed from here on: waiting for an authority that is away is no failure of ours.
    let doors = tokio::select! {
        doors = agent.open_doors(Arc::clone(&attestor) as _) => doors?,
        () = signals.stop() => return Ok(()),
        () = feed(&supervisor) => unreachable!("the watchdog is fed for ever"),
    };
    agent.run_sinks(config.sinks.clone()).await?;
    tracing::info!(socket = %doors.path().display(), "serving workloads");
    supervisor.ready("serving workloads");
    loop {
        let wish = tokio::select! {
            error = agent.failed() => return Err(error.into()),
            wish = signals.next() => wish,
            () = feed(&supervisor) => unreachable!("the watchdog is fed for ever"),
        };
        match wish {
            Wish::Stop => break,
            Wish::Reload => {
                supervisor.reloading();
                reload(&mut agent, &attestor, &mut config, &load).await?;
                supervisor.ready("serving workloads");
            }
        }
    }
    supervisor.stopping();
    tracing::info!("stopping: finishing what is under way");
    doors.close(DRAIN).await;
    agent.stop().await;
    Ok(())
}

/// Sinks with their hooks, and how processes are attested, are replaced by what the file says, and the level of the log
/// by whoever reads it; for everything else the agent has to be started anew, which it says.
async fn reload(
    agent: &mut Agent,
    attestor: &LinuxAttestor,
    running: &mut Config,
    load: &impl Fn() -> Result<Config, ConfigError>,
) -> Result<(), DaemonError> {
    let config = match load() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "the configuration is wrong; the one in force stays");
            return Ok(());
        }
    };
    for (what, is_same) in [
        ("server", config.server == running.server),
        ("trust", config.trust == running.trust),
        ("evidence", config.evidence == running.evidence),
        (
            "state",
            (&config.state, config.credential, &config.sealing_key)
                == (&running.state, running.credential, &running.sealing_key),
        ),
        ("workload_api", config.socket == running.socket && config.verifiers == running.verifiers),
        ("status", config.status_socket == running.status_socket && config.metrics == running.metrics),
        ("limits", config.limits == running.limits),
    ] {
        if !is_same {
            tracing::warn!(what, "has changed and needs a restart");
        }
    }
    if config.attestation != running.attestation {
        attestor.replace(config.attestor.clone());
        running.attestation = config.attestation;
        tracing::info!("those who connect from now on are attested as the file says now");
    }
    agent.run_sinks(config.sinks).await?;
    tracing::info!("the configuration was read again; sinks, hooks, attestation and log level are in force");
    Ok(())
}

/// Shows the supervisor that the runtime turns.
async fn feed(supervisor: &Supervisor) {
    match supervisor.watchdog() {
        None => std::future::pending().await,
        Some(every) => loop {
            supervisor.alive();
            tokio::time::sleep(every).await;
        },
    }
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}
