//! Where a store has its tiles: named sequences of bytes in a directory or in a bucket.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use chancery_types::{Clock, Random};

use super::bucket::{Bucket, BucketError, Creation};
use super::directory::Directory;
use crate::config::TilePlace;

/// Why something cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShelfError {
    #[error("{0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// A directory or a bucket.
#[derive(Debug)]
pub(super) enum Shelf {
    Directory(Directory),
    Bucket(Box<Bucket>),
}

impl Shelf {
    /// The place; nothing is read yet. What it needs of this machine is looked at.
    pub(super) async fn open(
        place: &TilePlace,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ShelfError> {
        match place {
            TilePlace::Directory(path) => {
                let path = path.clone();
                Ok(Self::Directory(on_a_thread(move || Directory::open(&path)).await?))
            }
            TilePlace::Bucket(place) => {
                let environment = |name: &str| std::env::var(name).ok();
                Ok(Self::Bucket(Box::new(Bucket::new(place, environment, clock, random)?)))
            }
        }
    }

    /// For somebody who waits: nothing where there is none, or where it would take long to find out.
    pub(super) async fn read(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, ShelfError> {
        match self {
            Self::Directory(_) => self.fetch(name, most).await,
            Self::Bucket(bucket) => Ok(bucket.read(name, most).await?),
        }
    }

    /// For somebody who has time; nothing where there is none.
    pub(super) async fn fetch(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, ShelfError> {
        match self {
            Self::Directory(directory) => {
                let (directory, name) = (directory.clone(), name.to_owned());
                Ok(on_a_thread(move || directory.read(&name)).await?)
            }
            Self::Bucket(bucket) => Ok(bucket.fetch(name, most).await?),
        }
    }

    /// Writes what was found not to be there.
    pub(super) async fn create(&self, name: &str, bytes: Bytes) -> Result<Creation, ShelfError> {
        match self {
            Self::Directory(_) => self.replace(name, bytes).await.map(|()| Creation::Made),
            Self::Bucket(bucket) => Ok(bucket.create(name, bytes).await?),
        }
    }

    /// Writes over what is there.
    pub(super) async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), ShelfError> {
        match self {
            Self::Directory(directory) => {
                let (directory, name) = (directory.clone(), name.to_owned());
                Ok(on_a_thread(move || directory.replace(&name, &bytes)).await?)
            }
            Self::Bucket(bucket) => Ok(bucket.replace(name, bytes).await?),
        }
    }

    /// Whether it may be away while everything else is well.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Bucket(_))
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
