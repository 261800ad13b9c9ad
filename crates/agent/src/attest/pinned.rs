//! One process, held so that nothing else can be taken for it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OnceCell, watch};

use super::executable::Executable;
use super::peer::Peer;
use super::proc_directory::{Credentials, FileId, ProcDirectory, Stat};
use crate::workload::AttestationError;

/// A process as it was when it connected.
#[derive(Debug)]
pub(super) struct Pinned {
    peer: Peer,
    directory: ProcDirectory,
    executable: Executable,
    start: u64,
    /// Who owned its directory when that was last looked at closely.
    owner: Mutex<(u32, u32)>,
    exit: OnceCell<AsyncFd<Arc<OwnedFd>>>,
    /// Why it is no longer the process it was, or why that cannot be said, once that has been seen.
    pub(super) verdict: watch::Sender<Option<AttestationError>>,
    /// Whether somebody looks at it regularly.
    pub(super) is_watched: AtomicBool,
}

/// What makes a process the one it is. Facts found between two equal snapshots belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) stat: Stat,
    pub(super) credentials: Credentials,
    pub(super) cgroup: String,
    executable: FileId,
}

impl Pinned {
    /// Pins the process that connected this socket.
    pub(super) fn at_other_end(socket: BorrowedFd<'_>) -> Result<Self, AttestationError> {
        Self::new(Peer::of(socket)?)
    }

    fn new(peer: Peer) -> Result<Self, AttestationError> {
        let missing = |what, error| unknown(&peer, what, &error);
        let directory =
            ProcDirectory::open(peer.pid).map_err(|error| missing("its directory in /proc", error))?;
        // As long as the process lives, its id is its own: so the directory just opened is its own, too.
        if peer.has_exited().map_err(|error| missing("whether it lives", error))? {
            return Err(AttestationError::Exited);
        }
        let executable = directory.executable().and_then(Executable::new).map_err(|error| {
            missing("its executable (run the agent as root, or give it CAP_SYS_PTRACE)", error)
        })?;
        let stat = directory.stat().map_err(|error| missing("its start", error))?;
        let glance = directory.glance().map_err(|error| missing("its executable", error))?;
        let pinned = Self {
            peer,
            directory,
            executable,
            start: stat.start,
            owner: Mutex::new(glance.owner),
            exit: OnceCell::new(),
            verdict: watch::Sender::new(None),
            is_watched: AtomicBool::new(false),
        };
        pinned.snapshot().map(|_| pinned)
    }

    /// Its id, for logs.
    pub(super) fn pid(&self) -> u32 {
        self.peer.pid
    }

    /// The file that it runs.
    pub(super) fn executable(&self) -> &Executable {
        &self.executable
    }

    /// Its directory.
    pub(super) fn directory(&self) -> &ProcDirectory {
        &self.directory
    }

    /// What it is now, if it still is the process that connected.
    pub(super) fn snapshot(&self) -> Result<Snapshot, AttestationError> {
        let missing = |what: &'static str| move |error| unknown(&self.peer, what, &error);
        let glance = self.directory.glance().map_err(missing("its executable"))?;
        let snapshot = Snapshot {
            stat: self.directory.stat().map_err(missing("its start"))?,
            credentials: self.directory.credentials().map_err(missing("its credentials"))?,
            cgroup: self.directory.cgroup().map_err(missing("its cgroup"))?,
            executable: glance.executable,
        };
        if self.peer.has_exited().map_err(missing("whether it lives"))? || snapshot.stat.start != self.start {
            return Err(AttestationError::Exited);
        }
        let is_the_same =
            snapshot.executable == self.executable.id() && self.is_of_its_user(&snapshot.credentials);
        is_the_same.then_some(snapshot).ok_or(AttestationError::Changed)
    }

    /// Whether it still is the process that connected, as far as two system calls tell.
    pub(super) fn glance(&self) -> Result<(), AttestationError> {
        let missing = |what: &'static str| move |error| unknown(&self.peer, what, &error);
        let glance = self.directory.glance().map_err(missing("its executable"))?;
        if glance.executable != self.executable.id() {
            return Err(AttestationError::Changed);
        }
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if *owner != glance.owner {
            // Either the user changed or whether it may be traced: only the first matters.
            let credentials = self.directory.credentials().map_err(missing("its credentials"))?;
            if !self.is_of_its_user(&credentials) {
                return Err(AttestationError::Changed);
            }
            *owner = glance.owner;
        }
        Ok(())
    }

    /// Returns when it has ended.
    pub(super) async fn exited(&self) -> AttestationError {
        let missing = |error: io::Error| unknown(&self.peer, "when it ends", &error);
        let exit = match self.exit.get_or_try_init(async || wakes_at_end(&self.peer)).await {
            Ok(exit) => exit,
            Err(error) => return missing(error),
        };
        loop {
            match (exit.readable().await, self.peer.has_exited()) {
                (Ok(_), Ok(true)) => return AttestationError::Exited,
                (Ok(mut ready), Ok(false)) => ready.clear_ready(),
                (Err(error), _) | (_, Err(error)) => return missing(error),
            }
        }
    }

    fn is_of_its_user(&self, credentials: &Credentials) -> bool {
        (credentials.uid(), credentials.gid()) == (self.peer.uid, self.peer.gid)
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe because a type may lie about its descriptor; an owned one cannot"
)]
fn wakes_at_end(peer: &Peer) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    AsyncFd::with_interest(Arc::clone(&peer.pidfd), Interest::READABLE)
}

/// Whatever cannot be read of a process that has ended, the reason is that it has ended.
fn unknown(peer: &Peer, what: &str, error: &io::Error) -> AttestationError {
    match peer.has_exited() {
        Ok(true) => AttestationError::Exited,
        _ => AttestationError::Unknown(format!("{what} cannot be found out: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn this_process() -> Pinned {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        Pinned::at_other_end(ours.as_fd()).unwrap()
    }

    #[test]
    fn an_id_that_was_given_to_a_later_process_is_not_taken_for_the_pinned_one() {
        // What a recycled id looks like: everything is found, alive and of the same user; it only started later.
        let mut pinned = this_process();
        assert!(pinned.snapshot().is_ok());
        pinned.start -= 1;
        assert_eq!(pinned.snapshot().unwrap_err(), AttestationError::Exited);
    }

    #[test]
    fn a_live_process_under_the_id_of_one_that_has_ended_is_not_pinned() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // The id now leads to this process, which is alive; the pidfd is of the one that connected.
        let peer = Peer {
            pidfd: Arc::new(pidfd),
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        assert_eq!(Pinned::new(peer).unwrap_err(), AttestationError::Exited);
    }

    #[test]
    fn a_process_that_acts_for_another_user_than_when_it_connected_has_changed() {
        let mut pinned = this_process();
        pinned.peer.uid += 1;
        assert_eq!(pinned.snapshot().unwrap_err(), AttestationError::Changed);
        assert_eq!(pinned.glance(), Ok(()));
        *pinned.owner.lock().unwrap() = (pinned.peer.uid, pinned.peer.gid);
        assert_eq!(pinned.glance().unwrap_err(), AttestationError::Changed);
    }

    #[test]
    fn a_process_that_only_stopped_being_traceable_has_not_changed() {
        let pinned = this_process();
        *pinned.owner.lock().unwrap() = (u32::MAX, u32::MAX);
        assert_eq!(pinned.glance(), Ok(()));
        assert_ne!(*pinned.owner.lock().unwrap(), (u32::MAX, u32::MAX));
    }
}
