//! The engines under test, each behind what an index over the journal needs of it and nothing more.

mod fjall;
mod redb;
mod sled;

use std::path::Path;

use anyhow::{Result, bail};

use crate::certificate::{Batch, Digest, Serial, Summary};

/// Whether a commit may be lost with the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Visible to readers; a crash may take it back as a whole.
    Later,
    /// On the device when the call returns.
    Now,
}

pub(crate) trait Engine: Send + core::marker::Sync {
    /// Puts a batch and the journal position it reaches in one atomic commit.
    fn apply(&self, batch: &Batch, position: u64, durability: Durability) -> Result<()>;
    /// The journal position of the last commit that is visible; 0 for a new store.
    fn position(&self) -> Result<u64>;
    fn by_serial(&self, serial: &Serial) -> Result<Option<Summary>>;
    fn by_key(&self, key: &Digest) -> Result<Option<u64>>;
    fn by_lineage(&self, lineage: &Digest) -> Result<Option<Digest>>;
    /// Counters of an identity's certificates, oldest first, at most `limit`.
    fn by_identity(&self, identity: &Digest, limit: usize) -> Result<Vec<u64>>;
    /// How many certificates expire in the order of time; walks the whole table.
    fn expiries(&self) -> Result<u64>;
    /// A clean stop.
    fn close(self: Box<Self>) -> Result<()>;
}

/// In the order in which they are reported. `journal` keeps no index; `careless` does not sync either.
pub(crate) const STORES: [&str; 5] = ["journal", "redb", "fjall", "sled", "sled+fdatasync"];

/// Bytes an engine may use for its cache. The default is less than half of what the server may use in all;
/// `STORES_CACHE_MIB` sets another.
fn cache() -> usize {
    let mib =
        std::env::var("STORES_CACHE_MIB").ok().and_then(|value| value.parse().ok()).unwrap_or(192_usize);
    mib << 20
}

/// Opens the index in `dir`, or `None` where there is none.
pub(crate) fn open(store: &str, dir: &Path) -> Result<Option<Box<dyn Engine>>> {
    let index = dir.join("index");
    std::fs::create_dir_all(&index)?;
    Ok(match store {
        "journal" | "careless" => None,
        "redb" => Some(Box::new(redb::Redb::open(&index)?)),
        "fjall" => Some(Box::new(fjall::Fjall::open(&index)?)),
        "sled" => Some(Box::new(sled::Sled::open(&index, sled::Flush::AsItComes)?)),
        "sled+fdatasync" => Some(Box::new(sled::Sled::open(&index, sled::Flush::ThenFdatasync)?)),
        other => bail!("no store named {other}; there are: {}, careless", STORES.join(", ")),
    })
}
