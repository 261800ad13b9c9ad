//! Where local processes knock: a connection is counted, its process pinned, and then it is served.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::authority::Mended;
use super::connection::Connection;
use super::router::Router;
use super::shares::{Place, Shares, User};
use super::socket::Socket;
use crate::workload::Attestor;

/// Lets connections in.
#[derive(Clone)]
pub(crate) struct Porter {
    pub(crate) router: Router,
    pub(crate) attestor: Arc<dyn Attestor>,
    pub(crate) shares: Arc<Shares>,
    pub(crate) tasks: TaskTracker,
    pub(crate) cut: CancellationToken,
}

impl Porter {
    /// Accepts connections on the UNIX socket until the agent stops.
    pub(crate) async fn mind_socket(self, socket: Socket) {
        loop {
            let accepted = tokio::select! {
                accepted = socket.listener.accept() => accepted,
                () = self.router.desk().stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => self.let_in_process(stream),
                Err(error) => self.rest(&error).await,
            }
        }
    }

    /// Accepts connections that nobody can be attested on.
    pub(crate) async fn mind_tcp(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.router.desk().stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => self.let_in_nobody(stream),
                Err(error) => self.rest(&error).await,
            }
        }
    }

    fn let_in_process(&self, stream: UnixStream) {
        let uid = match stream.peer_cred() {
            Ok(credentials) => credentials.uid(),
            Err(error) => {
                tracing::debug!(%error, "the kernel does not say who connected");
                return self.refuse("unknown-peer");
            }
        };
        let Some(place) = self.enter(User::Uid(uid)) else { return };
        match self.attestor.pin(stream.as_fd()) {
            Ok(process) => {
                let connection = Connection { router: self.router.clone(), place, process: Some(process) };
                self.spawn(connection.serve(Mended::new(stream)));
            }
            Err(error) => {
                tracing::debug!(uid, %error, "a process that connected cannot be pinned");
                self.refuse("not-pinned");
            }
        }
    }

    fn let_in_nobody(&self, stream: TcpStream) {
        let Some(place) = self.enter(User::Tcp) else { return };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let connection = Connection { router: self.router.clone(), place, process: None };
        self.spawn(connection.serve(stream));
    }

    fn enter(&self, user: User) -> Option<Place> {
        // Dropping the stream closes it: cheaper for us than any answer.
        self.shares.enter(user).map_err(|full| self.refuse(full.reason())).ok()
    }

    fn refuse(&self, reason: &'static str) {
        self.router.desk().metrics.refuse_connection(reason);
    }

    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = cut.cancelled() => {}
            }
        });
    }

    async fn rest(&self, error: &std::io::Error) {
        // Out of descriptors, mostly: closing connections frees some.
        tracing::warn!(%error, "cannot accept a local connection");
        self.refuse("accept-failed");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// How long accepting rests after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
