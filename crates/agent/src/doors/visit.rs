//! One call of one caller: who it is, and how it is turned away.

use std::sync::Arc;

use chancery_types::Clock;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::config::{DoorsConfig, Profile};
use super::metrics::DoorMetrics;
use super::shares::{Charge, Share};
use crate::identities::Identities;
use crate::workload::{AttestationError, Depth, Process, Workload};

/// What all calls are answered from.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) config: DoorsConfig,
    pub(crate) identities: Arc<dyn Identities>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: DoorMetrics,
    pub(crate) stopping: CancellationToken,
}

/// Whoever is at the other end of a connection; in the extensions of each of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The process that connected; none over TCP, where the kernel does not say.
    pub(crate) process: Option<Arc<dyn Process>>,
    pub(crate) share: Arc<Share>,
    pub(crate) charge: Charge,
}

/// One call under way.
pub(crate) struct Visit {
    pub(crate) desk: Arc<Desk>,
    pub(crate) caller: Caller,
    pub(crate) method: &'static str,
}

impl Visit {
    /// A call of a method that belongs to a profile.
    pub(crate) fn begin<T>(
        desk: &Arc<Desk>,
        request: &Request<T>,
        profile: Profile,
        method: &'static str,
    ) -> Result<Self, Status> {
        if !desk.config.profiles.contains(&profile) {
            return Err(Status::unimplemented("this profile is switched off in the agent's configuration"));
        }
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::internal("the connection has no caller"))?;
        Ok(Self { desk: Arc::clone(desk), caller, method })
    }

    /// The process, as far as there is one.
    pub(crate) fn process(&self) -> Result<&Arc<dyn Process>, Status> {
        self.caller.process.as_ref().ok_or_else(|| {
            self.denied("unattested", "nobody is attested over TCP; use the agent's UNIX socket")
        })
    }

    /// Finds out what the caller is now.
    pub(crate) async fn attest(&self, depth: Depth) -> Result<Workload, Status> {
        let process = self.process()?;
        let _turn = self.caller.share.turn().await;
        process.attest(depth).await.map_err(|error| self.lost(&error))
    }

    /// How closely the caller is to be looked at now.
    pub(crate) fn depth(&self) -> Depth {
        *self.desk.identities.depth().borrow()
    }

    /// Does something for a workload as long as the caller is that workload.
    pub(crate) async fn unless_changed<T>(
        &self,
        workload: &Workload,
        work: impl Future<Output = T>,
    ) -> Result<T, Status> {
        let process = self.process()?;
        tokio::select! {
            biased;
            error = process.changed(workload) => Err(self.lost(&error)),
            done = work => Ok(done),
        }
    }

    /// The answer to a caller that has no identity.
    pub(crate) fn no_identity(&self) -> Status {
        if !self.desk.identities.is_ready() {
            return Status::unavailable(
                "the agent is starting and does not know its identities yet; try again",
            );
        }
        self.denied("no-identity", "no identity issued: none is registered for what this process is")
    }

    /// The answer to a caller that is not, or no longer, what it has to be.
    pub(crate) fn lost(&self, error: &AttestationError) -> Status {
        match error {
            AttestationError::Exited => self.denied("exited", "the process that connected has exited"),
            AttestationError::Changed => self.denied(
                "changed",
                "the process that connected has become another program; connect again to be attested anew",
            ),
            // What went wrong is for the operator: it may name what the caller should not know. Anybody can make it
            // happen as often as it likes, so it is counted and does not fill the log.
            AttestationError::Unknown(why) => {
                tracing::debug!(method = self.method, why, "a caller cannot be attested");
                self.desk.metrics.deny(self.method, "unknown");
                Status::unavailable("this process cannot be attested now; try again")
            }
        }
    }

    pub(crate) fn denied(&self, reason: &'static str, text: &str) -> Status {
        self.desk.metrics.deny(self.method, reason);
        tracing::debug!(method = self.method, reason, "a caller was denied");
        Status::permission_denied(text)
    }
}
