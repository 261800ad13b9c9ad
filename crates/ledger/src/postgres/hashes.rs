//! The tree's hashes in the database.
//!
//! Hashes never change once they are there, so that tiles which were read, or written from here, are kept in memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chancery_merkle::{Frontier, HashReader};
use chancery_types::Digest;
use tokio_postgres::types::Type;

use super::error::Unfit;
use super::session::{Session, SqlError, Statement, column};
use super::view::Drive;
use crate::Head;

const LEAVES: Statement = Statement {
    name: "leaves",
    text: "SELECT leaf FROM @.entries WHERE index >= $1 AND index < $2 ORDER BY index",
};

const HASHES: Statement = Statement {
    name: "hashes",
    text: "SELECT hash FROM @.hashes WHERE level = $3 AND index >= $1 AND index < $2 ORDER BY index",
};

/// Consecutive hashes of a tile level.
pub(super) async fn read(
    session: &Session,
    level: u8,
    start: u64,
    count: usize,
) -> Result<Vec<Digest>, SqlError> {
    let (first, end) = (signed(start), signed(start.saturating_add(count as u64)));
    let of_level = i16::from(level);
    let (statement, rows) = match level {
        0 => (&LEAVES, session.rows(&LEAVES, &[(&first, Type::INT8), (&end, Type::INT8)]).await?),
        _ => {
            let parameters = [
                (&first as &(dyn tokio_postgres::types::ToSql + Sync), Type::INT8),
                (&end, Type::INT8),
                (&of_level, Type::INT2),
            ];
            (&HASHES, session.rows(&HASHES, &parameters).await?)
        }
    };
    if rows.len() != count {
        let found = rows.len();
        let problem = format!("{count} hashes of level {level} from {start} on were expected, not {found}");
        return Err(SqlError::refused(statement.name, problem));
    }
    rows.iter().map(|row| digest(statement, column(statement, row, 0)?)).collect()
}

pub(super) fn digest(statement: &Statement, bytes: &[u8]) -> Result<Digest, SqlError> {
    let bytes = bytes.try_into().map_err(|_| SqlError::refused(statement.name, "a hash has 32 bytes"))?;
    Ok(Digest::from_array(bytes))
}

/// Indexes and sizes as PostgreSQL has them; a log has less than 2^63 entries.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Tile levels that a tree can have.
pub(super) const LEVELS: u8 = 8;

/// The frontier of an earlier size, from the hashes in the database alone.
pub(super) async fn frontier(session: &Session, size: u64) -> Result<Frontier, Unfit> {
    let mut edge = Edge(HashMap::new());
    for level in 0..LEVELS {
        let complete = size >> (8 * level);
        let first = (complete >> 8) << 8;
        if complete > first {
            let count = usize::try_from(complete - first).unwrap_or(usize::MAX);
            edge.0.insert(level, (first, read(session, level, first, count).await?));
        }
    }
    let loaded = Frontier::load(size, &edge).map_err(|error| SqlError::refused("frontier", error))?;
    Ok(loaded)
}

/// The root of the tree of an earlier size, from the hashes in the database alone.
pub(super) async fn head_at(session: &Session, size: u64) -> Result<Head, Unfit> {
    Ok(Head { size, root: frontier(session, size).await?.root() })
}

/// The incomplete tile of each level.
struct Edge(HashMap<u8, (u64, Vec<Digest>)>);

impl HashReader for Edge {
    type Error = SqlError;

    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Digest>) -> Result<(), SqlError> {
        let part = self.0.get(&level).and_then(|(first, hashes)| {
            let from = usize::try_from(start.checked_sub(*first)?).ok()?;
            hashes.get(from..from.checked_add(count)?)
        });
        out.extend_from_slice(part.ok_or_else(|| SqlError::refused("frontier", "a hash is missing"))?);
        Ok(())
    }
}

/// Tiles in memory: the first so many hashes of each.
#[derive(Debug, Default)]
pub(super) struct Tiles(Mutex<HashMap<(u8, u64), Vec<Digest>>>);

/// Eight kilobytes each.
const MOST_TILES: usize = 2048;
const WIDTH: u64 = 256;

impl Tiles {
    /// Keeps a hash that was just recorded, if it goes on where its tile ends.
    pub(super) fn keep(&self, level: u8, index: u64, hash: Digest) {
        let mut tiles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (level, index / WIDTH);
        let inside = usize::try_from(index % WIDTH).unwrap_or_default();
        if inside == 0 && tiles.len() >= MOST_TILES {
            tiles.clear();
        }
        match tiles.get_mut(&place) {
            Some(tile) if tile.len() == inside => tile.push(hash),
            None if inside == 0 => drop(tiles.insert(place, vec![hash])),
            _ => {}
        }
    }

    fn part(&self, level: u8, start: u64, count: usize) -> Option<Vec<Digest>> {
        let tiles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tile = tiles.get(&(level, start / WIDTH))?;
        let from = usize::try_from(start % WIDTH).ok()?;
        tile.get(from..from.checked_add(count)?).map(<[Digest]>::to_vec)
    }

    fn put(&self, level: u8, tile: u64, hashes: Vec<Digest>) {
        let mut tiles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tiles.len() >= MOST_TILES {
            tiles.clear();
        }
        let kept = tiles.entry((level, tile)).or_default();
        if kept.len() < hashes.len() {
            *kept = hashes;
        }
    }
}

/// Reads hashes on a thread that may block, as of a size that is durable.
pub(super) struct TileReader<'a> {
    pub(super) tiles: &'a Tiles,
    pub(super) session: &'a Session,
    pub(super) drive: Drive<'a>,
    /// No hash beyond this tree is asked for.
    pub(super) size: u64,
}

impl HashReader for TileReader<'_> {
    type Error = SqlError;

    /// Reads the whole tile as far as it is complete: its neighbours are asked for next.
    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Digest>) -> Result<(), SqlError> {
        if let Some(part) = self.tiles.part(level, start, count) {
            out.extend(part);
            return Ok(());
        }
        let tile = start / WIDTH;
        let complete = self.size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        let end = complete.min((tile + 1) * WIDTH).max(start.saturating_add(count as u64));
        let length = usize::try_from(end - tile * WIDTH).unwrap_or(usize::MAX);
        let hashes = self.drive.wait(read(self.session, level, tile * WIDTH, length))?;
        let from = usize::try_from(start % WIDTH).unwrap_or_default();
        out.extend_from_slice(&hashes[from..from + count]);
        self.tiles.put(level, tile, hashes);
        Ok(())
    }
}
