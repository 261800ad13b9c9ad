//! What can be chosen about a ledger in PostgreSQL.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chancery_types::SecretString;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::PostgresError;
use super::session::Target;
use super::standby::Lag;
use super::tls::Tls;

/// What can be chosen about a ledger in PostgreSQL.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Where the database is: `postgres://user@host:5432/database?sslmode=require`, or libpq's `key=value` words.
    /// It may be a pooler's address, in any mode.
    pub url: String,
    /// The database's own address where `url` is a pooler's: notifications do not come through one. Without it `url`
    /// is listened to; where nothing is heard, the head is looked at four times a second.
    pub listen_url: Option<String>,
    /// Addresses of streaming standbys: what may be a moment old is asked there.
    pub standby_urls: Vec<String>,
    /// Entries that a standby may lack and be asked all the same.
    pub standby_lag: u64,
    /// How long a standby that lacks any may have replayed nothing.
    pub standby_age: Duration,
    /// The password, where the database asks for one and the address has none.
    pub password: Option<SecretString>,
    /// The schema that holds the ledger: lower-case letters, digits and `_`.
    pub schema: String,
    /// How the database's certificate is verified, and which one is shown to it. Without it there is no TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Where the last published checkpoint is kept, outside the database: a directory of this replica's own, or one
    /// that replicas share. A database that comes back older than this is refused.
    pub directory: PathBuf,
    /// Connections for reading.
    pub readers: usize,
    /// How long a commit is tried again while the database is away, before its callers are told.
    pub patience: Duration,
    /// What people call this replica.
    pub replica: String,
    /// Entries in one partition.
    pub partition: u64,
    /// Whether a log that has ended there is opened all the same, to be read.
    pub may_have_ended: bool,
    /// Whether checkpoints are kept in the directory as the log grows: not by whoever only reads, nor while a log is laid
    /// into the database.
    pub publishes: bool,
}

impl PostgresOptions {
    /// The usual choices.
    #[must_use]
    pub fn new(url: &str, directory: PathBuf) -> Self {
        Self {
            url: url.to_owned(),
            listen_url: None,
            standby_urls: Vec::new(),
            standby_lag: 1000,
            standby_age: Duration::from_secs(10),
            password: None,
            schema: "chancery".to_owned(),
            tls: None,
            directory,
            readers: 4,
            patience: Duration::from_secs(10),
            replica: format!("process {}", std::process::id()),
            partition: 4 << 20,
            may_have_ended: false,
            publishes: true,
        }
    }

    /// Where to connect for everything, and where to listen.
    pub(super) fn targets(&self) -> Result<(Target, Target), PostgresError> {
        let letters = |character: char| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_'
        };
        let begins = self.schema.starts_with(|character: char| character.is_ascii_lowercase());
        if !begins || self.schema.len() > 48 || !self.schema.chars().all(letters) {
            let what = format!("{:?} cannot be a schema: use lower-case letters, digits and _", self.schema);
            return Err(PostgresError::Settings(what));
        }
        if self.readers == 0 || self.partition == 0 {
            return Err(PostgresError::Settings("readers and partition are at least 1".to_owned()));
        }
        let usual = self.target(&self.url)?;
        let listen = self.listen_url.as_deref().map(|url| self.target(url)).transpose()?;
        Ok((usual.clone(), listen.unwrap_or(usual)))
    }

    /// Where the standbys are.
    pub(super) fn standby_targets(&self) -> Result<Vec<Target>, PostgresError> {
        self.standby_urls.iter().map(|url| self.target(url)).collect()
    }

    pub(super) fn standby_lag(&self) -> Lag {
        Lag { entries: self.standby_lag, age: self.standby_age }
    }

    fn target(&self, url: &str) -> Result<Target, PostgresError> {
        let mut config = read(url).map_err(PostgresError::Settings)?;
        check_path(&config, self.tls.is_some()).map_err(PostgresError::Settings)?;
        if let Some(password) = &self.password {
            config.password(password.expose_secret());
        }
        if self.tls.is_some() {
            // Nobody in between talks us out of it.
            config.ssl_mode(SslMode::Require);
        }
        config.application_name("chancery");
        config.connect_timeout(CONNECT).tcp_user_timeout(SILENCE);
        config.keepalives_idle(SILENCE).keepalives_interval(SILENCE).keepalives_retries(2);
        Ok(Target { config, tls: self.tls.clone().map(Tls), schema: self.schema.clone() })
    }
}

/// Checks an address that stands in a configuration: it can be read, holds no password, and what it leads over is
/// encrypted unless it says otherwise.
///
/// # Errors
/// What is wrong, without the address: it may hold a password.
pub fn check_address(url: &str, has_tls: bool) -> Result<(), String> {
    let config = read(url)?;
    if config.get_password().is_some() {
        return Err(
            "the address holds a password; put it into a file and name that as password_file".to_owned()
        );
    }
    check_path(&config, has_tls)
}

fn read(url: &str) -> Result<Config, String> {
    url.parse().map_err(|error: tokio_postgres::Error| {
        // The text itself may hold a password.
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        format!("the database's address cannot be read: {why}")
    })
}

/// In the clear only within this machine, or where the address says so.
fn check_path(config: &Config, has_tls: bool) -> Result<(), String> {
    let is_here = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    match config.get_ssl_mode() {
        _ if has_tls => Ok(()),
        SslMode::Disable => Ok(()),
        SslMode::Prefer if config.get_hosts().iter().all(is_here) => Ok(()),
        _ => Err("the database is on another machine: name the roots of its certificate (roots), or write \
                  sslmode=disable into the address where the network is trusted"
            .to_owned()),
    }
}

/// For each address of a host.
const CONNECT: Duration = Duration::from_secs(1);
/// Bytes that nobody acknowledges for so long end a connection.
const SILENCE: Duration = Duration::from_secs(3);

impl std::fmt::Debug for PostgresOptions {
    /// Without the addresses: they may hold passwords.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PostgresOptions")
            .field("schema", &self.schema)
            .field("replica", &self.replica)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}
