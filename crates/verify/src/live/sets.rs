//! Fetching the signed set: whole at first, by a delta when there is one, and never an unverified byte.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chancery_api::{Operation, ProblemCode};
use chancery_client::{Client, ClientError};
use chancery_merkle::NoteVerifier;
use chancery_status::{OpenError, SignedSet};
use chancery_types::TrustDomain;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::authority::Authority;
use super::patience::Patience;

/// How often the set is fetched though the feed says nothing of it: what the feed withholds comes to light then.
const REFRESH: Duration = Duration::from_secs(600);
/// The same while there is no feed.
const REFRESH_ALONE: Duration = Duration::from_secs(10);

/// The largest set that is fetched: a hundred million certificates that are not good.
const LARGEST_SET: usize = 256 << 20;

/// The key that signs sets.
#[derive(Debug, Clone)]
pub enum LogKey {
    /// This one.
    Pinned(NoteVerifier),
    /// The one that the authority shows, over TLS, the first time; it is kept with the set.
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
    Key(String),
    #[error("the set could not be read: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}

pub(crate) struct Fetched {
    pub(crate) set: SignedSet,
    pub(crate) key: NoteVerifier,
}

/// Fetches when a set is due.
pub(crate) struct Sets {
    authority: Authority,
    key: Option<NoteVerifier>,
    wanted: u64,
    due: Instant,
    fetching: Option<BoxFuture<'static, Result<Fetched, FetchError>>>,
    patience: Patience,
}

impl Sets {
    pub(crate) fn new(authority: Authority, key: Option<NoteVerifier>) -> Self {
        let patience = Patience::new(Duration::from_millis(200), Duration::from_secs(10));
        Self { authority, key, wanted: 0, due: Instant::now(), fetching: None, patience }
    }

    /// Believes this key, for there is a set that it has signed.
    pub(crate) fn believe(&mut self, key: NoteVerifier) {
        self.key = Some(key);
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
            self.fetching = Some(Box::pin(fetch(self.authority.clone(), self.key.clone(), held.cloned())));
        }
        let fetching = self.fetching.as_mut().expect("it was put there just now");
        let result = fetching.await;
        self.fetching = None;
        match &result {
            Ok(fetched) => {
                self.key = Some(fetched.key.clone());
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
    key: Option<NoteVerifier>,
    held: Option<SignedSet>,
) -> Result<Fetched, FetchError> {
    let (_, client) = authority.client()?;
    let key = match key {
        Some(key) => key,
        None => parse_key(&client.log_key().await?)?,
    };
    let trust_domain = authority.trust_domain();
    if let Some(held) = held {
        let from = held.set().sequence().to_string();
        match download(&client, Operation::StatusDelta, &[&from]).await {
            // That one is the current one.
            Ok(delta) if delta.is_empty() => return Ok(Fetched { set: held, key }),
            Ok(delta) => match open(Some(held), delta, trust_domain, &key).await {
                Ok(set) => return Ok(Fetched { set, key }),
                Err(error) => tracing::info!(%error, "the delta does not lead on; the whole set is fetched"),
            },
            Err(FetchError::Client(error)) if error.code() == Some(ProblemCode::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    let whole = download(&client, Operation::StatusSet, &[]).await?;
    let set = open(None, whole, trust_domain, &key).await?;
    Ok(Fetched { set, key })
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
    key: &NoteVerifier,
) -> Result<SignedSet, FetchError> {
    let (trust_domain, key) = (trust_domain.clone(), key.clone());
    let opened = tokio::task::spawn_blocking(move || match held {
        Some(held) => held.advance(bytes, &trust_domain, &key),
        None => SignedSet::open(bytes, &trust_domain, &key),
    });
    Ok(opened.await??)
}

fn parse_key(text: &[u8]) -> Result<NoteVerifier, FetchError> {
    let text = std::str::from_utf8(text).map_err(|error| FetchError::Key(error.to_string()))?;
    text.trim_end().parse().map_err(|error: chancery_merkle::VkeyError| FetchError::Key(error.to_string()))
}
