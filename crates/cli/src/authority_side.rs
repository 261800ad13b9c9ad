//! The one door from the command line into the authority itself.
//!
//! Everything here runs on the authority's own machine with its files: making it, serving it, looking after its
//! ledger, testing its policy. No other module of this program imports the server, and this one hands out plain
//! values only, so that all other commands stay on the far side of the wire.

mod backup;
pub(crate) mod in_process;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chancery_server::authority::{OnlineRoot, Rules};
use chancery_server::bootstrap::{self, InitPlan, RevokedIssuer};
use chancery_server::config::{Config, LedgerPlace, RawPostgres, RawStorage, ServerName, TilePlace};
use chancery_server::{Drained, Server, maintenance, presence, relocation};
use chancery_telemetry::TelemetryConfig;
use chancery_types::{
    Clock as _, Digest, IssuerEpoch, KeyAlgorithm, RevocationReason, SecretString, SystemClock, SystemRandom,
    Timestamp, TrustDomain,
};
use chancery_x509::{Certificate, Profile, write_pem};
use tokio::signal::unix::{SignalKind, signal};

use crate::files;
use crate::place::roots_beside;

#[cfg(test)]
pub(crate) use chancery_server::presence::{LeaseSeen, Presence, Survey, Writer};
pub(crate) use chancery_server::presence::{Seen, Standing};
pub(crate) use chancery_server::tiles::{Examination as TileExamination, Writing as TileWriting};

pub(crate) use backup::{BackupOrder, Known, RestoreOrder, RestoredAuthority, backup, restore};

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
    fn to_storage(&self) -> Result<RawStorage> {
        let (ledger, postgres) = self.to_server()?;
        Ok(RawStorage { ledger, postgres: Some(postgres), ..RawStorage::default() })
    }

    /// Its address and what else a configuration says of it. Files are named from the root of the file system.
    fn to_server(&self) -> Result<(String, RawPostgres)> {
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

/// Makes a root in a directory of its own; returns its fingerprint.
pub(crate) fn make_root(
    directory: &Path,
    trust_domain: &TrustDomain,
    algorithm: KeyAlgorithm,
    passphrase: &SecretString,
) -> Result<Digest> {
    let now: Timestamp = SystemClock.now();
    let made = bootstrap::make_root(directory, trust_domain, algorithm, passphrase, &SystemRandom, now)?;
    Ok(made.fingerprint)
}

/// A root that was made to follow another.
#[derive(Debug)]
pub(crate) struct RotatedRoot {
    /// Its subject.
    pub(crate) subject: String,
    /// SHA-256 of its certificate.
    pub(crate) fingerprint: Digest,
    /// notAfter.
    pub(crate) not_after: Timestamp,
    /// Until when the root before vouches for it.
    pub(crate) vouched_until: Timestamp,
    /// Its certificate, and the one by which the root before vouches for it.
    pub(crate) pem: String,
}

/// Makes a root in an empty directory, for which the one in another vouches.
pub(crate) fn rotate_root(
    old: (&Path, &SecretString),
    new: (&Path, &SecretString),
    algorithm: KeyAlgorithm,
) -> Result<RotatedRoot> {
    let made = bootstrap::rotate_root(old, new, algorithm, &SystemRandom, SystemClock.now())?;
    let root = made.root.certificate();
    let certificates = std::iter::once(root).chain(made.root.vouchers());
    Ok(RotatedRoot {
        subject: root.tbs().subject_text(),
        fingerprint: root.fingerprint(),
        not_after: root.tbs().not_after(),
        vouched_until: made.vouched_until,
        pem: certificates.map(|one| write_pem("CERTIFICATE", one.der())).collect(),
    })
}

/// An issuer in reserve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpareIssuer {
    /// Its number.
    pub(crate) epoch: IssuerEpoch,
    /// From when it may sign.
    pub(crate) not_before: Timestamp,
    /// When it ends.
    pub(crate) not_after: Timestamp,
}

/// Makes issuers in reserve for the authority of this configuration, with the root in this directory.
pub(crate) fn add_spares(
    config: &Path,
    root_directory: &Path,
    passphrase: &SecretString,
    count: u16,
) -> Result<Vec<SpareIssuer>> {
    let (config, now) = (Config::load(config)?, SystemClock.now());
    let made = bootstrap::add_spares(&config, root_directory, passphrase, count, &SystemRandom, now)?;
    let spare = |made: bootstrap::SpareMade| SpareIssuer {
        epoch: made.epoch,
        not_before: made.not_before,
        not_after: made.not_after,
    };
    Ok(made.into_iter().map(spare).collect())
}

/// Signs an issuer's request with the root in this directory; returns the certificate, DER.
pub(crate) fn sign_issuer(
    directory: &Path,
    passphrase: &SecretString,
    csr: &[u8],
    profile: &Profile,
    lifetime: Option<std::time::Duration>,
) -> Result<Vec<u8>> {
    let now = SystemClock.now();
    Ok(bootstrap::sign_issuer(directory, passphrase, csr, profile, lifetime, &SystemRandom, now)?)
}

/// A list of the root's that was just made.
#[derive(Debug)]
pub(crate) struct RootList {
    /// DER.
    pub(crate) der: Vec<u8>,
    /// Its number.
    pub(crate) number: u64,
    /// Certificates on it.
    pub(crate) entries: usize,
    /// nextUpdate.
    pub(crate) next_update: Timestamp,
}

/// Signs a revocation list with the root in this directory: what stood on the one before, and these issuers.
pub(crate) fn make_root_crl(
    directory: &Path,
    passphrase: &SecretString,
    issuers: Vec<Certificate>,
    reason: RevocationReason,
    validity: std::time::Duration,
) -> Result<RootList> {
    let revoked = |certificate| RevokedIssuer { certificate, reason };
    let issuers: Vec<RevokedIssuer> = issuers.into_iter().map(revoked).collect();
    let list = bootstrap::make_root_crl(directory, passphrase, &issuers, validity, SystemClock.now())?;
    let (number, entries, next_update) = (list.number, list.entries, list.next_update);
    Ok(RootList { der: list.der, number, entries, next_update })
}

/// What a configuration says, once it was found in order.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Summary {
    /// The trust domain.
    pub(crate) trust_domain: String,
    /// What the server answers to.
    pub(crate) names: Vec<String>,
    /// Where the API listens.
    pub(crate) api: SocketAddr,
    /// Where status is served.
    pub(crate) status: SocketAddr,
    /// The profiles.
    pub(crate) profiles: Vec<String>,
    /// The policy's files.
    pub(crate) policies: Vec<String>,
}

/// Checks a configuration with the profiles and the policy that it names.
pub(crate) fn check_config(file: &Path) -> Result<Summary> {
    let config = Config::load(file)?;
    let rules = Rules::load(&config.profiles, &config.policy, &config.trust_domain)?;
    Ok(Summary {
        trust_domain: config.trust_domain.to_string(),
        names: config.names.iter().map(ToString::to_string).collect(),
        api: config.api,
        status: config.status,
        profiles: rules.profiles().map(|profile| profile.name().to_owned()).collect(),
        policies: rules.sources().iter().map(|source| source.name.clone()).collect(),
    })
}

/// What can be done with a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LedgerWork {
    /// Make its index anew.
    Rebuild,
    /// Compare its index with its journal.
    Check,
}

/// What a ledger holds.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Holding {
    /// Entries.
    pub(crate) entries: u64,
    /// The root that they hash to.
    pub(crate) root: Digest,
    /// The digest over the whole read model of a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<Digest>,
}

/// Works on the ledger of an authority that does not run; `progress` hears of entries done and in all.
pub(crate) async fn work_on_ledger(
    work: LedgerWork,
    config: &Path,
    progress: impl Fn(u64, Option<u64>) + Send + 'static,
) -> Result<Holding> {
    let config = Config::load(config)?;
    let holding = match work {
        LedgerWork::Rebuild => maintenance::rebuild_ledger(&config, progress).await?,
        LedgerWork::Check => maintenance::check_ledger(&config, progress).await?,
    };
    Ok(Holding { entries: holding.entries, root: holding.root, model: holding.model })
}

/// Where the parts of a deployment lie, for who looks after its health.
#[derive(Debug, Clone)]
pub(crate) struct HealthRecord {
    /// The authority's directory.
    pub(crate) directory: PathBuf,
    /// Its ledger.
    pub(crate) ledger: PathBuf,
    /// Its profiles.
    pub(crate) profiles: PathBuf,
    /// Its policy.
    pub(crate) policy: PathBuf,
    /// The root's certificate.
    pub(crate) root_certificate: PathBuf,
    /// Keys that lie in files.
    pub(crate) key_files: Vec<PathBuf>,
    /// Keys that lie in tokens.
    pub(crate) tokens: usize,
    /// The file with the keys' passphrase.
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The file with an object store's credentials.
    pub(crate) tile_credentials: Option<PathBuf>,
    /// Whether the root's key can be read from here.
    pub(crate) root_readable: bool,
    /// The base of the URLs in certificates.
    pub(crate) status_url: String,
    /// Seconds after which the exact set is made anew.
    pub(crate) set_refresh: u64,
}

/// Reads a configuration with its rules, and where its parts lie.
pub(crate) fn health_record(file: &Path) -> Result<HealthRecord> {
    check_config(file)?;
    let config = Config::load(file)?;
    let keys = config.keys();
    let key_files: Vec<PathBuf> = keys.iter().filter_map(|key| key.file().map(Path::to_owned)).collect();
    Ok(HealthRecord {
        tokens: keys.len() - key_files.len(),
        key_files,
        root_readable: config.root_is_readable(),
        tile_credentials: config.tiles.as_ref().and_then(TilePlace::credentials).map(Path::to_owned),
        status_url: config.status_url.clone(),
        set_refresh: config.set_refresh.as_secs(),
        // Of a log in a database, what it leaves outside.
        ledger: config.ledger.directory().map_or_else(|| config.directory.clone(), Path::to_owned),
        directory: config.directory,
        profiles: config.profiles,
        policy: config.policy,
        root_certificate: roots_beside(config.root_certificate),
        passphrase_file: config.passphrase_file,
    })
}

/// How the replicas on this configuration's database stand; nothing when its ledger is in a directory.
pub(crate) async fn replicas(file: &Path) -> Result<Option<Standing>> {
    Ok(presence::look(&Config::load(file)?).await?)
}

/// Whether the place of full tiles can be read and written; nothing when they are kept nowhere.
pub(crate) async fn tiles(file: &Path) -> Result<Option<TileExamination>> {
    Ok(chancery_server::tiles::examine(&Config::load(file)?).await)
}

/// What was moved to the archive.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Archived {
    /// Segments moved now.
    pub(crate) moved: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Segments in the archive.
    pub(crate) archived: u64,
    /// Segments in the journal.
    pub(crate) live: u64,
    /// Entries in the archive.
    pub(crate) entries: u64,
}

/// Moves old segments of the journal to an archive; `progress` hears of segments.
pub(crate) fn archive_ledger(
    config: &Path,
    directory: &Path,
    keep: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Archived> {
    let config = Config::load(config)?;
    let done = maintenance::archive_ledger(&config, directory, keep, progress)?;
    let (moved, bytes, archived) = (done.moved, done.bytes, done.archived);
    Ok(Archived { moved, bytes, archived, live: done.live, entries: done.entries })
}

/// A log that was moved.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Moved {
    /// Entries.
    pub(crate) entries: u64,
    /// Their root at both places.
    pub(crate) root: Digest,
    /// How long nothing could be recorded.
    pub(crate) paused_seconds: f64,
    /// What the configuration has to say from now on.
    pub(crate) settings: String,
}

/// Moves the log of an authority; from where its configuration says, unless told otherwise.
pub(crate) async fn move_ledger(
    file: &Path,
    from: Option<&str>,
    to: &Database,
    mut progress: impl FnMut(u64, u64) + Send,
) -> Result<Moved> {
    let config = Config::load(file)?;
    let here = std::env::current_dir()?;
    let wrong = |mistakes: Vec<String>| anyhow::anyhow!(mistakes.join("\n"));
    let named = to.url.strip_prefix("embedded:").map(|name| here.join(name));
    let storage = match &named {
        Some(directory) => RawStorage { ledger: directory.display().to_string(), ..RawStorage::default() },
        None => to.to_storage()?,
    };
    let target = match named {
        Some(directory) => LedgerPlace::Directory(directory),
        None => {
            LedgerPlace::named(&storage.ledger, storage.postgres.clone(), &config.directory).map_err(wrong)?
        }
    };
    let source = match (from, &config.ledger) {
        (None, place) => place.clone(),
        (Some(text), _) if text.starts_with("embedded:") => {
            LedgerPlace::named(text, None, &here).map_err(wrong)?
        }
        (Some(text), LedgerPlace::Postgres(place)) if place.url == text => config.ledger.clone(),
        (Some(text), _) => LedgerPlace::named(text, None, &config.directory).map_err(wrong)?,
    };
    let moved = relocation::relocate(&config, &source, &target, &SystemRandom, &mut progress).await?;
    Ok(Moved {
        entries: moved.entries,
        root: moved.root,
        paused_seconds: moved.pause.as_secs_f64(),
        settings: settings(storage)?,
    })
}

/// What a configuration says of this storage.
fn settings(storage: RawStorage) -> Result<String> {
    #[derive(serde::Serialize)]
    struct Settings {
        storage: RawStorage,
    }
    Ok(toml::to_string(&Settings { storage })?)
}

/// How one case of a policy test went.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The file that it stands in.
    pub(crate) file: PathBuf,
    /// Its name.
    pub(crate) name: String,
    /// What was expected and did not come; empty when it passed.
    pub(crate) failures: Vec<String>,
}

/// Runs files of cases against the policy beside a configuration.
pub(crate) fn test_policy(config: &Path, cases: &[PathBuf]) -> Result<Vec<Case>> {
    let config = Config::load(config)?;
    let rules = Rules::load(&config.profiles, &config.policy, &config.trust_domain)?;
    let mut results = Vec::new();
    for file in cases {
        let text = files::read_text(file, 1 << 20)?;
        let found = rules.engine().run_tests(&text).with_context(|| file.display().to_string())?;
        results.extend(found.into_iter().map(|case| Case {
            file: file.clone(),
            name: case.name,
            failures: case.failures,
        }));
    }
    Ok(results)
}

/// A configuration that was read and is in order.
pub(crate) struct Loaded(Config);

impl Loaded {
    /// Where traces go.
    pub(crate) fn telemetry(&self) -> &TelemetryConfig {
        &self.0.telemetry
    }
}

/// Reads and checks the authority's configuration.
pub(crate) fn load(config: &Path) -> Result<Loaded> {
    Ok(Loaded(Config::load(config)?))
}

/// Serves until SIGTERM or SIGINT; SIGHUP puts profiles and policy into force anew, all or nothing. `ready` hears
/// where it listens.
pub(crate) async fn serve(
    Loaded(config): Loaded,
    allow_online_root: bool,
    ready: impl FnOnce(SocketAddr, SocketAddr),
) -> Result<()> {
    let online_root = if allow_online_root { OnlineRoot::Allow } else { OnlineRoot::Refuse };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let server = Server::start(config, online_root, Arc::new(SystemClock), Arc::new(SystemRandom)).await?;
    ready(server.api_address(), server.status_address());
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => match server.site().authority.reload_rules("sighup").await {
                Ok(()) => tracing::info!("profiles and policy were read anew"),
                Err(error) => tracing::error!(%error, "profiles and policy stay as they were"),
            },
        }
    }
    tracing::info!("stopping: finishing what is under way");
    match server.stop().await {
        Drained::Completely => tracing::info!("stopped"),
        Drained::CutOff(tasks) => tracing::warn!(tasks, "stopped while requests were still under way"),
    }
    Ok(())
}
