//! Names of tiles and entry bundles (C2SP tlog-tiles).

use std::fmt;
use std::str::FromStr;

use crate::reader::MAX_TREE_SIZE;
use crate::text::{decimal, excerpt};

/// A path names no tile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the path of a tile: expected tile/<level>/<index>[.p/<width>] as tlog-tiles spells it")]
pub struct TilePathError(String);

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Up to 256 hashes of this tile level, 32 bytes each.
    Hashes(u8),
    /// Up to 256 entries, each behind its length (see [`crate::push_entry`]).
    Entries,
}

/// One resource of a tiled log: 256 hashes or entries, or the 1 to 255 that there are at the right edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    kind: TileKind,
    index: u64,
    width: u16,
}

impl Tile {
    /// Hashes or entries in a full tile.
    pub const FULL_WIDTH: u16 = 256;
    /// The highest level that a path can name; no tree reaches it.
    pub const MAX_LEVEL: u8 = 63;

    /// The tile at this place, or nothing if the level is above 63 or the width is not 1..=256.
    #[must_use]
    pub fn new(kind: TileKind, index: u64, width: u16) -> Option<Self> {
        let level_exists = !matches!(kind, TileKind::Hashes(level) if level > Self::MAX_LEVEL);
        let width_exists = (1..=Self::FULL_WIDTH).contains(&width);
        (level_exists && width_exists).then_some(Self { kind, index, width })
    }

    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Its place among the tiles of its level.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds, 1 to 256.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether it holds fewer than 256.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.width < Self::FULL_WIDTH
    }

    /// Index of its first hash at its level, or of its first entry; nothing if that is beyond 64 bits.
    #[must_use]
    pub fn start(&self) -> Option<u64> {
        self.index.checked_mul(u64::from(Self::FULL_WIDTH))
    }

    /// Whether a tree of `size` leaves holds all of this tile. A narrower partial tile than the tree's own is
    /// held too: it belonged to an earlier size.
    #[must_use]
    pub fn is_in_tree(&self, size: u64) -> bool {
        let level = match self.kind {
            TileKind::Hashes(level) => u32::from(level),
            TileKind::Entries => 0,
        };
        let available = size.checked_shr(8 * level).unwrap_or(0);
        let end = self.start().and_then(|start| start.checked_add(u64::from(self.width)));
        size <= MAX_TREE_SIZE && end.is_some_and(|end| end <= available)
    }
}

/// The tiles of this kind that a tree of `size` leaves consists of: the full ones and the partial one.
pub fn tiles_of(kind: TileKind, size: u64) -> impl Iterator<Item = Tile> {
    let level = match kind {
        TileKind::Hashes(level) => u32::from(level),
        TileKind::Entries => 0,
    };
    let count = size.checked_shr(8 * level).unwrap_or(0);
    let (full, partial) = (count / 256, u16::try_from(count % 256).expect("below 256"));
    let full = (0..full).map(move |index| Tile { kind, index, width: Tile::FULL_WIDTH });
    full.chain((partial > 0).then_some(Tile { kind, index: count / 256, width: partial }))
}

impl fmt::Display for Tile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(formatter, "tile/{level}/")?,
            TileKind::Entries => formatter.write_str("tile/entries/")?,
        }
        let mut groups = [0_u64; 7];
        let (mut rest, mut count) = (self.index, 0);
        while count == 0 || rest > 0 {
            groups[count] = rest % 1000;
            rest /= 1000;
            count += 1;
        }
        for group in groups[1..count].iter().rev() {
            write!(formatter, "x{group:03}/")?;
        }
        write!(formatter, "{:03}", groups[0])?;
        if self.is_partial() { write!(formatter, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for Tile {
    type Err = TilePathError;

    /// Reads a path relative to the log's prefix. There is exactly one path for each tile: no slash in front,
    /// no group `x000` in front, no leading zeros in level and width, no `.p/256`.
    fn from_str(path: &str) -> Result<Self, Self::Err> {
        parse(path).ok_or_else(|| TilePathError(excerpt(path)))
    }
}

fn parse(path: &str) -> Option<Tile> {
    let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        level => TileKind::Hashes(u8::try_from(decimal(level)?).ok()?),
    };
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => {
            let width = u16::try_from(decimal(width)?).ok()?;
            (index, (width < Tile::FULL_WIDTH).then_some(width)?)
        }
        None => (rest, Tile::FULL_WIDTH),
    };
    Tile::new(kind, parse_index(index)?, width)
}

fn parse_index(text: &str) -> Option<u64> {
    let mut index = 0_u64;
    let mut groups = text.split('/').peekable();
    let mut first = true;
    while let Some(group) = groups.next() {
        let last = groups.peek().is_none();
        let digits = if last { group } else { group.strip_prefix('x')? };
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let group: u64 = digits.parse().ok()?;
        if first && !last && group == 0 {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(group)?;
        first = false;
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(kind: TileKind, index: u64, width: u16) -> Tile {
        Tile::new(kind, index, width).unwrap()
    }

    #[test]
    fn prints_and_reads_the_paths_of_the_specification() {
        let cases = [
            (tile(TileKind::Hashes(0), 0, 256), "tile/0/000"),
            (tile(TileKind::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067"),
            (tile(TileKind::Hashes(63), 999, 255), "tile/63/999.p/255"),
            (tile(TileKind::Hashes(2), 1_000, 1), "tile/2/x001/000.p/1"),
            (tile(TileKind::Entries, 273, 112), "tile/entries/273.p/112"),
            (tile(TileKind::Entries, u64::MAX, 256), "tile/entries/x018/x446/x744/x073/x709/x551/615"),
        ];
        for (tile, path) in cases {
            assert_eq!(tile.to_string(), path);
            assert_eq!(path.parse::<Tile>().unwrap(), tile);
        }
    }

    #[test]
    fn refuses_every_other_spelling() {
        let refused = [
            "",
            "/tile/0/000",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/+1/000",
            "tile/64/000",
            "tile/300/000",
            "tile/-1/000",
            "tile/0/000/",
            "tile//000",
            "tile/0/x000/001",
            "tile/0/x001",
            "tile/0/001/002",
            "tile/0/x01/002",
            "tile/0/x001/x002",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/0/000.p/1.p/1",
            "tile/0/000.p",
            "tile/0/../../etc/passwd",
            "tile/0/+01",
            "tile/entries/00a",
            "tile/Entries/000",
            "tile/data/000",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ];
        for path in refused {
            assert_eq!(path.parse::<Tile>(), Err(TilePathError(path.to_owned())), "{path:?}");
        }
    }

    #[test]
    fn lists_the_tiles_of_the_specifications_example() {
        let count = |kind| tiles_of(kind, 70_000).map(|tile| tile.width()).collect::<Vec<_>>();
        let level_0 = count(TileKind::Hashes(0));
        assert_eq!((level_0.len(), level_0[272], level_0[273]), (274, 256, 112));
        assert_eq!(count(TileKind::Hashes(1)), [256, 17]);
        assert_eq!(count(TileKind::Hashes(2)), [1]);
        assert_eq!(count(TileKind::Hashes(3)), [0_u16; 0]);
        assert_eq!(count(TileKind::Entries), level_0);
        assert_eq!(tiles_of(TileKind::Hashes(1), 256).next(), Some(tile(TileKind::Hashes(1), 0, 1)));
        assert_eq!(tiles_of(TileKind::Hashes(9), u64::MAX).next(), None);
    }

    #[test]
    fn knows_which_tiles_a_tree_holds() {
        let size = 70_000;
        for kind in [TileKind::Hashes(0), TileKind::Hashes(1), TileKind::Hashes(2), TileKind::Entries] {
            assert!(tiles_of(kind, size).all(|tile| tile.is_in_tree(size)));
        }
        assert!(tiles_of(TileKind::Entries, size).any(|tile| !tile.is_in_tree(size - 1)));
        assert!(tile(TileKind::Entries, 273, 111).is_in_tree(size));
        assert!(!tile(TileKind::Entries, 273, 113).is_in_tree(size));
        assert!(!tile(TileKind::Hashes(9), 0, 1).is_in_tree(size));
        assert!(!tile(TileKind::Entries, u64::MAX, 256).is_in_tree(MAX_TREE_SIZE));
    }

    #[test]
    fn refuses_impossible_tiles() {
        assert_eq!(Tile::new(TileKind::Hashes(64), 0, 1), None);
        assert_eq!(Tile::new(TileKind::Entries, 0, 0), None);
        assert_eq!(Tile::new(TileKind::Entries, 0, 257), None);
    }
}
