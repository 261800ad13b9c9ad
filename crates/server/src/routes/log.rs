//! The transparency log as auditors and relying parties read it (C2SP tlog-tiles, tlog-proof).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chancery_api::{LogEntriesQuery, LogEntriesResponse, LogEntryView, LogKeysResponse, LogProofResponse};
use chancery_entry::Entry;
use chancery_ledger::Ledger;
use chancery_merkle::{Checkpoint, Receipt, Tile, TileKind, leaf_hash, push_entry};
use chancery_types::SerialNumber;
use data_encoding::BASE64;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::problem_of;
use crate::authority::AuthorityError;
use crate::site::Site;
use crate::tiles::TileStore;
use crate::{HttpProblem, Json, Path, Query};

/// As tlog-checkpoint and signed-note want it.
const TEXT: &str = "text/plain; charset=utf-8";
/// A full tile is what it is for ever.
const FULL_TILE: &str = "private, max-age=31536000, immutable";
/// So is a partial one, but nobody asks for it again once there is a wider one.
const PARTIAL_TILE: &str = "private, max-age=60";
/// Bytes of entries in one answer: it ends after the entry that goes beyond.
const ANSWER_BYTES: usize = 4 << 20;
/// Entries read at once.
const CHUNK: usize = 64;

/// The signed checkpoint of what is durable now.
pub(crate) async fn checkpoint(State(site): State<Arc<Site>>) -> Result<Response, HttpProblem> {
    let note = site.authority.ledger().checkpoint().map_err(problem_of)?;
    Ok(([(CONTENT_TYPE, TEXT)], note.to_string()).into_response())
}

/// The key that verifies checkpoints.
pub(crate) async fn key(State(site): State<Arc<Site>>) -> Response {
    ([(CONTENT_TYPE, TEXT)], format!("{}\n", site.authority.log_key().vkey())).into_response()
}

/// Every key of the log, and how each vouches for the next.
pub(crate) async fn keys(State(site): State<Arc<Site>>) -> Json<LogKeysResponse> {
    Json(site.authority.log_keys().as_ref().clone())
}

/// A tile of hashes or of entries.
pub(crate) async fn tile(
    State(site): State<Arc<Site>>,
    Path(path): Path<String>,
) -> Result<Response, HttpProblem> {
    let path = format!("tile/{path}");
    let tile: Tile = path.parse().map_err(|error| problem_of(AuthorityError::invalid("tile", error)))?;
    let ledger = site.authority.ledger();
    if !tile.is_in_tree(ledger.head().size) {
        return Err(problem_of(AuthorityError::not_found("tile", path)));
    }
    let bytes = read_tile(ledger.as_ref(), site.tiles.as_deref(), tile).await?;
    let caching = if tile.is_partial() { PARTIAL_TILE } else { FULL_TILE };
    Ok(([(CONTENT_TYPE, "application/octet-stream"), (CACHE_CONTROL, caching)], bytes).into_response())
}

/// The bytes of a tile that is in the tree: kept outside the ledger, where it is.
pub(crate) async fn read_tile(
    ledger: &dyn Ledger,
    store: Option<&TileStore>,
    tile: Tile,
) -> Result<Vec<u8>, HttpProblem> {
    if let Some(store) = store
        && let Some(bytes) = store.read(tile).await
    {
        return Ok(bytes);
    }
    let start = tile.start().ok_or_else(|| HttpProblem::internal("a tile in the tree has no start"))?;
    let width = usize::from(tile.width());
    match tile.kind() {
        TileKind::Hashes(level) => {
            let hashes = ledger.hashes(level, start, width).await.map_err(problem_of)?;
            Ok(hashes.iter().flat_map(|hash| *hash.as_bytes()).collect())
        }
        TileKind::Entries => {
            let entries = ledger.entries(start, width).await.map_err(problem_of)?;
            if entries.len() != width {
                let found = entries.len();
                return Err(HttpProblem::internal(format!("{tile} has {width} entries, {found} were read")));
            }
            let mut bundle = Vec::with_capacity(entries.iter().map(|entry| 2 + entry.len()).sum());
            for entry in &entries {
                push_entry(&mut bundle, entry).map_err(HttpProblem::internal)?;
            }
            Ok(bundle)
        }
    }
}

/// Entries, readable: as many as were asked for and fit an answer.
pub(crate) async fn entries(
    State(site): State<Arc<Site>>,
    Query(query): Query<LogEntriesQuery>,
) -> Result<Json<LogEntriesResponse>, HttpProblem> {
    let ledger = site.authority.ledger();
    let size = ledger.head().size;
    let end = query.start.saturating_add(query.size()).min(size);
    let (mut entries, mut next, mut bytes) = (Vec::new(), query.start, 0);
    while next < end && bytes < ANSWER_BYTES {
        let count = usize::try_from(end - next).unwrap_or(CHUNK).min(CHUNK);
        let leaves = ledger.entries(next, count).await.map_err(problem_of)?;
        if leaves.is_empty() {
            return Err(HttpProblem::internal(format!("entry {next} of {size} was not read")));
        }
        for leaf in &leaves {
            entries.push(entry_view(next, leaf)?);
            bytes += leaf.len();
            next += 1;
        }
    }
    Ok(Json(LogEntriesResponse { size, entries }))
}

fn entry_view(index: u64, leaf: &[u8]) -> Result<LogEntryView, HttpProblem> {
    let entry = Entry::decode(leaf).map_err(HttpProblem::internal)?;
    Ok(LogEntryView {
        index,
        leaf_hash: leaf_hash(leaf),
        entry: serde_json::to_value(&entry).map_err(HttpProblem::internal)?,
        bytes: BASE64.encode(leaf),
    })
}

/// The proof that a certificate is in the log.
pub(crate) async fn proof(
    State(site): State<Arc<Site>>,
    Path(serial): Path<SerialNumber>,
) -> Result<Json<LogProofResponse>, HttpProblem> {
    let ledger = site.authority.ledger();
    let record = ledger.certificate(serial).await.map_err(problem_of)?;
    let record = record.ok_or_else(|| problem_of(AuthorityError::not_found("certificate", serial)))?;
    let leaf = ledger.entry(record.index).await.map_err(problem_of)?;
    let leaf = leaf.ok_or_else(|| HttpProblem::internal(format!("entry {} was not read", record.index)))?;
    Ok(Json(LogProofResponse {
        serial,
        log_index: record.index,
        entry: BASE64.encode(&leaf),
        receipt: receipt(&site, record.index).await?,
    }))
}

/// The receipt of an entry under the checkpoint of this moment (C2SP tlog-proof).
pub(crate) async fn receipt(site: &Site, index: u64) -> Result<String, HttpProblem> {
    receipt_of(site.authority.ledger().as_ref(), index).await
}

async fn receipt_of(ledger: &dyn Ledger, index: u64) -> Result<String, HttpProblem> {
    let checkpoint = ledger.checkpoint().map_err(problem_of)?;
    let size = Checkpoint::parse(checkpoint.text()).map_err(HttpProblem::internal)?.size();
    let proof = ledger.inclusion_proof(index, size).await.map_err(problem_of)?;
    Ok(Receipt { extra: None, index, proof, checkpoint }.to_string())
}

#[cfg(test)]
mod tests {
    use chancery_merkle::{Frontier, read_bundle};

    use super::*;
    use crate::testing::TestLog;

    fn tile(path: &str) -> Tile {
        path.parse().unwrap()
    }

    #[tokio::test]
    async fn tiles_hold_the_hashes_and_the_entries_of_the_log() {
        let log = TestLog::new();
        log.add_tokens(300).await;
        let ledger = log.ledger.as_ref();
        let bundles = ["tile/entries/000", "tile/entries/001.p/44"];
        let mut index = 0;
        for (path, width) in bundles.into_iter().zip([256, 44]) {
            let bundle = read_tile(ledger, None, tile(path)).await.unwrap();
            for entry in read_bundle(&bundle, width).unwrap() {
                assert_eq!(ledger.entry(index).await.unwrap().unwrap(), entry);
                index += 1;
            }
        }
        assert_eq!(index, 300);
        let hashes = read_tile(ledger, None, tile("tile/0/001.p/44")).await.unwrap();
        assert_eq!(hashes.len(), 44 * 32);
        assert_eq!(hashes[..32], *leaf_hash(&ledger.entry(256).await.unwrap().unwrap()).as_bytes());
        let mut subtree = Frontier::new();
        for leaf in ledger.entries(0, 256).await.unwrap() {
            subtree.append(leaf_hash(&leaf), &mut |_, _, _| ());
        }
        let above = read_tile(ledger, None, tile("tile/1/000.p/1")).await.unwrap();
        assert_eq!(above, subtree.root().as_bytes());
    }

    #[tokio::test]
    async fn receipts_verify_under_the_key_of_the_log() {
        let log = TestLog::new();
        log.add_tokens(5).await;
        let entry = log.ledger.entry(3).await.unwrap().unwrap();
        let receipt: Receipt = receipt_of(log.ledger.as_ref(), 3).await.unwrap().parse().unwrap();
        let verified = receipt.verify(&entry, &log.verifier.clone().into(), &[]).unwrap();
        assert_eq!(verified.checkpoint().size(), 5);
        assert!(receipt.verify(b"another entry", &log.verifier.clone().into(), &[]).is_err());
        assert!(receipt_of(log.ledger.as_ref(), 5).await.is_err());
    }

    #[tokio::test]
    async fn an_entry_is_shown_with_its_bytes_and_hash() {
        let log = TestLog::new();
        log.add_tokens(1).await;
        let leaf = log.ledger.entry(0).await.unwrap().unwrap();
        let view = entry_view(0, &leaf).unwrap();
        assert_eq!((view.leaf_hash, view.bytes), (leaf_hash(&leaf), BASE64.encode(&leaf)));
        assert_eq!(view.entry["kind"], "token-created");
        assert!(entry_view(0, b"noise").is_err());
    }
}
