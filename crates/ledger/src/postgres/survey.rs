//! How a database stands, for who looks after it. Reads only, and needs no key of the log's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::types::Type;

use super::session::{Parameter, Session, SqlError, Statement, column};
use super::{PostgresError, PostgresOptions};

/// What a database and its replicas look like at one moment.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Entries of the log, by its head.
    pub size: u64,
    /// Entries of the log, by the last one that is there.
    pub entries: u64,
    /// The database's clock, in seconds since 1970.
    pub clock: f64,
    /// Settings that matter, by name; those that this role may not read are missing.
    pub settings: BTreeMap<String, String>,
    /// Connections to the database, this one included.
    pub connections: i64,
    /// Standbys that stream from it, and how many of them a commit waits for.
    pub standbys: (i64, i64),
    /// Whether it is a standby itself.
    pub is_standby: bool,
    /// Who does what only one may do.
    pub leases: Vec<LeaseSeen>,
    /// Who has written something.
    pub writers: Vec<Writer>,
    /// What replicas say of themselves, under the prefix that was asked for.
    pub said: Vec<Said>,
    /// Whether a notification arrives where replicas listen.
    pub hears: Result<(), String>,
}

/// A lease in the database.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseSeen {
    /// Which work.
    pub work: String,
    /// Who has it, by name, if it has ever written anything.
    pub holder: Option<String>,
    /// Seconds until it runs out; less than nothing when it has, and nothing when it was given back.
    pub left: Option<f64>,
}

/// A process that has written entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Writer {
    /// Its name.
    pub name: String,
    /// Seconds since.
    pub ago: f64,
}

/// A value that a replica has put into the scratch table.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The value.
    pub value: Vec<u8>,
    /// Seconds until it runs out.
    pub left: f64,
}

const HEAD: Statement = Statement {
    name: "survey_head",
    text: "SELECT size, coalesce((SELECT max(index) + 1 FROM @.entries), 0), \
           extract(epoch FROM clock_timestamp())::float8, pg_is_in_recovery() FROM @.head",
};

const SETTINGS: Statement = Statement {
    name: "survey_settings",
    text: "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', \
           'full_page_writes', 'max_connections', 'superuser_reserved_connections', \
           'synchronous_standby_names', 'data_checksums', 'data_directory', 'server_version')",
};

const CONNECTIONS: Statement = Statement {
    name: "survey_connections",
    text: "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
           (SELECT count(*) FROM pg_stat_replication), \
           (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))",
};

const LEASES: Statement = Statement {
    name: "survey_leases",
    text: "SELECT l.work, r.name, extract(epoch FROM nullif(l.until, '-infinity') - clock_timestamp())::float8 \
           FROM @.leases l LEFT JOIN @.replicas r ON r.id = l.holder ORDER BY l.work",
};

const WRITERS: Statement = Statement {
    name: "survey_writers",
    text: "SELECT name, extract(epoch FROM clock_timestamp() - seen)::float8 FROM @.replicas \
           WHERE seen > now() - interval '1 day' ORDER BY seen DESC LIMIT 100",
};

const SAID: Statement = Statement {
    name: "survey_said",
    text: "SELECT value, extract(epoch FROM until - clock_timestamp())::float8 FROM @.scratch \
           WHERE substring(key FROM 1 FOR length($1)) = $1 AND until > clock_timestamp() ORDER BY key LIMIT 100",
};

/// A channel of its own: nobody is woken by a survey.
const LISTEN: &str = "LISTEN @_survey";
const TELL: Statement = Statement { name: "survey_tell", text: "SELECT pg_notify('@_survey', '')" };
/// How long a notification may take.
const HEARING: Duration = Duration::from_secs(2);

/// Looks at a database; what replicas say of themselves lies under keys that begin with this.
///
/// # Errors
/// [`PostgresError`] when it cannot be reached or has no ledger.
pub async fn survey(options: &PostgresOptions, prefix: &[u8]) -> Result<Survey, PostgresError> {
    let (target, listen) = options.targets()?;
    let session = target.connect().await?;
    let heard = Arc::new(Notify::new());
    let hears = match listen.listen(Some(Arc::clone(&heard))).await {
        Ok(listening) => hears(&session, &listening, &heard).await,
        Err(error) => Err(error.to_string()),
    };
    Ok(look(&session, prefix, hears).await?)
}

async fn look(session: &Session, prefix: &[u8], hears: Result<(), String>) -> Result<Survey, SqlError> {
    let mut settings = BTreeMap::new();
    for row in session.rows(&SETTINGS, &[]).await? {
        settings.insert(column(&SETTINGS, &row, 0)?, column(&SETTINGS, &row, 1)?);
    }
    let mut leases = Vec::new();
    for row in session.rows(&LEASES, &[]).await? {
        let (work, holder) = (column(&LEASES, &row, 0)?, column(&LEASES, &row, 1)?);
        leases.push(LeaseSeen { work, holder, left: column(&LEASES, &row, 2)? });
    }
    let mut writers = Vec::new();
    for row in session.rows(&WRITERS, &[]).await? {
        writers.push(Writer { name: column(&WRITERS, &row, 0)?, ago: column(&WRITERS, &row, 1)? });
    }
    let mut said = Vec::new();
    let parameters: [Parameter<'_>; 1] = [(&prefix, Type::BYTEA)];
    for row in session.rows(&SAID, &parameters).await? {
        said.push(Said { value: column(&SAID, &row, 0)?, left: column(&SAID, &row, 1)? });
    }
    let counted = session.row(&CONNECTIONS, &[]).await?;
    // Last, so that nothing that was said before can be ahead of it.
    let head = session.row(&HEAD, &[]).await?;
    let count = |place| {
        let number: i64 = column(&HEAD, &head, place)?;
        u64::try_from(number).map_err(|error| SqlError::refused(HEAD.name, error))
    };
    Ok(Survey {
        size: count(0)?,
        entries: count(1)?,
        clock: column(&HEAD, &head, 2)?,
        is_standby: column(&HEAD, &head, 3)?,
        settings,
        connections: column(&CONNECTIONS, &counted, 0)?,
        standbys: (column(&CONNECTIONS, &counted, 1)?, column(&CONNECTIONS, &counted, 2)?),
        leases,
        writers,
        said,
        hears,
    })
}

async fn hears(session: &Session, listening: &Session, heard: &Arc<Notify>) -> Result<(), String> {
    let told = async {
        listening.run_text("survey_listen", LISTEN, Duration::ZERO).await?;
        session.rows(&TELL, &[]).await
    };
    told.await.map_err(|error| error.to_string())?;
    let waited = tokio::time::timeout(HEARING, heard.notified()).await;
    waited.map_err(|_| format!("nothing was heard within {HEARING:?}"))
}
