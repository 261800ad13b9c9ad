//! Whether the place of tiles can be read and written from here, for who looks after a deployment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chancery_types::{SystemClock, SystemRandom};
use rustix::fs::{Access, access};

use super::bucket::{BucketError, Creation, CredentialError};
use super::shelf::{Shelf, ShelfError};
use super::{NAME, NOTE_BYTES, Reach};
use crate::authority::log_origin;
use crate::config::{Config, TilePlace};

/// What was found at the place of tiles.
#[derive(Debug)]
pub enum Examination {
    /// Only the server's own environment has the credentials for it.
    OutOfSight {
        /// The place, as the configuration names it.
        place: String,
    },
    /// It was tried.
    Seen {
        /// The place, as the configuration names it.
        place: String,
        /// Entries whose full tiles are there; nothing where none was written yet. Or why that is not known.
        reach: Result<Option<u64>, String>,
        /// Whether it can be written to, or why not.
        writing: Result<Writing, String>,
    },
}

/// How a place is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// What is there stays there.
    Once,
    /// A store replaces what is there although it is told not to.
    Over,
}

/// The object that shows whether a bucket can be written to. It is made once and never changes.
const PROBE: &str = "chancery-doctor";
const PROBE_TEXT: &[u8] = b"chancery doctor was here\n";
/// How long a store may take for each question.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks at the place of full tiles; nothing when they are kept nowhere. Into a bucket it writes one object, once.
pub async fn examine(config: &Config) -> Option<Examination> {
    let place = config.tiles.as_ref()?;
    let seen = |reach, writing| Some(Examination::Seen { place: place.to_string(), reach, writing });
    // A directory that is not there is not made.
    if place.directory().is_some_and(|directory| !directory.is_dir()) {
        let problem = "there is no such directory".to_owned();
        return seen(Err(problem.clone()), Err(problem));
    }
    match Shelf::open(place, Arc::new(SystemClock), Arc::new(SystemRandom)).await {
        Err(ShelfError::Bucket(BucketError::Credentials(CredentialError::Missing))) => {
            Some(Examination::OutOfSight { place: place.to_string() })
        }
        Err(error) => seen(Err(error.to_string()), Err(error.to_string())),
        Ok(shelf) => {
            let reach = soon(reach(&shelf, &log_origin(&config.trust_domain))).await;
            seen(reach, soon(writing(place, &shelf)).await)
        }
    }
}

async fn soon<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("no answer within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(late)
}

async fn reach(shelf: &Shelf, origin: &str) -> Result<Option<u64>, String> {
    let bytes = shelf.fetch(NAME, NOTE_BYTES).await.map_err(|error| error.to_string())?;
    let Some(bytes) = bytes else { return Ok(None) };
    let found: Reach = serde_json::from_slice(&bytes).map_err(|error| format!("{NAME}: {error}"))?;
    match found.origin == origin {
        true => Ok(Some(found.entries)),
        false => Err(format!("it has the tiles of another log, {}", found.origin)),
    }
}

async fn writing(place: &TilePlace, shelf: &Shelf) -> Result<Writing, String> {
    if let TilePlace::Directory(directory) = place {
        let may = access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK);
        return may.map(|()| Writing::Once).map_err(|error| std::io::Error::from(error).to_string());
    }
    let create = async || shelf.create(PROBE, Bytes::from_static(PROBE_TEXT)).await;
    let twice = async {
        create().await?;
        create().await
    };
    match twice.await.map_err(|error: ShelfError| error.to_string())? {
        Creation::WasThere => Ok(Writing::Once),
        Creation::Made => Ok(Writing::Over),
    }
}
