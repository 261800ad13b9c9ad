//! Changes that are so large, or so slow, that they are things of their own: asked for, approved by somebody else,
//! done in waves, paused, undone. All of it is in the ledger, so that whichever process is there goes on with it.
//!
//! A change is driven by the server, not by whoever asked for it: waves go on when the operator's terminal is gone,
//! and after the server was killed the next one reads from the ledger where the change stands. What a wave covers
//! follows from the change's number and the serials alone, so a wave that was cut off is simply done again.

use chancery_api::{BlastRadius, ChangeAction, Waves};
use chancery_entry::{Body, ChangeProposal, ChangeStep, Document, Entry, Step};
use chancery_ledger::{
    CertificateState, ChangeRecord, ChangeState, Conflict, ModelError, Outcome, PageRequest, Precondition,
    Proposal, change_name,
};
use chancery_types::{Digest, RevocationReason, SerialNumber, Timestamp};
use serde::{Deserialize, Serialize};

use crate::finder::Finder;
use crate::operation::{Hand, Operation, OperationError, Revoker};
use crate::radius::Aim;
use crate::selection::Scope;

/// What a change is to do, as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What is done.
    pub action: ChangeAction,
    /// To which certificates.
    pub scope: Scope,
    /// Why, if they are revoked.
    #[serde(default)]
    pub reason: RevocationReason,
    /// Whether the identities are held first.
    #[serde(default)]
    pub block: bool,
    /// In which waves; at once if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
}

impl Order {
    /// What a recorded change is to do.
    ///
    /// # Errors
    /// [`OperationError::Unreadable`].
    pub fn of(record: &ChangeRecord) -> Result<Self, OperationError> {
        Self::deserialize(&record.request).map_err(|error| unreadable(record, &error))
    }

    /// What it does to each certificate.
    #[must_use]
    pub fn aim(&self) -> Aim {
        match self.action {
            ChangeAction::Revoke => Aim::Revoke(self.reason),
            ChangeAction::Hold => Aim::Hold,
        }
    }

    /// The part in percent that the wave after so many reaches; nothing after the last.
    fn share(&self, waves_done: u32) -> Option<u8> {
        let shares = self.waves.as_ref().map_or(&[100][..], |waves| &waves.shares);
        shares.get(usize::try_from(waves_done).ok()?).copied()
    }

    /// When the next wave begins by itself.
    #[must_use]
    pub fn next_wave(&self, record: &ChangeRecord) -> Option<Timestamp> {
        let waves = self.waves.as_ref()?;
        self.share(record.waves)?;
        record.last_wave.map(|last| last + waves.pause.0)
    }
}

/// What a change would have hit when it was asked for.
///
/// # Errors
/// [`OperationError::Unreadable`].
pub fn recorded_radius(record: &ChangeRecord) -> Result<BlastRadius, OperationError> {
    BlastRadius::deserialize(&record.radius).map_err(|error| unreadable(record, &error))
}

fn unreadable(record: &ChangeRecord, error: &serde_json::Error) -> OperationError {
    OperationError::Unreadable { change: record.change, why: error.to_string() }
}

/// Who asks for a change, and until when it may be approved.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Who asks.
    pub by: &'a str,
    /// Why.
    pub note: &'a str,
    /// Nobody can approve it after this moment.
    pub expires: Timestamp,
}

/// Where a change stands after it was worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advanced {
    /// It goes on by itself at this moment.
    At(Timestamp),
    /// It does not go on by itself.
    Rests,
}

impl Revoker {
    /// Records that a change is asked for; with a first step it runs from then on. Returns its number.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn ask_for_change(
        &self,
        order: &Order,
        radius: &BlastRadius,
        asking: Asking<'_>,
        first: Option<Step>,
    ) -> Result<u64, OperationError> {
        let now = self.clock.now();
        let request = Document(serde_json::to_string(order).expect("an order has text keys only"));
        let radius = serde_json::to_string(&for_the_record(radius)).expect("a radius has text keys only");
        let proposal = ChangeProposal {
            request,
            radius: Document(radius),
            expires: asking.expires,
            by: asking.by.to_owned(),
            note: asking.note.to_owned(),
        };
        let change =
            self.commit_accepted(Vec::new(), vec![Entry::new(now, Body::ChangeProposed(proposal))]).await?;
        if let Some(step) = first {
            self.step(change, 0, step, asking.by, asking.note).await?;
        }
        Ok(change)
    }

    /// Takes a step of a change that has taken so many.
    ///
    /// # Errors
    /// [`OperationError::Conflict`] when it has gone on meanwhile.
    pub async fn step(
        &self,
        change: u64,
        steps: u32,
        step: Step,
        by: &str,
        note: &str,
    ) -> Result<(), OperationError> {
        let changed = self.ledger.change(change).await?.map_or(0, |record| record.changed);
        let details = Document(format!(r#"{{"changed":{changed}}}"#));
        let body = ChangeStep { change, step, by: by.to_owned(), details, note: note.to_owned() };
        let entry = Entry::new(self.clock.now(), Body::ChangeStepped(body));
        self.commit_accepted(vec![Precondition::ChangeAt { change, steps }], vec![entry]).await.map(drop)
    }

    async fn commit_accepted(
        &self,
        requires: Vec<Precondition>,
        entries: Vec<Entry>,
    ) -> Result<u64, OperationError> {
        let proposal = Proposal::new(requires, entries)?;
        let outcomes = self.ledger.commit(vec![proposal]).await;
        match outcomes.map_err(|error| OperationError::Commit { done: 0, error })?.into_iter().next() {
            Some(Outcome::Accepted { first_index }) => Ok(first_index),
            Some(Outcome::Refused(conflict)) => Err(OperationError::Conflict(conflict)),
            None => Err(ModelError::Engine("the ledger gave no outcome".into()).into()),
        }
    }

    /// Works on a change until it rests, ends or has to wait.
    ///
    /// # Errors
    /// [`OperationError`]; called again, it goes on where it was.
    pub async fn advance(&self, change: u64) -> Result<Advanced, OperationError> {
        loop {
            let Some(record) = self.ledger.change(change).await? else { return Ok(Advanced::Rests) };
            let worked = match record.state {
                ChangeState::Running => {
                    let order = Order::of(&record)?;
                    if let Some(next) = order.next_wave(&record)
                        && next > self.clock.now()
                    {
                        return Ok(Advanced::At(next));
                    }
                    self.wave(&record, &order).await
                }
                ChangeState::Undoing => self.undo(&record).await,
                _ => return Ok(Advanced::Rests),
            };
            match worked {
                // Somebody took a step meanwhile: look again.
                Err(OperationError::Conflict(Conflict {
                    precondition: Precondition::ChangeAt { .. },
                    ..
                })) => {}
                other => other?,
            }
        }
    }

    /// The next wave of a running change, and the step that says that it is done.
    async fn wave(&self, record: &ChangeRecord, order: &Order) -> Result<(), OperationError> {
        let (change, steps) = (record.change, record.steps);
        let name = change_name(change);
        let hand = Hand { by: &name, note: &record.note, guard: Some((change, steps)) };
        if order.block && record.waves == 0 {
            self.block_identities(&order.scope, hand).await?;
        }
        let Some(share) = order.share(record.waves) else {
            return self.step(change, steps, Step::Ended, &name, "").await;
        };
        let operation = match (order.action, share) {
            (ChangeAction::Revoke, _) => self.revoke(&order.scope, order.reason, hand).await?,
            (ChangeAction::Hold, 100) => self.hold_certificates(&order.scope, hand).await?,
            (ChangeAction::Hold, share) => self.hold_share(record, order, share, hand).await?,
        };
        if operation.overtaken {
            return Ok(());
        }
        let is_last = order.share(record.waves + 1).is_none();
        let step = if is_last { Step::Ended } else { Step::Wave };
        self.step(change, steps, step, &name, "").await
    }

    /// Holds so much of a scope that this share of it is held: the first by a number that follows from the change
    /// and the serial, so that a wave covers the ones before it.
    async fn hold_share(
        &self,
        record: &ChangeRecord,
        order: &Order,
        share: u8,
        hand: Hand<'_>,
    ) -> Result<Operation, OperationError> {
        let now = self.clock.now();
        let mut candidates = Vec::new();
        let mut finder = Finder::new(&self.ledger, &order.scope, now);
        while let Some(page) = finder.next().await? {
            let found = page.iter().map(|found| &found.record);
            let standing = found.filter(|found| !matches!(found.state, CertificateState::Revoked { .. }));
            candidates.extend(standing.map(|found| {
                (place(record.change, found.serial), found.serial, found.state == CertificateState::Good)
            }));
        }
        candidates.sort_unstable();
        let count = (candidates.len() * usize::from(share)).div_ceil(100);
        let wave = candidates.into_iter().take(count).filter(|(_, _, is_good)| *is_good);
        let serials: Vec<SerialNumber> = wave.map(|(_, serial, _)| serial).collect();
        let mut operation = Operation::default();
        self.change_serials(&serials, Aim::Hold, hand, &mut operation).await?;
        Ok(operation)
    }

    /// Releases everything that a change has held and nobody else has touched since.
    async fn undo(&self, record: &ChangeRecord) -> Result<(), OperationError> {
        let (change, steps) = (record.change, record.steps);
        let name = change_name(change);
        let hand = Hand { by: &name, note: "undone", guard: Some((change, steps)) };
        let mut request = PageRequest::first(4096);
        loop {
            let page = self.ledger.held_by(change, &request).await?;
            let mut operation = Operation::default();
            self.change_serials(&page.items, Aim::Release, hand, &mut operation).await?;
            if operation.overtaken {
                return Ok(());
            }
            match page.next {
                Some(after) => request.after = Some(after),
                None => break,
            }
        }
        let order = Order::of(record)?;
        if order.block {
            self.unblock_identities(&order.scope, hand).await?;
        }
        self.step(change, steps, Step::Ended, &name, "").await
    }
}

/// Where a certificate stands among those of a change: the same after every restart, and as good as by chance.
fn place(change: u64, serial: SerialNumber) -> Digest {
    let mut bytes = change.to_be_bytes().to_vec();
    bytes.extend_from_slice(serial.as_bytes());
    Digest::of(&bytes)
}

/// Members of the lists that the ledger keeps of a radius.
const RECORDED: usize = 10;

/// What the ledger keeps of a radius: an entry has its limits. Environments are what approval is about, and stay.
fn for_the_record(radius: &BlastRadius) -> BlastRadius {
    let mut radius = radius.clone();
    for parts in [&mut radius.largest_identities, &mut radius.owners, &mut radius.teams, &mut radius.nodes] {
        parts.truncate(RECORDED);
    }
    if let Some(enforcement) = &mut radius.enforcement {
        enforcement.silent.truncate(RECORDED);
    }
    radius
}
