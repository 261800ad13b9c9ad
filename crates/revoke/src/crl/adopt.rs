//! Lists that another process on the same ledger has made: fetched from what they share, verified, put in place.
//!
//! Whoever makes a list hands it over before it is recorded. The others take it once the log says that it is the one,
//! and check its hash and its signature themselves.

use std::sync::Arc;
use std::time::Duration;

use chancery_entry::Body;
use chancery_ledger::Scratch;
use chancery_types::{CrlShard, Digest, IssuerEpoch};
use tokio::sync::broadcast::error::RecvError;

use super::place::Place;
use super::publisher::CrlPublisher;
use super::{PublishError, PublishedCrl};

/// When what could not be fetched is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a list is kept for others beyond its own end.
const BEYOND: Duration = Duration::from_secs(3600);

impl CrlPublisher {
    /// Hands a list to the other processes, before it is recorded.
    pub(super) async fn share(&self, place: &Place, list: &PublishedCrl) -> Result<(), PublishError> {
        let Some(scratch) = self.ledger.scratch() else { return Ok(()) };
        let fence = self.turn_of(place).fence().ok_or(PublishError::Elsewhere(list.number))?;
        let lifetime = list.next_update.since(list.made) + BEYOND;
        match scratch.replace(fence, &key(place), &list.der, lifetime).await? {
            true => Ok(()),
            false => Err(PublishError::Elsewhere(list.number)),
        }
    }

    /// Puts in place what others have made, as the log tells of it. Ends at once where there are no others.
    pub(super) async fn follow(&self) {
        if self.ledger.scratch().is_none() {
            return;
        }
        let mut entries = self.ledger.news();
        let mut is_complete = self.adopt_all().await;
        loop {
            let heard = match is_complete {
                true => entries.recv().await,
                false => match tokio::time::timeout(RETRY, entries.recv()).await {
                    Ok(heard) => heard,
                    Err(_) => {
                        is_complete = self.adopt_all().await;
                        continue;
                    }
                },
            };
            is_complete &= match heard.as_ref().map(|news| &news.entry.body) {
                Ok(Body::CrlPublished(list)) => self.heard(list.epoch, None, list.hash).await,
                Ok(Body::CrlShardPublished(list)) => {
                    self.heard(list.epoch, Some(list.shard), list.hash).await
                }
                Ok(_) => true,
                Err(RecvError::Lagged(_)) => self.adopt_all().await,
                Err(RecvError::Closed) => return,
            };
        }
    }

    /// Looks at every place; whether all of them have what the log says.
    pub(super) async fn adopt_all(&self) -> bool {
        if self.ledger.scratch().is_none() {
            return true;
        }
        let mut is_complete = true;
        for place in self.places() {
            is_complete &= match self.ledger.last_crl(place.epoch(), place.shard()).await {
                Ok(None) => true,
                Ok(Some(last)) => self.adopt(&place, last.hash).await,
                Err(error) => {
                    tracing::warn!(%error, "it is not known which revocation lists there are");
                    false
                }
            };
        }
        is_complete
    }

    async fn heard(&self, epoch: IssuerEpoch, shard: Option<CrlShard>, hash: Digest) -> bool {
        let place = match shard {
            None => self.full(epoch),
            Some(shard) => self.part(epoch, shard),
        };
        match place {
            Some(place) => self.adopt(&place, hash).await,
            None => true,
        }
    }

    /// Whether the list of this hash, or a later one, is in place.
    async fn adopt(&self, place: &Arc<Place>, hash: Digest) -> bool {
        let (Some(scratch), false) = (self.ledger.scratch(), has(place, hash)) else { return true };
        // Not beside a publication of this process's own.
        let _turn = self.publishing_of(place).lock().await;
        if has(place, hash) {
            return true;
        }
        match fetch(scratch, place, hash).await {
            Ok(adopted) => adopted,
            Err(error) => {
                let file = place.file().display();
                tracing::warn!(%error, %file, "a revocation list of another process is not in place here");
                false
            }
        }
    }
}

fn has(place: &Place, hash: Digest) -> bool {
    place.current().is_some_and(|list| list.hash == hash)
}

/// Puts the list in place if it is there; one that is not there yet, or no more, follows.
async fn fetch(scratch: &dyn Scratch, place: &Arc<Place>, hash: Digest) -> Result<bool, PublishError> {
    let Some(der) = scratch.get(&key(place)).await? else { return Ok(false) };
    if Digest::of(&der) != hash {
        return Ok(false);
    }
    let list = place.read(der).ok_or(PublishError::Unexpected("another process made one that is no list"))?;
    if place.current().is_some_and(|current| current.number >= list.number) {
        return Ok(true);
    }
    let place = Arc::clone(place);
    let put = tokio::task::spawn_blocking(move || place.put(Arc::new(list)));
    put.await.map_err(|_| PublishError::BrokenOff)?.map(|()| true)
}

/// What a place's list is kept under.
fn key(place: &Place) -> Vec<u8> {
    let part = place.shard().map_or_else(String::new, |shard| format!("/{}/{}", shard.of(), shard.number()));
    format!("crl/{}{part}", place.epoch()).into_bytes()
}
