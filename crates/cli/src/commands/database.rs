//! Flags that name a database for the ledger.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::authority_side::Database;
use crate::failure::usage;

/// A PostgreSQL database that holds the ledger, so that several servers can share it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The ledger in PostgreSQL")]
pub(crate) struct DatabaseFlags {
    /// Keep the ledger in this database: postgres://USER@HOST/DATABASE, without a password.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    #[command(flatten)]
    details: DatabaseDetails,
}

/// How a database is reached, beside its address.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The ledger in PostgreSQL")]
pub(crate) struct DatabaseDetails {
    /// The database's own address, where a pooler stands before it.
    #[arg(long, value_name = "URL")]
    database_listen: Option<String>,
    /// The schema in it; `chancery` if absent.
    #[arg(long, value_name = "NAME")]
    database_schema: Option<String>,
    /// A file whose first line is the password.
    #[arg(long, value_name = "FILE")]
    database_password_file: Option<PathBuf>,
    /// The roots of the database's certificate, PEM; with them TLS is required.
    #[arg(long, value_name = "FILE")]
    database_roots: Option<PathBuf>,
    /// A client certificate for the database, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["database_roots", "database_key"])]
    database_certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "database_certificate")]
    database_key: Option<PathBuf>,
}

impl DatabaseFlags {
    /// The database, if one was named.
    pub(crate) fn chosen(&self) -> Result<Option<Database>> {
        match &self.database {
            Some(url) => Ok(Some(self.details.of(url))),
            None if self.details.is_empty() => Ok(None),
            None => Err(usage("name the database with --database postgres://USER@HOST/DATABASE")),
        }
    }
}

impl DatabaseDetails {
    /// The database at this address.
    pub(crate) fn of(&self, url: &str) -> Database {
        Database {
            url: url.to_owned(),
            listen: self.database_listen.clone(),
            schema: self.database_schema.clone(),
            password_file: self.database_password_file.clone(),
            roots: self.database_roots.clone(),
            credential: self.database_certificate.clone().zip(self.database_key.clone()),
        }
    }

    fn is_empty(&self) -> bool {
        self.database_listen.is_none()
            && self.database_schema.is_none()
            && self.database_password_file.is_none()
            && self.database_roots.is_none()
            && self.database_certificate.is_none()
    }
}
