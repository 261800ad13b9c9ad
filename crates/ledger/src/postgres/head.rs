//! The head row, and whether the database is the one that it should be.

use chancery_merkle::Frontier;
use tokio_postgres::Row;

use super::error::{Fence, Unfit};
use super::hashes::{digest, head_at};
use super::session::{Session, SqlError, Statement, column};
use crate::Head;

/// Without the lock.
pub(super) const READ: Statement = Statement {
    name: "read_head",
    text: "SELECT origin, log_id, size, root, frontier, epoch, room, closed FROM @.head",
};

/// With it: until the transaction ends nobody else decides anything.
pub(super) const LOCK: Statement = Statement {
    name: "lock_head",
    text: "SELECT origin, log_id, size, root, frontier, epoch, room, closed FROM @.head FOR UPDATE",
};

/// The head row.
#[derive(Debug, Clone)]
pub(super) struct HeadRow {
    pub(super) log: LogName,
    pub(super) head: Head,
    pub(super) frontier: Frontier,
    pub(super) epoch: i64,
    pub(super) room: u64,
    pub(super) closed: Option<String>,
}

/// Which log it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogName {
    pub(super) origin: String,
    pub(super) id: Vec<u8>,
}

impl HeadRow {
    pub(super) fn read(statement: &Statement, row: &Row) -> Result<Self, SqlError> {
        let number = |place| {
            let number: i64 = column(statement, row, place)?;
            u64::try_from(number).map_err(|error| SqlError::refused(statement.name, error))
        };
        let bytes: &[u8] = column(statement, row, 4)?;
        let frontier =
            Frontier::from_bytes(bytes).map_err(|error| SqlError::refused(statement.name, error))?;
        Ok(Self {
            log: LogName { origin: column(statement, row, 0)?, id: column(statement, row, 1)? },
            head: Head { size: number(2)?, root: digest(statement, column(statement, row, 3)?)? },
            frontier,
            epoch: column(statement, row, 5)?,
            room: number(6)?,
            closed: column(statement, row, 7)?,
        })
    }

    /// That it fits itself, and goes on from what this process knows of the log.
    pub(super) fn check(&self, known: &Known) -> Result<(), Fence> {
        let Head { size, root } = self.head;
        if self.log != known.log {
            let (found, expected) = (self.log.origin.clone(), known.log.origin.clone());
            return Err(Fence::OtherLog { found, expected });
        }
        if self.frontier.size() != size || self.frontier.root() != root {
            return Err(Fence::Damaged { size, found: self.frontier.root(), expected: root });
        }
        if size < known.head.size {
            return Err(Fence::Behind { found: size, published: known.head.size });
        }
        if size == known.head.size && root != known.head.root {
            return Err(Fence::NotPublished { size, found: root, published: known.head.root });
        }
        Ok(())
    }

    /// That this process may still write to it.
    pub(super) fn check_open(&self, known: &Known) -> Result<(), Fence> {
        if let Some(reason) = &self.closed {
            return Err(Fence::Closed(reason.clone()));
        }
        if self.epoch != known.epoch {
            return Err(Fence::TakenOver { found: self.epoch, known: known.epoch });
        }
        Ok(())
    }
}

/// What this process knows of its log, whatever a database says.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) log: LogName,
    pub(super) epoch: i64,
    /// The largest head that was published or seen.
    pub(super) head: Head,
}

/// Makes sure over a new connection that the database goes on from what is known: nothing missing, nothing else.
pub(super) async fn verify(session: &Session, known: &Known) -> Result<HeadRow, Unfit> {
    let row = HeadRow::read(&READ, &session.row(&READ, &[]).await?)?;
    row.check(known)?;
    let stored = head_at(session, row.head.size).await?;
    if stored.root != row.head.root {
        return Err(Fence::Damaged { size: stored.size, found: stored.root, expected: row.head.root }.into());
    }
    let Head { size, root } = known.head;
    if size < row.head.size {
        let found = head_at(session, size).await?;
        if found.root != root {
            return Err(Fence::NotPublished { size, found: found.root, published: root }.into());
        }
    }
    Ok(row)
}
