//! A UNIX socket that appears with its permissions already right, and replaces one that a crash left behind.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// A socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}: {why}")]
pub struct SocketError {
    /// Where.
    pub path: String,
    /// Why not.
    pub why: String,
}

/// A listening socket; its file is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at this path with this mode.
    pub(crate) async fn bind(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let error = |why: String| SocketError { path: path.display().to_string(), why };
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(error("something that is no socket lies there".into()));
            }
            if UnixStream::connect(path).await.is_ok() {
                return Err(error("another program listens there; does an agent run already?".into()));
            }
        }
        let listener = bind_beside(path, mode).map_err(|cause| error(cause.to_string()))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Bound under another name, given its mode, and only then renamed: nobody meets it with the wrong one.
fn bind_beside(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
    fs::rename(&temporary, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_a_dead_socket_and_refuses_a_living_one() {
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("run/agent.sock");
        fs::create_dir(around.path().join("run")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Socket::bind(&path, 0o600).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = Socket::bind(&path, 0o600).await.unwrap_err().to_string();
        assert!(refused.contains("another program"), "{refused}");
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert!(Socket::bind(&path, 0o600).await.unwrap_err().to_string().contains("no socket"));
    }
}
