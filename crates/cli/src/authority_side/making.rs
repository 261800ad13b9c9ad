//! Authorities that are made, here or half here.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chancery_server::bootstrap::{self, InitPlan};
use chancery_server::config::{RawConfig, RawPostgres, RawStorage, ServerName};
use chancery_types::{Digest, KeyAlgorithm, SecretString, SystemClock, SystemRandom, TrustDomain};

/// A name or address that the server answers to, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(ServerName);

impl Name {
    /// Reads an address or a DNS name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        ServerName::parse(text).map(Self)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What is to be made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Where the authority lives.
    pub(crate) directory: PathBuf,
    /// The trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// What the server answers to.
    pub(crate) names: Vec<Name>,
    /// The algorithm of root and issuer.
    pub(crate) algorithm: KeyAlgorithm,
    /// A PKCS#11 URI without `object` for the issuing key; without it keys are encrypted files.
    pub(crate) token: Option<String>,
    /// Where the API listens.
    pub(crate) api: SocketAddr,
    /// Where status is served.
    pub(crate) status: SocketAddr,
    /// The URL under which others reach the API, if it is not made of the first name.
    pub(crate) url: Option<String>,
    /// The base of the URLs in certificates, likewise.
    pub(crate) status_url: Option<String>,
    /// The database that holds the ledger; a directory does without one.
    pub(crate) database: Option<Database>,
    /// Where the root is made, if it is made here.
    pub(crate) root_directory: Option<PathBuf>,
}

/// A database that holds a ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Database {
    /// Its address, without a password.
    pub(crate) url: String,
    /// Its own address where the other is a pooler's.
    pub(crate) listen: Option<String>,
    /// The schema; `chancery` if absent.
    pub(crate) schema: Option<String>,
    /// The file with the password.
    pub(crate) password_file: Option<PathBuf>,
    /// The roots of its certificate.
    pub(crate) roots: Option<PathBuf>,
    /// A client certificate and its key.
    pub(crate) credential: Option<(PathBuf, PathBuf)>,
}

impl Database {
    /// The settings that name it.
    pub(super) fn to_storage(&self) -> Result<RawStorage> {
        let (ledger, postgres) = self.to_server()?;
        Ok(RawStorage { ledger, postgres: Some(postgres), ..RawStorage::default() })
    }

    /// Its address and what else a configuration says of it. Files are named from the root of the file system.
    pub(super) fn to_server(&self) -> Result<(String, RawPostgres)> {
        let whole = |path: &Option<PathBuf>| {
            let path = path.as_ref().map(std::path::absolute).transpose()?;
            Ok::<_, std::io::Error>(path.map(|path| path.display().to_string()))
        };
        let mut raw = RawPostgres {
            listen: self.listen.clone(),
            password_file: whole(&self.password_file)?,
            roots: whole(&self.roots)?,
            ..RawPostgres::default()
        };
        if let Some(schema) = &self.schema {
            raw.schema.clone_from(schema);
        }
        if let Some((certificate, key)) = &self.credential {
            raw.certificate = whole(&Some(certificate.clone()))?;
            raw.key = whole(&Some(key.clone()))?;
        }
        Ok((self.url.clone(), raw))
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// SHA-256 of the root certificate.
    pub(crate) root_fingerprint: Digest,
    /// The first operator's certificate.
    pub(crate) operator_certificate: PathBuf,
    /// The first operator's key.
    pub(crate) operator_key: PathBuf,
}

impl From<bootstrap::Finished> for Made {
    fn from(finished: bootstrap::Finished) -> Self {
        Self {
            config: finished.config,
            root_fingerprint: finished.root_fingerprint,
            operator_certificate: finished.operator_certificate,
            operator_key: finished.operator_key,
        }
    }
}

impl Plan {
    fn to_server(&self) -> Result<InitPlan> {
        let root_key = match &self.root_directory {
            Some(directory) => {
                let key = std::path::absolute(directory)?.join("root.key");
                Some(format!("file:{}", key.display()).parse().context("the root's directory")?)
            }
            None => None,
        };
        Ok(InitPlan {
            directory: self.directory.clone(),
            trust_domain: self.trust_domain.clone(),
            names: self.names.iter().map(|name| name.0.clone()).collect(),
            algorithm: self.algorithm,
            token: self.token.clone(),
            api: self.api,
            status: self.status,
            url: self.url.clone(),
            status_url: self.status_url.clone(),
            database: self.database.as_ref().map(Database::to_server).transpose()?,
            root_key,
        })
    }
}

/// Makes root and authority on this machine.
pub(crate) async fn init(plan: &Plan, root_directory: &Path, passphrase: &SecretString) -> Result<Made> {
    let report = bootstrap::init(
        &plan.to_server()?,
        root_directory,
        passphrase,
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
    )
    .await?;
    Ok(report.finished.into())
}

/// Makes everything but the issuer's certificate; returns where its request is.
pub(crate) fn prepare(plan: &Plan) -> Result<PathBuf> {
    let prepared = bootstrap::prepare(&plan.to_server()?, &SystemRandom)?;
    Ok(prepared.layout.issuer_request())
}

/// Finishes a prepared authority with the issuer's certificate; `roots` begins with the root.
pub(crate) async fn finish(directory: &Path, issuer: &[u8], roots: &[Vec<u8>]) -> Result<Made> {
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    Ok(bootstrap::finish(directory, issuer, roots, clock, random).await?.into())
}

/// Changes a configuration as it is written.
pub(super) fn rewrite(file: &Path, change: impl FnOnce(&mut RawConfig)) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut raw: RawConfig = toml::from_str(&text).with_context(|| file.display().to_string())?;
    change(&mut raw);
    std::fs::write(file, toml::to_string(&raw)?).with_context(|| file.display().to_string())
}

/// Has a copy of an authority listen at addresses of its own.
pub(crate) fn listen_at(config: &Path, (api, status): (SocketAddr, SocketAddr)) -> Result<()> {
    rewrite(config, |raw| {
        raw.listen.api = api.to_string();
        raw.listen.status = status.to_string();
    })
}
