//! Objects in a bucket of an object store that speaks as Amazon S3 does: one is read, one is made, one is replaced.
//!
//! Answers are bounded in length and in time. What a store does not answer well is asked again for those who can wait; those
//! who wait for a tile turn to the ledger, and a store that failed them is left alone for a while.

mod address;
mod credentials;
mod exchange;
mod refusal;
mod signature;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chancery_types::{Clock, Random};
use http::StatusCode;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::BucketPlace;
use crate::outbound::ConnectError;
use exchange::{Ask, Exchange};
use refusal::Refusal;

pub(crate) use credentials::CredentialError;

/// How long and how often a store is asked.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Attempts at most.
    attempts: u32,
    /// How long each may take, from connecting to the end of the answer.
    each: Duration,
}

/// For somebody who waits, and for whom the ledger is there.
const READER: Patience = Patience { attempts: 2, each: Duration::from_secs(3) };
/// For upkeep, which has time.
const UPKEEP: Patience = Patience { attempts: 5, each: Duration::from_secs(30) };
/// Readers that ask at once; the others have the ledger.
const READERS: usize = 16;
/// How long readers leave a store alone that failed one of them.
const REST: Duration = Duration::from_secs(5);
/// The longest pause before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why an object store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BucketError {
    /// It is not configured well enough to be asked.
    #[error("{0}")]
    Settings(String),
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    #[error("{0}; are storage.tiles_endpoint, and for its certificate tiles_roots, right?")]
    Connect(#[from] ConnectError),
    #[error("the connection to the store broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the store did not answer within {0:?}")]
    Late(Duration),
    #[error("the store's answer broke off: {0}")]
    Cut(String),
    #[error("the object has more than {0} bytes, which no tile has")]
    TooLong(usize),
    #[error("{0}")]
    Refused(Refusal),
    /// A mistake in this program.
    #[error("the request cannot be written: {0}")]
    Request(String),
}

impl BucketError {
    /// Whether the same request may succeed later.
    fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Broken(_) | Self::Late(_) | Self::Cut(_) => true,
            Self::Refused(refusal) => refusal.is_transient(),
            Self::Settings(_) | Self::Credentials(_) | Self::TooLong(_) | Self::Request(_) => false,
        }
    }
}

/// What became of an object that was to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creation {
    /// It was made.
    Made,
    /// There is one already, which was left alone.
    WasThere,
}

/// A bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    exchange: Exchange,
    reader: Patience,
    upkeep: Patience,
    random: Arc<dyn Random>,
    readers: Semaphore,
    /// When it failed a reader.
    failed: Mutex<Option<Instant>>,
}

impl Bucket {
    /// The bucket that is configured here and in the environment. Nothing is asked yet.
    pub(crate) fn new(
        place: &BucketPlace,
        environment: impl Fn(&str) -> Option<String>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, BucketError> {
        let exchange = Exchange::new(place, environment, clock)?;
        let (readers, failed) = (Semaphore::new(READERS), Mutex::default());
        Ok(Self { exchange, reader: READER, upkeep: UPKEEP, random, readers, failed })
    }

    /// The same with other patience.
    #[cfg(test)]
    pub(super) fn with_patience(mut self, attempts: u32, each: Duration) -> Self {
        (self.reader, self.upkeep) = (Patience { attempts: 1, each }, Patience { attempts, each });
        self
    }

    /// An object for somebody who waits. Nothing if there is none, and while the store is busy with others or left alone.
    pub(crate) async fn read(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, BucketError> {
        let rests = self.failed().is_some_and(|failed| failed.elapsed() < REST);
        let (false, Ok(_place)) = (rests, self.readers.try_acquire()) else { return Ok(None) };
        let read = self.get(name, most, self.reader).await;
        // One object that is too long says nothing of the others.
        if read.as_ref().is_err_and(|error| !matches!(error, BucketError::TooLong(_))) {
            *self.failed() = Some(Instant::now());
        }
        read
    }

    /// An object for somebody who has time; nothing if there is none.
    pub(crate) async fn fetch(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, BucketError> {
        self.get(name, most, self.upkeep).await
    }

    /// Makes an object where there is none. A store that refuses to promise this relies on the caller, who has looked.
    pub(crate) async fn create(&self, name: &str, object: Bytes) -> Result<Creation, BucketError> {
        match self.ask(name, Ask::Create(object.clone()), self.upkeep).await {
            Ok(_) => Ok(Creation::Made),
            Err(BucketError::Refused(refusal)) if refusal.status == StatusCode::PRECONDITION_FAILED => {
                Ok(Creation::WasThere)
            }
            Err(BucketError::Refused(refusal)) if refusal.status == StatusCode::NOT_IMPLEMENTED => {
                self.replace(name, object).await.map(|()| Creation::Made)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes an object over any that is there.
    pub(crate) async fn replace(&self, name: &str, object: Bytes) -> Result<(), BucketError> {
        self.ask(name, Ask::Replace(object), self.upkeep).await.map(|_| ())
    }

    async fn get(&self, name: &str, most: usize, patience: Patience) -> Result<Option<Vec<u8>>, BucketError> {
        match self.ask(name, Ask::Get { most }, patience).await {
            Ok(object) => Ok(Some(object.into())),
            Err(BucketError::Refused(refusal)) if refusal.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks until it is answered well or cannot be. Everything may be repeated: what makes an object finds the one of the
    /// attempt whose answer was lost.
    async fn ask(&self, name: &str, ask: Ask, patience: Patience) -> Result<Bytes, BucketError> {
        let mut attempt = 1;
        loop {
            let answered = tokio::time::timeout(patience.each, self.exchange.once(name, &ask)).await;
            let error = match answered.unwrap_or(Err(BucketError::Late(patience.each))) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.is_transient() {
                self.exchange.forget();
            }
            if attempt >= patience.attempts || !error.is_transient() {
                return Err(error);
            }
            tracing::debug!(name, attempt, %error, "the object store is asked again");
            tokio::time::sleep(self.pause(attempt)).await;
            attempt += 1;
        }
    }

    /// Uniform below a bound that doubles, so that those who failed together do not come back together.
    fn pause(&self, attempt: u32) -> Duration {
        let bound = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempt - 1)).min(LONGEST_PAUSE);
        let mut bytes = [0; 4];
        match self.random.fill(&mut bytes) {
            Ok(()) => bound.mul_f64(f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)),
            Err(_) => bound,
        }
    }

    fn failed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
