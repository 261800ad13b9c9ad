//! Attests local processes on Linux: what the kernel, systemd and the container runtimes say of the process at the
//! other end of a UNIX socket.
//!
//! Nothing that a process can write is read: not its environment, its arguments, nor its mounts. It is pinned when
//! it connects: by a pidfd, by its open directory in `/proc` and by a handle on its executable, so neither its id
//! nor its file can come to mean another. From then on it is one program of one user; if it becomes another it
//! has lost, and whoever wants the identity of what it became has to connect as that. What it ran between
//! connecting and being accepted the kernel does not tell; as which user it connected, it does.
//!
//! What is trusted: the kernel; the name service, for names of users and groups; systemd, for what it publishes of
//! its units; Docker, Podman and the kubelet, each only if configured. Whether two programs of one user can be told
//! apart depends on the user: without further measures one may trace the other, and take what it was given.
//!
//! Needs Linux 5.6; from 6.5 on, the kernel itself says which process connected, whatever became of its id.
//!
//! | claim | from |
//! | --- | --- |
//! | `unix.uid`, `unix.gid`, `unix.supplementary_gid` | the effective user and group, when it connected and now |
//! | `unix.user`, `unix.group`, `unix.supplementary_group` | the name service of the machine |
//! | `unix.path` | `/proc/PID/exe`, if that path leads to the same file outside of the process's mounts |
//! | `unix.sha256` | the content of that file, up to a size, unless a file system in user space shows it |
//! | `unix.interactive` | `true` with a controlling terminal or in a login session; `false` is no proof of a service |
//! | `systemd.unit`, `systemd.slice` | the cgroup of version 2 |
//! | `systemd.invocation_id` | `/run/systemd/units` |
//! | `container.id`, `container.runtime`, `k8s.pod_uid` | the cgroup of version 2 |
//! | `docker.*`, `podman.*`: `label`, `image`, `image_id`, `image_digest` | the engine's socket |
//! | `k8s.*`: `ns`, `sa`, `pod_name`, `pod_label`, `node_name`, `container_name`, `image` | the kubelet's list |
//!
//! A fact that is not there is no claim. A source that is configured and does not answer fails the attestation, so
//! that an outage is not taken for a change.

mod cgroup;
mod config;
mod engine;
mod executable;
mod hash_cache;
mod host;
mod http;
mod kubelet;
mod peer;
mod pinned;
mod proc_directory;
mod process;
mod shares;
mod sources;
#[cfg(test)]
mod test_server;
mod watch;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use arc_swap::ArcSwap;
pub use config::{AttestorConfig, Hashing, RawAttestorConfig, RawEngine, RawKubelet};

use crate::workload::{AttestationError, Attestor, Process};
use pinned::Pinned;
use process::LinuxProcess;
use sources::Sources;

/// Attests the processes of this machine.
#[derive(Debug)]
pub struct LinuxAttestor {
    sources: ArcSwap<Sources>,
}

impl LinuxAttestor {
    /// One for all doors, so that they share its limits and what it keeps.
    #[must_use]
    pub fn new(config: AttestorConfig) -> Self {
        Self { sources: ArcSwap::from_pointee(Sources::new(config)) }
    }

    /// Attests those who connect from now on as this says.
    pub fn replace(&self, config: AttestorConfig) {
        self.sources.store(Arc::new(Sources::new(config)));
    }
}

impl Attestor for LinuxAttestor {
    /// To be called as soon as the connection is accepted: what the process was before cannot be known.
    fn pin(&self, socket: BorrowedFd<'_>) -> Result<Arc<dyn Process>, AttestationError> {
        let pinned = Arc::new(Pinned::at_other_end(socket)?);
        Ok(Arc::new(LinuxProcess::new(pinned, self.sources.load_full())))
    }
}
