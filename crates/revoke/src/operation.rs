//! Revoke, hold, release, retire: each one commit, or several when there are very many certificates.

use std::sync::Arc;

use chancery_entry::{Body, Entry, Hold, HoldTarget, IdentityChange, Release, Revocation};
use chancery_ledger::{
    CertificateState, CommitError, Conflict, Ledger, ModelError, Outcome, Precondition, Proposal,
};
use chancery_types::{Clock, LineageId, RevocationReason, SerialNumber, SpiffeId};
use tokio::sync::Notify;

use crate::selection::{Selection, Selector, select};

/// Certificates revoked in one commit; more go in several, so that issuance is not kept waiting.
const CHUNK: usize = 4096;

/// Why an operation did not happen, or only in part.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// There is nothing of that name.
    #[error("{0} names no certificate of this authority; look it up with `chancery certificate list`")]
    NothingFound(String),
    /// How things stand does not allow it.
    #[error("{0}")]
    Conflict(Conflict),
    /// The ledger took nothing, or after some certificates nothing more.
    #[error("{error}; {done} certificates were changed before that, run the same command again for the rest")]
    Commit {
        /// Certificates changed by then.
        done: usize,
        /// What happened.
        error: CommitError,
    },
    /// The read model could not be asked.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A note is too long for the ledger.
    #[error(transparent)]
    TooLong(#[from] chancery_entry::TooLong),
}

/// What an operation changed.
#[derive(Debug, Clone, Default)]
pub struct Operation {
    /// Certificates whose state changed.
    pub serials: Vec<SerialNumber>,
    /// Certificates that were so already.
    pub unchanged: usize,
}

/// Changes how certificates, lineages and identities stand.
#[derive(Clone)]
pub struct Revoker {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    changed: Arc<Notify>,
}

impl std::fmt::Debug for Revoker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Revoker").finish_non_exhaustive()
    }
}

impl Revoker {
    /// Works on this ledger; `changed` is notified after each change of status.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>, changed: Arc<Notify>) -> Self {
        Self { ledger, clock, changed }
    }

    /// What a selector would touch, without touching it.
    ///
    /// # Errors
    /// [`OperationError::NothingFound`] when it names nothing.
    pub async fn preview(&self, selector: &Selector) -> Result<Selection, OperationError> {
        let selection = select(self.ledger.as_ref(), selector, self.clock.now()).await?;
        if selection.certificates.is_empty() {
            return Err(OperationError::NothingFound(selector.to_string()));
        }
        Ok(selection)
    }

    /// Revokes everything that a selector names. Done again, it finds nothing left to do.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn revoke(
        &self,
        selector: &Selector,
        reason: RevocationReason,
        by: &str,
        note: &str,
    ) -> Result<Operation, OperationError> {
        let selection = self.preview(selector).await?;
        let serials = selection.certificates.iter().filter(|record| match record.state {
            CertificateState::Revoked { reason: before, .. } => {
                reason == RevocationReason::KeyCompromise && before != reason
            }
            CertificateState::Good | CertificateState::Held { .. } => true,
        });
        let serials: Vec<SerialNumber> = serials.map(|record| record.serial).collect();
        let unchanged = selection.certificates.len() - serials.len();
        let mut operation = self.revoke_serials(&serials, reason, by, note).await?;
        operation.unchanged += unchanged;
        Ok(operation)
    }

    async fn revoke_serials(
        &self,
        serials: &[SerialNumber],
        reason: RevocationReason,
        by: &str,
        note: &str,
    ) -> Result<Operation, OperationError> {
        let mut operation = Operation::default();
        for chunk in serials.chunks(CHUNK) {
            let now = self.clock.now();
            let propose = |serial: &SerialNumber| {
                let revocation =
                    Revocation { serial: *serial, reason, by: by.to_owned(), note: note.to_owned() };
                let requires = vec![Precondition::Revocable { serial: *serial, reason }];
                Proposal::new(requires, vec![Entry::new(now, Body::Revocation(revocation))])
            };
            let proposals = chunk.iter().map(propose).collect::<Result<Vec<_>, _>>()?;
            let outcomes = self.ledger.commit(proposals).await;
            self.changed.notify_one();
            let done = operation.serials.len();
            let outcomes = outcomes.map_err(|error| OperationError::Commit { done, error })?;
            for (serial, outcome) in chunk.iter().zip(outcomes) {
                match outcome {
                    Outcome::Accepted { .. } => operation.serials.push(*serial),
                    // Somebody else revoked it meanwhile.
                    Outcome::Refused(_) => operation.unchanged += 1,
                }
            }
        }
        Ok(operation)
    }

    /// Holds a certificate or a lineage.
    ///
    /// # Errors
    /// [`OperationError::Conflict`] when it is held or revoked already.
    pub async fn hold(
        &self,
        target: HoldTarget,
        cause: &str,
        by: &str,
        note: &str,
    ) -> Result<(), OperationError> {
        let hold = Hold { target: target.clone(), cause: cause.into(), by: by.into(), note: note.into() };
        self.commit_one(vec![Precondition::Holdable(target)], Body::Hold(hold)).await
    }

    /// Holds a lineage of which two holders exist, with both their certificates. It may be held already.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn hold_fork(&self, lineage: LineageId, by: &str, note: &str) -> Result<(), OperationError> {
        match self.hold(HoldTarget::Lineage(lineage), "lineage-fork", by, note).await {
            Err(OperationError::Conflict(_)) => Ok(()),
            other => other,
        }
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// [`OperationError::Conflict`] when it is not held.
    pub async fn release(&self, target: HoldTarget, by: &str, note: &str) -> Result<(), OperationError> {
        let release = Release { target: target.clone(), by: by.into(), note: note.into() };
        self.commit_one(vec![Precondition::Releasable(target)], Body::Release(release)).await
    }

    /// Holds an identity: no enrolment, no renewal; its certificates are held too.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn hold_identity(
        &self,
        identity: &SpiffeId,
        by: &str,
        note: &str,
    ) -> Result<Operation, OperationError> {
        let change = IdentityChange { identity: identity.clone(), by: by.into(), note: note.into() };
        let requires = vec![Precondition::IdentityActive(identity.clone())];
        self.commit_one(requires, Body::IdentityHeld(change)).await?;
        self.each_lineage(identity, |lineage| {
            let hold = Hold {
                target: HoldTarget::Lineage(lineage),
                cause: "identity-held".into(),
                by: by.into(),
                note: note.into(),
            };
            (Precondition::Holdable(HoldTarget::Lineage(lineage)), Body::Hold(hold))
        })
        .await
    }

    /// Releases an identity and what was held with it.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn release_identity(
        &self,
        identity: &SpiffeId,
        by: &str,
        note: &str,
    ) -> Result<Operation, OperationError> {
        let change = IdentityChange { identity: identity.clone(), by: by.into(), note: note.into() };
        let requires = vec![Precondition::IdentityHeld(identity.clone())];
        self.commit_one(requires, Body::IdentityReleased(change)).await?;
        self.each_lineage(identity, |lineage| {
            let release = Release { target: HoldTarget::Lineage(lineage), by: by.into(), note: note.into() };
            (Precondition::Releasable(HoldTarget::Lineage(lineage)), Body::Release(release))
        })
        .await
    }

    /// Retires an identity for good: its certificates are revoked, its name is never used again.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn retire_identity(
        &self,
        identity: &SpiffeId,
        by: &str,
        note: &str,
    ) -> Result<Operation, OperationError> {
        let change = IdentityChange { identity: identity.clone(), by: by.into(), note: note.into() };
        let requires = vec![Precondition::IdentityRegistered(identity.clone())];
        self.commit_one(requires, Body::IdentityRetired(change)).await?;
        match self
            .revoke(&Selector::Identity(identity.clone()), RevocationReason::CessationOfOperation, by, note)
            .await
        {
            Err(OperationError::NothingFound(_)) => Ok(Operation::default()),
            other => other,
        }
    }

    /// One proposal for each lineage that an identity has living certificates of; refusals are no news.
    async fn each_lineage(
        &self,
        identity: &SpiffeId,
        change: impl Fn(LineageId) -> (Precondition, Body),
    ) -> Result<Operation, OperationError> {
        let selection =
            select(self.ledger.as_ref(), &Selector::Identity(identity.clone()), self.clock.now()).await?;
        let mut lineages: Vec<LineageId> =
            selection.certificates.iter().map(|record| record.lineage).collect();
        lineages.sort_unstable();
        lineages.dedup();
        let mut done = 0;
        for chunk in lineages.chunks(CHUNK) {
            let now = self.clock.now();
            let proposals = chunk
                .iter()
                .map(|lineage| {
                    let (requires, body) = change(*lineage);
                    Proposal::new(vec![requires], vec![Entry::new(now, body)])
                })
                .collect::<Result<Vec<_>, _>>()?;
            let outcomes = self.ledger.commit(proposals).await;
            self.changed.notify_one();
            outcomes.map_err(|error| OperationError::Commit { done, error })?;
            done += chunk.len();
        }
        let serials = selection.revocable().map(|record| record.serial).collect();
        Ok(Operation { serials, unchanged: 0 })
    }

    async fn commit_one(&self, requires: Vec<Precondition>, body: Body) -> Result<(), OperationError> {
        let proposal = Proposal::new(requires, vec![Entry::new(self.clock.now(), body)])?;
        let outcomes = self.ledger.commit(vec![proposal]).await;
        self.changed.notify_one();
        match outcomes.map_err(|error| OperationError::Commit { done: 0, error })?.into_iter().next() {
            Some(Outcome::Refused(conflict)) => Err(OperationError::Conflict(conflict)),
            _ => Ok(()),
        }
    }
}
