//! A log laid into a database from elsewhere: into a fresh schema, or behind the beginning of it that one has.

use std::path::PathBuf;
use std::sync::Arc;

use chancery_entry::Entry;
use chancery_merkle::{Frontier, LogSigners, SignedNote, leaf_hash};
use chancery_types::Random;

use super::{Fence, PostgresError, PostgresLedger, PostgresOptions};
use crate::embedded::checkpoint;
use crate::embedded::disk::{Disk, RealDisk};
use crate::proposal::{Outcome, Proposal};
use crate::{Head, IssuedSignature, Ledger as _};

/// Lays a log into a database, entry by entry from its beginning; nothing is signed.
///
/// Where the database has the beginning of the log already, what it has is compared by its root and what follows is
/// added. An interrupted work is taken up again by beginning anew.
#[derive(Debug)]
pub struct PostgresLogWriter {
    ledger: PostgresLedger,
    /// What the database had.
    had: Head,
    frontier: Frontier,
    directory: PathBuf,
}

impl PostgresLogWriter {
    /// Begins in a schema that has no log, or this one. `options.directory` must hold no checkpoint yet.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn begin(
        options: PostgresOptions,
        origin: &str,
        random: &dyn Random,
    ) -> Result<Self, PostgresError> {
        let options = PostgresOptions { publishes: false, ..options };
        let directory = options.directory.clone();
        let nobody = LogSigners::new(origin, Vec::new());
        let ledger = match PostgresLedger::open(options.clone(), Arc::clone(&nobody), random).await {
            Err(PostgresError::Missing { .. }) => PostgresLedger::create(options, nobody, random).await?,
            opened => opened?,
        };
        let had = ledger.head();
        Ok(Self { ledger, had, frontier: Frontier::new(), directory })
    }

    /// Entries that the database had.
    #[must_use]
    pub fn had(&self) -> u64 {
        self.had.size
    }

    /// The next entries, beginning with the first of the log; some megabytes at most.
    ///
    /// # Errors
    /// [`PostgresError`]: the database has another log, or did not take them.
    pub async fn append(&mut self, entries: &[Vec<u8>]) -> Result<(), PostgresError> {
        let mut new = Vec::new();
        for bytes in entries {
            let index = self.frontier.size();
            self.frontier.append(leaf_hash(bytes), &mut |_, _, _| {});
            if index < self.had.size {
                self.compare()?;
                continue;
            }
            let entry = Entry::decode(bytes);
            new.push(entry.map_err(|error| PostgresError::Entry { index, error: error.to_string() })?);
        }
        if new.is_empty() {
            return Ok(());
        }
        let first = self.frontier.size() - new.len() as u64;
        let proposal = Proposal::new(Vec::new(), new);
        let proposal =
            proposal.map_err(|error| PostgresError::Entry { index: first, error: error.to_string() })?;
        let database = |error: String| PostgresError::Database(error);
        let outcomes = self.ledger.commit(vec![proposal]).await;
        match outcomes.map_err(|error| database(error.to_string()))?.as_slice() {
            [Outcome::Accepted { first_index }] if *first_index == first => Ok(()),
            _ => Err(database(format!("somebody else wrote entry {first} meanwhile: stop every server"))),
        }
    }

    /// That what the database had is the beginning of this log, once that much has gone by.
    fn compare(&self) -> Result<(), PostgresError> {
        if self.frontier.size() == self.had.size && self.frontier.root() != self.had.root {
            let (size, found, published) = (self.had.size, self.had.root, self.frontier.root());
            return Err(Fence::NotPublished { size, found, published }.into());
        }
        Ok(())
    }

    /// Keeps signatures beside entries that were appended.
    ///
    /// # Errors
    /// [`PostgresError::Database`]; also while not all entries are in it.
    pub async fn sign(&self, signatures: Vec<IssuedSignature>) -> Result<(), PostgresError> {
        self.check()?;
        let kept = self.ledger.keep_signatures(signatures).await;
        kept.map_err(|error| PostgresError::Database(error.to_string()))
    }

    /// Ends, and notes outside the database what was published of this log.
    ///
    /// # Errors
    /// [`PostgresError`]: the database has more than was laid into it, or its directory cannot be written.
    pub async fn finish(self, published: &SignedNote) -> Result<Head, PostgresError> {
        let laid = self.check()?;
        self.ledger.close();
        let disk = Arc::new(RealDisk) as Arc<dyn Disk>;
        let gathered = checkpoint::gathered_by(&self.ledger.shared.replica);
        let written = checkpoint::write(&disk, &self.directory, &gathered, published);
        let path = self.directory.display().to_string();
        written.map_err(|error| PostgresError::Io { path, error })?;
        Ok(laid)
    }

    /// That the database has what was laid into it, and no more.
    fn check(&self) -> Result<Head, PostgresError> {
        let head = self.ledger.head();
        let laid = Head { size: self.frontier.size(), root: self.frontier.root() };
        if head == laid {
            return Ok(laid);
        }
        Err(PostgresError::Database(format!(
            "the database has {} entries, {} were to be in it: it goes on where the log that is restored ends. Start \
             the servers on it as it is, or name another schema",
            head.size, laid.size
        )))
    }
}
