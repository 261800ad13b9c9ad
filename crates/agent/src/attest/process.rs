//! A pinned process as the doors know it.

use std::sync::Arc;

use async_trait::async_trait;

use super::pinned::Pinned;
use super::sources::Sources;
use crate::workload::{AttestationError, Depth, Process, Workload};

/// A pinned process and what can be asked about it.
#[derive(Debug)]
pub(super) struct LinuxProcess {
    pinned: Arc<Pinned>,
    sources: Arc<Sources>,
}

impl LinuxProcess {
    pub(super) fn new(pinned: Arc<Pinned>, sources: Arc<Sources>) -> Self {
        Self { pinned, sources }
    }

    /// The facts of one moment: read, and believed if the process was the same before and after.
    async fn find_out(&self, depth: Depth) -> Result<Workload, AttestationError> {
        for _ in 0..ATTEMPTS {
            let before = self.pinned.snapshot()?;
            let found = self.sources.claims(&self.pinned, &before, depth).await;
            // First of all: whatever failed, it may be because the process ended or became another.
            let after = self.pinned.snapshot()?;
            let claims = found?;
            if after == before {
                return Ok(Workload { pid: self.pinned.pid(), claims });
            }
        }
        Err(AttestationError::Changed)
    }

    async fn became_another(&self) -> AttestationError {
        if let Err(error) = self.pinned.glance() {
            return error;
        }
        let mut verdict = self.pinned.verdict.subscribe();
        self.sources.watch.over(&self.pinned);
        let found = verdict.wait_for(Option::is_some).await;
        found.ok().and_then(|verdict| verdict.clone()).unwrap_or(AttestationError::Changed)
    }
}

#[async_trait]
impl Process for LinuxProcess {
    async fn attest(&self, depth: Depth) -> Result<Workload, AttestationError> {
        tokio::select! {
            biased;
            gone = self.pinned.exited() => Err(gone),
            found = self.find_out(depth) => found,
        }
    }

    async fn changed(&self, _workload: &Workload) -> AttestationError {
        tokio::select! {
            biased;
            gone = self.pinned.exited() => gone,
            changed = self.became_another() => changed,
        }
    }
}

/// A process that changes its groups or its cgroup just then is looked at again; one that never stops is refused.
const ATTEMPTS: usize = 3;
