//! `[storage]`: where the ledger is, and how a database that holds it is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chancery_ledger::check_address;
use chancery_types::HumanDuration;
use serde::{Deserialize, Serialize};

/// Where the ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerPlace {
    /// In a directory, for one process.
    Directory(PathBuf),
    /// In a database, for many.
    Postgres(Box<PostgresPlace>),
}

/// A ledger in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresPlace {
    /// Where: `postgres://user@host/database`, perhaps a pooler's address. It holds no password.
    pub url: String,
    /// The database's own address where the other is a pooler's.
    pub listen: Option<String>,
    /// The schema.
    pub schema: String,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
    /// How the database proves what it is, and what is shown to it.
    pub tls: Option<DatabaseTls>,
    /// Addresses of streaming standbys, for searches and exports.
    pub read: Vec<String>,
    /// Entries that a standby may lack.
    pub read_lag: u64,
    /// Connections for reading.
    pub connections: usize,
    /// Where the last published checkpoint is kept, outside the database.
    pub checkpoints: PathBuf,
    /// What people call this replica.
    pub replica: Option<String>,
}

/// TLS to a database. Its certificate has to name its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseTls {
    /// PEM file with the roots under which the database's certificate was issued.
    pub roots: PathBuf,
    /// PEM files with a client certificate (and what lies above it) and its key, read anew for every connection.
    pub credential: Option<(PathBuf, PathBuf)>,
}

/// `[storage]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawStorage {
    /// The ledger's directory, or `postgres://user@host/database`.
    pub ledger: String,
    /// The profiles' directory.
    pub profiles: String,
    /// The policy's directory.
    pub policy: String,
    /// Whether certificates that ended long ago leave what searches find.
    pub tidy: bool,
    /// How long after their end.
    pub tidy_after: HumanDuration,
    /// A directory for full tiles of the log, which replicas share, or `s3://BUCKET/PREFIX`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles: Option<String>,
    /// The address of the object store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles_endpoint: Option<String>,
    /// Its region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles_region: Option<String>,
    /// The file with the credentials for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles_credentials: Option<String>,
    /// PEM file with the roots of its certificate; the system's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles_roots: Option<String>,
    /// Whether it may be spoken to in the clear across a network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tiles_plain_http: bool,
    /// More about the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<RawPostgres>,
}

impl Default for RawStorage {
    fn default() -> Self {
        Self {
            ledger: "ledger".into(),
            profiles: "profiles".into(),
            policy: "policy".into(),
            tidy: true,
            tidy_after: HumanDuration(30 * DAY),
            tiles: None,
            tiles_endpoint: None,
            tiles_region: None,
            tiles_credentials: None,
            tiles_roots: None,
            tiles_plain_http: false,
            postgres: None,
        }
    }
}

/// How long after their end certificates leave what searches find; `None` for never. They have left every list by
/// then, whose last may be in use for as long again as it is good for.
pub(super) fn check_tidy(
    raw: &RawStorage,
    crl_validity: Duration,
    mistakes: &mut Vec<String>,
) -> Option<Duration> {
    let (after, least) = (raw.tidy_after.0, DAY.max(2 * crl_validity));
    if after < least {
        let least = HumanDuration(least);
        mistakes.push(format!(
            "storage.tidy_after: {} is less than {least}, a day and twice status.crl_validity",
            raw.tidy_after
        ));
    }
    raw.tidy.then_some(after)
}

const DAY: Duration = Duration::from_hours(24);

/// `[storage.postgres]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawPostgres {
    /// The database's own address where `ledger` names a pooler: notifications do not come through one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// The schema that holds the ledger.
    pub schema: String,
    /// The file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// PEM file with the roots of the database's certificate. With it TLS is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
    /// PEM file with a client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// PEM file with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Addresses of streaming standbys: searches and exports go there while they are not too far behind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<String>,
    /// Entries that a standby may lack.
    pub read_lag: u64,
    /// Connections for reading.
    pub connections: usize,
    /// The directory that keeps the last published checkpoint, outside the database.
    pub checkpoints: String,
    /// What people call this replica; its host name and process by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
}

impl Default for RawPostgres {
    fn default() -> Self {
        Self {
            listen: None,
            schema: "chancery".into(),
            password_file: None,
            roots: None,
            certificate: None,
            key: None,
            read: Vec::new(),
            read_lag: 1000,
            connections: 4,
            checkpoints: "checkpoints".into(),
            replica: None,
        }
    }
}

impl std::fmt::Display for LedgerPlace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(directory) => write!(formatter, "embedded:{}", directory.display()),
            Self::Postgres(place) => write!(formatter, "{} (schema {})", place.url, place.schema),
        }
    }
}

impl LedgerPlace {
    /// The place that a command names: `embedded:DIR`, or `postgres://...` with what else there is to say of it.
    ///
    /// # Errors
    /// One line for each mistake.
    pub fn named(text: &str, more: Option<RawPostgres>, directory: &Path) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let place = match text.strip_prefix("embedded:") {
            Some(name) => Self::Directory(directory.join(name)),
            None if is_address(text) => Self::check(text, more, directory, &mut mistakes),
            None => {
                return Err(vec![format!("{text:?}: write embedded:DIR or postgres://USER@HOST/DATABASE")]);
            }
        };
        if mistakes.is_empty() { Ok(place) } else { Err(mistakes) }
    }

    /// The directory that it is in, if it is in one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(directory) => Some(directory),
            Self::Postgres(_) => None,
        }
    }

    /// Reads what names a ledger: a directory, or an address with what else was said of the database.
    pub(super) fn check(
        ledger: &str,
        more: Option<RawPostgres>,
        directory: &Path,
        mistakes: &mut Vec<String>,
    ) -> Self {
        if !is_address(ledger) {
            if more.is_some() {
                let what = "storage.postgres: storage.ledger names a directory; write postgres://... there";
                mistakes.push(what.into());
            }
            return Self::Directory(directory.join(ledger));
        }
        Self::Postgres(Box::new(PostgresPlace::check(ledger, more.unwrap_or_default(), directory, mistakes)))
    }
}

/// Whether it is meant for a database.
fn is_address(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

impl PostgresPlace {
    fn check(url: &str, raw: RawPostgres, directory: &Path, mistakes: &mut Vec<String>) -> Self {
        let file = |name: Option<String>| name.map(|name| directory.join(name));
        let has_tls = raw.roots.is_some();
        let addresses = [("storage.ledger", Some(url)), ("storage.postgres.listen", raw.listen.as_deref())];
        let standbys = raw.read.iter().map(|text| ("storage.postgres.read", Some(text.as_str())));
        let addresses = addresses.into_iter().chain(standbys);
        for (field, address) in addresses.filter_map(|(field, text)| Some((field, text?))) {
            if let Err(why) = check_address(address, has_tls) {
                mistakes.push(format!("{field}: {why}"));
            }
        }
        if raw.certificate.is_some() != raw.key.is_some() {
            mistakes.push("storage.postgres: certificate and key come together".into());
        }
        if raw.certificate.is_some() && !has_tls {
            mistakes.push("storage.postgres.roots: name the roots of the database's certificate too".into());
        }
        if !(1..=64).contains(&raw.connections) {
            mistakes.push(format!("storage.postgres.connections: {} is not 1 to 64", raw.connections));
        }
        let credential = file(raw.certificate).zip(file(raw.key));
        Self {
            url: url.to_owned(),
            listen: raw.listen,
            schema: raw.schema,
            password_file: file(raw.password_file),
            tls: file(raw.roots).map(|roots| DatabaseTls { roots, credential }),
            read: raw.read,
            read_lag: raw.read_lag,
            connections: raw.connections,
            checkpoints: directory.join(raw.checkpoints),
            replica: raw.replica,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ledger: &str, more: &str) -> Result<LedgerPlace, Vec<String>> {
        let more = (!more.is_empty()).then(|| toml::from_str(more).unwrap());
        let mut mistakes = Vec::new();
        let place = LedgerPlace::check(ledger, more, Path::new("/etc/chancery"), &mut mistakes);
        if mistakes.is_empty() { Ok(place) } else { Err(mistakes) }
    }

    #[test]
    fn a_directory_is_the_default_and_an_address_names_a_database() {
        assert_eq!(check("ledger", "").unwrap(), LedgerPlace::Directory("/etc/chancery/ledger".into()));
        let LedgerPlace::Postgres(place) = check("postgres://chancery@localhost/chancery", "").unwrap()
        else {
            panic!("it is a database");
        };
        assert_eq!((place.schema.as_str(), place.connections), ("chancery", 4));
        assert_eq!(place.checkpoints, Path::new("/etc/chancery/checkpoints"));
        assert!(check("ledger", "schema = 'x'").is_err());
    }

    #[test]
    fn no_password_stands_in_it_and_nothing_crosses_a_network_in_the_clear() {
        let refused = |ledger, more| check(ledger, more).unwrap_err().join("\n");
        assert!(refused("postgres://chancery:secret@localhost/chancery", "").contains("password_file"));
        assert!(!refused("postgres://chancery:secret@localhost/chancery", "").contains("secret@"));
        assert!(refused("postgres://chancery@db.example.org/chancery", "").contains("roots"));
        assert!(check("postgres://chancery@db.example.org/chancery", "roots = 'db.pem'").is_ok());
        assert!(check("postgres://chancery@db.example.org/chancery?sslmode=disable", "").is_ok());
        assert!(refused("postgres://db.example.org:none/", "roots = 'db.pem'").contains("storage.ledger"));
        let half = "roots = 'db.pem'\ncertificate = 'me.pem'";
        assert!(refused("postgres://chancery@db.example.org/chancery", half).contains("together"));
        let standby = "read = ['postgres://chancery:secret@localhost/chancery']";
        assert!(refused("postgres://chancery@localhost/chancery", standby).contains("storage.postgres.read"));
    }
}
