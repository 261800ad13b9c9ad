//! The doors through which local processes get their identities: the SPIFFE Workload API and Envoy's SDS, on one
//! UNIX socket.
//!
//! A connection's process is pinned when it is accepted, attested at every call and again before anything new is
//! given out on a stream; a stream ends at once when its process exits or becomes another program. What a process is
//! entitled to, the doors ask [`Identities`]; what it is, they ask [`Attestor`]. They keep nothing themselves.
//!
//! Anybody on the machine may connect, so everything that a caller can hold has a bound, for each user and in all:
//! connections, calls, bytes, attestations under way, and the time in which nothing happens.
//!
//! [`Identities`]: crate::identities::Identities
//! [`Attestor`]: crate::workload::Attestor

mod authority;
mod config;
mod connection;
mod listener;
mod metrics;
mod router;
mod shares;
mod socket;
mod subscription;
mod visit;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_types::Clock;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{DoorLimits, DoorsConfig, Profile, Verifiers};
pub(crate) use socket::Socket;
pub use socket::SocketError;

use crate::identities::Identities;
use crate::workload::Attestor;
use listener::Porter;
use metrics::DoorMetrics;
use router::Router;
use shares::Shares;
use visit::Desk;

pub(crate) use shares::Charge;
pub(crate) use subscription::{Messages, Subscription, View};
pub(crate) use visit::{Desk as DoorDesk, Visit};

/// Open doors. Dropping them stops accepting and cuts everybody off; [`Doors::close`] is kinder.
#[derive(Debug)]
pub struct Doors {
    path: PathBuf,
    tcp_address: Option<SocketAddr>,
    stopping: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

/// Why the doors do not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorsError {
    /// The UNIX socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Other machines would reach the agent.
    #[error("{0} is not a loopback address; the Workload API is for this machine only")]
    NotLoopback(SocketAddr),
    /// Nobody could be given anything over TCP.
    #[error(
        "nobody is attested over TCP, so it serves bundles only, and only if every process may have them: allow \
         unauthenticated verifiers, or configure no TCP address"
    )]
    TcpServesNobody,
    /// The TCP address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl Doors {
    /// Opens the doors: when this returns, processes can connect. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`DoorsError`].
    pub async fn bind(
        mut config: DoorsConfig,
        identities: Arc<dyn Identities>,
        attestor: Arc<dyn Attestor>,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Self, DoorsError> {
        config.limits.connections = affordable_connections(config.limits.connections);
        let tcp = match config.dangerous_unattested_tcp {
            Some(address) => Some(listen(address, config.verifiers).await?),
            None => None,
        };
        let socket = Socket::bind(&config.socket, config.socket_mode).await?;
        let (stopping, cut, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let doors = Self {
            path: socket.path().to_owned(),
            tcp_address: tcp.as_ref().and_then(|listener| listener.local_addr().ok()),
            stopping: stopping.clone(),
            cut: cut.clone(),
            tasks: tasks.clone(),
        };
        let shares = Shares::new(config.limits);
        let metrics = DoorMetrics::register(registry);
        let desk = Arc::new(Desk { config, identities, clock, metrics, stopping });
        let porter = Porter { router: Router::new(desk), attestor, shares, tasks, cut };
        if let Some(listener) = tcp {
            doors.tasks.spawn(porter.clone().mind_tcp(listener));
        }
        doors.tasks.spawn(porter.mind_socket(socket));
        Ok(doors)
    }

    /// Where the UNIX socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the TCP door is, if there is one.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp_address
    }

    /// Accepts nobody any more, ends streams with `Unavailable`, lets calls finish, and after `deadline` cuts off what
    /// is left.
    pub async fn close(self, deadline: Duration) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::info!(left = self.tasks.len(), "local connections are cut off");
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.stopping.cancel();
        self.cut.cancel();
    }
}

async fn listen(address: SocketAddr, verifiers: Verifiers) -> Result<TcpListener, DoorsError> {
    if !address.ip().is_loopback() {
        return Err(DoorsError::NotLoopback(address));
    }
    if verifiers == Verifiers::Entitled {
        return Err(DoorsError::TcpServesNobody);
    }
    TcpListener::bind(address).await.map_err(|source| DoorsError::Tcp { address, source })
}

/// A connection takes a descriptor and its pinned process takes some more; three quarters are for those, and for what
/// else the agent does.
fn affordable_connections(wanted: usize) -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let affordable = files.map_or(wanted, |files| usize::try_from(files / 4).unwrap_or(wanted));
    if affordable < wanted {
        tracing::warn!(
            wanted,
            affordable,
            "fewer local connections than configured: raise the limit of open files"
        );
    }
    affordable.min(wanted)
}
