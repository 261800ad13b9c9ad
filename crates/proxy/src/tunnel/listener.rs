//! One listener: takes connections while there is room, and lets them end when it is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{Limits, ListenerConfig, RawListener};
use super::connection::{Failure, Open, Settings, from};
use super::metrics::{Metrics, OfEnd, OfListener};
use super::relay::Passed;
use super::socket::{Listening, Socket};
use crate::source::SharedSource;

/// An open listener. Its connections outlive it until they are cut.
pub(super) struct Listener {
    pub(super) raw: RawListener,
    settings: watch::Sender<Arc<Settings>>,
    address: Option<SocketAddr>,
    close: CancellationToken,
}

/// What all listeners of a process share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) source: SharedSource,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: TaskTracker,
    /// Ends every connection.
    pub(super) cut: CancellationToken,
}

impl Listener {
    /// Begins to listen.
    pub(super) async fn open(
        raw: RawListener,
        config: ListenerConfig,
        limits: Limits,
        common: &Common,
    ) -> std::io::Result<Self> {
        let listening = Listening::at(&config.listen).await?;
        let address = listening.address();
        let settings = Settings::new(config, limits, common.source.clone());
        let (settings, current) = watch::channel(Arc::new(settings));
        let close = CancellationToken::new();
        let room = Arc::new(Semaphore::new(limits.connections));
        common.tasks.spawn(accept(listening, current, room, close.clone(), common.clone()));
        Ok(Self { raw, settings, address, close })
    }

    /// Goes on with another configuration that listens at the same place. Connections whose peers it does not allow
    /// end.
    pub(super) fn change(
        &mut self,
        raw: RawListener,
        config: ListenerConfig,
        limits: Limits,
        common: &Common,
    ) {
        self.raw = raw;
        self.settings.send_replace(Arc::new(Settings::new(config, limits, common.source.clone())));
    }

    /// Where it listens, with the port that the system chose.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close.cancel();
    }
}

async fn accept(
    listening: Listening,
    settings: watch::Receiver<Arc<Settings>>,
    room: Arc<Semaphore>,
    close: CancellationToken,
    common: Common,
) {
    loop {
        // Without room nothing is accepted: clients wait in the kernel's queue.
        let permit = tokio::select! {
            () = close.cancelled() => return,
            permit = Arc::clone(&room).acquire_owned() => permit.expect("it is never closed"),
        };
        let socket = tokio::select! {
            () = close.cancelled() => return,
            socket = listening.accept() => socket,
        };
        match socket {
            Ok(socket) => drop(common.tasks.spawn(serve(socket, settings.clone(), permit, common.clone()))),
            Err(error) => {
                // Out of descriptors, or a client that was gone already.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(
    socket: Socket,
    mut settings: watch::Receiver<Arc<Settings>>,
    _permit: OwnedSemaphorePermit,
    common: Common,
) {
    let current = Arc::clone(&settings.borrow_and_update());
    let listener = current.config.name.clone();
    let labels = OfListener { listener: listener.clone() };
    common.metrics.accepted.get_or_create(&labels).inc();
    common.metrics.open.get_or_create(&labels).inc();
    let (source, passed) = (from(socket.addresses()), Arc::new(Passed::default()));
    let work = async {
        let open = current.open(socket).await?;
        let (client, server) = open.peers();
        tracing::debug!(
            listener,
            source,
            client = client.map(tracing::field::display),
            server = server.map(tracing::field::display),
            "connected"
        );
        pass_on(open, &current, &passed, settings).await
    };
    let end = tokio::select! {
        end = work => end,
        () = common.cut.cancelled() => Err(Failure::Drained),
    };
    common.metrics.open.get_or_create(&labels).dec();
    common.metrics.up.get_or_create(&labels).inc_by(passed.up.load(Ordering::Relaxed));
    common.metrics.down.get_or_create(&labels).inc_by(passed.down.load(Ordering::Relaxed));
    let word = end.as_ref().err().map_or("done", Failure::word);
    common.metrics.ended.get_or_create(&OfEnd { listener: listener.clone(), end: word }).inc();
    match end {
        Ok(()) => tracing::debug!(listener, source, "done"),
        Err(error) if error.is_ours() => {
            tracing::warn!(listener, source, end = word, %error, "no connection")
        }
        Err(error) => tracing::info!(listener, source, end = word, %error, "connection ended"),
    }
}

/// Passes on until the end, or until a new configuration does not allow a peer.
async fn pass_on(
    open: Open,
    current: &Settings,
    passed: &Arc<Passed>,
    mut settings: watch::Receiver<Arc<Settings>>,
) -> Result<(), Failure> {
    let (client, server) = open.peers();
    let (client, server) = (client.cloned(), server.cloned());
    let mut relaying = std::pin::pin!(open.relay(passed, current.limits));
    loop {
        let changed = tokio::select! {
            end = &mut relaying => return end,
            changed = settings.changed() => changed,
        };
        if changed.is_err() {
            // The listener is closed; its connections may finish.
            return relaying.await;
        }
        let now = Arc::clone(&settings.borrow_and_update());
        for (peer, allowed) in [(&client, &now.config.clients), (&server, &now.config.servers)] {
            if let Some(peer) = peer
                && !allowed.as_ref().is_some_and(|allowed| allowed.allows(peer))
            {
                return Err(Failure::NotAllowed(peer.clone()));
            }
        }
    }
}

/// How long to wait when the system cannot give another connection.
const PAUSE: Duration = Duration::from_millis(50);
