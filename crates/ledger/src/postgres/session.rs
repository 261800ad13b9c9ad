//! One connection to the database: named statements, deadlines, and what a failure means.
//!
//! Statements are sent unnamed and with the types of their parameters, in one round trip each: nothing of them stays
//! in the session, so that a pooler that gives each transaction another session (pgbouncer) does no harm. For the
//! same reason nothing is set but for the length of a transaction.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Row};

use super::tls::Tls;

/// How long the database may be silent before it is taken for lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// A statement by its name. `@` in the text stands for the schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

/// A statement's parameter and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Why a statement failed, by what can be done about it.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SqlError {
    /// The connection is gone, or the database is silent. What a running transaction did is not known.
    #[error("{statement}: {error}")]
    Lost { statement: &'static str, error: String },
    /// Another transaction was in the way; nothing was done.
    #[error("{statement}: {error}")]
    InTheWay { statement: &'static str, error: String },
    /// The database has no room.
    #[error("{statement}: {error}")]
    Full { statement: &'static str, error: String },
    /// It will fail again.
    #[error("{statement}: {error}")]
    Refused { statement: &'static str, error: String },
}

impl SqlError {
    fn new(statement: &'static str, error: &tokio_postgres::Error) -> Self {
        let text = match (error.as_db_error(), std::error::Error::source(error)) {
            (Some(answer), _) => format!("{} ({})", answer.message(), answer.code().code()),
            (None, Some(source)) => format!("{error}: {source}"),
            (None, None) => error.to_string(),
        };
        let Some(code) = error.code() else {
            return Self::Lost { statement, error: text };
        };
        const IN_THE_WAY: [SqlState; 3] = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
        ];
        if IN_THE_WAY.contains(code) {
            return Self::InTheWay { statement, error: text };
        }
        if *code == SqlState::DISK_FULL {
            return Self::Full { statement, error: text };
        }
        // Connections (08), operators and shutdowns (57P), transactions ended by a timeout (25P), a standby (25006).
        let lost = ["08", "57P", "25", "53300"];
        if lost.iter().any(|class| code.code().starts_with(class)) {
            return Self::Lost { statement, error: text };
        }
        Self::Refused { statement, error: text }
    }

    pub(super) fn refused(statement: &'static str, error: impl ToString) -> Self {
        Self::Refused { statement, error: error.to_string() }
    }
}

/// Where the database is, and which schema in it is the ledger's.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: Option<Tls>,
    /// Checked: a plain name.
    pub(super) schema: String,
}

impl Target {
    /// A connection, alive as long as the session.
    pub(super) async fn connect(&self) -> Result<Session, SqlError> {
        self.listen(None).await
    }

    /// A connection that passes notifications on.
    pub(super) async fn listen(&self, heard: Option<Arc<Notify>>) -> Result<Session, SqlError> {
        const NAME: &str = "connect";
        let connecting = async {
            match &self.tls {
                Some(tls) => {
                    let (client, connection) = self.config.connect(tls.clone()).await?;
                    Ok((client, tokio::spawn(drive(connection, heard)).abort_handle()))
                }
                None => {
                    let (client, connection) = self.config.connect(NoTls).await?;
                    Ok((client, tokio::spawn(drive(connection, heard)).abort_handle()))
                }
            }
        };
        let connected = tokio::time::timeout(CONNECT, connecting).await;
        let silent = || SqlError::Lost { statement: NAME, error: format!("no answer within {CONNECT:?}") };
        let (client, driver) =
            connected.map_err(|_| silent())?.map_err(|error| SqlError::new(NAME, &error))?;
        Ok(Session { client, schema: self.schema.clone(), driver, is_lost: AtomicBool::new(false) })
    }
}

/// Moves bytes until the connection ends.
async fn drive<S, T>(mut connection: Connection<S, T>, heard: Option<Arc<Notify>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = std::future::poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notification(_)) => {
                if let Some(heard) = &heard {
                    heard.notify_one();
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a connection to the database ended");
                break;
            }
        }
    }
    // Whoever listens looks for itself, and finds out.
    if let Some(heard) = heard {
        heard.notify_one();
    }
}

/// One connection.
pub(super) struct Session {
    client: Client,
    schema: String,
    driver: AbortHandle,
    /// A statement failed in a way after which nothing more comes from here.
    is_lost: AtomicBool,
}

impl Drop for Session {
    /// Closes the socket now, also when the other side is silent: the database rolls back what was open.
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    pub(super) fn is_closed(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed) || self.client.is_closed()
    }

    /// The ledger's.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// The rows that a statement gives.
    pub(super) async fn rows(
        &self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, SqlError> {
        self.rows_in(&self.schema, statement, parameters).await
    }

    /// As [`Self::rows`], given so much more time.
    pub(super) async fn rows_within(
        &self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
        extra: Duration,
    ) -> Result<Vec<Row>, SqlError> {
        let text = text(&self.schema, statement);
        self.within(PATIENCE + extra, statement.name, self.client.query_typed(&text, parameters)).await
    }

    /// As [`Self::rows`], in another schema.
    pub(super) async fn rows_in(
        &self,
        schema: &str,
        statement: &Statement,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, SqlError> {
        let text = text(schema, statement);
        self.within(PATIENCE, statement.name, self.client.query_typed(&text, parameters)).await
    }

    /// The one row that a statement gives.
    pub(super) async fn row(
        &self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
    ) -> Result<Row, SqlError> {
        let mut rows = self.rows(statement, parameters).await?;
        match (rows.pop(), rows.len()) {
            (Some(row), 0) => Ok(row),
            (_, more) => {
                Err(SqlError::refused(statement.name, format!("one row was expected, not {}", more + 1)))
            }
        }
    }

    /// Rows that a statement changed, given so much more time.
    pub(super) async fn change(
        &self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
        extra: Duration,
    ) -> Result<u64, SqlError> {
        self.change_in(&self.schema, statement, parameters, extra).await
    }

    /// As [`Self::change`], in another schema.
    pub(super) async fn change_in(
        &self,
        schema: &str,
        statement: &Statement,
        parameters: &[Parameter<'_>],
        extra: Duration,
    ) -> Result<u64, SqlError> {
        let text = text(schema, statement);
        self.within(PATIENCE + extra, statement.name, self.client.execute_typed(&text, parameters)).await
    }

    /// As [`Self::change`], which must change exactly so many rows.
    pub(super) async fn change_exactly(
        &self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
        rows: usize,
        extra: Duration,
    ) -> Result<(), SqlError> {
        match self.change(statement, parameters, extra).await? {
            changed if changed == rows as u64 => Ok(()),
            changed => {
                let problem = format!("{changed} rows were changed, {rows} had to be");
                Err(SqlError::refused(statement.name, problem))
            }
        }
    }

    /// Several statements without parameters, as they are.
    pub(super) async fn run(&self, statement: &Statement) -> Result<(), SqlError> {
        self.run_text(statement.name, statement.text, Duration::ZERO).await
    }

    /// As [`Self::run`], of a text in which `@` stands for the schema.
    pub(super) async fn run_text(
        &self,
        name: &'static str,
        text: &str,
        extra: Duration,
    ) -> Result<(), SqlError> {
        let text = text.replace('@', &self.schema);
        self.within(PATIENCE + extra, name, self.client.batch_execute(&text)).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        statement: &'static str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SqlError> {
        let answer = match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map_err(|error| SqlError::new(statement, &error)),
            Err(_) => Err(SqlError::Lost { statement, error: format!("no answer within {limit:?}") }),
        };
        if let Err(SqlError::Lost { .. }) = &answer {
            self.is_lost.store(true, Ordering::Relaxed);
        }
        answer
    }
}

/// What is sent: the name stands in the server's log and in pg_stat_activity.
fn text(schema: &str, statement: &Statement) -> String {
    format!("/* chancery {} */ {}", statement.name, statement.text.replace('@', schema))
}

/// A column of a row.
pub(super) fn column<'r, T: FromSql<'r>>(
    statement: &Statement,
    row: &'r Row,
    place: usize,
) -> Result<T, SqlError> {
    row.try_get(place).map_err(|error| SqlError::refused(statement.name, error))
}
