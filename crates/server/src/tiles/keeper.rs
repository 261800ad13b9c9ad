//! Keeps full tiles up with the log: one process at a time, behind the signed checkpoint.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chancery_ledger::{Ledger, ReadError, Turn};
use chancery_merkle::{Frontier, Tile, TileKind, leaf_hash, push_entry};
use chancery_types::Digest;
use futures_util::future::try_join_all;

use super::{TileError, TileStore, WIDTH, checkpoint};

/// How often it is looked whether a tile is full.
const LOOK: Duration = Duration::from_secs(2);
/// Columns of tiles after which it is noted how far they reach.
const NOTE_EVERY: u64 = 64;

/// Keeps a store up with the log.
pub(crate) struct TileKeeper {
    ledger: Arc<dyn Ledger>,
    pub(super) store: Arc<TileStore>,
    turn: Turn,
}

impl TileKeeper {
    pub(crate) fn new(ledger: Arc<dyn Ledger>, store: Arc<TileStore>) -> Self {
        let turn = Turn::new(Arc::clone(&ledger), "tiles");
        Self { ledger, store, turn }
    }

    /// Writes tiles as they become full, until it is dropped.
    pub(crate) async fn run(&self) {
        let (mut done, mut told) = (0, String::new());
        loop {
            let trouble = self.look(&mut done).await.err();
            let trouble = trouble.map(|error| error.to_string()).unwrap_or_default();
            self.store.set_trouble(!trouble.is_empty());
            if trouble != told {
                match trouble.is_empty() {
                    true => tracing::info!("tiles are kept again"),
                    false => tracing::error!(error = trouble, "TILES ARE NOT KEPT; the ledger's are served"),
                }
                told = trouble;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Does what is to be done now; `done` is the columns that are known to be there.
    pub(super) async fn look(&self, done: &mut u64) -> Result<(), TileError> {
        if !self.store.is_known() {
            self.store.reach(self.ledger.as_ref()).await?;
        }
        if self.ledger.head().size / WIDTH > *done && self.turn.ask().await.is_some() {
            let kept = tokio::select! {
                kept = self.round() => kept,
                () = self.turn.keep() => return Ok(()),
            };
            self.turn.give_up().await;
            *done = kept? / WIDTH;
        }
        Ok(())
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
            let (first, until) = (next, end.min(next + self.store.columns_at_once()));
            try_join_all((first..until).map(|index| self.column(index))).await?;
            next = until;
            reach.entries = next * WIDTH;
            if first / NOTE_EVERY < next / NOTE_EVERY || next == end {
                self.store.note(&reach).await?;
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
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
        self.put(TileKind::Hashes(level), index, bytes).await
    }

    async fn put(&self, kind: TileKind, index: u64, bytes: Vec<u8>) -> Result<(), TileError> {
        let Some(tile) = Tile::new(kind, index, Tile::FULL_WIDTH) else { return Ok(()) };
        self.store.put(tile, Bytes::from(bytes)).await
    }

    /// Lets another process go on at once.
    pub(crate) async fn give_up(&self) {
        self.turn.give_up().await;
    }
}
