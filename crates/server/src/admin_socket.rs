//! The door for whoever owns the server's account on this machine: a UNIX socket, no TLS.
//!
//! The file's permissions keep others out, and the kernel says who is connected (SO_PEERCRED), so that a
//! socket whose permissions were changed by mistake still answers its owner and root alone.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use tokio::net::{UnixListener, UnixStream};

use crate::activity::ConnectionTimeouts;
use crate::host::{Host, Protocol};
use crate::metrics::Metrics;
use crate::{ListenerLimits, Peer, Shutdown};

/// A bound admin socket that does not accept connections yet. The file is removed when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    socket: UnixListener,
    path: PathBuf,
    allowed: Vec<u32>,
    timeouts: ConnectionTimeouts,
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Something that is not a socket has the path.
    #[error("{0} exists and is not a socket; move it away or configure another path")]
    NotASocket(PathBuf),
    /// Another server answers there.
    #[error("another server answers on {0}; stop it or configure another path")]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("cannot make the admin socket {path}: {source}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl AdminSocket {
    /// Makes the socket, with permissions 0600. A file that a server left behind when it was killed is
    /// replaced.
    ///
    /// # Errors
    /// [`AdminSocketError`].
    pub async fn bind(path: &Path) -> Result<Self, AdminSocketError> {
        remove_leftover(path).await?;
        let failed = |source| AdminSocketError::Io { path: path.to_owned(), source };
        // A copy of an authority's directory may come without it.
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        // Made under another name and moved into place once it is closed to others.
        let hidden = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&hidden);
        let socket = UnixListener::bind(&hidden).map_err(failed)?;
        std::fs::set_permissions(&hidden, PermissionsExt::from_mode(0o600)).map_err(failed)?;
        std::fs::rename(&hidden, path).map_err(failed)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            allowed: vec![0, rustix::process::geteuid().as_raw()],
            timeouts: ListenerLimits::default().timeouts,
        })
    }

    /// Accepts connections in a task of its own until the server stops.
    pub fn start(self, router: Router, metrics: Arc<Metrics>, shutdown: &Shutdown) {
        let host = Host { router, timeouts: self.timeouts, metrics, shutdown: shutdown.clone() };
        shutdown.spawn(self.accept(host));
    }

    async fn accept(self, host: Host) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = host.shutdown.begun() => return,
            };
            match accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream))) {
                Ok((uid, stream)) if self.allowed.contains(&uid) => {
                    host.shutdown.spawn(visit(host.clone(), stream, uid));
                }
                Ok((uid, _)) => {
                    tracing::warn!(uid, "a user without permission connected to the admin socket");
                    host.metrics.refused_connection("admin-user");
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the admin socket");
                    host.metrics.refused_connection("accept-failed");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove the admin socket");
        }
    }
}

async fn visit(host: Host, stream: UnixStream, uid: u32) {
    host.serve(stream, Protocol::Http1, Peer::Admin { uid }).await;
}

async fn remove_leftover(path: &Path) -> Result<(), AdminSocketError> {
    let failed = |source| AdminSocketError::Io { path: path.to_owned(), source };
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !kind.is_socket() {
        return Err(AdminSocketError::NotASocket(path.to_owned()));
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(AdminSocketError::InUse(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Extension;
    use axum::routing::get;
    use chancery_client::{Client, ClientError, RetryPolicy};

    use super::*;
    use crate::Drained;

    fn router() -> Router {
        Router::new().route(
            "/v1/healthz",
            get(|Extension(peer): Extension<Peer>| async move {
                let Peer::Admin { uid } = peer else { panic!("not the admin socket") };
                format!(r#"{{"state":"ok","version":"{uid}"}}"#)
            }),
        )
    }

    fn client(path: &Path) -> Client {
        let endpoint = format!("unix:{}", path.display()).parse().unwrap();
        Client::builder(endpoint).retry(RetryPolicy::never()).build().unwrap()
    }

    #[tokio::test]
    async fn serves_its_owner_and_is_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let shutdown = Shutdown::new();
        AdminSocket::bind(&path).await.unwrap().start(router(), Arc::default(), &shutdown);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let health = client(&path).healthz().await.unwrap();
        assert_eq!(health.version, rustix::process::geteuid().as_raw().to_string());
        assert_eq!(shutdown.finish(Duration::from_secs(5)).await, Drained::Completely);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn refuses_users_who_are_not_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let shutdown = Shutdown::new();
        let mut socket = AdminSocket::bind(&path).await.unwrap();
        socket.allowed = vec![u32::MAX];
        let metrics = Arc::new(Metrics::new());
        socket.start(router(), Arc::clone(&metrics), &shutdown);
        let refused = client(&path).healthz().await;
        assert!(matches!(refused, Err(ClientError::Broken { .. } | ClientError::Connect { .. })));
        assert!(metrics.encode().contains("chancery_connections_refused_total{reason=\"admin-user\"} 1"));
    }

    #[tokio::test]
    async fn replaces_what_a_killed_server_left_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed server leaves its socket behind");
        let first = AdminSocket::bind(&path).await.unwrap();
        assert!(matches!(AdminSocket::bind(&path).await, Err(AdminSocketError::InUse(_))));
        drop(first);
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(AdminSocket::bind(&path).await, Err(AdminSocketError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let below = directory.path().join("missing/admin.sock");
        drop(AdminSocket::bind(&below).await.unwrap());
        assert!(below.parent().unwrap().is_dir(), "its directory is made");
        std::fs::write(directory.path().join("file"), "precious").unwrap();
        let nowhere = directory.path().join("file/admin.sock");
        assert!(matches!(AdminSocket::bind(&nowhere).await, Err(AdminSocketError::Io { .. })));
    }
}
