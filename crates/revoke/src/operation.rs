//! Revoke, hold, release, retire: each one commit, or several when there are very many certificates.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use chancery_entry::{Body, Entry, Hold, HoldTarget, IdentityChange, Release, Revocation, TokenRevocation};
use chancery_ledger::{
    CertificateQuery, CommitError, Conflict, Ledger, ModelError, Outcome, PageRequest, Precondition,
    Proposal, Standing, TokenState,
};
use chancery_telemetry::step;
use chancery_types::{Clock, LineageId, RevocationReason, SerialNumber, SpiffeId};
use tracing::Instrument as _;

use crate::claims::Claims;
use crate::finder::{Finder, Found};
use crate::radius::{Aim, Asker, Measure, Radius};
use crate::selection::{Scope, Selector};

/// Certificates changed in one commit; more go in several, so that issuance is not kept waiting.
const CHUNK: usize = 4096;
/// Serials that an operation lists.
const LISTED: usize = chancery_api::limits::LISTED_SERIALS;
/// How often certificates are looked for that were issued meanwhile: each time there are fewer.
const SWEEPS: usize = 16;
/// After each page of a wide operation, others have the machine for this part of the time that the page took.
const REST: u32 = 4;

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
    /// What the ledger holds of a change cannot be read: another version wrote it.
    #[error("change {change} cannot be read: {why}; run it with the version that recorded it")]
    Unreadable {
        /// Its number.
        change: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// What an operation changed.
#[derive(Debug, Clone, Default)]
pub struct Operation {
    /// The first 1000 certificates whose state changed.
    pub serials: Vec<SerialNumber>,
    /// Certificates whose state changed.
    pub changed: usize,
    /// Certificates that were so already.
    pub unchanged: usize,
    /// Whether it broke off because the change that it belongs to has gone another step.
    pub(crate) overtaken: bool,
}

impl Operation {
    fn add(&mut self, serial: SerialNumber) {
        self.changed += 1;
        if self.serials.len() < LISTED {
            self.serials.push(serial);
        }
    }
}

/// Whose hand an operation is, and what it says about it.
#[derive(Debug, Clone, Copy)]
pub struct Hand<'a> {
    /// Who.
    pub by: &'a str,
    /// A word of explanation; may be empty.
    pub note: &'a str,
    /// The change that it belongs to, and the steps at which that has to stand.
    pub(crate) guard: Option<(u64, u32)>,
}

impl<'a> Hand<'a> {
    /// An operator's, or the authority's own.
    #[must_use]
    pub fn of(by: &'a str, note: &'a str) -> Self {
        Self { by, note, guard: None }
    }

    fn require(&self, precondition: Precondition) -> Vec<Precondition> {
        let guard = self.guard.map(|(change, steps)| Precondition::ChangeAt { change, steps });
        std::iter::once(precondition).chain(guard).collect()
    }
}

/// Changes how certificates, lineages and identities stand.
#[derive(Clone)]
pub struct Revoker {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    claims: Claims,
}

impl std::fmt::Debug for Revoker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Revoker").finish_non_exhaustive()
    }
}

impl Revoker {
    /// Works on this ledger.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>) -> Self {
        Self { ledger, clock, claims: Claims::default() }
    }

    /// What an aim would change of a scope, without changing it.
    ///
    /// # Errors
    /// [`OperationError::NothingFound`] when the scope names nothing.
    pub async fn preview(
        &self,
        scope: &Scope,
        aim: Aim,
        limits: chancery_api::ChangeLimits,
        asker: Asker<'_>,
    ) -> Result<Radius, OperationError> {
        let (ledger, claims, now) = (&self.ledger, &self.claims, self.clock.now());
        let radius = Measure { ledger, claims, limits, now }.radius(scope, aim, asker).await?;
        if radius.blast.certificates + radius.blast.unchanged == 0 && !self.is_registered(scope).await? {
            return Err(OperationError::NothingFound(scope.to_string()));
        }
        Ok(radius)
    }

    /// Whether a scope is an identity that there is, be it without certificates.
    async fn is_registered(&self, scope: &Scope) -> Result<bool, ModelError> {
        match scope.identity() {
            Some(identity) => Ok(self.ledger.identity(identity).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Revokes everything that a scope names. Done again, it finds nothing left to do.
    ///
    /// # Errors
    /// [`OperationError`]. A scope that names nothing is no error here.
    pub async fn revoke(
        &self,
        scope: &Scope,
        reason: RevocationReason,
        hand: Hand<'_>,
    ) -> Result<Operation, OperationError> {
        self.sweep(scope, Aim::Revoke(reason), hand).await
    }

    /// Holds everything that a scope names and that is good: the lineage where it is one, else the certificates.
    ///
    /// # Errors
    /// [`OperationError::Conflict`] when it is a lineage that is held already.
    pub async fn hold_scope(&self, scope: &Scope, hand: Hand<'_>) -> Result<Operation, OperationError> {
        match scope.lineage() {
            Some(lineage) => self.whole_lineage(scope, lineage, Aim::Hold, hand).await,
            None => self.sweep(scope, Aim::Hold, hand).await,
        }
    }

    /// Releases everything that a scope names and that is held.
    ///
    /// # Errors
    /// [`OperationError::Conflict`] when it is a lineage that is not held.
    pub async fn release_scope(&self, scope: &Scope, hand: Hand<'_>) -> Result<Operation, OperationError> {
        match scope.lineage() {
            Some(lineage) => self.whole_lineage(scope, lineage, Aim::Release, hand).await,
            None => self.sweep(scope, Aim::Release, hand).await,
        }
    }

    /// Holds the certificates of a scope, one by one.
    pub(crate) async fn hold_certificates(
        &self,
        scope: &Scope,
        hand: Hand<'_>,
    ) -> Result<Operation, OperationError> {
        self.sweep(scope, Aim::Hold, hand).await
    }

    async fn whole_lineage(
        &self,
        scope: &Scope,
        lineage: LineageId,
        aim: Aim,
        hand: Hand<'_>,
    ) -> Result<Operation, OperationError> {
        let mut operation = Operation::default();
        let mut finder = Finder::new(&self.ledger, scope, self.clock.now());
        while let Some(page) = finder.next().await? {
            for found in page {
                match aim.changes(found.record.state) {
                    true => operation.add(found.record.serial),
                    false => operation.unchanged += 1,
                }
            }
        }
        let target = HoldTarget::Lineage(lineage);
        match aim {
            Aim::Release => self.release(target, hand.by, hand.note).await?,
            _ => self.hold(target, "operator", hand.by, hand.note).await?,
        }
        Ok(operation)
    }

    /// Goes through a scope, and then through what was issued meanwhile, until nothing was.
    async fn sweep(&self, scope: &Scope, aim: Aim, hand: Hand<'_>) -> Result<Operation, OperationError> {
        let mut operation = Operation::default();
        let mut last = self.last_serials().await?;
        let now = self.clock.now();
        let mut finder = Finder::new(&self.ledger, scope, now);
        for _ in 0..SWEEPS {
            self.pass(&mut finder, aim, hand, &mut operation).await?;
            let latest = self.last_serials().await?;
            if operation.overtaken || latest == last || aim == Aim::Release {
                break;
            }
            let since = last.into_iter().map(|serial| CertificateQuery {
                issued_after: Some(serial),
                expires_after: Some(now),
                ..CertificateQuery::default()
            });
            finder = Finder::new(&self.ledger, scope, now).along(since);
            last = latest;
        }
        Ok(operation)
    }

    async fn pass(
        &self,
        finder: &mut Finder,
        aim: Aim,
        hand: Hand<'_>,
        operation: &mut Operation,
    ) -> Result<(), OperationError> {
        let mut page = finder.next().await?;
        while let Some(found) = page {
            let began = Instant::now();
            let selected = found.len();
            let serials: Vec<SerialNumber> = found
                .into_iter()
                .filter(|found| aim.changes(found.record.state))
                .map(|found| found.record.serial)
                .collect();
            operation.unchanged += selected - serials.len();
            // The next page is looked for while this one is recorded.
            let (changed, next) =
                tokio::join!(self.change_serials(&serials, aim, hand, operation), finder.next());
            changed?;
            if operation.overtaken {
                return Ok(());
            }
            page = next?;
            if page.is_some() {
                tokio::time::sleep(began.elapsed() / REST).await;
            }
        }
        Ok(())
    }

    /// The highest serial of each issuer.
    async fn last_serials(&self) -> Result<Vec<SerialNumber>, ModelError> {
        let mut last = Vec::new();
        for issuer in self.ledger.issuers().await? {
            let counter = self.ledger.last_counter(issuer.epoch).await?;
            last.extend(
                counter.and_then(|counter| SerialNumber::compose(issuer.epoch, counter, [u8::MAX; 8]).ok()),
            );
        }
        Ok(last)
    }

    /// Brings these certificates to where the aim wants them, one proposal each.
    pub(crate) async fn change_serials(
        &self,
        serials: &[SerialNumber],
        aim: Aim,
        hand: Hand<'_>,
        operation: &mut Operation,
    ) -> Result<(), OperationError> {
        for chunk in serials.chunks(CHUNK) {
            let now = self.clock.now();
            let propose = |serial: &SerialNumber| {
                let (requires, body) = proposal(*serial, aim, hand);
                Proposal::new(hand.require(requires), vec![Entry::new(now, body)])
            };
            let proposals = chunk.iter().map(propose).collect::<Result<Vec<_>, _>>()?;
            let step = step!("commit", chancery.entries = proposals.len());
            let outcomes = self.ledger.commit(proposals).instrument(step).await;
            let done = operation.changed;
            let outcomes = outcomes.map_err(|error| OperationError::Commit { done, error })?;
            for (serial, outcome) in chunk.iter().zip(outcomes) {
                match outcome {
                    Outcome::Accepted { .. } => operation.add(*serial),
                    Outcome::Refused(Conflict { precondition: Precondition::ChangeAt { .. }, .. }) => {
                        operation.overtaken = true;
                    }
                    // Somebody else changed it meanwhile.
                    Outcome::Refused(_) => operation.unchanged += 1,
                }
            }
            if operation.overtaken {
                break;
            }
        }
        Ok(())
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

    /// Holds the identities that a scope names, and nothing else of them: none of them enrols or renews from here
    /// on. Those that are held or retired already stay so.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn block_identities(&self, scope: &Scope, hand: Hand<'_>) -> Result<(), OperationError> {
        let names = self.names(scope).await?;
        self.change_identities(&names, hand, |identity, change| {
            (Precondition::IdentityActive(identity), Body::IdentityHeld(change))
        })
        .await
    }

    /// Releases those that this hand has held and nobody has touched since.
    pub(crate) async fn unblock_identities(
        &self,
        scope: &Scope,
        hand: Hand<'_>,
    ) -> Result<(), OperationError> {
        let mut names = Vec::new();
        for name in self.names(scope).await? {
            let record = self.ledger.identity(&name).await?;
            if record.is_some_and(|record| record.changed_by == hand.by) {
                names.push(name);
            }
        }
        self.change_identities(&names, hand, |identity, change| {
            (Precondition::IdentityHeld(identity), Body::IdentityReleased(change))
        })
        .await
    }

    /// The identities that a scope's certificates name, and the one that it is, if it is one.
    async fn names(&self, scope: &Scope) -> Result<Vec<SpiffeId>, ModelError> {
        let mut names: BTreeSet<SpiffeId> = scope.identity().cloned().into_iter().collect();
        let mut finder = Finder::new(&self.ledger, scope, self.clock.now());
        while let Some(page) = finder.next().await? {
            names.extend(page.into_iter().map(|found| found.record.identity));
        }
        Ok(names.into_iter().collect())
    }

    /// One proposal for each identity; refusals are no news.
    async fn change_identities(
        &self,
        names: &[SpiffeId],
        hand: Hand<'_>,
        change: impl Fn(SpiffeId, IdentityChange) -> (Precondition, Body),
    ) -> Result<(), OperationError> {
        for chunk in names.chunks(CHUNK) {
            let now = self.clock.now();
            let propose = |identity: &SpiffeId| {
                let (by, note) = (hand.by.to_owned(), hand.note.to_owned());
                let entry = IdentityChange { identity: identity.clone(), by, note };
                let (requires, body) = change(identity.clone(), entry);
                Proposal::new(hand.require(requires), vec![Entry::new(now, body)])
            };
            let proposals = chunk.iter().map(propose).collect::<Result<Vec<_>, _>>()?;
            let committed = self.ledger.commit(proposals).await;
            committed.map_err(|error| OperationError::Commit { done: 0, error })?;
        }
        Ok(())
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

    /// Retires an identity for good: its certificates are revoked, its join tokens withdrawn, its name is never used
    /// again. What is under way for it loses: whatever is recorded later finds it retired. Done again, it finishes
    /// what was left undone.
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
        match self.commit_one(requires, Body::IdentityRetired(change)).await {
            Err(OperationError::Conflict(Conflict { standing: Standing::Retired, .. })) => {}
            other => other?,
        }
        let scope = Scope::from(Selector::Identity(identity.clone()));
        let reason = RevocationReason::CessationOfOperation;
        let operation = self.revoke(&scope, reason, Hand::of(by, note)).await?;
        self.withdraw_tokens(identity, by).await?;
        Ok(operation)
    }

    /// Withdraws every join token that was made for an identity and not used.
    async fn withdraw_tokens(&self, identity: &SpiffeId, by: &str) -> Result<(), OperationError> {
        let mut request = PageRequest::first(CHUNK);
        loop {
            let page = self.ledger.tokens(&request).await?;
            let open = page.items.iter().filter(|record| {
                record.identity.as_ref() == Some(identity) && record.state == TokenState::Open
            });
            let now = self.clock.now();
            let propose = |record: &chancery_ledger::TokenRecord| {
                let body = Body::TokenRevoked(TokenRevocation { token: record.token, by: by.to_owned() });
                Proposal::new(vec![Precondition::TokenOpen(record.token)], vec![Entry::new(now, body)])
            };
            let proposals = open.map(propose).collect::<Result<Vec<_>, _>>()?;
            if !proposals.is_empty() {
                let committed = self.ledger.commit(proposals).await;
                committed.map_err(|error| OperationError::Commit { done: 0, error })?;
            }
            match page.next {
                Some(after) => request.after = Some(after),
                None => return Ok(()),
            }
        }
    }

    /// One proposal for each lineage that an identity has living certificates of; refusals are no news.
    async fn each_lineage(
        &self,
        identity: &SpiffeId,
        change: impl Fn(LineageId) -> (Precondition, Body),
    ) -> Result<Operation, OperationError> {
        let scope = Scope::from(Selector::Identity(identity.clone()));
        let mut operation = Operation::default();
        let mut lineages: Vec<LineageId> = Vec::new();
        let mut finder = Finder::new(&self.ledger, &scope, self.clock.now());
        while let Some(page) = finder.next().await? {
            for Found { record, .. } in page {
                lineages.push(record.lineage);
                if Aim::Revoke(RevocationReason::Unspecified).changes(record.state) {
                    operation.add(record.serial);
                }
            }
        }
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
            outcomes.map_err(|error| OperationError::Commit { done, error })?;
            done += chunk.len();
        }
        Ok(operation)
    }

    async fn commit_one(&self, requires: Vec<Precondition>, body: Body) -> Result<(), OperationError> {
        let proposal = Proposal::new(requires, vec![Entry::new(self.clock.now(), body)])?;
        let outcomes = self.ledger.commit(vec![proposal]).instrument(step!("commit")).await;
        match outcomes.map_err(|error| OperationError::Commit { done: 0, error })?.into_iter().next() {
            Some(Outcome::Refused(conflict)) => Err(OperationError::Conflict(conflict)),
            _ => Ok(()),
        }
    }
}

fn proposal(serial: SerialNumber, aim: Aim, hand: Hand<'_>) -> (Precondition, Body) {
    let (by, note) = (hand.by.to_owned(), hand.note.to_owned());
    let target = HoldTarget::Certificate(serial);
    match aim {
        Aim::Revoke(reason) => {
            let body = Body::Revocation(Revocation { serial, reason, by, note });
            (Precondition::Revocable { serial, reason }, body)
        }
        Aim::Hold => {
            let body = Body::Hold(Hold { target: target.clone(), cause: "operator".into(), by, note });
            (Precondition::Holdable(target), body)
        }
        Aim::Release => {
            let body = Body::Release(Release { target: target.clone(), by, note });
            (Precondition::Releasable(target), body)
        }
    }
}
