//! Stores in a directory and in a bucket, on working and on broken ground.

mod bucket;

use std::path::Path;

use chancery_types::{SystemClock, SystemRandom};

use super::*;
use crate::routes::read_tile;
use crate::testing::TestLog;

fn tile(path: &str) -> Tile {
    path.parse().unwrap()
}

async fn keeper(log: &TestLog, directory: &Path) -> Result<TileKeeper, TileError> {
    keeper_at(log, &TilePlace::Directory(directory.to_owned())).await
}

async fn keeper_at(log: &TestLog, place: &TilePlace) -> Result<TileKeeper, TileError> {
    let ledger: Arc<dyn Ledger> = log.ledger.clone();
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let store = TileStore::open(place, ledger.as_ref(), clock, random).await?;
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
