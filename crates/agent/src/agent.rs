//! The agent as a whole: begun, proved, synchronised, serving, stopped.
//!
//! ```text
//! begin    state, status socket
//! prove    trust, link, node                  tried until it works, or is refused for good
//! follow   stream, rotation, node renewal     each a loop of its own
//! serve    once synchronised                  the doors open, the supervisor is told
//! ```

use std::sync::Arc;
use std::time::Duration;

use chancery_types::{Clock, Random};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::Config;
use crate::console::View as _;
use crate::core::Core;
use crate::delivery::Delivery;
use crate::doors::{Doors, DoorsConfig, DoorsError, SocketError};
use crate::identities::Identities;
use crate::link::Link;
use crate::node::{Node, NodeError};
use crate::overview::Overview;
use crate::rotation::Rotation;
use crate::sink::{SinkConfig, SinkSettings};
use crate::state::{Seal, StateDirectory, StateError};
use crate::status::AgentStatus;
use crate::store::Store;
use crate::stream::Follower;
use crate::timing::{Backoff, Pace};
use crate::tokens::Tokens;
use crate::trust::{self, TrustLoadError};
use crate::workload::Attestor;

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// What is kept cannot be sealed.
    #[error("state.sealing_key: {0}")]
    Sealing(String),
    /// A socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// An address cannot be opened.
    #[error("cannot listen on {address}: {error}; choose another address in [status], or stop what uses it")]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The doors do not open.
    #[error(transparent)]
    Doors(#[from] DoorsError),
    /// Nothing verifies the authority.
    #[error(transparent)]
    Trust(#[from] TrustLoadError),
    /// The node was not proved.
    #[error("the node was not proved: {0}")]
    Node(#[from] NodeError),
    /// A loop has ended that never ends.
    #[error("the agent has failed inside: {0}")]
    Internal(String),
}

/// What the world gives an agent.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

/// An agent that has begun.
pub struct Agent {
    config: Config,
    clock: Arc<dyn Clock>,
    overview: Arc<Overview>,
    ready: watch::Receiver<Option<Arc<dyn Identities>>>,
    life: JoinHandle<AgentError>,
    delivery: Delivery,
    consoles: JoinSet<()>,
}

impl Agent {
    /// Begins: opens what can be opened without the authority. The rest happens by itself.
    ///
    /// # Errors
    /// What is wrong on this machine: directories, sockets.
    pub async fn begin(config: Config, environment: Environment) -> Result<Self, AgentError> {
        let state = open_state(&config, &environment.random)?;
        let overview = Arc::new(Overview::new(&config));
        let consoles = overview.open_consoles(&config).await?;
        let (ready, is_ready) = watch::channel(None);
        let delivery = Delivery::new(Arc::clone(&environment.clock), Arc::clone(&environment.random));
        let life = Life {
            config: config.clone(),
            state,
            pace: Pace::new(Arc::clone(&environment.clock)),
            random: environment.random,
            overview: Arc::clone(&overview),
            ready,
        };
        Ok(Self {
            config,
            clock: environment.clock,
            overview,
            ready: is_ready,
            life: tokio::spawn(life.live()),
            delivery,
            consoles,
        })
    }

    /// Waits until workloads can be served, and opens the doors for them.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn open_doors(&mut self, attestor: Arc<dyn Attestor>) -> Result<Doors, AgentError> {
        let identities = self.ready().await?;
        let Some(node) = self.status().node.spiffe_id else {
            return Err(AgentError::Internal("it is ready and does not know who it is".into()));
        };
        let mut doors = DoorsConfig::new(self.config.socket.clone(), node.trust_domain());
        doors.verifiers = self.config.verifiers;
        let mut registry = Registry::default();
        let doors = Doors::bind(doors, identities, attestor, Arc::clone(&self.clock), &mut registry).await?;
        self.overview.metrics.add(registry);
        Ok(doors)
    }

    /// Returns once workloads can be served: the node is proved, and it is known what it may serve.
    ///
    /// # Errors
    /// When that will never be.
    pub async fn ready(&mut self) -> Result<Arc<dyn Identities>, AgentError> {
        loop {
            if let Some(identities) = &*self.ready.borrow_and_update() {
                return Ok(Arc::clone(identities));
            }
            tokio::select! {
                changed = self.ready.changed() => {
                    if changed.is_err() {
                        return Err(ended((&mut self.life).await));
                    }
                }
                end = &mut self.life => return Err(ended(end)),
            }
        }
    }

    /// Runs these sinks from now on, in place of those before; what has not changed is left alone.
    ///
    /// # Errors
    /// [`AgentError`]; a sink that cannot be opened is reported, and the others run.
    pub async fn run_sinks(&mut self, sinks: Vec<(SinkSettings, SinkConfig)>) -> Result<(), AgentError> {
        let identities = self.ready().await?;
        self.delivery.replace(sinks, &identities).await;
        self.overview.watch_sinks(self.delivery.statuses());
        Ok(())
    }

    /// Returns when the agent fails, which it does not.
    pub async fn failed(&mut self) -> AgentError {
        ended((&mut self.life).await)
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        self.overview.status()
    }

    /// Ends it: when this returns its sockets and directories are free. Doors are closed before.
    pub async fn stop(mut self) {
        self.delivery.stop().await;
        self.life.abort();
        if !self.life.is_finished() {
            // It was told to end, and how it ends says nothing.
            let _ = (&mut self.life).await;
        }
        self.consoles.shutdown().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.life.abort();
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Agent").field("status", &self.status()).finish_non_exhaustive()
    }
}

fn open_state(config: &Config, random: &Arc<dyn Random>) -> Result<Option<StateDirectory>, AgentError> {
    let Some(path) = &config.state else { return Ok(None) };
    let state = StateDirectory::open(path)?;
    let Some(key) = &config.sealing_key else { return Ok(Some(state)) };
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(std::path::PathBuf::from);
    let seal = Seal::load(key, credentials.as_deref(), Arc::clone(random));
    Ok(Some(state.sealed_with(seal.map_err(|error| AgentError::Sealing(error.to_string()))?)))
}

fn ended(end: Result<AgentError, tokio::task::JoinError>) -> AgentError {
    end.unwrap_or_else(|error| AgentError::Internal(error.to_string()))
}

/// Everything that happens by itself.
struct Life {
    config: Config,
    state: Option<StateDirectory>,
    pace: Pace,
    random: Arc<dyn Random>,
    overview: Arc<Overview>,
    ready: watch::Sender<Option<Arc<dyn Identities>>>,
}

impl Life {
    async fn live(self) -> AgentError {
        match self.try_to_live().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn try_to_live(self) -> Result<std::convert::Infallible, AgentError> {
        let roots = self.trust().await?;
        let link = Arc::new(Link::new(self.config.server.clone(), &roots).map_err(NodeError::from)?);
        let mut salt = [0; 8];
        // Without randomness this agent's renewals fall together with those of its like.
        let _ = self.random.fill(&mut salt);
        let store = Arc::new(Store::new(roots, self.pace.clone(), self.config.limits, salt));
        let node = Arc::new(Node::new(
            &self.config,
            Arc::clone(&link),
            store.roots(),
            self.state.as_ref(),
            self.pace.clone(),
            Arc::clone(&self.random),
        ));
        self.overview.watch_node(node.standing());
        node.start().await?;

        let tokens = Arc::new(Tokens::new(self.config.limits.tokens));
        let follower = Follower {
            link: Arc::clone(&link),
            node: Arc::clone(&node),
            store: Arc::clone(&store),
            tokens: Arc::clone(&tokens),
            reach: watch::Sender::default(),
            pace: self.pace.clone(),
            random: Arc::clone(&self.random),
        };
        self.overview.watch_rest(Arc::clone(&store), follower.reach.subscribe());
        let rotation = Rotation {
            store: Arc::clone(&store),
            authority: Arc::clone(&link) as _,
            pace: self.pace.clone(),
            random: Arc::clone(&self.random),
            metrics: Arc::clone(&self.overview.metrics),
        };
        let trust = self.config.trust.clone();
        let mut revision = store.revision();
        let core = Core {
            store: Arc::clone(&store),
            tokens,
            authority: Arc::clone(&link) as _,
            pace: self.pace.clone(),
            metrics: Arc::clone(&self.overview.metrics),
        };
        let mut loops = JoinSet::new();
        loops.spawn(trust::follow(trust, self.state.clone(), link, store.roots()));
        loops.spawn(async move { node.run().await });
        loops.spawn(async move { follower.run().await });
        loops.spawn(rotation.run());
        let synchronised = async {
            // The store lives as long as the loops do.
            let _ = revision.wait_for(Option::is_some).await;
            self.ready.send_replace(Some(Arc::new(core)));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = loops.join_next() => Err(AgentError::Internal(match ended {
                Some(Err(error)) => error.to_string(),
                _ => "a loop has come to its end".into(),
            })),
            () = synchronised => unreachable!("it is pending for ever"),
        }
    }

    async fn trust(&self) -> Result<Vec<Vec<u8>>, AgentError> {
        let mut failures = 0;
        loop {
            let error = match trust::load(&self.config, self.state.as_ref()).await {
                Ok(roots) => return Ok(roots),
                Err(error) if !error.is_passing() => return Err(error.into()),
                Err(error) => error,
            };
            failures += 1;
            let wait = BACKOFF.delay(failures, None, &*self.random);
            tracing::warn!(%error, failures, ?wait, "the authority's root was not fetched");
            tokio::time::sleep(wait).await;
        }
    }
}
