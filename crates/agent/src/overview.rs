//! What is known of everything: for status, health and metrics.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::AgentError;
use crate::config::{Config, MetricsAddress};
use crate::console::{self, Scope, View};
use crate::doors::Socket;
use crate::metrics::Metrics;
use crate::node::Standing;
use crate::status::{AgentHealth, AgentStatus, IdentityStatus, NodeStatus, ServerStatus, SinkStatus};
use crate::store::{IdentityStanding, Store};
use crate::stream::Reach;

/// Looks at every part that has begun.
pub(crate) struct Overview {
    server: String,
    pub(crate) metrics: Arc<Metrics>,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    node: Option<watch::Receiver<Standing>>,
    rest: Option<(Arc<Store>, watch::Receiver<Reach>)>,
    sinks: Vec<watch::Receiver<SinkStatus>>,
}

impl Overview {
    pub(crate) fn new(config: &Config) -> Self {
        Self { server: config.server.to_string(), metrics: Arc::new(Metrics::new()), parts: Mutex::default() }
    }

    /// Opens what operators and monitoring look through.
    pub(crate) async fn open_consoles(self: &Arc<Self>, config: &Config) -> Result<JoinSet<()>, AgentError> {
        let mut consoles = JoinSet::new();
        let view = || Arc::clone(self) as Arc<dyn View>;
        let status = Socket::bind(&config.status_socket, 0o600).await?;
        consoles.spawn(console::serve_unix(status, Scope::Operator, view()));
        match &config.metrics {
            None => {}
            Some(MetricsAddress::Unix(path)) => {
                let socket = Socket::bind(path, 0o666).await?;
                consoles.spawn(console::serve_unix(socket, Scope::Monitoring, view()));
            }
            Some(MetricsAddress::Tcp(address)) => {
                let bound = TcpListener::bind(address).await;
                let listener = bound.map_err(|error| AgentError::Bind { address: *address, error })?;
                consoles.spawn(console::serve_tcp(listener, Scope::Monitoring, view()));
            }
        }
        Ok(consoles)
    }

    pub(crate) fn watch_node(&self, node: watch::Receiver<Standing>) {
        self.lock().node = Some(node);
    }

    pub(crate) fn watch_rest(&self, store: Arc<Store>, reach: watch::Receiver<Reach>) {
        self.lock().rest = Some((store, reach));
    }

    pub(crate) fn watch_sinks(&self, sinks: Vec<watch::Receiver<SinkStatus>>) {
        self.lock().sinks = sinks;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View for Overview {
    fn status(&self) -> AgentStatus {
        let parts = self.lock();
        let standing = parts.node.as_ref().map(|node| node.borrow().clone()).unwrap_or_default();
        let reach = parts.rest.as_ref().map(|(_, reach)| reach.borrow().clone()).unwrap_or_default();
        let store = parts.rest.as_ref().map(|(store, _)| Arc::clone(store));
        let sinks: Vec<SinkStatus> = parts.sinks.iter().map(|sink| sink.borrow().clone()).collect();
        drop(parts);
        let identities: Vec<IdentityStatus> =
            store.iter().flat_map(|store| store.standing()).map(identity_status).collect();
        let revision = store.as_ref().and_then(|store| *store.revision().borrow());
        let troubled = standing.trouble.is_some()
            || reach.since.is_none()
            || identities.iter().any(|identity| identity.trouble.is_some())
            || sinks.iter().any(|sink| sink.is_failing);
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            health: match (revision, troubled) {
                (None, _) => AgentHealth::Starting,
                (Some(_), true) => AgentHealth::Degraded,
                (Some(_), false) => AgentHealth::Ok,
            },
            node: node_status(&standing),
            server: ServerStatus {
                address: self.server.clone(),
                connected_since: reach.since,
                last_heard: reach.heard,
                trouble: reach.trouble,
            },
            revision,
            workloads: store.map_or(0, |store| store.workloads()),
            identities,
            sinks,
        }
    }

    fn metrics(&self) -> String {
        self.metrics.text(&self.status())
    }
}

fn node_status(standing: &Standing) -> NodeStatus {
    let credential = standing.credential.as_ref();
    NodeStatus {
        spiffe_id: credential.map(|credential| credential.spiffe_id.clone()),
        serial: credential.map(|credential| credential.serial),
        not_after: credential.map(|credential| credential.not_after),
        next_rotation: standing.renew_at,
        trouble: standing.trouble.clone(),
    }
}

fn identity_status(standing: IdentityStanding) -> IdentityStatus {
    let svid = standing.svid.as_ref();
    IdentityStatus {
        spiffe_id: standing.identity.spiffe_id.clone(),
        serial: svid.map(|svid| svid.serial),
        not_before: svid.map(|svid| svid.not_before),
        not_after: svid.map(|svid| svid.not_after),
        next_rotation: standing.next,
        workloads: standing.workloads,
        trouble: standing.failure.map(|failure| failure.why),
    }
}
