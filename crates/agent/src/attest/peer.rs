//! Who is at the other end of a UNIX socket, so that the answer cannot come to mean somebody else.
//!
//! The kernel noted the peer when it connected. Since Linux 6.5 it hands out a pidfd of that very process
//! (`SO_PEERPIDFD`). Before, there is only its id (`SO_PEERCRED`): between the connection and the moment when a
//! pidfd is opened by that id, the process could have ended and its id been given to another one. That is as far as
//! an older kernel can be asked; a current one closes the gap.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::workload::AttestationError;

/// The process that connected, and as whom it did.
#[derive(Debug)]
pub(super) struct Peer {
    /// Readable once the process has ended; never another process.
    pub(super) pidfd: Arc<OwnedFd>,
    /// Its id, which may mean another process once this one has ended.
    pub(super) pid: u32,
    /// Its effective user when it connected.
    pub(super) uid: u32,
    /// Its effective group when it connected.
    pub(super) gid: u32,
}

impl Peer {
    /// Asks the kernel.
    pub(super) fn of(socket: BorrowedFd<'_>) -> Result<Self, AttestationError> {
        // Not rustix's: its type for process ids has no zero, and the kernel says zero of a process that has no id
        // in our namespace.
        let credentials = getsockopt(&socket, sockopt::PeerCredentials)
            .map_err(|error| unknown(format!("the kernel does not say who is connected: {error}")))?;
        let pid = u32::try_from(credentials.pid()).ok().filter(|pid| *pid > 0).ok_or_else(|| {
            unknown(
                "it is in a process id namespace that the agent does not see; run the agent in the host's"
                    .into(),
            )
        })?;
        let pidfd = match getsockopt(&socket, sockopt::PeerPidfd) {
            Ok(pidfd) => pidfd,
            Err(nix::Error::ENOPROTOOPT) => open_by_id(pid)?,
            // What the versions of the kernel say of a process that has been waited for.
            Err(nix::Error::ESRCH | nix::Error::EINVAL) => return Err(AttestationError::Exited),
            Err(error) => return Err(unknown(format!("the kernel gives no pidfd of it: {error}"))),
        };
        Ok(Self { pidfd: Arc::new(pidfd), pid, uid: credentials.uid(), gid: credentials.gid() })
    }

    /// Whether it has ended, waited for or not.
    pub(super) fn has_exited(&self) -> io::Result<bool> {
        let mut waits = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(rustix::event::poll(&mut waits, Some(&at_once))? > 0)
    }
}

/// On kernels without `SO_PEERPIDFD`.
fn open_by_id(pid: u32) -> Result<OwnedFd, AttestationError> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(AttestationError::Exited)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|error| match error {
        Errno::SRCH | Errno::INVAL => AttestationError::Exited,
        _ => unknown(format!("the kernel gives no pidfd of it: {error}; Linux 5.3 or newer is needed")),
    })
}

fn unknown(detail: String) -> AttestationError {
    AttestationError::Unknown(detail)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn knows_its_own_process_at_the_other_end() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(ours.as_fd()).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
        assert!(!peer.has_exited().unwrap());
    }

    #[test]
    fn refuses_a_socket_that_has_no_process_at_its_end() {
        let internet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(internet.local_addr().unwrap()).unwrap();
        assert!(Peer::of(stream.as_fd()).is_err());
    }

    #[test]
    fn a_pidfd_by_id_is_of_a_live_process_or_none() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let peer = Peer { pidfd: Arc::new(open_by_id(pid).unwrap()), pid, uid: 0, gid: 0 };
        assert!(!peer.has_exited().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(peer.has_exited().unwrap());
        assert_eq!(open_by_id(pid).unwrap_err(), AttestationError::Exited);
    }
}
