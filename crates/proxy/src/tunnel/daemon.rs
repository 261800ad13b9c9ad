//! The proxy as a process: signals, the supervisor, and what is open between begin and end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use chancery_agent::notify::Supervisor;
use chancery_api::RelyingPartyKind;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::config::ProxyConfig;
use super::listener::{Common, Listener};
use super::metrics::Metrics;
use crate::console::{self, Console};
use crate::mistakes::ConfigError;
use crate::signals::{Signals, Wish, feed};
use crate::source::{SharedSource, SourceError};

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is nothing to judge peers by.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It cannot listen.
    #[error("cannot listen at {place}: {error}")]
    Listen {
        /// Where.
        place: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The operating system does not deliver signals.
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
}

/// A running proxy.
pub struct Running {
    config: ProxyConfig,
    common: Common,
    listeners: HashMap<String, Listener>,
    _console: Option<AbortOnDropHandle<()>>,
}

/// Runs a proxy until SIGTERM or SIGINT, and then until its connections are done or the time for that is over. SIGHUP
/// reads the configuration again: listeners are opened, changed and closed, and open connections go on.
///
/// # Errors
/// [`ProxyError`].
pub async fn run(load: impl Fn() -> Result<ProxyConfig, ConfigError>) -> Result<(), ProxyError> {
    let supervisor = Supervisor::from_environment();
    let mut signals = Signals::new().map_err(ProxyError::Signals)?;
    let mut running = tokio::select! {
        running = Running::start(load()?) => running?,
        () = signals.stop() => return Ok(()),
        () = feed(&supervisor) => unreachable!("the watchdog is fed for ever"),
    };
    supervisor.ready("passing connections on");
    loop {
        let wish = tokio::select! {
            wish = signals.next() => wish,
            () = feed(&supervisor) => unreachable!("the watchdog is fed for ever"),
        };
        match wish {
            Wish::Stop => break,
            Wish::Reload => {
                supervisor.reloading();
                match load() {
                    Ok(config) => running.change(config).await,
                    Err(error) => {
                        tracing::error!(%error, "the configuration is wrong; the one in force stays")
                    }
                }
                supervisor.ready("passing connections on");
            }
        }
    }
    supervisor.stopping();
    tracing::info!("stopping: connections under way may finish");
    tokio::select! {
        () = running.stop() => {}
        () = signals.stop() => tracing::warn!("told again: connections are cut"),
    }
    Ok(())
}

impl Running {
    /// Obtains credentials, learns the status of certificates, and opens all listeners.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub async fn start(config: ProxyConfig) -> Result<Self, ProxyError> {
        let source = Arc::new(config.source.start(RelyingPartyKind::Proxy, "proxy").await?);
        let common = Common {
            source,
            metrics: Arc::new(Metrics::new()),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
        };
        let console = match &config.metrics {
            None => None,
            Some(address) => {
                let console =
                    Arc::new(Status { source: common.source.clone(), metrics: common.metrics.clone() });
                let fail = |error| ProxyError::Listen { place: address.to_string(), error };
                Some(console::serve(address, console).await.map_err(fail)?)
            }
        };
        let mut running = Self { config, common, listeners: HashMap::new(), _console: console };
        for (raw, config) in running.config.listeners.clone() {
            let fail = |error| ProxyError::Listen { place: config.listen.to_string(), error };
            let (name, limits) = (config.name.clone(), running.config.limits);
            let listener =
                Listener::open(raw, config.clone(), limits, &running.common).await.map_err(fail)?;
            tracing::info!(listener = name, listen = %config.listen, to = %config.to, "listening");
            running.listeners.insert(name, listener);
        }
        Ok(running)
    }

    /// Waits until everything is known of status that there is to know.
    pub async fn ready(&self) {
        self.common.source.ready().await;
    }

    /// Where a listener listens, with the port that the system chose.
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.listeners.get(listener)?.address()
    }

    /// Takes another configuration over. What cannot be taken over is said in the log.
    pub async fn change(&mut self, config: ProxyConfig) {
        if !config.source.is_same(&self.config.source) || config.metrics != self.config.metrics {
            tracing::warn!(
                "authority, identity, status or metrics have changed and need a restart; listeners are taken over now"
            );
        }
        if config.limits.connections != self.config.limits.connections {
            tracing::warn!("limits.connections has changed; it counts for listeners opened from now on");
        }
        let same_limits = config.limits == self.config.limits;
        let mut before = std::mem::take(&mut self.listeners);
        // Those that are gone are closed first: another may want the place.
        before.retain(|_, listener| {
            config
                .listeners
                .iter()
                .any(|(raw, _)| raw.name == listener.raw.name && raw.listen == listener.raw.listen)
        });
        for (raw, checked) in &config.listeners {
            let listener = match before.remove(&raw.name) {
                Some(listener) if same_limits && listener.raw == *raw => Ok(listener),
                Some(mut listener) => {
                    listener.change(raw.clone(), checked.clone(), config.limits, &self.common);
                    Ok(listener)
                }
                None => Listener::open(raw.clone(), checked.clone(), config.limits, &self.common).await,
            };
            match listener {
                Ok(listener) => drop(self.listeners.insert(raw.name.clone(), listener)),
                Err(error) => {
                    tracing::error!(listener = raw.name, %error, "cannot listen at {}", checked.listen)
                }
            }
        }
        tracing::info!(listeners = self.listeners.len(), "the configuration was read again");
        let source = self.config.source.clone();
        self.config = ProxyConfig { source, ..config };
    }

    /// Closes the listeners and waits for the connections, which are cut after the drain time.
    pub async fn stop(self) {
        drop(self.listeners);
        self.common.tasks.close();
        if tokio::time::timeout(self.config.limits.drain, self.common.tasks.wait()).await.is_err() {
            self.common.cut.cancel();
            self.common.tasks.wait().await;
        }
    }

    /// What Prometheus reads.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.common.metrics.text(&self.common.source)
    }
}

struct Status {
    source: SharedSource,
    metrics: Arc<Metrics>,
}

impl Console for Status {
    fn metrics(&self) -> String {
        self.metrics.text(&self.source)
    }

    fn trouble(&self) -> Option<String> {
        (!self.source.is_fresh()).then(|| "the status of certificates is not known well enough".to_owned())
    }
}
