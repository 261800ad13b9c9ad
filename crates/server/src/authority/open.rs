//! Opening an authority: keys, rules, ledger, and the checks that they belong together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use chancery_api::LogKeysResponse;
use chancery_attest::{
    ForeignAuthority, ForeignAuthorityOptions, JoinTokenVerifier, MemoryNonces, Nonces, OperatorVerifier,
    PurposeRule, RenewalVerifier, SameKey, Verifiers, WorkloadVerifier, X509PopVerifier,
};
use chancery_entry::{Blob, Body, KeyChange, KeyPhase, KeyPurpose};
use chancery_issue::{Issuer, Workflow};
use chancery_keys::{KeyLocation, Protection, Signer, read_secret, store};
use chancery_ledger::{IssuerState, Ledger, Precondition};
use chancery_merkle::LogSigners;
use chancery_revoke::Revoker;
use chancery_types::{
    Clock, Digest, Identity, IssuerEpoch, KeyAlgorithm, Random, Sensitivity, SpiffeId, Timestamp, TrustDomain,
};
use chancery_x509::{Certificate, WeakKeyList, read_certificates};

use super::enrolments::Enrolments;
use super::issuers::{JwtKeys, jwt_records, status_urls};
use super::kept::Kept;
use super::keyring::Keyring;
use super::log_keys::log_signers;
use super::nonces::SharedNonces;
use super::records::{LedgerRecords, NodeLedgerRecords};
use super::roots::Roots;
use super::rules::{Rules, RulesError};
use super::selectors::SelectorIndex;
use super::{Authority, AuthorityError};
use crate::config::{Config, ServerName};
use crate::storage::open_ledger;

/// How long a nonce for a proof of possession is good for.
const NONCE_LIFETIME: Duration = Duration::from_secs(120);
/// Nonces that may be outstanding.
const MAX_NONCES: usize = 100_000;
/// Certificates between issuer and root at the most.
const MAX_INTERMEDIATES: usize = 4;

/// Whether the server may run where it could read the root's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnlineRoot {
    /// No: it refuses to start.
    Refuse,
    /// Yes: somebody said so, on a laptop.
    Allow,
}

/// Why an authority was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The root's key is where the server could read it.
    #[error(
        "the root key at {0} is readable from here: whoever takes this server takes the root. Move its directory \
         to offline storage (the certificate stays), or start with --allow-online-root on a machine that \
         matters to nobody"
    )]
    RootIsOnline(String),
    /// A file cannot be read.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        why: String,
    },
    /// A key cannot be used.
    #[error("{purpose} key: {error}")]
    Key {
        /// Which.
        purpose: &'static str,
        /// Why not.
        error: chancery_keys::KeyError,
    },
    /// The log's key does not sign what the nonces' key follows from.
    #[error("the key of nonces cannot be made with the ledger key: {0}")]
    NonceKey(chancery_keys::SignError),
    /// The key that signs the log is not here.
    #[error(
        "the key that signs the log's checkpoints ({0}) is not here: put it beside that of keys.ledger, with its number in \
         its name"
    )]
    LogKey(Digest),
    /// The log's key is not Ed25519.
    #[error("the ledger key is {0}; checkpoints need ed25519")]
    LedgerKey(KeyAlgorithm),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Ledger(#[from] chancery_ledger::OpenError),
    /// The ledger in a database cannot be opened.
    #[error(transparent)]
    Postgres(#[from] chancery_ledger::PostgresError),
    /// Rules are wrong.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The key of the issuer that signs is not here.
    #[error(
        "the key of issuer {0}, which signs, is not here: put it beside that of keys.issuer, with its number in its name"
    )]
    IssuerKey(IssuerEpoch),
    /// The key that signs tokens is not here.
    #[error(
        "the key that signs JWT-SVIDs ({0}) is not here: put it beside that of keys.jwt, with its number in its name"
    )]
    JwtKey(Digest),
    /// No issuer is active.
    #[error("no issuer is active; finish `chancery init` (--import), or activate one")]
    NoIssuer,
    /// An issuer cannot be used.
    #[error(transparent)]
    Issuer(#[from] chancery_issue::IssuerError),
    /// A foreign authority cannot be used.
    #[error(transparent)]
    Foreign(#[from] chancery_attest::ForeignAuthorityError),
    /// What was asked of the ledger at start failed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// The origin line of a trust domain's log.
#[must_use]
pub fn log_origin(trust_domain: &TrustDomain) -> String {
    format!("{trust_domain}/chancery-log")
}

/// The keys that a server holds.
pub(crate) struct Keys {
    pub(crate) issuer: Arc<dyn Signer>,
    pub(crate) jwt: Arc<dyn Signer>,
    pub(crate) log: Arc<LogSigners>,
    /// With all of them, and those that follow them.
    pub(crate) keyring: Arc<Keyring>,
}

/// Opens the keys that a configuration names.
pub(crate) fn open_keys(config: &Config) -> Result<Keys, OpenError> {
    let protection = match &config.passphrase_file {
        Some(file) => Protection::Passphrase(
            read_secret(file)
                .map_err(|error| OpenError::Key { purpose: "passphrase of every", error: error.into() })?,
        ),
        None => Protection::Plain,
    };
    let open = |purpose, location: &KeyLocation| {
        store::open(location, &protection).map_err(|error| OpenError::Key { purpose, error })
    };
    let (issuer, jwt) = (open("issuer", &config.issuer_key)?, open("jwt", &config.jwt_key)?);
    let mut known = vec![Arc::clone(&issuer), Arc::clone(&jwt)];
    for location in &config.former_issuer_keys {
        known.push(open("former issuer", location)?);
    }
    let keyring = Arc::new(Keyring::new(config, known));
    let log = log_signers(config, &keyring)?;
    Ok(Keys { issuer, jwt, log, keyring })
}

/// The identity of the authority's own server: its names are those of the configuration.
#[must_use]
pub fn server_identity(config: &Config) -> Identity {
    let mut identity = Identity::new(own_id(&config.trust_domain, "server"), "chancery");
    for name in &config.names {
        match name {
            ServerName::Dns(name) => identity.dns_names.push(name.clone()),
            ServerName::Ip(address) => identity.ip_addresses.push(*address),
        }
    }
    identity.purpose = "the authority's own server".into();
    identity.environment = "chancery".into();
    identity.sensitivity = Sensitivity::High;
    identity.profiles = vec!["server".into()];
    identity
}

/// The identity of the delegated OCSP responder of an issuer.
pub(crate) fn responder_identity(trust_domain: &TrustDomain, epoch: IssuerEpoch) -> Identity {
    let mut identity = Identity::new(own_id(trust_domain, &format!("ocsp/{epoch}")), "chancery");
    identity.purpose = "the authority's own OCSP responder".into();
    identity.environment = "chancery".into();
    identity.sensitivity = Sensitivity::High;
    identity.profiles = vec!["ocsp".into()];
    identity
}

fn own_id(trust_domain: &TrustDomain, name: &str) -> SpiffeId {
    trust_domain.member(&format!("/chancery/{name}")).expect("the path is plain")
}

fn read(path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path)
        .map_err(|error| OpenError::File { path: path.display().to_string(), why: error.to_string() })
}

fn read_certificate_file(path: &Path) -> Result<Vec<Vec<u8>>, OpenError> {
    read_certificates(&read(path)?, 1 + MAX_INTERMEDIATES)
        .map_err(|error| OpenError::File { path: path.display().to_string(), why: error.to_string() })
}

impl Authority {
    /// Opens the authority that a configuration describes.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub async fn open(
        config: Config,
        online_root: OnlineRoot,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        if online_root == OnlineRoot::Refuse
            && let Some(location) = config.root_key.as_ref().filter(|location| store::is_readable(location))
        {
            return Err(OpenError::RootIsOnline(location.to_string()));
        }
        let keys = open_keys(&config)?;
        let ledger = open_ledger(&config.ledger, Arc::clone(&keys.log), random.as_ref()).await?;
        Self::assemble(config, keys, ledger, clock, random).await
    }

    pub(crate) async fn assemble(
        config: Config,
        keys: Keys,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        let rules = Rules::load(&config.profiles, &config.policy, &config.trust_domain)?;
        rules.record(ledger.as_ref(), "chancery", clock.now()).await?;
        let mut root = read_certificate_file(&config.root_certificate)?;
        let between = root.split_off(1.min(root.len()));
        let between: Result<Vec<Certificate>, _> =
            between.iter().map(|der| Certificate::from_der(der)).collect();
        let between = between.map_err(|error| OpenError::File {
            path: config.root_certificate.display().to_string(),
            why: error.to_string(),
        })?;
        let root =
            root.pop().and_then(|der| Certificate::from_der(&der).ok()).ok_or_else(|| OpenError::File {
                path: config.root_certificate.display().to_string(),
                why: "the first certificate in it cannot be read".into(),
            })?;
        let Keys { jwt, log: log_signers, keyring, .. } = keys;
        let issuer = active_issuer(&config, &keyring, ledger.as_ref(), clock.now()).await?;
        let forbidden = forbidden_keys(&keyring, &root);
        let records = LedgerRecords::new(Arc::clone(&ledger));
        let enrolments = Arc::new(Enrolments::new(Arc::clone(&ledger)));
        let shared_nonces = shared_nonces(&keyring, &log_signers, &ledger, &random)?;
        let nonces: Arc<dyn Nonces> = match &shared_nonces {
            Some(shared) => Arc::clone(shared) as _,
            None => Arc::new(MemoryNonces::new(Arc::clone(&random), NONCE_LIFETIME, MAX_NONCES)),
        };
        let verifiers = verifiers(&config, &records, &enrolments, &nonces)?;
        let revoker = Revoker::new(Arc::clone(&ledger), Arc::clone(&clock));
        let workflow = Workflow::new(
            Arc::clone(&ledger),
            Arc::new(issuer),
            forbidden,
            Arc::clone(&clock),
            Arc::clone(&random),
        );
        let weak_keys = weak_keys(&config.directory)?;
        let rules = ArcSwap::from_pointee(rules);
        let selectors = SelectorIndex::new(ledger.as_ref());
        let authority = Self {
            config,
            ledger,
            workflow,
            rules,
            reloading: tokio::sync::Mutex::default(),
            verifiers,
            nonces,
            shared_nonces,
            records,
            callers: Kept::default(),
            selectors,
            revoker,
            weak_keys,
            roots: ArcSwap::from_pointee(Roots::new(&root, between, Vec::new())),
            root,
            log_keys: ArcSwap::from_pointee(LogKeysResponse {
                origin: log_signers.origin().to_owned(),
                keys: Vec::new(),
            }),
            log_signers,
            jwt: ArcSwap::from_pointee(JwtKeys { signing: Arc::clone(&jwt) }),
            keyring,
            enrolments,
            clock,
            random,
        };
        authority.begin_with_jwt_key(&jwt).await?;
        match authority.follow_keys().await.failure {
            Some(failure) => Err(failure),
            None => Ok(authority),
        }
    }

    /// Puts the first key of JWT-SVIDs on record.
    async fn begin_with_jwt_key(&self, key: &Arc<dyn Signer>) -> Result<(), AuthorityError> {
        if !jwt_records(self.ledger.as_ref()).await?.is_empty() {
            return Ok(());
        }
        let (purpose, id) = (KeyPurpose::Jwt, key.public_key().fingerprint());
        let change = KeyChange {
            purpose,
            key: id,
            content: Blob(key.public_key().spki_der().to_vec()),
            phase: KeyPhase::Active,
            by: "chancery".into(),
            note: "the first of its kind".into(),
        };
        let requires = vec![Precondition::KeyAt { purpose, key: id, index: None }];
        match self.commit(requires, Body::KeyChanged(change)).await {
            // Another replica began at the same moment.
            Ok(_) | Err(AuthorityError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Registers the authority's own identities, and follows the configuration when its names change.
    pub(super) async fn keep_own_identities(&self) -> Result<(), AuthorityError> {
        let epoch = self.workflow.issuer().epoch();
        for wanted in [server_identity(&self.config), responder_identity(&self.config.trust_domain, epoch)] {
            match self.keep_own_identity(&wanted).await {
                // Another replica began at the same moment.
                Err(AuthorityError::Conflict(_)) => self.keep_own_identity(&wanted).await?,
                kept => kept?,
            }
        }
        Ok(())
    }

    async fn keep_own_identity(&self, wanted: &Identity) -> Result<(), AuthorityError> {
        match self.ledger.identity(&wanted.spiffe_id).await? {
            None => self.register_identity(wanted, "chancery").await?,
            Some(found) if found.identity != *wanted => self.change_identity(wanted, "chancery").await?,
            Some(found) => found.index,
        };
        Ok(())
    }
}

async fn active_issuer(
    config: &Config,
    keyring: &Arc<Keyring>,
    ledger: &dyn Ledger,
    now: Timestamp,
) -> Result<Issuer, OpenError> {
    let issuers = ledger.issuers().await.map_err(AuthorityError::from)?;
    let active = issuers.into_iter().rev().find(|issuer| issuer.state == IssuerState::Active);
    let active = active.ok_or(OpenError::NoIssuer)?;
    let epoch = active.epoch;
    let urls = status_urls(config, ledger, &active, now).await?;
    let certificate =
        Certificate::from_der(&active.certificate).map_err(chancery_issue::IssuerError::from)?;
    let (keyring, spki) = (Arc::clone(keyring), certificate.tbs().spki_der().to_vec());
    let signer = tokio::task::spawn_blocking(move || keyring.issuer(epoch, &spki)).await;
    let signer = signer.map_err(|_| OpenError::IssuerKey(epoch))?;
    let signer = signer.map_err(|error| OpenError::Key { purpose: "issuer", error })?;
    let signer = signer.ok_or(OpenError::IssuerKey(epoch))?;
    Ok(Issuer::new(config.trust_domain.clone(), epoch, &active.certificate, signer, urls)?)
}

/// Where several processes share the ledger, each takes back what another gave out.
fn shared_nonces(
    keyring: &Keyring,
    log_signers: &LogSigners,
    ledger: &Arc<dyn Ledger>,
    random: &Arc<dyn Random>,
) -> Result<Option<Arc<SharedNonces>>, OpenError> {
    if ledger.scratch().is_none() {
        return Ok(None);
    }
    let keys =
        log_signers.verifiers().into_iter().filter_map(|key| keyring.ledger(key.public_key()).transpose());
    let keys: Result<Vec<_>, _> = keys.collect();
    let keys = keys.map_err(|error| OpenError::Key { purpose: "ledger", error })?;
    let shared = SharedNonces::new(Arc::clone(ledger), Arc::clone(random), &keys, NONCE_LIFETIME);
    Ok(Some(Arc::new(shared.map_err(OpenError::NonceKey)?)))
}

/// No certificate is ever made for a key of the authority.
fn forbidden_keys(keyring: &Keyring, root: &Certificate) -> Vec<Digest> {
    let mut forbidden: Vec<Digest> =
        keyring.opened().iter().map(|key| key.public_key().fingerprint()).collect();
    forbidden.push(Digest::of(root.tbs().spki_der()));
    forbidden
}

fn verifiers(
    config: &Config,
    records: &LedgerRecords,
    enrolments: &Arc<Enrolments>,
    nonces: &Arc<dyn Nonces>,
) -> Result<Verifiers, OpenError> {
    let same_key = if config.renew_same_key { SameKey::Allowed } else { SameKey::Refused };
    let mut users: BTreeSet<u32> = config.admin_users.iter().copied().collect();
    users.insert(rustix::process::geteuid().as_raw());
    let mut verifiers = Verifiers::new()
        .with(Arc::new(JoinTokenVerifier::new(Arc::new(records.clone()))))
        .with(Arc::new(RenewalVerifier::new(Arc::new(records.clone()), same_key)))
        .with(Arc::new(WorkloadVerifier::new(Arc::new(NodeLedgerRecords {
            records: records.clone(),
            enrolments: Arc::clone(enrolments),
            trust_domain: config.trust_domain.clone(),
        }))))
        .with(Arc::new(OperatorVerifier::new(Arc::new(records.clone()), users)));
    if !config.x509_pop.is_empty() {
        let authorities = config.x509_pop.iter().map(foreign_authority).collect::<Result<_, _>>()?;
        verifiers = verifiers.with(Arc::new(X509PopVerifier::new(authorities, Arc::clone(nonces))?));
    }
    Ok(verifiers)
}

fn foreign_authority(
    config: &crate::config::ForeignAuthorityConfig,
) -> Result<Arc<ForeignAuthority>, OpenError> {
    let crls =
        config.crls.as_ref().map(|files| files.iter().map(|file| read(file)).collect::<Result<_, _>>());
    let purposes = PurposeRule::from_texts(&config.purposes).map_err(|error| OpenError::File {
        path: format!("attestation.x509_pop.{}.purposes", config.name),
        why: error.to_string(),
    })?;
    let options = ForeignAuthorityOptions { purposes, revocation_lists: crls.transpose()? };
    Ok(Arc::new(ForeignAuthority::new(&config.name, &read(&config.roots)?, options)?))
}

/// Every list in `weak-keys/`, if there is such a directory.
fn weak_keys(directory: &Path) -> Result<WeakKeyList, OpenError> {
    let lists = directory.join("weak-keys");
    let problem = |why: String| OpenError::File { path: lists.display().to_string(), why };
    if !lists.is_dir() {
        return Ok(WeakKeyList::default());
    }
    let entries = std::fs::read_dir(&lists).map_err(|error| problem(error.to_string()))?;
    let files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|error| problem(error.to_string()))?;
    WeakKeyList::from_files(&files).map_err(|error| problem(error.to_string()))
}
