//! What is published and whose key is not here.
//!
//! Another process would have it sign, and this one could then neither sign nor start. So it objects while there is time:
//! the kind rests, and whoever looks after the authority is told whose key to bring where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use chancery_entry::{Body, RotationWish, Wanted};
use chancery_rotate::authority::{Since, State, Subject, Wish};
use chancery_x509::Certificate;

use super::{Rotation, RotationError};
use crate::authority::{jwt_records, read_log_keys};

/// An issuer or a key that is published, by its kind and its name.
type Published = (Subject, String);

/// What was looked for.
#[derive(Debug, Default)]
pub(super) struct Keys {
    looked: BTreeSet<Published>,
    missing: BTreeMap<Published, String>,
}

impl Rotation {
    /// The keys that are not here, in words.
    pub(super) fn missing_keys(&self) -> Option<String> {
        self.keys().missing.values().next().cloned()
    }

    /// Looks for the key of everything that is published, when half of the time has gone by that everybody has: files that
    /// are shared need a while. Once; and again when somebody asks for what rested.
    ///
    /// # Errors
    /// [`RotationError`] when it cannot be found out, or the objection is not on record; it is tried again.
    pub(super) async fn look_for_keys(&self, state: &State) -> Result<(), RotationError> {
        let published: BTreeMap<Published, Since> = published(state).collect();
        self.keys().looked.retain(|known| published.contains_key(known));
        self.keys().missing.retain(|known, _| published.contains_key(known));
        for (one, since) in published {
            let is_paused = matches!(state.wishes.get(&one.0), Some(Wish::Pause { .. }));
            if !self.is_to_be_looked_for(&one, since, is_paused) {
                continue;
            }
            let missing = !self.has_key(&one).await?;
            if missing {
                self.object(&one, is_paused).await?;
            }
            if !missing {
                self.keys().missing.remove(&one);
            }
            self.keys().looked.insert(one);
        }
        Ok(())
    }

    fn is_to_be_looked_for(&self, one: &Published, since: Since, is_paused: bool) -> bool {
        if self.keys().looked.contains(one) {
            return self.keys().missing.contains_key(one) && !is_paused;
        }
        // Who has just started has less time left than it has seen go by.
        let gone = since.seen_for.max(self.now().since(since.at));
        gone >= self.rules.notice() / 2
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn has_key(&self, (subject, name): &Published) -> Result<bool, RotationError> {
        let ledger = self.authority.ledger();
        if *subject == Subject::Issuer {
            let records = ledger.issuers().await?;
            let Some(record) = records.iter().find(|record| record.epoch.to_string() == *name) else {
                return Ok(true);
            };
            let Ok(certificate) = Certificate::from_der(&record.certificate) else { return Ok(true) };
            return Ok(self.authority.signer_of(record.epoch, &certificate).await.is_some());
        }
        if *subject == Subject::Log {
            let keys = read_log_keys(ledger.as_ref()).await?;
            let Some(key) = keys.iter().find(|key| key.id().to_string() == *name) else { return Ok(true) };
            return Ok(self.authority.has_log_key(key).await?);
        }
        let records = jwt_records(ledger.as_ref()).await?;
        let Some(record) = records.iter().find(|record| record.key.to_string() == *name) else {
            return Ok(true);
        };
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let (keyring, spki) = (Arc::clone(self.authority.keyring()), record.content.clone());
        let found = tokio::task::spawn_blocking(move || keyring.jwt(count, &spki)).await;
        Ok(found.map_err(|_| RotationError::BrokenOff)?.is_ok_and(|key| key.is_some()))
    }

    /// Has the kind rest, unless it rests already.
    async fn object(&self, one: &Published, is_paused: bool) -> Result<(), RotationError> {
        let (subject, name) = one;
        let what = match subject {
            Subject::Issuer => format!("issuer {name}"),
            _ => format!("the {} key {name}", subject.name()),
        };
        let why = format!(
            "the key of {what}, which is published, is not at one of the servers: bring it there, or share the \
             directory, then `chancery ca rotate --now {}`",
            subject.name()
        );
        tracing::error!(%why, "A KEY THAT IS TO SIGN SOON IS NOT HERE");
        self.keys().missing.insert(one.clone(), why.clone());
        if !is_paused {
            let (subject, by) = (subject.name().to_owned(), "chancery".to_owned());
            let wish = RotationWish { subject, wish: Wanted::Pause, by, note: why };
            self.authority.record(Body::RotationWished(wish)).await?;
        }
        Ok(())
    }
}

fn published(state: &State) -> impl Iterator<Item = (Published, Since)> {
    let issuers = state
        .issuers
        .iter()
        .filter_map(|issuer| Some(((Subject::Issuer, issuer.epoch.to_string()), issuer.phase.published()?)));
    let keys = [Subject::Jwt, Subject::Log].into_iter().flat_map(|subject| {
        let keys = state.keys(subject).iter();
        keys.filter_map(move |key| Some(((subject, key.id.to_string()), key.phase.published()?)))
    });
    issuers.chain(keys)
}
