//! The file sinks of the configuration, running.
//!
//! A sink is no process that could be attested. What the agent claims of it is what an operator configured: the
//! claim `agent.sink` with its name, which an identity asks for by the selector `agent:sink:NAME`. Nothing that a
//! process on the machine can do makes it a sink.

use std::sync::Arc;
use std::time::Duration;

use chancery_types::{Claims, Clock, Random};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::identities::{Identities, X509State};
use crate::sink::{Sink, SinkConfig, SinkSettings};
use crate::status::SinkStatus;
use crate::workload::Workload;

/// Runs sinks.
pub(crate) struct Delivery {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    running: Vec<Running>,
}

struct Running {
    settings: SinkSettings,
    status: watch::Receiver<SinkStatus>,
    task: JoinHandle<()>,
}

impl Delivery {
    pub(crate) fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { clock, random, running: Vec::new() }
    }

    /// Runs these sinks and no others. One that runs already as it is configured goes on.
    pub(crate) async fn replace(
        &mut self,
        sinks: Vec<(SinkSettings, SinkConfig)>,
        identities: &Arc<dyn Identities>,
    ) {
        let mut kept = Vec::new();
        for running in std::mem::take(&mut self.running) {
            if sinks.iter().any(|(settings, _)| *settings == running.settings) {
                kept.push(running);
            } else {
                running.task.abort();
                // Its directory is free once it is gone.
                let _ = running.task.await;
            }
        }
        for (settings, config) in sinks {
            let running = match kept.iter().position(|running| running.settings == settings) {
                Some(index) => kept.swap_remove(index),
                None => self.start(settings, config, Arc::clone(identities)),
            };
            self.running.push(running);
        }
    }

    /// The status of each, in the order of the configuration.
    pub(crate) fn statuses(&self) -> Vec<watch::Receiver<SinkStatus>> {
        self.running.iter().map(|running| running.status.clone()).collect()
    }

    /// Ends all of them. A write under way comes to its end, a hook is killed.
    pub(crate) async fn stop(&mut self) {
        for running in std::mem::take(&mut self.running) {
            running.task.abort();
            // It was told to end, and how it ends says nothing.
            let _ = running.task.await;
        }
    }

    fn start(&self, settings: SinkSettings, config: SinkConfig, identities: Arc<dyn Identities>) -> Running {
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        let (report, status) = watch::channel(SinkStatus::begun(&config));
        let task = tokio::spawn(async move {
            loop {
                match Sink::open(config.clone(), Arc::clone(&clock), Arc::clone(&random)) {
                    Ok(sink) => {
                        let states = identities.x509(&workload(config.name())).await;
                        return follow(sink, states, &report).await;
                    }
                    Err(error) => {
                        tracing::error!(sink = config.name(), %error, "a sink cannot be opened");
                        report.send_modify(|status| status.cannot_open(&error.to_string()));
                    }
                }
                tokio::time::sleep(OPEN_AGAIN).await;
            }
        });
        Running { settings, status, task }
    }
}

/// How long until a directory is looked at again that could not be used.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// Runs a sink and passes on what it says of itself.
async fn follow(sink: Sink, states: watch::Receiver<Arc<X509State>>, report: &watch::Sender<SinkStatus>) {
    let mut status = sink.status();
    let passing_on = async {
        loop {
            let said = SinkStatus::from(&*status.borrow_and_update());
            report.send_replace(said);
            if status.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::join!(sink.run(states), passing_on);
}

impl Drop for Delivery {
    fn drop(&mut self) {
        for running in &self.running {
            running.task.abort();
        }
    }
}

/// What a sink is, to whoever decides what it may have.
fn workload(name: &str) -> Workload {
    let mut claims = Claims::new();
    claims.insert("agent.sink", name);
    Workload { pid: std::process::id(), claims }
}
