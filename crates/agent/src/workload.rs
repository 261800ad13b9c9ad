//! A local process, and how it becomes a workload: what every door of the agent asks before it answers.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::Claims;

/// A process that was attested: facts, at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its process id, for logs; never a reason to trust it.
    pub pid: u32,
    /// What the kernel and the runtimes say of it: `unix.uid` is `1000`, `unix.sha256` is a hexadecimal hash. A claim
    /// `unix.uid` of `1000` is what users of SPIRE know as the selector `unix:uid:1000`.
    pub claims: Claims,
}

/// Why a process was not attested, or is attested no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// It is not there any more.
    #[error("the process has exited")]
    Exited,
    /// It runs another program than it did.
    #[error("the process has become another program")]
    Changed,
    /// What must be known about it could not be found out.
    #[error("the process cannot be attested: {0}")]
    Unknown(String),
}

/// The claim that costs a reading of the executable.
pub(crate) const EXECUTABLE_HASH: &str = "unix.sha256";

/// How closely a process is looked at. What costs little is found out always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// Everything but the content of its executable.
    #[default]
    Facts,
    /// The hash of its executable too, which has to be read for it: because somebody asks for `unix:sha256`.
    Content,
}

/// Makes processes out of connections.
pub trait Attestor: Send + Sync + 'static {
    /// Pins the process at the other end of a UNIX socket, so that its id can never come to mean another one.
    ///
    /// # Errors
    /// [`AttestationError`] when it is gone already or the kernel does not say who it is.
    fn pin(&self, socket: BorrowedFd<'_>) -> Result<Arc<dyn Process>, AttestationError>;
}

/// One pinned process.
#[async_trait]
pub trait Process: fmt::Debug + Send + Sync + 'static {
    /// Finds out what it is, now.
    ///
    /// # Errors
    /// [`AttestationError`].
    async fn attest(&self, depth: Depth) -> Result<Workload, AttestationError>;

    /// Returns when it has exited, or is no longer what `workload` says: after this it has to be attested anew.
    async fn changed(&self, workload: &Workload) -> AttestationError;
}
