//! Making and opening a ledger in a database.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use chancery_merkle::{Frontier, LogSigners};
use chancery_types::Random;
use tokio::sync::mpsc;
use tokio_postgres::types::Type;

use super::counters::Counters;
use super::hashes::Tiles;
use super::head::{HeadRow, Known, READ, verify};
use super::lookups::Lookups;
use super::migrate::migrate;
use super::readers::Readers;
use super::sequencer::Sequencer;
use super::session::{Parameter, Session, Statement, column};
use super::standby::Standbys;
use super::{NEWS, PostgresError, PostgresLedger, PostgresOptions, Shared, signatures};
use crate::Head;
use crate::embedded::checkpoint::{self, Published};

/// Commits that may wait in the queue before callers wait for a place.
const QUEUE: usize = 4096;

const MAKE: Statement = Statement {
    name: "make_head",
    text: "INSERT INTO @.head (origin, log_id, size, root, frontier, room, epoch) \
           VALUES ($1, $2, 0, $3, $4, 0, 1) ON CONFLICT DO NOTHING",
};

/// What a lost setting would lose.
const DURABLE: Statement = Statement {
    name: "durable",
    text: "SELECT name, setting FROM pg_settings \
           WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes') AND setting = 'off'",
};

/// Replicas that have not committed for a month are gone.
const FORGET: Statement = Statement {
    name: "forget_replicas",
    text: "DELETE FROM @.replicas WHERE seen < now() - interval '30 days'",
};

impl PostgresLedger {
    /// Makes an empty ledger in a schema that has none, and opens it.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn create(
        options: PostgresOptions,
        signers: Arc<LogSigners>,
        random: &dyn Random,
    ) -> Result<Self, PostgresError> {
        let (target, _) = options.targets()?;
        let mut log_id = [0; 16];
        random.fill(&mut log_id)?;
        prepare(&options.directory)?;
        if Published::read(&options.directory)?.is_some() {
            let what = "there is a checkpoint of another ledger here; name an empty directory";
            let path = options.directory.display().to_string();
            return Err(crate::OpenError::Directory { path, what }.into());
        }
        let session = target.connect().await?;
        migrate(&session, true).await?;
        let frontier = Frontier::new();
        let (origin, root, edge) = (signers.origin(), frontier.root(), frontier.to_bytes());
        let parameters: [Parameter<'_>; 4] = [
            (&origin, Type::TEXT),
            (&log_id.as_slice(), Type::BYTEA),
            (&root.as_bytes().as_slice(), Type::BYTEA),
            (&edge, Type::BYTEA),
        ];
        if session.change(&MAKE, &parameters, Duration::ZERO).await? == 0 {
            return Err(PostgresError::Exists { schema: options.schema });
        }
        drop(session);
        Self::open(options, signers, random).await
    }

    /// Opens an existing ledger as one more replica of it, once the database is known to go on from what was published.
    ///
    /// # Errors
    /// [`PostgresError`], which says what to do.
    pub async fn open(
        options: PostgresOptions,
        signers: Arc<LogSigners>,
        random: &dyn Random,
    ) -> Result<Self, PostgresError> {
        let (target, listen) = options.targets()?;
        let standbys = Standbys::new(options.standby_targets()?, options.standby_lag());
        let mut replica = vec![0; 16];
        random.fill(&mut replica)?;
        prepare(&options.directory)?;
        if options.publishes
            && let Err(error) = checkpoint::tidy(&options.directory)
        {
            tracing::warn!(%error, "half-written checkpoints may lie beside the one that was published");
        }
        let session = target.connect().await?;
        migrate(&session, false).await?;
        let (row, published) = admit(&session, &options, &signers).await?;
        session.change(&FORGET, &[], Duration::ZERO).await?;
        let shared = Arc::new(Shared {
            target,
            listen,
            directory: options.directory,
            patience: options.patience,
            publishes: options.publishes,
            partition: options.partition,
            replica,
            name: options.replica,
            log: row.log,
            epoch: row.epoch,
            readers: Readers::new(options.readers),
            lookups: Lookups::default(),
            standbys,
            tiles: Tiles::default(),
            head: ArcSwap::from_pointee(row.head),
            standing_epoch: AtomicU64::new(0),
            fresh: AtomicU64::new(0),
            started: Instant::now(),
            commits: AtomicU64::new(0),
            signers,
            checkpoint: Mutex::default(),
            halted: Mutex::new(None),
            counters: Counters::default(),
            news: tokio::sync::broadcast::Sender::new(NEWS),
        });
        let (requests, receiver) = mpsc::channel(QUEUE);
        let thread = Sequencer::spawn(Arc::clone(&shared), published, receiver);
        let thread = thread.map_err(|error| PostgresError::Io { path: "a thread".to_owned(), error })?;
        let (keep, calls) = mpsc::channel(QUEUE);
        tokio::spawn(signatures::keep(Arc::clone(&shared), calls));
        Ok(Self {
            shared,
            requests: Mutex::new(Some(requests)),
            signatures: keep,
            turns: crate::Turns::default(),
            scratched: super::lease::Scratched::default(),
            thread: Mutex::new(Some(thread)),
        })
    }
}

/// That the database keeps what it acknowledges, and is the log that this replica's checkpoint speaks of. The head,
/// and the size of that checkpoint.
pub(super) async fn admit(
    session: &Session,
    options: &PostgresOptions,
    signers: &LogSigners,
) -> Result<(HeadRow, u64), PostgresError> {
    if let Some(row) = session.rows(&DURABLE, &[]).await?.first() {
        let (setting, value) = (column(&DURABLE, row, 0)?, column(&DURABLE, row, 1)?);
        return Err(PostgresError::NotDurable { setting, value });
    }
    let rows = session.rows(&READ, &[]).await?;
    let Some(row) = rows.first() else {
        return Err(PostgresError::Missing { schema: options.schema.clone() });
    };
    let row = HeadRow::read(&READ, row)?;
    let published = Published::read(&options.directory)?;
    if let Some(published) = &published {
        published.resume(signers)?;
    }
    let nothing = Head { size: 0, root: chancery_merkle::empty_root() };
    let head = published.as_ref().map_or(nothing, |published| published.head);
    let mut log = row.log.clone();
    signers.origin().clone_into(&mut log.origin);
    let known = Known { log, epoch: row.epoch, head };
    let row = verify(session, &known).await?;
    if !options.may_have_ended {
        row.check_open(&known)?;
    }
    Ok((row, head.size))
}

fn prepare(directory: &Path) -> Result<(), PostgresError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| PostgresError::Io { path: directory.display().to_string(), error })
}
