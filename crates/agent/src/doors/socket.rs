//! A UNIX socket that nobody else can put another in the place of.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// A bound socket. Its file is removed when it is dropped, unless another has taken the path.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    file: SocketFile,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path is relative, or has no directory.
    #[error("{0} is not an absolute path of a file; SPIFFE clients need one")]
    Path(PathBuf),
    /// Others could replace the socket with one of theirs.
    #[error(
        "{directory} can be written by others (mode {mode:04o}, owner {owner}), who could put a socket of theirs in \
         the place of the agent's; use a directory that only root or the agent's user can write, such as \
         /run/chancery"
    )]
    Directory {
        /// The directory of the socket, or one above it.
        directory: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// Something that is not a socket has the path.
    #[error("{0} exists and is not a socket; move it away or configure another path")]
    NotASocket(PathBuf),
    /// A socket of another user has the path.
    #[error("{0} belongs to another user; remove it or configure another path")]
    NotOurs(PathBuf),
    /// Another agent answers there.
    #[error("another agent answers on {0}; stop it or configure another path")]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("cannot make the socket {path}: {source}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Socket {
    /// Makes the socket, and its directory (0755) where that is missing. A socket that a killed agent left behind is
    /// replaced.
    pub(crate) async fn bind(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(SocketError::Path(path.to_owned()));
        };
        if !path.is_absolute() {
            return Err(SocketError::Path(path.to_owned()));
        }
        match std::fs::DirBuilder::new().mode(0o755).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        // What is checked is what is used: no symbolic link is left in it.
        let directory = directory.canonicalize().map_err(failed)?;
        check_directories(&directory)?;
        let path = directory.join(name);
        remove_leftover(&path).await?;
        // Made under another name and moved into place once its permissions are right.
        let hidden = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).map_err(failed)?;
        std::fs::set_permissions(&hidden, PermissionsExt::from_mode(mode)).map_err(failed)?;
        let file = SocketFile { identity: identity(&hidden).map_err(failed)?, path };
        std::fs::rename(&hidden, &file.path).map_err(failed)?;
        Ok(Self { listener, file })
    }

    /// Where it is, without symbolic links.
    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }
}

/// The file of a socket.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A newer agent may have taken the path over already.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Refuses a path in which somebody else could rename things. A sticky directory (`/tmp`) is good enough: there,
/// only owners rename.
fn check_directories(directory: &Path) -> Result<(), SocketError> {
    let ours = rustix::process::geteuid().as_raw();
    for (depth, ancestor) in directory.ancestors().enumerate() {
        let metadata = std::fs::metadata(ancestor)
            .map_err(|source| SocketError::Io { path: ancestor.to_owned(), source })?;
        let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
        let sticky = mode & 0o1000 != 0;
        // Further up, a group that may write is what many distributions give every user's home.
        let writers = if depth == 0 { 0o022 } else { 0o002 };
        if (mode & writers != 0 && !sticky) || (owner != 0 && owner != ours) {
            return Err(SocketError::Directory { directory: ancestor.to_owned(), mode, owner });
        }
    }
    Ok(())
}

async fn remove_leftover(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(SocketError::NotOurs(path.to_owned()));
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[tokio::test]
    async fn makes_a_socket_that_anybody_may_use_and_removes_it_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/agent.sock");
        let socket = Socket::bind(&path, 0o777).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o022, 0);
        drop(socket);
        assert!(!path.exists());
        let private = Socket::bind(&path, 0o600).await.unwrap();
        assert_eq!(std::fs::metadata(private.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn replaces_what_a_killed_agent_left_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Socket::bind(&path, 0o777).await.unwrap();
        assert!(matches!(Socket::bind(&path, 0o777).await, Err(SocketError::InUse(_))));
        drop(first);
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path, 0o777).await, Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn leaves_a_socket_alone_that_a_newer_agent_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let old = Socket::bind(&path, 0o777).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let _new = Socket::bind(&path, 0o777).await.unwrap();
        drop(old);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn refuses_a_directory_in_which_others_can_rename_things() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("agent.sock");
        for mode in [0o777, 0o775, 0o757] {
            chmod(&inner, mode);
            let refused = Socket::bind(&path, 0o777).await.unwrap_err();
            assert!(matches!(refused, SocketError::Directory { mode: found, .. } if found == mode));
        }
        chmod(&inner, 0o1777);
        drop(Socket::bind(&path, 0o777).await.unwrap());
        chmod(&inner, 0o755);
        chmod(directory.path(), 0o777);
        let refused = Socket::bind(&path, 0o777).await.unwrap_err();
        assert!(matches!(refused, SocketError::Directory { directory: found, .. }
            if found == directory.path().canonicalize().unwrap()));
    }

    #[tokio::test]
    async fn refuses_a_relative_path() {
        assert!(matches!(Socket::bind(Path::new("agent.sock"), 0o777).await, Err(SocketError::Path(_))));
    }
}
