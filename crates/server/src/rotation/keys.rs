//! Keys without certificates: made and published, in use in place of another, out of use.

use std::sync::Arc;

use chancery_entry::{Blob, Body, KeyChange, KeyPhase, KeyPurpose};
use chancery_ledger::Precondition;
use chancery_merkle::{RecordedKey, VerifiedCheckpoint};
use chancery_rotate::authority::{Subject, Violation};
use chancery_types::{Digest, KeyAlgorithm};

use super::change::Hands;
use super::{Rotation, RotationError};
use crate::authority::{AuthorityError, LogKey, jwt_records, read_log_keys, vouch};

/// What the log says of a key.
struct KnownKey {
    purpose: KeyPurpose,
    id: Digest,
    content: Vec<u8>,
    /// Index of the last entry about it; nothing for a key of which no entry is.
    index: Option<u64>,
}

impl Rotation {
    /// Makes a key and has everybody know it.
    pub(super) async fn publish_key(&self, subject: Subject, hands: Hands<'_>) -> Result<(), RotationError> {
        let known = self.known_keys(subject).await?.len();
        let number = u32::try_from(known).unwrap_or(u32::MAX).saturating_add(1);
        let keyring = Arc::clone(self.authority.keyring());
        let (purpose, made) = match subject {
            Subject::Log => {
                (KeyPurpose::Log, tokio::task::spawn_blocking(move || keyring.make_ledger(number)))
            }
            _ => {
                let make = move || keyring.make_jwt(number, KeyAlgorithm::P256);
                (KeyPurpose::Jwt, tokio::task::spawn_blocking(make))
            }
        };
        let key = made.await.map_err(|_| RotationError::BrokenOff)??;
        let (id, content) = (key.public_key().fingerprint(), key.public_key().spki_der().to_vec());
        let key = KnownKey { purpose, id, content, index: None };
        self.commit(vec![key.is_as_read()], vec![key.enters(KeyPhase::Published, &hands)], hands.also).await
    }

    /// A key signs from here on, in place of another.
    pub(super) async fn activate_key(
        &self,
        subject: Subject,
        id: Digest,
        supersedes: Digest,
        hands: Hands<'_>,
    ) -> Result<(), RotationError> {
        let mut next = self.known_key(subject, id).await?;
        let before = self.known_key(subject, supersedes).await?;
        if subject == Subject::Log {
            next.content = self.vouched(&next, &before).await?;
        }
        let bodies = vec![next.enters(KeyPhase::Active, &hands), before.enters(KeyPhase::Retired, &hands)];
        self.commit(vec![next.is_as_read(), before.is_as_read()], bodies, hands.also).await
    }

    /// A key is out of use.
    pub(super) async fn withdraw_key(
        &self,
        subject: Subject,
        id: Digest,
        hands: Hands<'_>,
    ) -> Result<(), RotationError> {
        let key = self.known_key(subject, id).await?;
        self.commit(vec![key.is_as_read()], vec![key.enters(KeyPhase::Withdrawn, &hands)], hands.also).await
    }

    /// The record of a key of the log that is to sign, vouched for by the one before it: once, when it signs first.
    async fn vouched(&self, next: &KnownKey, before: &KnownKey) -> Result<Vec<u8>, RotationError> {
        let (ledger, signers) = (self.authority.ledger().as_ref(), self.authority.log_signers());
        let unusable = |error: &dyn std::fmt::Display| AuthorityError::invalid("a key of the log", error);
        let read =
            |content: &[u8]| RecordedKey::parse(signers.origin(), content).map_err(|error| unusable(&error));
        let (mut recorded, elder) = (read(&next.content)?, read(&before.content)?);
        let Some(published) = next.index.filter(|_| recorded.vouched.is_none()) else {
            return Ok(next.content.clone());
        };
        let note = vouch(ledger, signers, published).await?;
        VerifiedCheckpoint::open(&note, &elder.key.into(), &[]).map_err(|error| unusable(&error))?;
        recorded.vouched = Some(note);
        Ok(recorded.content())
    }

    async fn known_key(&self, subject: Subject, id: Digest) -> Result<KnownKey, RotationError> {
        let known = self.known_keys(subject).await?.into_iter().find(|known| known.id == id);
        known.ok_or_else(|| Violation::Unknown(format!("{} key {id}", subject.name())).into())
    }

    async fn known_keys(&self, subject: Subject) -> Result<Vec<KnownKey>, RotationError> {
        let ledger = self.authority.ledger().as_ref();
        if subject == Subject::Log {
            return Ok(read_log_keys(ledger).await?.iter().map(KnownKey::of_log).collect());
        }
        let records = jwt_records(ledger).await?.into_iter();
        let known = records.map(|record| KnownKey {
            purpose: record.purpose,
            id: record.key,
            content: record.content,
            index: Some(record.index),
        });
        Ok(known.collect())
    }
}

impl KnownKey {
    fn of_log(key: &LogKey) -> Self {
        let content = key.recorded.content();
        Self { purpose: KeyPurpose::Log, id: key.id(), content, index: key.index }
    }

    /// That nothing was said of it since it was read.
    fn is_as_read(&self) -> Precondition {
        Precondition::KeyAt { purpose: self.purpose, key: self.id, index: self.index }
    }

    fn enters(&self, phase: KeyPhase, hands: &Hands<'_>) -> Body {
        Body::KeyChanged(KeyChange {
            purpose: self.purpose,
            key: self.id,
            content: Blob(self.content.clone()),
            phase,
            by: hands.by.to_owned(),
            note: hands.note.to_owned(),
        })
    }
}
