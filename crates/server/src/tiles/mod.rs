//! Full tiles of the log in a directory or a bucket that replicas share: written once, and served from there.
//!
//! The layout is that of C2SP tlog-tiles, so that anything that serves files can serve them too. One process at a time
//! writes, behind the signed checkpoint; a full tile never changes, so that nothing has to be agreed on. What is not there
//! yet, what is not full, and everything while the place is away, comes from the ledger.

mod bucket;
mod directory;
mod examine;
mod keeper;
mod shelf;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chancery_ledger::{Ledger, ReadError};
use chancery_merkle::{Checkpoint, Tile, TileKind, leaf_hash, read_bundle};
use chancery_types::{Clock, Digest, Random};
use serde::{Deserialize, Serialize};

use crate::config::TilePlace;
use bucket::{BucketError, Creation};
use shelf::{Shelf, ShelfError};

pub use examine::{Examination, Writing, examine};
pub(crate) use keeper::TileKeeper;

/// The object that says whose tiles these are.
const NAME: &str = "chancery-tiles.json";
/// Bytes that it may have.
const NOTE_BYTES: usize = 4096;
/// How long a server waits for a bucket before it starts without.
const AT_START: Duration = Duration::from_secs(5);
/// Columns of tiles that are written to a bucket at once, where most of the time is waiting.
const COLUMNS: u64 = 8;
const WIDTH: u64 = Tile::FULL_WIDTH as u64;
const HASH: usize = 32;

/// Why tiles are not kept. They are served from the ledger meanwhile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TileError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The place cannot be read or written.
    #[error("{path}: {error}")]
    Shelf { path: String, error: ShelfError },
    /// What says whose tiles these are cannot be understood.
    #[error("{path}: {error}; take it away, and it is made anew")]
    Note { path: String, error: serde_json::Error },
    /// It is in use by another log.
    #[error("{path} has the tiles of another log, {origin}; name an empty place in storage.tiles")]
    OtherLog { path: String, origin: String },
    /// A tile is there and is another one.
    #[error(
        "{path} is not the tile that the log has: somebody altered it, or the log; run `chancery ledger check`"
    )]
    Differs { path: String },
    /// One that was there a moment ago is not.
    #[error("{path} is there and is not: somebody else takes away what is there, or the store forgets it")]
    Unsteady { path: String },
    /// What the ledger gives does not fit together.
    #[error("tile {0} does not hash to what stands above it; run `chancery ledger check`")]
    Unfit(Tile),
}

/// Whose tiles there are, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reach {
    origin: String,
    /// Hash of the first entry, which names the log's key.
    genesis: Digest,
    /// Entries whose full tiles are all there.
    entries: u64,
}

/// A place with full tiles.
#[derive(Debug)]
pub(crate) struct TileStore {
    place: TilePlace,
    shelf: Shelf,
    /// Whether it was seen to be this log's or nobody's. Before, nothing is served from there.
    is_known: AtomicBool,
    tallies: Tallies,
}

/// What became of it, for whoever watches.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    /// Tiles that were served from there.
    pub(crate) kept: AtomicU64,
    /// Tiles that were served from the ledger.
    pub(crate) made: AtomicU64,
    /// Entries whose full tiles are all there, as far as this process knows.
    pub(crate) entries: AtomicU64,
    /// Whether tiles are not kept.
    pub(crate) is_in_trouble: AtomicBool,
}

impl TileStore {
    /// The place, if it is this log's or nobody's. A bucket that is away is waited for later.
    pub(crate) async fn open(
        place: &TilePlace,
        ledger: &dyn Ledger,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, TileError> {
        let shelf = Shelf::open(place, clock, random).await;
        let shelf = shelf.map_err(|error| TileError::Shelf { path: place.to_string(), error })?;
        Self::over(place, shelf, ledger).await
    }

    async fn over(place: &TilePlace, shelf: Shelf, ledger: &dyn Ledger) -> Result<Self, TileError> {
        let (is_known, tallies) = (AtomicBool::new(false), Tallies::default());
        let store = Self { place: place.clone(), shelf, is_known, tallies };
        let late = ShelfError::Bucket(BucketError::Late(AT_START));
        let seen = tokio::time::timeout(AT_START, store.reach(ledger)).await;
        match seen.unwrap_or_else(|_| Err(store.failed(NAME, late))) {
            Err(error @ TileError::Shelf { .. }) if store.shelf.is_remote() => {
                tracing::error!(%error, "TILES ARE NOT KEPT; the ledger's are served");
                store.set_trouble(true);
                Ok(store)
            }
            Err(error) => Err(error),
            Ok(_) => Ok(store),
        }
    }

    /// The bytes of a tile, or of the first part of a full one; nothing while it is not there.
    pub(crate) async fn read(&self, tile: Tile) -> Option<Vec<u8>> {
        let found = self.look_up(tile).await;
        let tally = if found.is_some() { &self.tallies.kept } else { &self.tallies.made };
        tally.fetch_add(1, Ordering::Relaxed);
        found
    }

    async fn look_up(&self, tile: Tile) -> Option<Vec<u8>> {
        let whole = Tile::new(tile.kind(), tile.index(), Tile::FULL_WIDTH).filter(|_| self.is_known())?;
        match self.shelf.read(&whole.to_string(), longest(tile.kind())).await {
            Ok(found) => {
                let part = first(found?, tile);
                if part.is_none() {
                    tracing::error!(tile = %whole, "A TILE IN THE STORE IS DAMAGED; the ledger's is served");
                }
                part
            }
            Err(error) => {
                tracing::warn!(tile = %whole, %error, "a tile is served from the ledger");
                None
            }
        }
    }

    /// What became of it so far.
    pub(crate) fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    fn set_trouble(&self, is_in_trouble: bool) {
        self.tallies.is_in_trouble.store(is_in_trouble, Ordering::Relaxed);
    }

    fn columns_at_once(&self) -> u64 {
        if self.shelf.is_remote() { COLUMNS } else { 1 }
    }

    /// How far it reaches, once it is seen whose it is.
    async fn reach(&self, ledger: &dyn Ledger) -> Result<Reach, TileError> {
        let origin = checkpoint(ledger)?.origin().to_owned();
        let first = ledger.entry(0).await?.unwrap_or_default();
        let ours = Reach { origin, genesis: leaf_hash(&first), entries: 0 };
        let found = self.noted().await?.unwrap_or_else(|| ours.clone());
        let is_ours = (&found.origin, found.genesis) == (&ours.origin, ours.genesis);
        self.is_known.store(is_ours, Ordering::Relaxed);
        if !is_ours {
            return Err(TileError::OtherLog { path: self.place.to_string(), origin: found.origin });
        }
        self.tallies.entries.store(found.entries, Ordering::Relaxed);
        Ok(found)
    }

    /// Whose it is and how far it reaches, by its own account.
    async fn noted(&self) -> Result<Option<Reach>, TileError> {
        let bytes = self.shelf.fetch(NAME, NOTE_BYTES).await.map_err(|error| self.failed(NAME, error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let noted = serde_json::from_slice(&bytes);
        noted.map(Some).map_err(|error| TileError::Note { path: self.path(NAME), error })
    }

    async fn note(&self, reach: &Reach) -> Result<(), TileError> {
        let bytes = serde_json::to_vec(reach);
        let bytes = bytes.map_err(|error| TileError::Note { path: self.path(NAME), error })?;
        self.shelf.replace(NAME, bytes.into()).await.map_err(|error| self.failed(NAME, error))?;
        self.tallies.entries.store(reach.entries, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a tile that is not there; one that is must be the same.
    async fn put(&self, tile: Tile, bytes: Bytes) -> Result<(), TileError> {
        let name = tile.to_string();
        // Twice, because another process may write it in between.
        for _ in 0..2 {
            match self.shelf.fetch(&name, longest(tile.kind())).await {
                Ok(Some(found)) if found == bytes => return Ok(()),
                Ok(Some(_)) | Err(ShelfError::Bucket(BucketError::TooLong(_))) => {
                    return Err(TileError::Differs { path: self.path(&name) });
                }
                Ok(None) => {}
                Err(error) => return Err(self.failed(&name, error)),
            }
            let created = self.shelf.create(&name, bytes.clone()).await;
            if created.map_err(|error| self.failed(&name, error))? == Creation::Made {
                return Ok(());
            }
        }
        Err(TileError::Unsteady { path: self.path(&name) })
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.place)
    }

    fn failed(&self, name: &str, error: ShelfError) -> TileError {
        TileError::Shelf { path: self.path(name), error }
    }
}

/// What the log has signed of itself.
fn checkpoint(ledger: &dyn Ledger) -> Result<Checkpoint, ReadError> {
    Checkpoint::parse(ledger.checkpoint()?.text()).map_err(|error| ReadError(error.to_string()))
}

/// Bytes of a tile at most.
fn longest(kind: TileKind) -> usize {
    let each = match kind {
        TileKind::Hashes(_) => HASH,
        TileKind::Entries => 2 + usize::from(u16::MAX),
    };
    usize::from(Tile::FULL_WIDTH) * each
}

/// As much of a full tile as another one of the same place holds; nothing where it is none.
fn first(mut bytes: Vec<u8>, tile: Tile) -> Option<Vec<u8>> {
    let width = usize::from(tile.width());
    let length = match tile.kind() {
        TileKind::Hashes(_) => {
            (bytes.len() == usize::from(Tile::FULL_WIDTH) * HASH).then_some(width * HASH)?
        }
        TileKind::Entries => {
            let entries = read_bundle(&bytes, Tile::FULL_WIDTH).ok()?;
            entries.iter().take(width).map(|entry| 2 + entry.len()).sum()
        }
    };
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests;
