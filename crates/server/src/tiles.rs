//! Full tiles of the log in a directory that replicas share: written once, and served from there.
//!
//! The layout is that of C2SP tlog-tiles, so that anything that serves files can serve them too. One process at a time
//! writes, behind the signed checkpoint; a full tile never changes, so that nothing has to be agreed on. What is not in the
//! directory yet, and what is not full, comes from the ledger.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_ledger::{Ledger, ReadError, Turn};
use chancery_merkle::{Checkpoint, Frontier, Tile, TileKind, leaf_hash, push_entry, read_bundle};
use chancery_status::replace_file;
use chancery_types::Digest;
use serde::{Deserialize, Serialize};

/// How often it is looked whether a tile is full.
const LOOK: Duration = Duration::from_secs(2);
/// Columns of tiles after which it is noted how far they reach.
const NOTE_EVERY: u64 = 64;
/// The file that says whose tiles these are.
const NAME: &str = "chancery-tiles.json";
const WIDTH: u64 = Tile::FULL_WIDTH as u64;
const HASH: usize = 32;

/// Why tiles are not kept in the directory. They are served from the ledger meanwhile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TileError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The directory cannot be read or written.
    #[error("{path}: {error}")]
    File { path: String, error: io::Error },
    /// It is in use by another log.
    #[error("{path} has the tiles of another log, {origin}; name an empty directory in storage.tiles")]
    OtherLog { path: String, origin: String },
    /// A tile is there and is another one.
    #[error(
        "{path} is not the tile that the log has: somebody altered it, or the log; run `chancery ledger check`"
    )]
    Differs { path: String },
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

/// A directory with full tiles.
#[derive(Debug)]
pub(crate) struct TileStore {
    directory: PathBuf,
}

impl TileStore {
    /// The directory, if it is this log's or nobody's.
    pub(crate) async fn open(directory: &Path, ledger: &dyn Ledger) -> Result<Self, TileError> {
        let store = Self { directory: directory.to_owned() };
        std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
        store.reach(ledger).await?;
        Ok(store)
    }

    /// The bytes of a tile, or of the first part of a full one; nothing while it is not there.
    pub(crate) async fn read(&self, tile: Tile) -> Option<Vec<u8>> {
        let whole = Tile::new(tile.kind(), tile.index(), Tile::FULL_WIDTH)?;
        let path = self.path(whole);
        let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await.ok()?;
        match read {
            Ok(bytes) => {
                let part = first(bytes, tile);
                if part.is_none() {
                    tracing::error!(tile = %whole, "A TILE IN THE DIRECTORY IS DAMAGED; the ledger's is served");
                }
                part
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(tile = %whole, %error, "a tile is served from the ledger");
                None
            }
        }
    }

    fn path(&self, tile: Tile) -> PathBuf {
        self.directory.join(tile.to_string())
    }

    /// How far it reaches.
    async fn reach(&self, ledger: &dyn Ledger) -> Result<Reach, TileError> {
        let origin = checkpoint(ledger)?.origin().to_owned();
        let first = ledger.entry(0).await?.unwrap_or_default();
        let ours = Reach { origin, genesis: leaf_hash(&first), entries: 0 };
        let path = self.directory.join(NAME);
        let found: Reach = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ours),
            Err(error) => return Err(failed(&path, error)),
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| failed(&path, io::Error::other(error)))?
            }
        };
        if (&found.origin, found.genesis) != (&ours.origin, ours.genesis) {
            let path = self.directory.display().to_string();
            return Err(TileError::OtherLog { path, origin: found.origin });
        }
        Ok(found)
    }

    fn note(&self, reach: &Reach) -> Result<(), TileError> {
        let path = self.directory.join(NAME);
        let bytes = serde_json::to_vec(reach).map_err(|error| failed(&path, io::Error::other(error)))?;
        replace_file(&path, &bytes).map_err(|error| failed(&path, error))
    }

    /// Writes a tile that is not there; one that is must be the same.
    fn put(&self, tile: Tile, bytes: &[u8]) -> Result<(), TileError> {
        let path = self.path(tile);
        match std::fs::read(&path) {
            Ok(found) if found == bytes => return Ok(()),
            Ok(_) => return Err(TileError::Differs { path: path.display().to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path, error)),
        }
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        written.and_then(|()| replace_file(&path, bytes)).map_err(|error| failed(&path, error))
    }
}

/// What the log has signed of itself.
fn checkpoint(ledger: &dyn Ledger) -> Result<Checkpoint, ReadError> {
    Checkpoint::parse(ledger.checkpoint()?.text()).map_err(|error| ReadError(error.to_string()))
}

fn failed(path: &Path, error: io::Error) -> TileError {
    TileError::File { path: path.display().to_string(), error }
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

/// Keeps the directory up with the log.
pub(crate) struct TileKeeper {
    ledger: Arc<dyn Ledger>,
    store: Arc<TileStore>,
    turn: Turn,
}

impl TileKeeper {
    pub(crate) fn new(ledger: Arc<dyn Ledger>, store: Arc<TileStore>) -> Self {
        let turn = Turn::new(Arc::clone(&ledger), "tiles");
        Self { ledger, store, turn }
    }

    /// Writes tiles as they become full, until it is dropped.
    pub(crate) async fn run(&self) {
        let mut done = 0;
        loop {
            let full = self.ledger.head().size / WIDTH;
            if full > done && self.turn.ask().await.is_some() {
                tokio::select! {
                    kept = self.round() => match kept {
                        Ok(entries) => done = entries / WIDTH,
                        Err(error) => tracing::error!(%error, "TILES ARE NOT KEPT; the ledger's are served"),
                    },
                    () = self.turn.keep() => {}
                }
                self.turn.give_up().await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes every tile that is full and not there, while it is this process's turn; the entries that they reach to.
    pub(crate) async fn round(&self) -> Result<u64, TileError> {
        let mut reach = self.store.reach(self.ledger.as_ref()).await?;
        let (mut next, end) = (reach.entries / WIDTH, checkpoint(self.ledger.as_ref())?.size() / WIDTH);
        while next < end {
            // Where it has gone to another process, that one goes on.
            if self.turn.fence().is_none() && self.turn.ask().await.is_none() {
                break;
            }
            self.column(next).await?;
            next += 1;
            reach.entries = next * WIDTH;
            if next.is_multiple_of(NOTE_EVERY) || next == end {
                self.store.note(&reach)?;
            }
        }
        Ok(reach.entries)
    }

    /// The tiles that are full with these 256 entries.
    async fn column(&self, index: u64) -> Result<(), TileError> {
        let count = usize::from(Tile::FULL_WIDTH);
        let entries = self.ledger.entries_at_leisure(index * WIDTH, count).await?;
        let leaves: Vec<Digest> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let mut bundle = Vec::with_capacity(entries.iter().map(|entry| 2 + entry.len()).sum());
        for entry in &entries {
            push_entry(&mut bundle, entry).map_err(|error| ReadError(error.to_string()))?;
        }
        self.hashes(0, index, &leaves).await?;
        self.put(TileKind::Entries, index, bundle).await?;
        let (mut level, mut below) = (1, index + 1);
        while below.is_multiple_of(WIDTH) && level <= 7 {
            below /= WIDTH;
            let hashes = self.ledger.hashes(level, (below - 1) * WIDTH, count).await?;
            self.hashes(level, below - 1, &hashes).await?;
            level += 1;
        }
        Ok(())
    }

    /// A full tile of hashes, which hash to the one that stands above them.
    async fn hashes(&self, level: u8, index: u64, hashes: &[Digest]) -> Result<(), TileError> {
        let mut tree = Frontier::new();
        hashes.iter().for_each(|hash| tree.append(*hash, &mut |_, _, _| {}));
        let above = self.ledger.hashes(level + 1, index, 1).await?;
        if above != [tree.root()] {
            let tile = Tile::new(TileKind::Hashes(level), index, Tile::FULL_WIDTH);
            return Err(tile.map_or_else(|| ReadError("no such tile".to_owned()).into(), TileError::Unfit));
        }
        let bytes = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
        self.put(TileKind::Hashes(level), index, bytes).await
    }

    async fn put(&self, kind: TileKind, index: u64, bytes: Vec<u8>) -> Result<(), TileError> {
        let Some(tile) = Tile::new(kind, index, Tile::FULL_WIDTH) else { return Ok(()) };
        let store = Arc::clone(&self.store);
        let put = tokio::task::spawn_blocking(move || store.put(tile, &bytes)).await;
        put.unwrap_or_else(|error| Err(failed(&self.store.path(tile), io::Error::other(error))))
    }

    /// Lets another process go on at once.
    pub(crate) async fn give_up(&self) {
        self.turn.give_up().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::read_tile;
    use crate::testing::TestLog;

    fn tile(path: &str) -> Tile {
        path.parse().unwrap()
    }

    async fn keeper(log: &TestLog, directory: &Path) -> Result<TileKeeper, TileError> {
        let ledger: Arc<dyn Ledger> = log.ledger.clone();
        let store = TileStore::open(directory, ledger.as_ref()).await?;
        Ok(TileKeeper::new(ledger, Arc::new(store)))
    }

    fn files(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![directory.to_owned()];
        while let Some(next) = open.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => open.push(path),
                    false => found.push(path.strip_prefix(directory).unwrap().display().to_string()),
                }
            }
        }
        found.sort();
        found
    }

    #[tokio::test]
    async fn full_tiles_of_all_levels_are_written_once_and_are_those_of_the_log() {
        let log = TestLog::new();
        let directory = tempfile::tempdir().unwrap();
        log.add_tokens(600).await;
        let keeper = keeper(&log, directory.path()).await.unwrap();
        assert_eq!(keeper.round().await.unwrap(), 512);
        let expected =
            [NAME, "tile/0/000", "tile/0/001", "tile/entries/000", "tile/entries/001"].map(str::to_owned);
        assert_eq!(files(directory.path()), expected);
        for _ in 0..66 {
            log.add_tokens(1000).await;
        }
        assert_eq!(keeper.round().await.unwrap(), 66_560);
        assert_eq!(files(directory.path()).len(), 1 + 2 * 260 + 1);
        for path in [
            "tile/0/000",
            "tile/0/259",
            "tile/1/000",
            "tile/entries/255",
            "tile/entries/001.p/7",
            "tile/1/000.p/9",
        ] {
            let kept = keeper.store.read(tile(path)).await.unwrap();
            assert!(kept == read_tile(log.ledger.as_ref(), None, tile(path)).await.unwrap(), "{path}");
        }
        assert_eq!(keeper.store.read(tile("tile/0/x001/000")).await, None);
        // Written once: what is there already is taken for done, and a note that was lost is made again.
        std::fs::remove_file(directory.path().join(NAME)).unwrap();
        std::fs::remove_file(directory.path().join("tile/1/000")).unwrap();
        assert_eq!(keeper.round().await.unwrap(), 66_560);
        assert!(keeper.store.read(tile("tile/1/000")).await.is_some());
    }

    #[tokio::test]
    async fn full_tiles_are_served_from_the_directory_and_what_is_damaged_from_the_log() {
        let log = TestLog::new();
        let directory = tempfile::tempdir().unwrap();
        log.add_tokens(300).await;
        let keeper = keeper(&log, directory.path()).await.unwrap();
        keeper.round().await.unwrap();
        let (store, ledger) = (keeper.store.as_ref(), log.ledger.as_ref());
        let path = directory.path().join("tile/0/000");
        let truth = std::fs::read(&path).unwrap();
        let mut marked = truth.clone();
        marked[0] ^= 1;
        std::fs::write(&path, &marked).unwrap();
        let served = async |path: &str| read_tile(ledger, Some(store), tile(path)).await.unwrap();
        assert!(served("tile/0/000").await == marked, "it does not come from the ledger");
        assert!(served("tile/0/000.p/3").await == marked[..96]);
        for damaged in [&truth[..8191], &[]] {
            std::fs::write(&path, damaged).unwrap();
            assert!(served("tile/0/000").await == truth);
        }
        std::fs::write(directory.path().join("tile/entries/000"), [9; 700]).unwrap();
        assert_eq!(read_bundle(&served("tile/entries/000").await, 256).unwrap().len(), 256);
        assert_eq!(served("tile/0/001.p/44").await.len(), 44 * 32, "at the edge");
    }

    #[tokio::test]
    async fn nothing_is_written_over_what_is_another_tile_or_another_log() {
        let log = TestLog::new();
        let directory = tempfile::tempdir().unwrap();
        log.add_tokens(256).await;
        let first = keeper(&log, directory.path()).await.unwrap();
        std::fs::create_dir_all(directory.path().join("tile/entries")).unwrap();
        std::fs::write(directory.path().join("tile/entries/000"), b"forged").unwrap();
        assert!(matches!(first.round().await, Err(TileError::Differs { .. })));
        assert_eq!(std::fs::read(directory.path().join("tile/entries/000")).unwrap(), b"forged");
        std::fs::remove_file(directory.path().join("tile/entries/000")).unwrap();
        first.round().await.unwrap();
        let other = TestLog::new();
        let refused = keeper(&other, directory.path()).await.err().unwrap();
        assert!(matches!(refused, TileError::OtherLog { .. }), "{refused}");
    }
}
