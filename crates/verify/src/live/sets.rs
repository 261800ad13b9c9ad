//! Fetching the signed set: whole at first, by a delta when there is one, and never an unverified byte.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chancery_api::{Operation, ProblemCode};
use chancery_client::{Client, ClientError};
use chancery_merkle::{LogKeys, LogKeysError, NoteError};
use chancery_status::{OpenError, SignedSet};
use chancery_types::TrustDomain;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::authority::Authority;
use super::patience::Patience;
use crate::log_keys::{LogKeysRefusal, follow_log_keys};

/// How often the set is fetched though the feed says nothing of it: what the feed withholds comes to light then.
const REFRESH: Duration = Duration::from_secs(600);
/// The same while there is no feed.
const REFRESH_ALONE: Duration = Duration::from_secs(10);

/// The largest set that is fetched: a hundred million certificates that are not good.
const LARGEST_SET: usize = 256 << 20;

/// The key that signs sets.
#[derive(Debug, Clone)]
pub enum LogKey {
    /// These, and whatever key they vouch for.
    Pinned(LogKeys),
    /// The one that the authority shows, over TLS, the first time; it is kept with the set, and leads to those after it.
    Fetched,
}

/// Why there is no newer set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the set is not believed: {0}")]
    Open(#[from] OpenError),
    #[error("the log's key cannot be read: {0}")]
    Key(#[from] LogKeysError),
    #[error(transparent)]
    Keys(#[from] LogKeysRefusal),
    #[error("the set could not be read: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}

pub(crate) struct Fetched {
    pub(crate) set: SignedSet,
    pub(crate) keys: LogKeys,
}

/// Fetches when a set is due.
pub(crate) struct Sets {
    authority: Authority,
    keys: Option<LogKeys>,
    wanted: u64,
    due: Instant,
    fetching: Option<BoxFuture<'static, Result<Fetched, FetchError>>>,
    patience: Patience,
}

impl Sets {
    pub(crate) fn new(authority: Authority, keys: Option<LogKeys>) -> Self {
        let patience = Patience::new(Duration::from_millis(200), Duration::from_secs(10));
        Self { authority, keys, wanted: 0, due: Instant::now(), fetching: None, patience }
    }

    /// Believes these keys, for there is a set that they have signed.
    pub(crate) fn believe(&mut self, keys: LogKeys) {
        self.keys = Some(keys);
    }

    /// A set of this position or later is wanted.
    pub(crate) fn want(&mut self, sequence: u64) {
        if sequence > self.wanted {
            self.wanted = sequence;
            self.due = Instant::now();
        }
    }

    /// There is no feed: sets are all that tells.
    pub(crate) fn feed_is_away(&mut self) {
        self.due = self.due.min(Instant::now() + REFRESH_ALONE);
    }

    /// The next set that was fetched and verified; may be dropped while it waits, and nothing is lost. `held` is the
    /// one that is there.
    pub(crate) async fn next(&mut self, held: Option<&SignedSet>) -> Result<Fetched, FetchError> {
        if self.fetching.is_none() {
            tokio::time::sleep_until(self.due).await;
            self.fetching = Some(Box::pin(fetch(self.authority.clone(), self.keys.clone(), held.cloned())));
        }
        let fetching = self.fetching.as_mut().expect("it was put there just now");
        let result = fetching.await;
        self.fetching = None;
        match &result {
            Ok(fetched) => {
                self.keys = Some(fetched.keys.clone());
                self.plan(fetched.set.set().sequence());
            }
            Err(_) => self.due = Instant::now() + self.patience.fail(),
        }
        result
    }

    /// When to look next, having this one.
    fn plan(&mut self, sequence: u64) {
        // The set may be a moment behind the feed that made us fetch it.
        let wait = match sequence < self.wanted {
            true => self.patience.fail(),
            false => {
                self.patience.succeed();
                REFRESH
            }
        };
        self.due = Instant::now() + wait;
    }
}

async fn fetch(
    authority: Authority,
    keys: Option<LogKeys>,
    held: Option<SignedSet>,
) -> Result<Fetched, FetchError> {
    let (_, client) = authority.client()?;
    let keys = match keys {
        Some(keys) => keys,
        None => String::from_utf8_lossy(&client.log_key().await?).parse()?,
    };
    let trust_domain = authority.trust_domain();
    match fetch_signed(&client, trust_domain, &keys, held.clone()).await {
        Ok(set) => Ok(Fetched { set, keys }),
        // Other keys sign now: they have to follow from those that were known.
        Err(FetchError::Open(OpenError::Note(NoteError::Unsigned { .. }))) => {
            let keys = follow_log_keys(&keys, &client.log_keys().await?)?;
            let set = fetch_signed(&client, trust_domain, &keys, held).await?;
            tracing::info!(key = %keys.newest(), "the log has another key, for which the one before it vouches");
            Ok(Fetched { set, keys })
        }
        Err(error) => Err(error),
    }
}

/// The newest set, signed by one of these keys.
async fn fetch_signed(
    client: &Client,
    trust_domain: &TrustDomain,
    keys: &LogKeys,
    held: Option<SignedSet>,
) -> Result<SignedSet, FetchError> {
    if let Some(held) = held {
        let from = held.set().sequence().to_string();
        match download(client, Operation::StatusDelta, &[&from]).await {
            // That one is the current one.
            Ok(delta) if delta.is_empty() => return Ok(held),
            Ok(delta) => match open(Some(held), delta, trust_domain, keys).await {
                Ok(set) => return Ok(set),
                Err(error) => tracing::info!(%error, "the delta does not lead on; the whole set is fetched"),
            },
            Err(FetchError::Client(error)) if error.code() == Some(ProblemCode::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    let whole = download(client, Operation::StatusSet, &[]).await?;
    open(None, whole, trust_domain, keys).await
}

async fn download(client: &Client, operation: Operation, parameters: &[&str]) -> Result<Bytes, FetchError> {
    let mut stream = client.stream(operation, parameters).await?;
    let mut bytes = BytesMut::new();
    while let Some(part) = stream.next_chunk().await? {
        if bytes.len() + part.len() > LARGEST_SET {
            return Err(ClientError::TooLarge { limit: LARGEST_SET }.into());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.freeze())
}

/// Reads what came: work for a processor, not for a task among others.
async fn open(
    held: Option<SignedSet>,
    bytes: Bytes,
    trust_domain: &TrustDomain,
    keys: &LogKeys,
) -> Result<SignedSet, FetchError> {
    let (trust_domain, keys) = (trust_domain.clone(), keys.clone());
    let opened = tokio::task::spawn_blocking(move || match held {
        Some(held) => held.advance(bytes, &trust_domain, keys.as_slice()),
        None => SignedSet::open(bytes, &trust_domain, keys.as_slice()),
    });
    Ok(opened.await??)
}
